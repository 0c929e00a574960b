//! The `http` step: one call of an HTTP service.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{any_value, expression, text};

/// One call of an HTTP service. Every request carries the step's `Idempotency-Key`; retries carry the same one.
///
/// Success is a 2xx status, or what `success` says. No answer, 408, 425, 429 and 5xx are retried, and so are 401 and
/// 403, as access gets fixed; anything else is a definite failure.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Http {
    /// The method. Default: GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,

    /// The address, `http://` or `https://`. Templates fill it in, percent-encoding is the writer's.
    #[schemars(length(min = 1, max = 8192))]
    #[x_kube(validation = Rule::new("self.startsWith('http://') || self.startsWith('https://') || self.startsWith('${')").message("must begin with http:// or https://, or be computed by a ${...} template"))]
    pub url: String,

    /// Headers to send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<Header>,

    /// What to send: a string as text, anything else as JSON. Strings in it are `${...}` templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_value")]
    pub body: Option<Value>,

    /// True: the other side may answer 202 and do the work later. Every request then carries the headers
    /// `Holdfast-Callback-Url` and `Holdfast-Callback-Token`; the step waits until the other side has called back. Any other
    /// answer means what it always does.
    #[serde(default, rename = "async", skip_serializing_if = "Option::is_none")]
    pub asynchronous: Option<bool>,

    /// How to authenticate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<HttpAuth>,

    /// The call succeeded if this expression over `result.{status,headers,body}` is true. Default: a 2xx status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "expression")]
    pub success: Option<String>,

    /// The largest answer that is read, in bytes; a larger one is a failure. Default: 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8_388_608))]
    pub max_response_bytes: Option<i32>,

    /// Whom to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<HttpTls>,
}

/// An HTTP method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

/// A header of a request: its value is given, or read from a Secret.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.value) != has(self.valueFrom)").message("a header has exactly one of value, valueFrom"))]
pub struct Header {
    /// The header's name.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    pub name: String,

    /// The header's value, a `${...}` template.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub value: Option<String>,

    /// Where to read the value from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<SecretSource>,
}

/// Where a secret value is read from, at the moment of the call, as the operation's service account.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretSource {
    /// A key of a Secret in the operation's namespace.
    pub secret_key_ref: KeyRef,
}

/// A key of a Secret or ConfigMap in the operation's namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// How to authenticate: exactly one way.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.bearer), has(self.basic), has(self.serviceAccountToken)].filter(t, t).size() == 1").message("auth has exactly one of bearer, basic, serviceAccountToken"))]
pub struct HttpAuth {
    /// A token from a Secret, sent as `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<SecretSource>,

    /// A user and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,

    /// A short-lived token of the operation's service account, sent as `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_token: Option<ServiceAccountToken>,
}

/// A user and password from a Secret of type `kubernetes.io/basic-auth`: its keys `username` and `password`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// The Secret.
    pub secret_ref: NameRef,
}

/// An object in the operation's namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A token of the operation's service account.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountToken {
    /// For whom the token is: the other side must refuse one for another audience. Required, so that no token for the
    /// API server itself leaves the cluster by mistake.
    #[schemars(length(min = 1, max = 1024))]
    pub audience: String,
}

/// Whom an `https` call trusts.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpTls {
    /// Certificates (PEM) to trust in place of the public ones.
    pub ca: CertificateSource,
}

/// Where certificates are read from: exactly one place.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.configMapKeyRef) != has(self.secretKeyRef)").message("ca has exactly one of configMapKeyRef, secretKeyRef"))]
pub struct CertificateSource {
    /// A key of a ConfigMap in the operation's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
    /// A key of a Secret in the operation's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
}
