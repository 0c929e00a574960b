//! Scalar types that several resources share: times, durations, and values that may be computed.

use std::borrow::Cow;

use k8s_openapi::jiff::{Timestamp, fmt::strtime};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment, with a precision of milliseconds: `2026-11-24T03:00:00.125Z`.
///
/// Kubernetes' own `Time` has whole seconds, which is too coarse for backoff, and `MicroTime` is
/// three digits longer in every one of a status' many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Timestamp);

impl Time {
    /// Rounds down to whole milliseconds, so that what is read back equals what was written.
    pub fn new(at: Timestamp) -> Self {
        Self(Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at))
    }

    /// As jiff's timestamp.
    pub fn timestamp(self) -> Timestamp {
        self.0
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// This moment and so much later; the last representable one where it would overflow.
    pub fn plus(self, duration: std::time::Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millisecond(self.millis().saturating_add(millis)).map_or(Self(Timestamp::MAX), Self)
    }

    /// This moment and so much earlier; the first representable one where it would overflow.
    pub fn minus(self, duration: std::time::Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millisecond(self.millis().saturating_sub(millis)).map_or(Self(Timestamp::MIN), Self)
    }

    /// How much later this is than `earlier`; zero if it isn't.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_millis(u64::try_from(self.millis() - earlier.millis()).unwrap_or(0))
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = strtime::format("%Y-%m-%dT%H:%M:%S.%3fZ", self.0).map_err(|_| std::fmt::Error)?;
        f.write_str(&text)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map(Self::new).map_err(de::Error::custom)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "maxLength": 40})
    }
}

/// A duration as Go writes it: `1500ms`, `30s`, `1h30m`; hours are the largest unit.
///
/// The text is kept, so that an object reads back as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duration {
    text: String,
    value: std::time::Duration,
}

impl Duration {
    /// The value.
    pub fn get(&self) -> std::time::Duration {
        self.value
    }

    /// So many seconds.
    pub fn seconds(seconds: u64) -> Self {
        Self {
            text: format!("{seconds}s"),
            value: std::time::Duration::from_secs(seconds),
        }
    }
}

/// Why a text is not a duration.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a duration: write it as 30s, 5m or 24h (hours are the largest unit)")]
pub struct DurationError {
    text: String,
}

impl std::str::FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || DurationError { text: text.to_owned() };
        // kube's parser panics where a number overflows: the limits are those of the schema.
        let bounded = text.len() <= 32
            && text
                .split(|c: char| !c.is_ascii_digit())
                .all(|number| number.len() <= 9);
        if !bounded || text.is_empty() {
            return Err(error());
        }
        let value: kube::core::Duration = text.parse().map_err(|_| error())?;
        if value.is_negative() {
            return Err(error());
        }
        Ok(Self {
            text: text.to_owned(),
            value: value.into(),
        })
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 32,
            "x-kubernetes-validations": [{
                "rule": r"self.matches('^([0-9]{1,9}([.][0-9]{1,9})?(ns|us|ms|s|m|h))+$')",
                "message": "must be a duration such as 500ms, 30s, 5m or 24h (hours are the largest unit)",
            }],
        })
    }
}

/// A whole number, or a `${...}` template that gives one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrTemplate {
    /// The number itself.
    Int(i64),
    /// What computes it.
    Template(String),
}

impl JsonSchema for IntOrTemplate {
    fn schema_name() -> Cow<'static, str> {
        "IntOrTemplate".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 1024, "minimum": 0, "maximum": 2_147_483_647})
    }
}

/// Reads a text whose template may have computed a number or a truth: `"${input.port}"` is 8080, the variable is "8080".
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Null => Ok(None),
        serde_json::Value::String(text) => Ok(Some(text)),
        value @ (serde_json::Value::Bool(_) | serde_json::Value::Number(_)) => Ok(Some(value.to_string())),
        other => Err(de::Error::custom(format!("a text is needed, not {other}"))),
    }
}

/// [`text`] in each place of a list.
pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let list = Vec::<serde_json::Value>::deserialize(deserializer)?;
    let text = |value| text(value).map(Option::unwrap_or_default).map_err(de::Error::custom);
    list.into_iter().map(text).collect()
}

/// The schema of a field that takes any JSON value: the API server keeps it as it is.
pub(super) fn any_value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// The schema of a field that takes any JSON object.
pub(super) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// The schema of a list whose items' schema is filled in later: see `crds`.
pub(super) fn any_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}})
}

/// The schema of an object of any kind: the API server keeps it as it is, but refuses one without a kind or name.
pub(super) fn manifest(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["apiVersion", "kind", "metadata"],
        "properties": {
            "apiVersion": {"type": "string", "minLength": 1, "description": "The object's API, such as `apps/v1`."},
            "kind": {"type": "string", "minLength": 1, "description": "The object's kind, such as `Deployment`."},
            "metadata": {
                "type": "object",
                "description": "The object's metadata, with its name.",
                "x-kubernetes-preserve-unknown-fields": true,
                "required": ["name"],
                "properties": {"name": {"type": "string", "minLength": 1, "description": "The object's name."}},
            },
        },
    })
}

/// The schema of a pod template: the API server keeps it as it is, but refuses one without a container.
pub(super) fn pod_template(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "description": "The pod's spec, as in a Job.",
                "x-kubernetes-preserve-unknown-fields": true,
                "required": ["containers"],
                "properties": {
                    "containers": {
                        "type": "array",
                        "description": "The pod's containers; the first one's termination message is the step's output.",
                        "minItems": 1,
                        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    },
                },
            },
        },
    })
}

/// The schema of a field that is an expression by itself.
pub(super) fn expression(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 4096,
        "x-kubernetes-validations": [{
            "rule": "!self.startsWith('${')",
            "message": "is an expression by itself: write it without ${...}",
        }],
    })
}

/// The schema of a list that is replaced as a whole: an entry's fields are not tracked one by one in managedFields.
pub(super) fn atomic<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = <Vec<T>>::json_schema(generator);
    schema.insert("x-kubernetes-list-type".into(), "atomic".into());
    schema
}
