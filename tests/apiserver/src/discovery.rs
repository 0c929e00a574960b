//! What the server says it serves.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use crate::resources::{Resource, Resources};

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// `/version`.
pub fn version() -> Value {
    json!({
        "major": "1",
        "minor": "37",
        "gitVersion": "v1.37.2",
        "gitCommit": "simulated",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": "simulated",
    })
}

/// `/api`.
pub fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis`.
pub fn groups(resources: &Resources) -> Value {
    let groups: Vec<Value> = by_group(resources)
        .iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, v)| group_of(name, v))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`.
pub fn group(resources: &Resources, name: &str) -> Value {
    let mut group = by_group(resources)
        .get(name)
        .map(|v| group_of(name, v))
        .unwrap_or_default();
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    group
}

fn group_of(name: &str, versions: &BTreeMap<String, Vec<Arc<Resource>>>) -> Value {
    let versions: Vec<Value> = versions
        .keys()
        .rev()
        .map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

/// `/api/v1` and `/apis/{group}/{version}`.
pub fn group_version(resources: &Resources, group: &str, version: &str) -> Value {
    let mut listed = Vec::new();
    for resource in resources.iter().filter(|r| r.group == group && r.version == version) {
        let mut entry = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": VERBS,
        });
        for (field, values) in [
            ("shortNames", &resource.short_names),
            ("categories", &resource.categories),
        ] {
            if !values.is_empty() {
                entry[field] = json!(values);
            }
        }
        listed.push(entry);
        for (name, group_version, kind, verbs) in subresources(resource) {
            let mut entry = json!({
                "name": format!("{}/{name}", resource.plural),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": kind,
                "verbs": verbs,
            });
            if let Some((group, version)) = group_version.split_once('/') {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            listed.push(entry);
        }
    }
    let name = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": listed})
}

/// `/api` or `/apis` for clients that ask for everything at once.
pub fn aggregated(resources: &Resources, core: bool) -> Value {
    let groups = by_group(resources);
    let wanted = groups.iter().filter(|(name, _)| name.is_empty() == core);
    let items: Vec<Value> = wanted
        .map(|(name, versions)| {
            let versions = versions.iter().rev().map(|(version, resources)| {
                let resources: Vec<Value> = resources.iter().map(|r| aggregated_resource(r)).collect();
                json!({"version": version, "freshness": "Current", "resources": resources})
            });
            let metadata = if name.is_empty() {
                json!({})
            } else {
                json!({"name": name})
            };
            json!({"metadata": metadata, "versions": versions.collect::<Vec<_>>()})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let response = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let below = subresources(resource)
        .into_iter()
        .map(|(name, group_version, kind, verbs)| {
            let (group, version) = group_version
                .split_once('/')
                .unwrap_or((&resource.group, &resource.version));
            json!({
                "subresource": name,
                "responseKind": {"group": group, "version": version, "kind": kind},
                "verbs": verbs,
            })
        });
    json!({
        "resource": resource.plural,
        "responseKind": response,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": VERBS,
        "shortNames": resource.short_names,
        "categories": resource.categories,
        "subresources": below.collect::<Vec<_>>(),
    })
}

/// Name, group and version if another's, kind and verbs of what is below an object.
fn subresources(resource: &Resource) -> Vec<(&'static str, &'static str, String, &'static [&'static str])> {
    const CHANGED: &[&str] = &["get", "patch", "update"];
    let mut all = Vec::new();
    if resource.kind == "Pod" {
        all.push(("eviction", "policy/v1", "Eviction".into(), &["create"] as &[&str]));
        all.push(("log", "", "Pod".into(), &["get"]));
    }
    if resource.scale.is_some() {
        all.push(("scale", "autoscaling/v1", "Scale".into(), CHANGED));
    }
    if resource.status {
        all.push(("status", "", resource.kind.clone(), CHANGED));
    }
    if resource.kind == "ServiceAccount" {
        all.push(("token", "authentication.k8s.io/v1", "TokenRequest".into(), &["create"]));
    }
    all
}

fn by_group(resources: &Resources) -> BTreeMap<String, BTreeMap<String, Vec<Arc<Resource>>>> {
    let mut groups: BTreeMap<String, BTreeMap<String, Vec<Arc<Resource>>>> = BTreeMap::new();
    for resource in resources.iter() {
        let versions = groups.entry(resource.group.clone()).or_default();
        versions
            .entry(resource.version.clone())
            .or_default()
            .push(resource.clone());
    }
    groups
}
