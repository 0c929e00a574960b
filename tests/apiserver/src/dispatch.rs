//! From a request to its answer: what it asks for, whether it may, and which verb answers.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Method};
use serde_json::Value;

use crate::{
    discovery,
    faults::RequestInfo,
    read,
    route::{self, Query, Route, Verb},
    server::ApiServer,
    state::Call,
    status::{self, Result},
    subresources::user_of_token,
    watch as watches,
};

/// An answer, before it is HTTP.
pub enum Answer {
    Object(u16, Value),
    Text(u16, String),
    Watch(futures::stream::BoxStream<'static, Bytes>),
}

/// What a request asks for: a resource, or one of the server's own pages.
#[derive(Clone)]
pub enum Asked {
    Resource(Box<Call>),
    Page(Page),
}

#[derive(Clone)]
pub struct Page {
    route: Option<Route>,
    aggregated: bool,
}

impl ApiServer {
    /// Numbers a request, records it, and finds out what it asks for.
    pub(crate) fn accept(
        &self,
        method: &Method,
        path: &str,
        query: Query,
        headers: &HeaderMap,
        body: Bytes,
        client: &str,
    ) -> (RequestInfo, Result<Asked>) {
        let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let token = header("authorization").strip_prefix("Bearer ").and_then(user_of_token);
        let own_user = token.unwrap_or_else(|| client.to_owned());
        let user = match header("impersonate-user") {
            "" => own_user.clone(),
            impersonated => impersonated.to_owned(),
        };
        let mut state = self.shared.lock();
        let mut info = RequestInfo {
            number: state.requests.len() as u64 + 1,
            time: self.shared.now(),
            client: client.to_owned(),
            user,
            verb: Verb::Get,
            group: String::new(),
            resource: String::new(),
            subresource: String::new(),
            namespace: String::new(),
            name: String::new(),
            path: path.to_owned(),
            dry_run: is_dry_run(method, &query, &body),
            writes_before: state.writes.len(),
        };
        let accept = header("accept");
        let routed = route::route(&state.resources, path).transpose();
        let asked = match routed {
            Err(unknown) => Err(unknown),
            Ok(Some(Route::Resource(target))) => match route::verb(method, &target, &query) {
                Err(refused) => Err(refused),
                Ok(verb) => {
                    info.verb = verb;
                    info.group.clone_from(&target.resource.group);
                    info.resource.clone_from(&target.resource.plural);
                    info.subresource.clone_from(&target.subresource);
                    info.name.clone_from(&target.name);
                    // A namespace is in itself.
                    let itself = target.resource.kind == "Namespace" && target.resource.group.is_empty();
                    info.namespace
                        .clone_from(if itself { &target.name } else { &target.namespace });
                    let agent = header("user-agent").split('/').next().unwrap_or_default();
                    let manager = [query.get("fieldManager"), agent, "unknown"]
                        .into_iter()
                        .find(|m| !m.is_empty());
                    Ok(Asked::Resource(Box::new(Call {
                        info: info.clone(),
                        content_type: header("content-type").to_owned(),
                        metadata_only: accept.contains("as=PartialObjectMetadata"),
                        manager: manager.unwrap_or_default().to_owned(),
                        body: body.to_vec(),
                        target,
                        query,
                    })))
                }
            },
            Ok(route) => Ok(Asked::Page(Page {
                route,
                aggregated: accept.contains("as=APIGroupDiscoveryList"),
            })),
        };
        state.requests.push(info.clone());
        drop(state);
        let allowed = self.authorize(&info, &own_user);
        (info, asked.and_then(|asked| allowed.map(|()| asked)))
    }

