//! Get and list: requests without an effect.

use serde_json::json;

use super::{Act, Done, namespace_of, presented};
use crate::activities::call::{CallError, Target, Verb};
use crate::api::{Get, List};
use crate::engine::AttemptFailure;

/// How many objects a request asks for at once.
const PAGE: u32 = 500;
/// The most objects that a list may have.
const MAX_ITEMS: usize = 5000;
/// The most bytes that a list may have, as JSON.
const MAX_BYTES: usize = 4 << 20;

/// Reads an object.
pub async fn get(act: Act<'_>, get: &Get) -> Done {
    let object = act.object(&get.resource).await?;
    let target = object.target();
    let found = act
        .read(&target)
        .await
        .map_err(|error| act.failure(error, Verb::Get, &target))?;
    Ok(presented(&object.resource, found))
}

/// Reads all objects that a selector matches.
pub async fn list(act: Act<'_>, list: &List) -> Done {
    let resource = act.discovery.find(&list.api_version, &list.kind).await?;
    let namespace = namespace_of(act.context, &resource, list.namespace.as_deref())?;
    let target = Target::collection(&resource, namespace.as_deref());
    let selector = list.label_selector.as_deref().unwrap_or_default();
    let (mut items, mut bytes, mut token) = (Vec::new(), 0, String::new());
    loop {
        let page = act.call(Verb::List, page(&target, selector, &token)).await;
        let mut page = page.map_err(|error| act.failure(error, Verb::List, &target))?;
        for mut item in page["items"].as_array_mut().map(std::mem::take).unwrap_or_default() {
            // The entries of a list of built-in kinds don't say what they are.
            item["apiVersion"] = resource.api.api_version.clone().into();
            item["kind"] = resource.api.kind.clone().into();
            let item = presented(&resource, item);
            bytes += item.to_string().len();
            items.push(item);
        }
        if items.len() > MAX_ITEMS || bytes > MAX_BYTES {
            let message = format!(
                "list of {target} has more than {MAX_ITEMS} objects or {} MiB: narrow it down with labelSelector",
                MAX_BYTES >> 20
            );
            return Err(AttemptFailure::definite("ResultTooLarge", message));
        }
        match page["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() => token = next.to_owned(),
            _ => break,
        }
    }
    Ok(json!({"apiVersion": resource.api.api_version, "kind": format!("{}List", resource.api.kind), "items": items}))
}

fn page(target: &Target<'_>, selector: &str, token: &str) -> Result<http::Request<Vec<u8>>, CallError> {
    let mut params = kube::api::ListParams::default().limit(PAGE);
    if !selector.is_empty() {
        params = params.labels(selector);
    }
    if !token.is_empty() {
        params = params.continue_token(token);
    }
    let request = kube::api::Request::new(target.path()).list(&params);
    request.map_err(|error| CallError::Unsendable(error.to_string()))
}
