//! What a request needs from Kubernetes: secrets, a token, certificates. Read at the moment of the call, as the
//! operation's service account, and kept no longer than the call.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::Api;
use kube::api::PostParams;

use super::mask::Masker;
use super::request::{CALLBACK_TOKEN, CALLBACK_URL, header_name};
use super::transport::TrustedCa;
use crate::activities::AttemptContext;
use crate::activities::callbacks::Invitation;
use crate::api::{self, KeyRef};
use crate::engine::AttemptFailure;

/// The shortest life that Kubernetes gives a token: it is for one call.
const TOKEN_SECONDS: i64 = 600;
/// How long one call of the API server may take.
const API_TIMEOUT: Duration = Duration::from_secs(10);

/// What was read, and what masks it.
#[derive(Default)]
pub(super) struct Secrets {
    /// Headers whose values come from Secrets.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The `Authorization` header that `auth` makes.
    pub(super) authorization: Option<HeaderValue>,
    /// Whom to trust.
    pub(super) ca: Option<TrustedCa>,
    /// Masks all of the secret values above.
    pub(super) masker: Masker,
}

impl Secrets {
    /// Reads what the request refers to.
    ///
    /// # Errors
    /// What is missing, denied or unusable. All of it can be put right while the step is retried.
    pub(super) async fn read(context: &AttemptContext, request: &api::Http) -> Result<Self, AttemptFailure> {
        let reader = Reader(context);
        let mut secrets = Self::default();
        for header in &request.headers {
            let Some(source) = &header.value_from else { continue };
            let field = format!("http.headers[{}].valueFrom", header.name);
            let value = reader.secret_value(&source.secret_key_ref, &field).await?;
            secrets.know(&value);
            let value = sensitive(&value, &field)?;
            secrets.headers.push((header_name(&header.name)?, value));
        }
        if let Some(auth) = &request.auth {
            let value = secrets.authorization(&reader, auth).await?;
            secrets.authorization = Some(sensitive(&value, "http.auth")?);
        }
        if let Some(tls) = &request.tls {
            secrets.ca = Some(reader.ca(&tls.ca).await?);
        }
        Ok(secrets)
    }

    /// Reads what may come back in a callback: what is not made for one request alone.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) async fn masker(context: &AttemptContext, request: &api::Http) -> Result<Masker, AttemptFailure> {
        let mut request = request.clone();
        request.tls = None;
        request.auth = request.auth.filter(|auth| auth.service_account_token.is_none());
        Ok(Self::read(context, &request).await?.masker)
    }

    /// Adds what lets the other side call back.
    pub(super) fn invite(&mut self, invitation: &Invitation) -> Result<(), AttemptFailure> {
        self.know(&invitation.token);
        for (name, value) in [(CALLBACK_URL, &invitation.url), (CALLBACK_TOKEN, &invitation.token)] {
            self.headers.push((name, sensitive(value, "http.async")?));
        }
        Ok(())
    }

    async fn authorization(&mut self, reader: &Reader<'_>, auth: &api::HttpAuth) -> Result<String, AttemptFailure> {
        let value = if let Some(bearer) = &auth.bearer {
            let token = reader.secret_value(&bearer.secret_key_ref, "http.auth.bearer").await?;
            format!("Bearer {token}")
        } else if let Some(basic) = &auth.basic {
            let field = "http.auth.basic";
            let key = |key: &str| KeyRef {
                name: basic.secret_ref.name.clone(),
                key: key.to_owned(),
            };
            let user = reader.secret_value(&key("username"), field).await?;
            let password = reader.secret_value(&key("password"), field).await?;
            self.know(&user);
            self.know(&password);
            format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
        } else if let Some(token) = &auth.service_account_token {
            format!("Bearer {}", reader.token(&token.audience).await?)
        } else {
            let message = "http.auth: give one of bearer, basic, serviceAccountToken";
            return Err(AttemptFailure::definite("InvalidRequest", message));
        };
        self.know(&value);
        Ok(value)
    }

    /// Masks a value from now on; of one with a scheme, as in `Bearer abc`, also what follows it.
    fn know(&mut self, value: &str) {
        self.masker.add(value);
        if let Some((_, parameter)) = value.split_once(' ') {
            self.masker.add(parameter.trim());
        }
    }
}

fn sensitive(value: &str, field: &str) -> Result<HeaderValue, AttemptFailure> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        let message = format!("{field}: the value in the Secret holds characters that a header can't have");
        AttemptFailure::retryable("SecretInvalid", message)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads as the operation's service account.
struct Reader<'a>(&'a AttemptContext);

