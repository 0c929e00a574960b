//! What a request asks, in words.

use serde_json::Value;

use crate::api::StepType;
use crate::engine::WorkflowStep;

/// A kind and, if it is known, a name.
pub(super) type Named = (String, Option<String>);

/// The object that a request is about.
pub(super) fn named(request: &Value) -> Named {
    let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let of = |kind: &str, name: &str| Some((text(kind)?, text(name)));
    of("/apply/manifest/kind", "/apply/manifest/metadata/name")
        .or_else(|| of("/create/manifest/kind", "/create/manifest/metadata/name"))
        .or_else(|| {
            ["patch", "scale", "delete", "get", "wait"]
                .iter()
                .find_map(|verb| of(&format!("/{verb}/resource/kind"), &format!("/{verb}/resource/name")))
        })
        .or_else(|| text("/evict/pod").map(|pod| ("Pod".to_owned(), Some(pod))))
        .or_else(|| of("/list/kind", "/list/no-name"))
        .unwrap_or_default()
}

/// What a request asks, in words.
pub(super) fn in_words(flow: &WorkflowStep, request: &Value) -> String {
    let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    match flow.step_type {
        StepType::Http => {
            let method = request.get("method").and_then(Value::as_str).unwrap_or("GET");
            let mut words = format!("{method} {}", text("/url"));
            if let Some(body) = request.get("body") {
                words.push_str(&format!(" {body}"));
            }
            let mut secrets = vec![];
            references(request, &mut secrets);
            if !secrets.is_empty() {
                words.push_str(&format!(" (with {})", secrets.join(", ")));
            }
            words
        }
        StepType::Kubernetes => {
            let verb = request.as_object().and_then(|fields| fields.keys().next());
            let verb = verb.map(String::as_str).unwrap_or_default();
            let (kind, name) = named(request);
            let of = name.map(|name| format!(" {name}")).unwrap_or_default();
            let namespaces =
                ["resource", "manifest/metadata"].map(|at| text(&format!("/{verb}/{at}/namespace")).to_owned());
            let place = namespaces
                .into_iter()
                .chain([text(&format!("/{verb}/namespace")).to_owned()])
                .find(|n| !n.is_empty());
            let place = place.map(|namespace| format!(" in {namespace}")).unwrap_or_default();
            let what = match (verb, text("/wait/for")) {
                ("scale", _) => format!(" to {}", request["scale"]["replicas"].to_string().trim_matches('"')),
                ("list", _) => match text("/list/labelSelector") {
                    "" => String::new(),
                    labels => format!("s with {labels}"),
                },
                ("wait", "Deleted") => " to be gone".into(),
                ("wait", "") => format!(" to fulfil {}", text("/wait/until")),
                ("wait", state) => format!(" to be {state}"),
                _ => String::new(),
            };
            let verb = if verb == "wait" { "for" } else { verb };
            format!("{verb} {kind}{of}{place}{what}")
        }
        StepType::Job => match text("/image") {
            "" => "a Job".into(),
            image => format!("a Job of {image}"),
        },
        StepType::Operation => match text("/templateRef/name") {
            "" => "a CloudOperation".into(),
            template => format!("a CloudOperation of the template {template} with {}", request["input"]),
        },
        StepType::Wait => match (text("/duration"), text("/untilTime")) {
            ("", time) => format!("until {time}"),
            (duration, _) => duration.to_owned(),
        },
        StepType::Signal => format!("for the signal {}", flow.signal().unwrap_or(&flow.name)),
        StepType::Approval => match text("/message") {
            "" => "for an approval".into(),
            message => format!("for an approval: {message}"),
        },
        StepType::Set => request.to_string(),
        StepType::Assert | StepType::Steps => String::new(),
    }
}

/// The keys of Secrets that a request refers to.
fn references(request: &Value, found: &mut Vec<String>) {
    match request {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value["name"].as_str(), value["key"].as_str()) {
                    ("secretKeyRef", Some(secret), Some(key)) => found.push(format!("{key} of Secret {secret}")),
                    ("serviceAccountToken", ..) => found.push("a token of the service account".into()),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}
