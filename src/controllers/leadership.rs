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
//! - A process whose clock is more than 5 s off the API server's neither takes the Lease nor keeps it: times in a status
//!   must make sense to whoever takes over. Every read of the Lease says how far the clock is off, before anything is
//!   written; so one bad clock keeps no other process from leading.
//! - A leader's time is the wall clock as it was when it was last found right, and goes on from there by the clock that
//!   never jumps. So a wall clock that jumps between two renewals ends no deadline, and takes no operation's clock with
//!   it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
    /// When the machine was started, by its wall clock when it was last found right.
    booted: Mutex<Time>,
    /// True once it was given up: a renewal that was under way then must not bring it back.
    given_up: watch::Sender<bool>,
}

impl Leadership {
    /// A claim that has yet to be made.
    fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            booted: Mutex::new(booted(&*clock)),
            clock,
            until: AtomicU64::new(0),
            given_up: watch::Sender::new(false),
        }
    }

    fn extend(&self, until: Duration, booted: Time) {
        *self.booted.lock().unwrap_or_else(PoisonError::into_inner) = booted;
        self.until
            .store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    fn remaining(&self) -> Duration {
        if *self.given_up.borrow() {
            return Duration::ZERO;
        }
        Duration::from_millis(self.until.load(Ordering::SeqCst)).saturating_sub(self.clock.since_boot())
    }

    /// Ends the claim now, for good.
    pub fn give_up(&self) {
        self.given_up.send_replace(true);
    }

    /// Returns once the claim has ended.
    async fn ended(&self) {
        let mut given_up = self.given_up.subscribe();
        loop {
            match self.remaining() {
                Duration::ZERO => return,
                // What was waited for, or that it ran out: either way it is looked at again.
                left => drop(timeout(left, given_up.wait_for(|given_up| *given_up)).await),
            }
        }
    }
}

/// When the machine was started, by its wall clock.
fn booted(clock: &dyn Clock) -> Time {
    clock.now().minus(clock.since_boot())
}

/// The time that counts while the process leads.
impl Clock for Leadership {
    fn now(&self) -> Time {
        let booted = *self.booted.lock().unwrap_or_else(PoisonError::into_inner);
        booted.plus(self.clock.since_boot())
    }

