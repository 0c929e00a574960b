//! Leadership by a `coordination.k8s.io/v1` Lease: one process acts, any number stand by.
//!
//! What is guaranteed, and why:
//!
//! - A holder's claim ends before anyone else's can begin. The claim counts from *before* its renewal was sent, on a
//!   clock that counts suspension, and ends a fifth early; a candidate counts a whole lease from when it *saw* the
//!   renewal, on its own clock. No two clocks are compared.
//! - Every change of the Lease is a replace that carries the resourceVersion it was computed from: of two candidates one
//!   wins. An answer that was lost is looked up, not guessed.
//! - A claim is checked before every effect ([`Claim::is_held`]), and when it ends, everything in flight is aborted. A
//!   process that was paused past its claim's end finds it expired, whatever it believed before.
//! - A holder that sees the Lease's resourceVersion go backwards gives its claim up: its journals are not what they were.
//! - A holder whose clock is more than 5 s off the API server's gives its claim up: times in a status must make sense
//!   to whoever takes over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::fmt::rfc2822::DateTimeParser;
use kube::api::{ObjectMeta, PostParams};
use kube::client::Body;
use kube::core::Request;
use kube::{Client, Resource, ResourceExt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::clock::Clock;
use super::restore::{HOLD_ALL_ANNOTATION, Restore};
use crate::activities::Claim;
use crate::api::{FIELD_MANAGER, Time};

/// The Lease's name.
pub const LEASE: &str = "holdfast";
/// The annotation of the Lease that says where the leader takes callbacks: its address and port.
pub const LEADER_ADDRESS_ANNOTATION: &str = "holdfast.dev/leader-address";
/// How far the clock may be off the API server's.
pub const MAX_SKEW: Duration = Duration::from_secs(5);

/// How leadership is sought.
#[derive(Clone)]
pub struct Candidate {
    /// The operator's own access to the API server.
    pub client: Client,
    /// The namespace of the Lease.
    pub namespace: String,
    /// Who seeks it: unique to this process and this attempt.
    pub identity: String,
    /// For how long a claim is good after a renewal.
    pub duration: Duration,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Where this process takes callbacks: an address and a port.
    pub address: Option<String>,
    /// Where the process does that leads, while this one stands by.
    pub leader: Arc<watch::Sender<Option<String>>>,
    /// What the Lease says of a store that went back.
    pub restore: Arc<Restore>,
}

/// A claim to leadership: good until a moment that renewals move on.
pub struct Leadership {
    clock: Arc<dyn Clock>,
    /// Milliseconds since boot at which the claim ends.
    until: AtomicU64,
}

impl Leadership {
    fn extend(&self, until: Duration) {
        self.until
            .store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    fn remaining(&self) -> Duration {
        Duration::from_millis(self.until.load(Ordering::SeqCst)).saturating_sub(self.clock.since_boot())
    }

    /// Ends the claim now.
    pub fn give_up(&self) {
        self.until.store(0, Ordering::SeqCst);
    }

    /// Returns once the claim has ended.
    async fn ended(&self) {
        loop {
            match self.remaining() {
                Duration::ZERO => return,
                left => sleep(left).await,
            }
        }
    }
}

impl Claim for Leadership {
    fn is_held(&self) -> bool {
        !self.remaining().is_zero()
    }
}

/// Why a change of the Lease didn't come about.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("another process changed the Lease")]
    Conflict,
    #[error("the API server refused: {0}")]
    Refused(String),
    #[error("no answer that says what became of it: {0}")]
    Ambiguous(String),
    #[error("the clock of this machine is {0:?} off the API server's: more than {MAX_SKEW:?}, so it may not lead")]
    Skew(Duration),
    #[error("the Lease is older than it was: the store went back in time")]
    WentBack,
}

impl Candidate {
    /// Waits until the Lease is this process's, and answers the claim.
    pub async fn acquire(&self) -> Arc<Leadership> {
        let mut seen: Option<(String, Duration)> = None; // the resourceVersion last seen, and when
        loop {
            match self.try_acquire(&mut seen).await {
                Ok(Some(leadership)) => return leadership,
                Ok(None) => {}
                Err(LeaseError::Conflict) => continue,
                Err(error) => {
                    warn!(lease = LEASE, namespace = self.namespace, %error, "can't get the Lease; trying again")
                }
            }
            sleep(self.duration / 10).await;
        }
    }

    async fn try_acquire(&self, seen: &mut Option<(String, Duration)>) -> Result<Option<Arc<Leadership>>, LeaseError> {
        let now = self.clock.since_boot();
        let current = self.get().await?;
        if let Some(lease) = &current {
            let holder = holder(lease);
            let version = lease.metadata.resource_version.clone().unwrap_or_default();
            let since = match seen {
                Some((known, since)) if *known == version => *since,
                _ => {
                    if !holder.is_empty() {
                        info!(holder, "standing by: another process leads");
                    }
                    *seen = Some((version, now));
                    now
                }
            };
            let lasts = lease
                .spec
                .as_ref()
                .and_then(|s| s.lease_duration_seconds)
                .and_then(|s| u64::try_from(s).ok());
            let lasts = lasts.map_or(self.duration, Duration::from_secs).max(self.duration);
            let led = !holder.is_empty() && holder != self.identity && now.saturating_sub(since) < lasts;
            let address = lease.annotations().get(LEADER_ADDRESS_ANNOTATION);
            self.leader.send_replace(address.filter(|_| led).cloned());
            if led {
                return Ok(None);
            }
        }
        let leadership = Arc::new(Leadership {
            clock: self.clock.clone(),
            until: AtomicU64::new(0),
        });
        self.write(current.as_ref(), &self.identity, &leadership).await?;
        self.leader.send_replace(None);
        info!(identity = self.identity, "leading");
        Ok(Some(leadership))
    }

    /// Renews the claim for as long as it can; returns when it has ended.
    pub async fn keep(&self, leadership: &Leadership) {
        tokio::select! {
            biased;
            () = leadership.ended() => warn!(identity = self.identity, "the claim to leadership ended"),
            () = self.renew(leadership) => {}
        }
    }

    /// Renews until that is known to be impossible.
    async fn renew(&self, leadership: &Leadership) {
        let mut pause = self.duration / 4;
        loop {
            sleep(pause).await;
            pause = self.duration / 4;
            let renewed = match self.get().await {
                Ok(Some(lease)) if holder(&lease) == self.identity => {
                    self.write(Some(&lease), &self.identity, leadership).await
                }
                Ok(other) => {
                    warn!(
                        holder = other.as_ref().map(holder).unwrap_or_default(),
                        "another process holds the Lease"
                    );
                    return leadership.give_up();
                }
                Err(error) => Err(error),
            };
            match renewed {
                Ok(()) => {}
                Err(error @ LeaseError::Skew(_)) => {
                    warn!(%error, "giving up leadership");
                    leadership.give_up();
                    return self.release().await;
                }
                Err(error @ LeaseError::WentBack) => {
                    warn!(%error, "giving up leadership");
                    return leadership.give_up();
                }
                Err(error) => {
                    warn!(%error, left = ?leadership.remaining(), "could not renew the Lease");
                    pause = self.duration / 20;
                }
            }
        }
    }

    /// Gives the Lease back, so that another process need not wait for its end.
    pub async fn release(&self) {
        let nobody = Leadership {
            clock: self.clock.clone(),
            until: AtomicU64::new(0),
        };
        if let Ok(Some(lease)) = self.get().await
            && holder(&lease) == self.identity
            && let Err(error) = self.write(Some(&lease), "", &nobody).await
        {
            warn!(%error, "could not give the Lease back: another process leads once it has run out");
        }
    }

    async fn get(&self) -> Result<Option<Lease>, LeaseError> {
        let request = self.request().get(LEASE, &kube::api::GetParams::default());
        match self.send(request).await {
            Ok((lease, _)) if self.restore.see(&lease) => Ok(Some(lease)),
            Ok(_) => Err(LeaseError::WentBack),
            Err(Answer::Status(404, _)) => Ok(None),
            Err(answer) => Err(answer.into()),
        }
    }

    /// Creates or replaces the Lease, and extends the claim by it.
    async fn write(&self, current: Option<&Lease>, holder: &str, leadership: &Leadership) -> Result<(), LeaseError> {
        let sent = self.clock.since_boot();
        let lease = self.lease(current, holder);
        let body = serde_json::to_vec(&lease).map_err(|e| LeaseError::Refused(e.to_string()))?;
        let post = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let request = match current {
            None => self.request().create(&post, body),
            Some(_) => self.request().replace(LEASE, &post, body),
        };
        let date = match self.send(request).await {
            Ok((written, date)) => {
                self.restore.see(&written);
                date
            }
            // Lost or late: what the Lease says now decides, as the one who holds it is unique.
            Err(Answer::Status(409, _)) | Err(Answer::None(_)) | Err(Answer::Status(500.., _)) => {
                match self.get().await? {
                    Some(now) if now.spec == lease.spec => None,
                    _ => return Err(LeaseError::Conflict),
                }
            }
            Err(answer) => return Err(answer.into()),
        };
        if let Some(skew) = date
            .map(|date| skew(date, self.clock.now()))
            .filter(|skew| *skew > MAX_SKEW)
        {
            return Err(LeaseError::Skew(skew));
        }
        if holder == self.identity {
            leadership.extend(sent + self.duration - self.duration / 5);
        }
        Ok(())
    }

    fn lease(&self, current: Option<&Lease>, holder: &str) -> Lease {
        let old = current.and_then(|l| l.spec.clone()).unwrap_or_default();
        let now = MicroTime(self.clock.now().timestamp());
        let changes = old.holder_identity.as_deref() != Some(holder);
        let mut metadata = current.map(|l| l.metadata.clone()).unwrap_or_default();
        metadata.managed_fields = None;
        if let Some(why) = self.restore.to_record() {
            let annotations = metadata.annotations.get_or_insert_default();
            annotations.insert(HOLD_ALL_ANNOTATION.into(), why);
        }
        let annotations = metadata.annotations.get_or_insert_default();
        match &self.address {
            Some(address) if holder == self.identity => {
                annotations.insert(LEADER_ADDRESS_ANNOTATION.into(), address.clone());
            }
            _ => {
                annotations.remove(LEADER_ADDRESS_ANNOTATION);
            }
        }
        Lease {
            metadata: ObjectMeta {
                name: Some(LEASE.into()),
                namespace: Some(self.namespace.clone()),
                ..metadata
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: i32::try_from(self.duration.as_secs().max(1)).ok(),
                acquire_time: if changes { Some(now.clone()) } else { old.acquire_time },
                renew_time: Some(now),
                lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(changes)),
                ..LeaseSpec::default()
            }),
        }
    }

    fn request(&self) -> Request {
        Request::new(Lease::url_path(&(), Some(&self.namespace)))
    }

    /// Sends a request and answers the Lease with the `Date` of the answer, which kube's typed calls drop.
    async fn send(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<(Lease, Option<Timestamp>), Answer> {
        let request = request.map_err(|e| Answer::None(e.to_string()))?.map(Body::from);
        let exchange = async {
            let response = self
                .client
                .send(request)
                .await
                .map_err(|e| Answer::None(e.to_string()))?;
            let status = response.status().as_u16();
            let date = response
                .headers()
                .get(http::header::DATE)
                .and_then(|d| d.to_str().ok())
                .and_then(parse_date);
            let bytes = response
                .into_body()
                .collect()
                .await
                .map_err(|e| Answer::None(e.to_string()))?
                .to_bytes();
            if status >= 300 {
                return Err(Answer::Status(status, String::from_utf8_lossy(&bytes).into_owned()));
            }
            let lease = serde_json::from_slice(&bytes).map_err(|e| Answer::None(e.to_string()))?;
            Ok((lease, date))
        };
        match timeout(self.duration / 2, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Answer::None("no answer in time".into())),
        }
    }
}

