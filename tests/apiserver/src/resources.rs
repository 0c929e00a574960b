//! The resources that the server serves: the built-in ones, and those of custom resource definitions.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use crate::{
    schema::Schema,
    status::{self, Result},
};

/// One version of a resource, and the rules for its objects.
#[derive(Debug, Default)]
pub struct Resource {
    /// The API group; empty for the core's.
    pub group: String,
    /// The version that this describes; versions share their objects.
    pub version: String,
    /// The name in paths.
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    /// In namespaces, not for the whole cluster.
    pub namespaced: bool,
    /// Defined by a custom resource definition.
    pub custom: bool,
    /// Has `/status`, which alone writes `status`.
    pub status: bool,
    /// Has `/scale`, and where its numbers are.
    pub scale: Option<Scale>,
    /// Counts changes of the spec in `metadata.generation`.
    pub generation: bool,
    /// Takes updates without a resourceVersion.
    pub unconditional: bool,
    /// An update of what doesn't exist creates it.
    pub create_on_update: bool,
    /// The custom resource's schema.
    pub schema: Option<Schema>,
    /// Fields that field selectors may name, as paths without a leading dot (`spec.nodeName`).
    pub selectable: Vec<String>,
}

/// Where `/scale` finds its numbers: JSON pointers.
#[derive(Clone, Debug)]
pub struct Scale {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub selector: Option<String>,
}

impl Resource {
    /// `widgets.example.dev`, as messages name it.
    pub fn qualified(&self) -> String {
        qualified(&self.plural, &self.group)
    }

    /// `Widget.example.dev`.
    pub fn qualified_kind(&self) -> String {
        qualified(&self.kind, &self.group)
    }

    /// `example.dev/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The path of its objects in etcd, which the real server's precondition errors name.
    pub fn storage_prefix(&self) -> String {
        if self.custom {
            format!("/registry/{}/{}", self.group, self.plural)
        } else {
            format!("/registry/{}", self.plural)
        }
    }
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{group}")
    }
}

/// All that is served, by group, version and plural.
#[derive(Clone, Debug)]
pub struct Resources(BTreeMap<(String, String, String), Arc<Resource>>);

impl Resources {
    /// The built-in resources.
    pub fn builtin() -> Self {
        let mut all = Self(BTreeMap::new());
        for (group_version, kind, plural, short_names, rules) in BUILTIN {
            let (group, version) = group_version.rsplit_once('/').unwrap_or(("", group_version));
            all.insert(Resource {
                group: group.into(),
                version: version.into(),
                plural: (*plural).into(),
                singular: kind.to_lowercase(),
                kind: (*kind).into(),
                list_kind: format!("{kind}List"),
                short_names: short_names.split_terminator(',').map(str::to_owned).collect(),
                namespaced: !rules.contains(&CLUSTER),
                status: rules.contains(&STATUS),
                scale: rules.contains(&SCALE).then(|| Scale {
                    spec_replicas: "/spec/replicas".into(),
                    status_replicas: "/status/replicas".into(),
                    selector: None,
                }),
                generation: rules.contains(&GENERATION),
                unconditional: !rules.contains(&VERSIONED),
                create_on_update: rules.contains(&CREATE_ON_UPDATE),
                selectable: selectable(kind),
                ..Resource::default()
            });
        }
        all
    }

    /// The served resource of a path.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.0.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// The resource that holds a kind's objects, whichever its version.
    pub fn of_kind(&self, group: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.0.values().find(|r| r.group == group && r.kind == kind)
    }