    /// May the user do it, and may the client act as that user?
    fn authorize(&self, info: &RequestInfo, own_user: &str) -> Result<()> {
        let Some(allows) = self.shared.hooks().authorizer.clone() else {
            return Ok(());
        };
        if info.user != own_user {
            let parts: Vec<&str> = info.user.split(':').collect();
            let (resource, namespace, name) = match parts.as_slice() {
                ["system", "serviceaccount", namespace, name] => ("serviceaccounts", *namespace, *name),
                _ => ("users", "", info.user.as_str()),
            };
            let impersonation = RequestInfo {
                user: own_user.to_owned(),
                verb: Verb::Impersonate,
                group: String::new(),
                resource: resource.to_owned(),
                subresource: String::new(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                ..info.clone()
            };
            if !allows(&impersonation) {
                return Err(impersonation.denied(resource));
            }
        }
        if info.resource.is_empty() || allows(info) {
            return Ok(());
        }
        let dot = if info.group.is_empty() { "" } else { "." };
        Err(info.denied(&format!("{}{dot}{}", info.resource, info.group)))
    }

    pub(crate) fn answer(&self, call: &Call) -> Result<Answer> {
        let (resource, state) = (&call.target.resource, &mut *self.shared.lock());
        let object = |code, object: Arc<Value>| {
            Answer::Object(
                code,
                read::presented(resource, &object, call.metadata_only && object["kind"] != "Status"),
            )
        };
        Ok(match (call.info.verb, call.target.subresource.as_str()) {
            (Verb::Get, "log") => Answer::Text(200, state.pod_log(call)?),
            (Verb::Create, "eviction") => Answer::Object(201, state.evict(call)?),
            (Verb::Create, "token") => Answer::Object(201, state.token(call)?),
            (Verb::Get, "scale") => Answer::Object(200, state.get_scale(call)?),
            (verb, "scale") => Answer::Object(200, state.write_scale(call, verb == Verb::Patch)?),
            (Verb::Get, _) => object(200, state.get(call)?),
            (Verb::List, _) => Answer::Object(200, state.list(call)?),
            (Verb::Watch, _) => Answer::Watch(watches::open(&self.shared, state, call)?.boxed()),
            (Verb::Create, _) => object(201, state.create(call)?),
            (Verb::Update | Verb::Patch, _) => {
                let existed = state.existing(call).is_ok();
                let written = if call.info.verb == Verb::Update {
                    state.update(call)?
                } else {
                    state.patch(call)?
                };
                object(if existed { 200 } else { 201 }, written)
            }
            (Verb::Delete, _) => object(200, state.delete(call)?),
            (Verb::DeleteCollection, _) => {
                let metadata = serde_json::json!({"resourceVersion": state.store.revision().to_string()});
                let deleted = state.delete_collection(call)?;
                let items = deleted.iter().map(|o| read::presented(resource, o, call.metadata_only));
                let items = items.map(read::in_list(resource)).collect();
                Answer::Object(200, read::list_of(resource, metadata, items, call.metadata_only))
            }
            (Verb::Impersonate, _) => return Err(status::method_not_allowed()),
        })
    }

    pub(crate) fn page(&self, page: &Page) -> Answer {
        let resources = &self.shared.lock().resources;
        match &page.route {
            Some(Route::CoreVersions) if page.aggregated => Answer::Object(200, discovery::aggregated(resources, true)),
            Some(Route::Groups) if page.aggregated => Answer::Object(200, discovery::aggregated(resources, false)),
            Some(Route::CoreVersions) => Answer::Object(200, discovery::core_versions()),
            Some(Route::Groups) => Answer::Object(200, discovery::groups(resources)),
            Some(Route::Group(group)) => Answer::Object(200, discovery::group(resources, group)),
            Some(Route::GroupVersion(group, version)) => {
                Answer::Object(200, discovery::group_version(resources, group, version))
            }
            Some(Route::Version) => Answer::Object(200, discovery::version()),
            Some(Route::Healthy) => Answer::Text(200, "ok".into()),
            Some(Route::Resource(_)) | None => Answer::Text(404, "404 page not found\n".into()),
        }
    }
}

/// A DELETE with options in its body takes none from its query.
fn is_dry_run(method: &Method, query: &Query, body: &[u8]) -> bool {
    if *method != Method::DELETE || body.is_empty() {
        return query.get("dryRun") == "All";
    }
    let options: Value = serde_json::from_slice(body).unwrap_or_default();
    options["dryRun"]
        .as_array()
        .is_some_and(|all| all.iter().any(|what| what == "All"))
}