enum Answer {
    Status(u16, String),
    None(String),
}

impl From<Answer> for LeaseError {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Status(409, _) => Self::Conflict,
            Answer::Status(code, body) if code < 500 && code != 429 => Self::Refused(format!("{code}: {body}")),
            Answer::Status(code, body) => Self::Ambiguous(format!("{code}: {body}")),
            Answer::None(error) => Self::Ambiguous(error),
        }
    }
}

fn holder(lease: &Lease) -> &str {
    lease
        .spec
        .as_ref()
        .and_then(|s| s.holder_identity.as_deref())
        .unwrap_or_default()
}

/// The `Date` of an HTTP answer (RFC 9110 §5.6.7), which has whole seconds.
fn parse_date(text: &str) -> Option<Timestamp> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    PARSER.parse_timestamp(text).ok()
}

/// How far this clock is off; the second that `Date` cuts off doesn't count.
fn skew(date: Timestamp, now: Time) -> Duration {
    let ahead = now.millis() - date.as_millisecond();
    let off = if ahead >= 0 { (ahead - 1000).max(0) } else { -ahead };
    Duration::from_millis(u64::try_from(off).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        Time::new(text.parse().unwrap())
    }

    #[test]
    fn a_date_header_is_read() {
        let date = parse_date("Tue, 24 Nov 2026 03:00:00 GMT").unwrap();
        assert_eq!(Time::new(date), time("2026-11-24T03:00:00Z"));
    }

    #[test]
    fn skew_is_counted_both_ways_but_for_the_second_that_the_header_lacks() {
        let date = parse_date("Tue, 24 Nov 2026 03:00:00 GMT").unwrap();
        assert_eq!(skew(date, time("2026-11-24T03:00:00.900Z")), Duration::ZERO);
        assert_eq!(skew(date, time("2026-11-24T03:00:07Z")), Duration::from_secs(6));
        assert_eq!(skew(date, time("2026-11-24T02:59:53Z")), Duration::from_secs(7));
    }
}
