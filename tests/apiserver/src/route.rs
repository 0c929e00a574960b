//! From a path and a query to what is asked.

use std::{collections::BTreeMap, sync::Arc};

use http::Method;

use crate::{
    resources::{Resource, Resources},
    status::{self, Result},
};

/// What a request does to a resource, in the words of authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// Only asked of the authorizer: may the client act as another user?
    Impersonate,
}

impl Verb {
    /// Does it change anything?
    pub fn writes(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch | Verb::Impersonate)
    }

    /// As authorization rules write it.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Impersonate => "impersonate",
        }
    }
}

/// The parameters of a request.
#[derive(Clone, Debug, Default)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads a query string.
    pub fn new(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// A parameter, or an empty text.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Is a boolean parameter set?
    pub fn is_set(&self, name: &str) -> bool {
        ["1", "true"].contains(&self.get(name))
    }

    /// A number, if one is given that is one.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name).parse().ok()
    }
}

/// A resource, or an object of it, that a path leads to.
#[derive(Clone, Debug)]
pub struct Target {
    pub resource: Arc<Resource>,
    /// Empty: all of them, or it has none.
    pub namespace: String,
    /// Empty: the collection.
    pub name: String,
    /// Empty: the object itself.
    pub subresource: String,
}

/// Where a path leads.
#[derive(Clone, Debug)]
pub enum Route {
    Resource(Target),
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/{group}`.
    Group(String),
    /// `/apis/{group}/{version}`.
    GroupVersion(String, String),
    Version,
    Healthy,
}

/// Follows a path; None where the real server has a plain "404 page not found".
pub fn route(resources: &Resources, path: &str) -> Option<Result<Route>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let served = |group: &str| resources.iter().any(|r| r.group == group);
    let (group, version, rest) = match parts.as_slice() {
        ["version"] => return Some(Ok(Route::Version)),
        ["readyz" | "livez" | "healthz", ..] => return Some(Ok(Route::Healthy)),
        ["api"] => return Some(Ok(Route::CoreVersions)),
        ["apis"] => return Some(Ok(Route::Groups)),
        ["apis", group] => return served(group).then(|| Ok(Route::Group((*group).into()))),
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    if !resources.iter().any(|r| r.group == group && r.version == version) {
        return None;
    }
    if rest.is_empty() {
        return Some(Ok(Route::GroupVersion(group.into(), version.into())));
    }
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() && !is_namespace_subresource(rest) => {
            (*namespace, rest)
        }
        _ => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, "", ""),
        [plural, name] => (*plural, *name, ""),
        [plural, name, subresource] => (*plural, *name, *subresource),
        _ => return Some(Err(status::no_such_resource())),
    };
    match resources.get(group, version, plural) {
        Some(resource) if resource.namespaced || namespace.is_empty() => Some(Ok(Route::Resource(Target {
            resource: resource.clone(),
            namespace: namespace.into(),
            name: name.into(),
            subresource: subresource.into(),
        }))),
        // The real server's handler of custom resources doesn't answer with a Status.
        None if resources.iter().any(|r| r.group == group && r.custom) => None,
        _ => Some(Err(status::no_such_resource())),
    }
}

fn is_namespace_subresource(rest: &[&str]) -> bool {
    matches!(rest, ["status" | "finalize"])
}

/// What a method does at a target; an error if the target has no such verb.
pub fn verb(method: &Method, target: &Target, query: &Query) -> Result<Verb> {
    let resource = &target.resource;
    let collection = target.name.is_empty();
    let all_namespaces = resource.namespaced && target.namespace.is_empty();
    let object = match target.subresource.as_str() {
        "" => true,
        "status" => resource.status,
        "scale" => resource.scale.is_some(),
        "log" if resource.kind == "Pod" => return only(method, Method::GET, Verb::Get),
        "eviction" if resource.kind == "Pod" => return only(method, Method::POST, Verb::Create),
        "token" if resource.kind == "ServiceAccount" => return only(method, Method::POST, Verb::Create),
        _ => false,
    };
    if !object || (!collection && all_namespaces) {
        return Err(status::no_such_resource());
    }
    match *method {
        Method::GET if collection && query.is_set("watch") => Ok(Verb::Watch),
        Method::GET if collection => Ok(Verb::List),
        Method::GET => Ok(Verb::Get),
        Method::POST if collection && !all_namespaces => Ok(Verb::Create),
        Method::PUT if !collection => Ok(Verb::Update),
        Method::PATCH if !collection => Ok(Verb::Patch),
        Method::DELETE if collection && !all_namespaces => Ok(Verb::DeleteCollection),
        Method::DELETE if !collection && target.subresource.is_empty() => Ok(Verb::Delete),
        _ => Err(status::method_not_allowed()),
    }
}

fn only(method: &Method, allowed: Method, verb: Verb) -> Result<Verb> {
    if *method == allowed {
        Ok(verb)
    } else {
        Err(status::method_not_allowed())
    }
}
