//! The verbs that read: get and list, at the resourceVersion that they ask for.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    resources::Resource,
    selector::Filter,
    state::{Call, State},
    status::{self, FieldError, Result},
    store::Key,
};

impl State {
    /// GET of an object.
    pub fn get(&self, call: &Call) -> Result<Arc<Value>> {
        let version = parse_version(call.query.get("resourceVersion"))?;
        let (resource, key) = (&call.target.resource, call.key());
        let revision = self.view(version, false)?;
        if revision == self.store.revision() {
            return self.existing(call).map(|(_, object, _)| object);
        }
        let then = self.store.list_at(revision, resource, &key.namespace);
        let found = then.into_iter().find(|(k, _)| *k == key);
        found
            .map(|(_, object)| object)
            .ok_or_else(|| status::not_found(resource, &key.name))
    }

    /// GET of a collection.
    pub fn list(&self, call: &Call) -> Result<Value> {
        let (resource, query) = (&*call.target.resource, &call.query);
        let filter = Filter::new(resource, query.get("labelSelector"), query.get("fieldSelector"))?;
        let version = parse_version(query.get("resourceVersion"))?;
        let from = Token::parse(query.get("continue"))?;
        let revision = match &from {
            Some(token) if token.revision < self.store.compacted() => {
                return Err(status::expired(
                    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
                ));
            }
            Some(token) => token.revision,
            None => self.view(version, query.get("resourceVersionMatch") == "Exact")?,
        };
        // Reads from the watch cache come whole.
        let limit = query.number("limit").filter(|limit| *limit > 0 && version != Some(0));
        let start = from.map(|token| token.start);
        let mut rest = self.store.list_at(revision, resource, &call.target.namespace);
        rest.retain(|(key, object)| start.as_ref().is_none_or(|s| place(key) > *s) && filter.matches(object));
        let mut metadata = json!({"resourceVersion": revision.to_string(), "continue": ""});
        if let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok())
            && rest.len() > limit
        {
            let left = rest.split_off(limit).len();
            if query.get("labelSelector").is_empty() && query.get("fieldSelector").is_empty() {
                metadata["remainingItemCount"] = left.into();
            }
            let start = rest.last().map(|(key, _)| place(key)).unwrap_or_default();
            metadata["continue"] = Token { revision, start }.text().into();
        }
        let items = rest
            .iter()
            .map(|(_, object)| presented(resource, object, call.metadata_only));
        Ok(list_of(
            resource,
            metadata,
            items.map(in_list(resource)).collect(),
            call.metadata_only,
        ))
    }

    /// The revision that a read sees.
    pub fn view(&self, version: Option<u64>, exact: bool) -> Result<u64> {
        let current = self.store.revision();
        let cached = self.stale_reads.unwrap_or(current).min(current);
        match version {
            None => Ok(current),
            Some(0) => Ok(cached),
            Some(asked) if asked > current => Err(status::too_large_version(asked, current)),
            Some(asked) if exact && asked < self.store.compacted() => {
                Err(status::expired("The resourceVersion for the provided list is too old."))
            }
            Some(asked) if exact => Ok(asked),
            Some(asked) => Ok(if cached >= asked { cached } else { current }),
        }
    }
}

/// A list answer.
pub fn list_of(resource: &Resource, metadata: Value, items: Vec<Value>, metadata_only: bool) -> Value {
    let (api_version, kind) = match metadata_only {
        true => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadataList".to_owned()),
        false => (resource.api_version(), resource.list_kind.clone()),
    };
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "items": items})
}

/// An object as the client wants it: of the version of its path, or only its metadata.
pub fn presented(resource: &Resource, object: &Value, metadata_only: bool) -> Value {
    if metadata_only {
        return json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]});
    }
    let mut object = object.clone();
    if object["kind"] != "Status" {
        object["apiVersion"] = resource.api_version().into();
    }
    object
}

/// Entries of lists of built-in kinds don't say what they are.
pub fn in_list(resource: &Resource) -> impl Fn(Value) -> Value {
    let says_kind = resource.custom;
    move |mut object| {
        if let Some(fields) = object.as_object_mut().filter(|_| !says_kind)
            && fields["kind"] != "PartialObjectMetadata"
        {
            fields.remove("apiVersion");
            fields.remove("kind");
        }
        object
    }
}

/// Reads a resourceVersion parameter.
pub fn parse_version(text: &str) -> Result<Option<u64>> {
    let parsed = (!text.is_empty()).then(|| text.parse()).transpose();
    parsed.map_err(|_| {
        status::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
        ))
    })
}

/// Checks the parameters of a watch that goes together with a list.
pub fn check_initial_events(call: &Call) -> Result<()> {
    if !call.query.get("sendInitialEvents").is_empty() && call.query.get("resourceVersionMatch") != "NotOlderThan" {
        return Err(status::invalid_options(
            "ListOptions",
            FieldError::forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
        ));
    }
    Ok(())
}

/// Where an object is in a list.
fn place(key: &Key) -> String {
    format!("{}/{}", key.namespace, key.name)
}

/// What a list that was cut hands out, to go on from.
struct Token {
    revision: u64,
    start: String,
}

impl Token {
    fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": self.revision, "start": self.start}).to_string())
    }

    fn parse(text: &str) -> Result<Option<Self>> {
        if text.is_empty() {
            return Ok(None);
        }
        let token = URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|json| serde_json::from_slice::<Value>(&json).ok());
        let token = token.and_then(|t| {
            Some(Self {
                revision: t["rv"].as_u64()?,
                start: t["start"].as_str()?.to_owned(),
            })
        });
        token
            .map(Some)
            .ok_or_else(|| status::bad_request("invalid continue token: continue key is not valid"))
    }
}