impl Reader<'_> {
    /// A key of a Secret, without the line end that editors and `echo` leave, as no header can carry one.
    async fn secret_value(&self, source: &KeyRef, field: &str) -> Result<String, AttemptFailure> {
        let value = self.secret_key(source, field).await?;
        let text = String::from_utf8(value).map_err(|_| {
            let what = self.named("Secret", &source.name);
            AttemptFailure::retryable(
                "SecretInvalid",
                format!("{field}: key {} of {what} is not text", source.key),
            )
        })?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    async fn secret_key(&self, source: &KeyRef, field: &str) -> Result<Vec<u8>, AttemptFailure> {
        let api: Api<Secret> = Api::namespaced(self.0.kubernetes.clone(), &self.0.namespace);
        let secret = self
            .call("get", "Secret", &source.name, field, api.get(&source.name))
            .await?;
        let value = secret.data.and_then(|mut data| data.remove(&source.key));
        value
            .map(|bytes| bytes.0)
            .ok_or_else(|| self.no_key("Secret", source, field))
    }

    /// The certificates to trust.
    async fn ca(&self, source: &api::CertificateSource) -> Result<TrustedCa, AttemptFailure> {
        let field = "http.tls.ca";
        let (kind, key, pem) = match (&source.config_map_key_ref, &source.secret_key_ref) {
            (Some(key), None) => {
                let api: Api<ConfigMap> = Api::namespaced(self.0.kubernetes.clone(), &self.0.namespace);
                let map = self
                    .call("get", "ConfigMap", &key.name, field, api.get(&key.name))
                    .await?;
                let text = map
                    .data
                    .and_then(|mut data| data.remove(&key.key))
                    .map(String::into_bytes);
                let binary = || {
                    map.binary_data
                        .and_then(|mut data| data.remove(&key.key))
                        .map(|bytes| bytes.0)
                };
                let pem = text
                    .or_else(binary)
                    .ok_or_else(|| self.no_key("ConfigMap", key, field))?;
                ("ConfigMap", key, pem)
            }
            (None, Some(key)) => ("Secret", key, self.secret_key(key, field).await?),
            _ => {
                let message = format!("{field}: give one of configMapKeyRef, secretKeyRef");
                return Err(AttemptFailure::definite("InvalidRequest", message));
            }
        };
        TrustedCa::parse(&pem).map_err(|problem| {
            let what = self.named(kind, &key.name);
            AttemptFailure::retryable(
                "CertificateInvalid",
                format!("{field}: key {} of {what}: {problem}", key.key),
            )
        })
    }

    /// A token of the operation's service account for an audience.
    async fn token(&self, audience: &str) -> Result<String, AttemptFailure> {
        let field = "http.auth.serviceAccountToken";
        let api: Api<ServiceAccount> = Api::namespaced(self.0.kubernetes.clone(), &self.0.namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(vec![audience.to_owned()]),
                expiration_seconds: Some(TOKEN_SECONDS),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let (account, parameters) = (&self.0.service_account, PostParams::default());
        let issuing = api.create_token_request(account, &parameters, &request);
        let answer = self
            .call("create a token of", "ServiceAccount", account, field, issuing)
            .await?;
        answer.status.and_then(|status| status.token).ok_or_else(|| {
            let message = format!("{field}: the API server answered without a token");
            AttemptFailure::retryable("ApiServerUnavailable", message)
        })
    }

    async fn call<T>(
        &self,
        verb: &str,
        kind: &str,
        name: &str,
        field: &str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, AttemptFailure> {
        let what = self.named(kind, name);
        match tokio::time::timeout(API_TIMEOUT, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Err(AttemptFailure::retryable(
                format!("{kind}NotFound"),
                format!("{field}: {what} does not exist (yet)"),
            )),
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => Err(AttemptFailure::retryable(
                "AccessDenied",
                format!(
                    "{field}: service account {}/{} may not {verb} {what}: grant it by a Role and a RoleBinding ({})",
                    self.0.namespace, self.0.service_account, status.message
                ),
            )),
            Ok(Err(error)) => Err(AttemptFailure::retryable(
                "ApiServerUnavailable",
                format!("{field}: could not {verb} {what}: {error}"),
            )),
            Err(_) => Err(AttemptFailure::retryable(
                "ApiServerUnavailable",
                format!(
                    "{field}: could not {verb} {what}: no answer within {} s",
                    API_TIMEOUT.as_secs()
                ),
            )),
        }
    }

    fn named(&self, kind: &str, name: &str) -> String {
        format!("{kind} {name} in namespace {}", self.0.namespace)
    }

    fn no_key(&self, kind: &str, source: &KeyRef, field: &str) -> AttemptFailure {
        let what = self.named(kind, &source.name);
        AttemptFailure::retryable(
            format!("{kind}NotFound"),
            format!("{field}: {what} has no key {} (yet)", source.key),
        )
    }
}