    fn since_boot(&self) -> Duration {
        self.clock.since_boot()
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
                Ok(None) | Err(LeaseError::Conflict) => {}
                Err(error) => {
                    warn!(lease = LEASE, namespace = self.namespace, %error, "can't get the Lease; trying again");
                    if matches!(error, LeaseError::Skew(_)) {
                        sleep(self.duration).await; // said while it stands by, too, but not every second
                    }
                }
            }
            sleep(self.duration / 10).await;
        }
    }

    async fn try_acquire(&self, seen: &mut Option<(String, Duration)>) -> Result<Option<Arc<Leadership>>, LeaseError> {
        let asked = self.clock.since_boot();
        let Read { lease: current, shows } = self.get().await?;
        let answered = self.clock.since_boot();
        let mut led = false;
        if let Some(lease) = &current {
            let holder = holder(lease);
            let version = lease.metadata.resource_version.clone().unwrap_or_default();
            let since = match seen {
                Some((known, since)) if *known == version => *since,
                _ => {
                    if !holder.is_empty() {
                        info!(holder, "standing by: another process leads");
                    }
                    *seen = Some((version, answered)); // it may be as young as the answer
                    answered
                }
            };
            let lasts = lease
                .spec
                .as_ref()
                .and_then(|s| s.lease_duration_seconds)
                .and_then(|s| u64::try_from(s).ok());
            let lasts = lasts.map_or(self.duration, Duration::from_secs).max(self.duration);
            led = !holder.is_empty() && holder != self.identity && asked.saturating_sub(since) < lasts;
            let address = lease.annotations().get(LEADER_ADDRESS_ANNOTATION);
            self.leader.send_replace(address.filter(|_| led).cloned());
        }
        in_time(shows)?;
        if led {
            return Ok(None);
        }
        let leadership = Arc::new(Leadership::new(self.clock.clone()));
        if let Err(error) = self.write(current.as_ref(), &self.identity, &leadership).await {
            if let LeaseError::Skew(_) = error {
                self.release().await; // the clock went wrong since the read
            }
            return Err(error);
        }
        self.leader.send_replace(None);
        info!(identity = self.identity, "leading");
        Ok(Some(leadership))
    }

    /// Renews the claim for as long as it can; returns when it has ended. The Lease is not given back by then: first what is
    /// under way has to be aborted.
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
                Ok(Read {
                    lease: Some(lease),
                    shows,
                }) if holder(&lease) == self.identity => match in_time(shows) {
                    Ok(_) => self.write(Some(&lease), &self.identity, leadership).await,
                    Err(error) => Err(error),
                },
                Ok(Read { lease, .. }) => {
                    warn!(
                        holder = lease.as_ref().map(holder).unwrap_or_default(),
                        "another process holds the Lease"
                    );
                    return leadership.give_up();
                }
                Err(error) => Err(error),
            };
            match renewed {
                Ok(()) => {}
                Err(error @ (LeaseError::Skew(_) | LeaseError::WentBack)) => {
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
        let nobody = Leadership::new(self.clock.clone());
        let found = self.get().await.ok().and_then(|read| read.lease);
        if let Some(lease) = found.filter(|lease| holder(lease) == self.identity)
            && let Err(error) = self.write(Some(&lease), "", &nobody).await
            && !matches!(error, LeaseError::Skew(_))
        {
            warn!(%error, "could not give the Lease back: another process leads once it has run out");
        }
    }

    async fn get(&self) -> Result<Read, LeaseError> {
        let request = self.request().get(LEASE, &kube::api::GetParams::default());
        let Answer { shows, said } = self.send(request).await?;
        match said {
            Ok(lease) if self.restore.see(&lease) => Ok(Read {
                lease: Some(lease),
                shows,
            }),
            Ok(_) => Err(LeaseError::WentBack),
            Err((404, _)) => Ok(Read { lease: None, shows }),
            Err((code, body)) => Err(refusal(code, body)),
        }
    }

    /// Creates or replaces the Lease, and extends the claim by it. A clock that is off is an error, though it was written.
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
        let shows = match self.send(request).await {
            Ok(Answer {
                shows,
                said: Ok(written),
            }) => {
                self.restore.see(&written);
                shows
            }
            Ok(Answer {
                said: Err((code, body)),
                ..
            }) if code < 500 && code != 409 => return Err(refusal(code, body)),
            // Lost or late: what the Lease says now decides, as the one who holds it is unique.
            Ok(Answer {
                said: Err((code, body)),
                ..
            }) => self.landed(&lease, refusal(code, body)).await?,
            Err(error @ LeaseError::Ambiguous(_)) => self.landed(&lease, error).await?,
            Err(error) => return Err(error),
        };
        let booted = in_time(shows)?;
        if holder == self.identity {
            leadership.extend(sent + self.duration - self.duration / 5, booted);
        }
        Ok(())
    }

    /// What the clock shows, if the Lease is as it was to be written. If it isn't, why.
    async fn landed(&self, written: &Lease, error: LeaseError) -> Result<Shows, LeaseError> {
        match self.get().await? {
            Read {
                lease: Some(now),
                shows,
            } if now.spec == written.spec => Ok(shows),
            _ => Err(error),
        }
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

    /// Sends a request. Answers how far the clock is off with it, by the `Date` of the answer, which kube's typed calls drop.
    async fn send(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Answer, LeaseError> {
        let no_answer = |error: String| LeaseError::Ambiguous(error);
        let request = request.map_err(|e| no_answer(e.to_string()))?.map(Body::from);
        let (sent, began) = (self.clock.now(), self.clock.since_boot());
        let exchange = async {
            let response = self.client.send(request).await.map_err(|e| no_answer(e.to_string()))?;
            let status = response.status().as_u16();
            let date = response.headers().get(http::header::DATE);
            let date = date.and_then(|date| date.to_str().ok()).and_then(parse_date);
            let (received, ended) = (self.clock.now(), self.clock.since_boot());
            let booted = received.minus(ended);
            let skew = skew(date, sent, received, ended.saturating_sub(began));
            let bytes = response
                .into_body()
                .collect()
                .await
                .map_err(|e| no_answer(e.to_string()))?
                .to_bytes();
            let said = match status {
                300.. => Err((status, String::from_utf8_lossy(&bytes).into_owned())),
                _ => Ok(serde_json::from_slice(&bytes).map_err(|e| no_answer(e.to_string()))?),
            };
            let shows = Shows { skew, booted };
            Ok(Answer { shows, said })
        };
        match timeout(self.duration / 2, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(no_answer("no answer in time".into())),
        }
    }
}

/// The Lease as it was read, if there is one.
struct Read {
    lease: Option<Lease>,
    shows: Shows,
}

/// An answer of the API server.
struct Answer {
    shows: Shows,
    /// The Lease, or an HTTP status and its body.
    said: Result<Lease, (u16, String)>,
}

fn refusal(code: u16, body: String) -> LeaseError {
    match code {
        409 => LeaseError::Conflict,
        429 | 500.. => LeaseError::Ambiguous(format!("{code}: {body}")),
        _ => LeaseError::Refused(format!("{code}: {body}")),
    }
}

/// What the wall clock shows beside an answer.
#[derive(Clone, Copy)]
struct Shows {
    /// How far it is off.
    skew: Duration,
    /// When the machine was started, by it.
    booted: Time,
}

/// When the machine was started, by a clock that is right; with one that isn't, a process may not lead.
fn in_time(shows: Shows) -> Result<Time, LeaseError> {
    match shows.skew > MAX_SKEW {
        true => Err(LeaseError::Skew(shows.skew)),
        false => Ok(shows.booted),
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

/// How far this clock is off, where an answer is of `date`: it was made between `sent` and `received`, which came `took` later by
/// the clock that never jumps. The second that `Date` cuts off doesn't count. A clock that jumped meanwhile is off by as much
/// as it jumped: of the two times either may be wrong.
fn skew(date: Option<Timestamp>, sent: Time, received: Time, took: Duration) -> Duration {
    let expected = sent.plus(took);
    let jumped = received.since(expected).max(expected.since(received));
    let off = date.map(|date| {
        let date = date.as_millisecond();
        let ahead = sent.millis() - date - 1000;
        let behind = date - received.millis();
        Duration::from_millis(u64::try_from(ahead.max(behind)).unwrap_or(0))
    });
    jumped.max(off.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::clock::SystemClock;

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
        let off = |now| skew(Some(date), time(now), time(now), Duration::ZERO);
        assert_eq!(off("2026-11-24T03:00:00.900Z"), Duration::ZERO);
        assert_eq!(off("2026-11-24T03:00:07Z"), Duration::from_secs(6));
        assert_eq!(off("2026-11-24T02:59:53Z"), Duration::from_secs(7));
        let (sent, received) = (time("2026-11-24T02:59:40Z"), time("2026-11-24T03:00:20Z"));
        let slow = skew(Some(date), sent, received, Duration::from_secs(40));
        assert_eq!(
            slow,
            Duration::ZERO,
            "an answer that takes long is no clock that is off"
        );
        for (from, to) in [(sent, received), (received, sent)] {
            let jumped = skew(Some(date), from, to, Duration::ZERO);
            assert_eq!(jumped, Duration::from_secs(40), "it jumped while it was asked");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_that_was_given_up_comes_back_by_no_renewal() {
        let leadership = Leadership::new(Arc::new(SystemClock));
        let booted = booted(&SystemClock);
        leadership.extend(Duration::from_secs(1_000_000_000), booted);
        assert!(leadership.is_held());
        leadership.give_up();
        leadership.extend(Duration::from_secs(1_000_000_000), booted); // it was under way
        assert!(!leadership.is_held());
        leadership.ended().await;
    }
}
