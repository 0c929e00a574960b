//! Callbacks: where the other side is to call, and the token by which it is known.
//!
//! A token is an HMAC of the step's idempotency key and run, so it is never stored: whoever has the keys computes it
//! again. The keys are in a Secret of the operator's own, which is created when a token is first needed and which nothing
//! deletes. Its last key, by name, signs; all of them verify, so keys can be rotated while callbacks are awaited.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use url::Url;

use super::AttemptContext;
use super::clients::ANSWER_TIMEOUT;
use crate::api::{ExternalRef, FIELD_MANAGER};
use crate::engine::{AttemptFailure, IdempotencyKey};

/// The Secret that holds the keys, in the operator's namespace.
pub const CALLBACK_KEYS: &str = "holdfast-callback-keys";
/// The kind of what is accepted.
pub const KIND: &str = "Callback";
/// The name of the first key. Names that sort after it sign in its place.
const FIRST_KEY: &str = "0001";
/// How many bytes a key has at least: as many as the digest.
const KEY_BYTES: usize = 32;
/// For how long keys are used before they are read again.
const KEPT: Duration = Duration::from_secs(60);
/// How soon an unknown key is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What RFC 3986 calls unreserved is left as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Invites callbacks, and knows those that were invited.
pub struct Callbacks {
    base: Option<Url>,
    secrets: Api<Secret>,
    known: Mutex<Option<(Instant, Arc<Keys>)>>,
}

type Keys = BTreeMap<String, hmac::Key>;

/// What a request carries so that the other side can call back.
pub struct Invitation {
    /// Where to call.
    pub url: String,
    /// What to show there.
    pub token: String,
}

/// Why a token can't be verified now.
#[derive(Debug, thiserror::Error)]
#[error("the Secret {CALLBACK_KEYS} can't be read: {0}")]
pub struct KeysUnavailable(String);

impl Callbacks {
    /// Callbacks arrive at this address, if any; their keys are in this namespace.
    pub fn new(client: kube::Client, namespace: &str, base: Option<Url>) -> Self {
        Self {
            base,
            secrets: Api::namespaced(client, namespace),
            known: Mutex::default(),
        }
    }

    /// What an attempt sends so that the other side can call back.
    ///
    /// # Errors
    /// When the operator has no address for callbacks, or no key. Nothing was sent then.
    pub async fn invite(&self, context: &AttemptContext) -> Result<Invitation, AttemptFailure> {
        let Some(base) = &self.base else {
            return Err(AttemptFailure::definite(
                "CallbacksNotConfigured",
                "http.async: the operator has no address for callbacks; start it with --callback-url (in the chart: callbacks.url)",
            ));
        };
        let unavailable = |error: KeysUnavailable| AttemptFailure::retryable("CallbackKeys", error.to_string());
        let mut keys = self.keys(|age, _| age < KEPT).await.map_err(unavailable)?;
        if keys.is_empty() {
            if !context.claim.is_held() {
                let message = "leadership was lost before the request: nothing was sent";
                return Err(AttemptFailure::retryable("LeadershipLost", message));
            }
            self.create().await.map_err(unavailable)?;
            keys = self.keys(|_, _| false).await.map_err(unavailable)?;
        }
        let Some((id, key)) = keys.last_key_value() else {
            let message = format!("the Secret {CALLBACK_KEYS} has no key of {KEY_BYTES} bytes or more: add one");
            return Err(AttemptFailure::retryable("CallbackKeys", message));
        };
        let run = context.failures;
        let tag = hmac::sign(key, signed(&context.key, run).as_bytes());
        let epoch = context.key.epoch();
        let mut url = base.as_str().trim_end_matches('/').to_owned() + "/callbacks/v1";
        let step = in_url(&context.step);
        for part in [&context.namespace, &context.operation, &context.operation_uid, &step] {
            url.push('/');
            url.extend(utf8_percent_encode(part, SEGMENT));
        }
        Ok(Invitation {
            url: format!("{url}/{epoch}/{run}"),
            token: format!("{id}.{}", URL_SAFE_NO_PAD.encode(tag)),
        })
    }

    /// True if this token is of this key and run.
    ///
    /// # Errors
    /// When the keys can't be read.
    pub async fn verify(&self, key: &IdempotencyKey, run: i64, token: &str) -> Result<bool, KeysUnavailable> {
        let Some((id, tag)) = token.rsplit_once('.') else {
            return Ok(false);
        };
        let Ok(tag) = URL_SAFE_NO_PAD.decode(tag) else {
            return Ok(false);
        };
        let fresh = |age, keys: &Keys| age < if keys.contains_key(id) { KEPT } else { LOOK_AGAIN };
        let keys = self.keys(fresh).await?;
        // `verify` compares in constant time.
        Ok(keys
            .get(id)
            .is_some_and(|known| hmac::verify(known, signed(key, run).as_bytes(), &tag).is_ok()))
    }

    /// The keys: those that were read last if they are fresh enough by their age.
    async fn keys(&self, fresh: impl Fn(Duration, &Keys) -> bool) -> Result<Arc<Keys>, KeysUnavailable> {
        let mut known = self.known.lock().await;
        if let Some((read, keys)) = known.as_ref()
            && fresh(read.elapsed(), keys)
        {
            return Ok(keys.clone());
        }
        let secret = within(self.secrets.get_opt(CALLBACK_KEYS)).await?;
        let data = secret.and_then(|secret| secret.data).unwrap_or_default();
        let long_enough = data.into_iter().filter(|(_, key)| key.0.len() >= KEY_BYTES);
        let keys = long_enough.map(|(id, key)| (id, hmac::Key::new(hmac::HMAC_SHA256, &key.0)));
        let keys = Arc::new(keys.collect::<Keys>());
        *known = Some((Instant::now(), keys.clone()));
        Ok(keys)
    }

    /// Creates the Secret with a first key, unless it is there.
    async fn create(&self) -> Result<(), KeysUnavailable> {
        let mut key = vec![0; KEY_BYTES];
        SystemRandom::new()
            .fill(&mut key)
            .map_err(|_| KeysUnavailable("the system gives no random numbers".into()))?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(CALLBACK_KEYS.into()),
                labels: Some(BTreeMap::from([("app.kubernetes.io/name".into(), "holdfast".into())])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(FIRST_KEY.into(), ByteString(key))])),
            ..Secret::default()
        };
        let post = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let created = async {
            match self.secrets.create(&post, &secret).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                created => created.map(|_| ()),
            }
        };
        within(created).await
    }
}

/// A step's path as one segment of a URL: gateways treat an escaped slash in their own ways.
fn in_url(step: &str) -> String {
    step.replace('/', "~")
}

/// A step's path from a URL.
pub fn from_url(step: &str) -> String {
    step.replace('~', "/")
}

/// What a token signs.
fn signed(key: &IdempotencyKey, run: i64) -> String {
    format!("{}#{run}", key.path())
}

/// What is accepted when the other side says that it will call back.
pub(super) fn accepted(key: &IdempotencyKey) -> ExternalRef {
    ExternalRef {
        kind: KIND.into(),
        name: key.to_string(),
        uid: key.to_string(),
    }
}

async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, KeysUnavailable> {
    match timeout(ANSWER_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| KeysUnavailable(error.to_string())),
        Err(_) => Err(KeysUnavailable(format!("no answer within {ANSWER_TIMEOUT:?}"))),
    }
}