    /// All of them, ordered by group, version and plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.0.values()
    }

    /// Serves the versions of a custom resource definition, in place of those it had.
    pub fn define(&mut self, crd: &Value) -> Result<()> {
        let text = |pointer: &str| {
            crd.pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let texts = |pointer: &str| -> Vec<String> {
            let list = crd.pointer(pointer).and_then(Value::as_array);
            list.into_iter()
                .flatten()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect()
        };
        let (group, plural, kind) = (
            text("/spec/group"),
            text("/spec/names/plural"),
            text("/spec/names/kind"),
        );
        self.remove(&group, &plural);
        for version in crd
            .pointer("/spec/versions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if version["served"] != true {
                continue;
            }
            let schema = version.pointer("/schema/openAPIV3Schema").map(Schema::new).transpose();
            let pointer = |path: &Value| path.as_str().map(|p| p.replace('.', "/"));
            let scale = version.pointer("/subresources/scale").map(|scale| Scale {
                spec_replicas: pointer(&scale["specReplicasPath"]).unwrap_or_default(),
                status_replicas: pointer(&scale["statusReplicasPath"]).unwrap_or_default(),
                selector: pointer(&scale["labelSelectorPath"]),
            });
            let selectable = version["selectableFields"].as_array().into_iter().flatten();
            self.insert(Resource {
                group: group.clone(),
                version: version["name"].as_str().unwrap_or_default().to_owned(),
                plural: plural.clone(),
                singular: text("/spec/names/singular"),
                kind: kind.clone(),
                list_kind: text("/spec/names/listKind"),
                short_names: texts("/spec/names/shortNames"),
                categories: texts("/spec/names/categories"),
                namespaced: text("/spec/scope") == "Namespaced",
                custom: true,
                status: version.pointer("/subresources/status").is_some(),
                scale,
                generation: true,
                schema: schema.map_err(|why| status::bad_request(format!("the schema of {plural}.{group}: {why}")))?,
                selectable: selectable
                    .filter_map(|f| f["jsonPath"].as_str().map(|p| p.trim_start_matches('.').to_owned()))
                    .collect(),
                ..Resource::default()
            });
        }
        Ok(())
    }

    /// Serves no version of a resource any more.
    pub fn remove(&mut self, group: &str, plural: &str) {
        self.0.retain(|_, r| r.group != group || r.plural != plural);
    }

    fn insert(&mut self, resource: Resource) {
        let key = (
            resource.group.clone(),
            resource.version.clone(),
            resource.plural.clone(),
        );
        self.0.insert(key, Arc::new(resource));
    }
}

#[derive(PartialEq)]
enum Rule {
    Cluster,
    Status,
    Scale,
    Generation,
    Versioned,
    CreateOnUpdate,
}
const CLUSTER: Rule = Rule::Cluster;
const STATUS: Rule = Rule::Status;
const SCALE: Rule = Rule::Scale;
const GENERATION: Rule = Rule::Generation;
/// An update must carry a resourceVersion.
const VERSIONED: Rule = Rule::Versioned;
const CREATE_ON_UPDATE: Rule = Rule::CreateOnUpdate;

type Row = (&'static str, &'static str, &'static str, &'static str, &'static [Rule]);

#[rustfmt::skip]
const BUILTIN: &[Row] = &[
    ("v1", "Namespace", "namespaces", "ns", &[CLUSTER, STATUS]),
    ("v1", "Pod", "pods", "po", &[STATUS, GENERATION]),
    ("v1", "ConfigMap", "configmaps", "cm", &[]),
    ("v1", "Secret", "secrets", "", &[]),
    ("v1", "Service", "services", "svc", &[STATUS]),
    ("v1", "ServiceAccount", "serviceaccounts", "sa", &[]),
    ("v1", "Event", "events", "ev", &[CREATE_ON_UPDATE]),
    ("events.k8s.io/v1", "Event", "events", "ev", &[CREATE_ON_UPDATE]),
    ("apps/v1", "Deployment", "deployments", "deploy", &[STATUS, SCALE, GENERATION]),
    ("apps/v1", "ReplicaSet", "replicasets", "rs", &[STATUS, SCALE, GENERATION]),
    ("apps/v1", "StatefulSet", "statefulsets", "sts", &[STATUS, SCALE, GENERATION]),
    ("apps/v1", "DaemonSet", "daemonsets", "ds", &[STATUS, GENERATION]),
    ("batch/v1", "Job", "jobs", "", &[STATUS, GENERATION]),
    ("coordination.k8s.io/v1", "Lease", "leases", "", &[VERSIONED, CREATE_ON_UPDATE]),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", &[STATUS, GENERATION, VERSIONED]),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", "crd,crds", &[CLUSTER, STATUS, GENERATION, VERSIONED]),
];

/// The fields of built-in kinds that field selectors may name, besides name and namespace.
fn selectable(kind: &str) -> Vec<String> {
    let fields: &[&str] = match kind {
        "Pod" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
        ],
        "Secret" => &["type"],
        "Namespace" => &["status.phase"],
        "ReplicaSet" => &["status.replicas"],
        "Job" => &["status.successful"],
        "Event" => &[
            "involvedObject.kind",
            "involvedObject.name",
            "involvedObject.namespace",
            "involvedObject.uid",
            "reason",
            "type",
            "regarding.kind",
            "regarding.name",
            "regarding.namespace",
            "regarding.uid",
        ],
        _ => &[],
    };
    fields.iter().map(|field| (*field).to_owned()).collect()
}
