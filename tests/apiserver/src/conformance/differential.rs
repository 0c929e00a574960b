//! Random requests, sent to two servers: every answer, and the whole history that a watch then tells, must be the same.

use std::collections::BTreeMap;

use kube::Client;
use serde_json::{Value, json};

use super::cluster::{Cluster, Reply, version};

/// One server, and what its objects were last and first.
struct Side {
    cluster: Cluster,
    live: BTreeMap<String, Value>,
    first: BTreeMap<String, Value>,
}

/// Sends `steps` random requests, drawn from `seed`, to both; the error shows the first one that they answer differently.
/// The namespace must be new to both.
pub async fn compare(one: Client, other: Client, namespace: &str, seed: u64, steps: usize) -> Result<(), String> {
    let side = |client| Side {
        cluster: Cluster::new(client, namespace),
        live: BTreeMap::new(),
        first: BTreeMap::new(),
    };
    let (mut one, mut other) = (side(one), side(other));
    one.cluster.prepare().await;
    other.cluster.prepare().await;
    let starts = (one.start().await, other.start().await);
    let mut random = fastrand::Rng::with_seed(seed);
    for step in 0..steps {
        let request = Draw::new(&mut random);
        let (answer, same) = (one.send(&request).await, other.send(&request).await);
        if answer != same {
            return Err(format!(
                "seed {seed}, step {step}: {request:?}\n  one:   {answer}\n  other: {same}"
            ));
        }
    }
    let (events, same) = (one.events(starts.0).await, other.events(starts.1).await);
    let differs = events.iter().zip(&same).find(|(a, b)| a != b);
    match differs {
        Some((a, b)) => Err(format!("seed {seed}: events\n  one:   {a}\n  other: {b}")),
        None if events.len() != same.len() => Err(format!("seed {seed}: {} and {} events", events.len(), same.len())),
        None => Ok(()),
    }
}

/// A random request, before it is known what the objects on each side are.
#[derive(Debug)]
struct Draw {
    name: String,
    verb: &'static str,
    /// Which resourceVersion or uid it carries: the current, an old one, or none.
    version: &'static str,
    body: Value,
    parameters: String,
}

impl Draw {
    fn new(random: &mut fastrand::Rng) -> Self {
        let verb = pick(
            random,
            &[
                "create",
                "put",
                "put",
                "put status",
                "put status",
                "merge",
                "merge",
                "merge status",
                "json patch",
                "apply",
                "apply",
                "apply",
                "apply status",
                "scale",
                "delete",
                "get",
                "list",
            ],
        );
        let status = verb.ends_with("status");
        let mut body = if status {
            json!({"status": status_part(random)})
        } else {
            json!({"spec": spec(random)})
        };
        if !status || random.u8(..4) == 0 {
            body["metadata"] = metadata(random, verb != "merge");
        }
        match verb {
            // What takes the last of a list or map away may leave null there, which the real server then refuses.
            "apply status" => body["status"]["selector"] = "a=b".into(),
            "apply" => {
                body["spec"]["steps"] = json!([{"name": "a", "wait": pick(random, &["1", "2"])}]);
                // An empty map is owned as a whole, which the simulation doesn't follow.
                if let Some(metadata) = body["metadata"].as_object_mut() {
                    metadata.retain(|_, value| !matches!(value.to_string().as_str(), "{}" | "[]"));
                }
                if let Some(spec) = body["spec"].as_object_mut() {
                    spec.remove("tags");
                    // Who owns what was scaled, the real server sees in its own way.
                    spec.remove("replicas");
                    for map in ["free", "numbers"] {
                        spec.entry(map).or_insert_with(|| json!({"a": 1}));
                    }
                }
            }
            "merge" if random.bool() => body["spec"] = null_some(random, body["spec"].clone()),
            "json patch" => body = json_patch(random),
            // Hardly ever the same twice: whether a scale without a change is a write is a matter of managedFields.
            "scale" => body = json!({"spec": {"replicas": random.i32(3..10_000)}}),
            "delete" => {
                let policy = pick(random, &["", "Background", "Foreground", "Orphan"]);
                body = if policy.is_empty() {
                    json!({})
                } else {
                    json!({"propagationPolicy": policy})
                };
            }
            _ => {}
        }
        let mut parameters = String::new();
        if random.u8(..10) == 0 && verb != "list" {
            parameters.push_str("&dryRun=All");
        }
        if verb.starts_with("apply") && random.u8(..3) == 0 {
            parameters.push_str("&force=true");
        }
        if verb == "list" {
            parameters.push_str(pick(
                random,
                &[
                    "&labelSelector=a%3D1",
                    "&fieldSelector=spec.color%3Dred",
                    "&limit=1",
                    "",
                ],
            ));
        }
        let manager = pick(random, &["one", "two"]);
        Self {
            name: format!("w{}", random.u8(..3)),
            verb,
            version: pick(random, &["current", "current", "current", "old", "none"]),
            parameters: format!("?fieldManager={manager}{parameters}"),
            body,
        }
    }
}

fn pick<'t>(random: &mut fastrand::Rng, from: &[&'t str]) -> &'t str {
    from[random.usize(..from.len())]
}

/// Each field with some chance, wrong values among them.
fn some(random: &mut fastrand::Rng, fields: &[(&str, Value)]) -> Value {
    let mut object = json!({});
    for (name, values) in fields {
        let values = values.as_array().cloned().unwrap_or_default();
        if random.u8(..5) < 2 {
            object[*name] = values[random.usize(..values.len())].clone();
        }
    }
    object
}

fn spec(random: &mut fastrand::Rng) -> Value {
    let mut spec = some(
        random,
        &[
            ("color", json!(["red", "green", "red", "blue"])),
            ("word", json!(["abc", "xyz", "toolong"])),
            ("mode", json!(["Fast", "Slow"])),
            ("maybe", json!([null, "yes"])),
            ("port", json!([80, "http"])),
            ("free", json!([{"a": 1}, {"a": {"b": [1, 2]}, "c": 3}])),
            ("numbers", json!([{"a": 1}, {"b": 2}, {"a": 1, "b": 3}])),
            ("tags", json!([["x"], ["y"], ["x", "y"]])),
            ("replicas", json!([0, 1, 2])),
            (
                "steps",
                json!([
                    [{"name": "a", "wait": "1"}],
                    [{"name": "a", "wait": "2"}, {"name": "b", "call": "1"}],
                    [{"name": "b", "call": "2", "order": "Before"}],
                    [],
                ]),
            ),
        ],
    );
    if random.u8(..12) != 0 {
        spec["size"] = random.u8(1..4).into();
    }
    spec
}

fn status_part(random: &mut fastrand::Rng) -> Value {
    some(
        random,
        &[
            ("state", json!(["A", "B", 5])),
            ("replicas", json!([1, 2])),
            ("selector", json!(["a=b"])),
            (
                "steps",
                json!([[], [{"id": 1}], [{"id": 2, "note": "n"}, {"id": 3}], [{"note": "none"}]]),
            ),
        ],
    )
}

fn metadata(random: &mut fastrand::Rng, whole: bool) -> Value {
    let mut metadata = some(
        random,
        &[
            (
                "labels",
                json!([{"a": "1"}, {"a": "2", "b": "1"}, {}, {"b": "not good"}]),
            ),
            ("annotations", json!([{"c": "1"}, {"d": "2"}])),
            (
                "finalizers",
                json!([["example.dev/f"], ["example.dev/f", "example.dev/g"], []]),
            ),
            ("generation", json!([9])),
        ],
    );
    if !whole && random.bool() {
        metadata["labels"] = json!({"a": null});
    }
    if !whole && random.u8(..3) == 0 {
        metadata["finalizers"] = Value::Null;
    }
    metadata
}

fn null_some(random: &mut fastrand::Rng, mut spec: Value) -> Value {
    for field in ["color", "mode", "numbers", "steps", "free", "maybe"] {
        if random.u8(..4) == 0 {
            spec[field] = Value::Null;
        }
    }
    spec
}

fn json_patch(random: &mut fastrand::Rng) -> Value {
    let operations = json!([
        {"op": "replace", "path": "/spec/size", "value": random.u8(..4)},
        {"op": "add", "path": "/spec/color", "value": "green"},
        {"op": "remove", "path": "/spec/color"},
        {"op": "test", "path": "/spec/size", "value": random.u8(1..4)},
        {"op": "add", "path": "/metadata/labels", "value": {"j": "1"}},
        {"op": "remove", "path": "/metadata/finalizers"},
        {"op": "add", "path": "/spec/tags/-", "value": "z"},
        {"op": "move", "from": "/spec/numbers", "path": "/spec/free"},
        {"op": "replace", "path": "/status", "value": {"state": "J"}},
    ]);
    let operations = operations.as_array().cloned().unwrap_or_default();
    (0..random.usize(1..3))
        .map(|_| operations[random.usize(..operations.len())].clone())
        .collect()
}

impl Side {
    async fn start(&self) -> u64 {
        version(&self.cluster.get(&self.cluster.widgets()).await.expect(200))
    }

    /// Sends a request, as it is for this side's objects, and answers what came back without what must differ.
    async fn send(&mut self, draw: &Draw) -> Value {
        let (cluster, name) = (&self.cluster, draw.name.as_str());
        let known = match draw.version {
            "current" => self.live.get(name),
            "old" => self.first.get(name),
            _ => None,
        };
        let mut body = draw.body.clone();
        let whole = ["create", "put", "put status", "apply", "apply status"].contains(&draw.verb);
        if whole {
            body["apiVersion"] = "conformance.holdfast.dev/v1".into();
            body["kind"] = "Widget".into();
            body["metadata"]["name"] = name.into();
        }
        let carries = ["put", "put status", "merge", "merge status"].contains(&draw.verb);
        if let Some(known) = known.filter(|_| carries && (whole || draw.version == "old")) {
            body["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"].clone();
            body["metadata"]["uid"] = known["metadata"]["uid"].clone();
        }
        if let Some(known) = known.filter(|_| draw.verb == "delete" && draw.version == "old") {
            body["preconditions"] =
                json!({"uid": known["metadata"]["uid"], "resourceVersion": known["metadata"]["resourceVersion"]});
        }
        let (path, parameters) = (cluster.widget(name), &draw.parameters);
        let at = |sub: &str| format!("{path}{sub}{parameters}");
        let reply = match draw.verb {
            "create" => cluster.post(&format!("{}{parameters}", cluster.widgets()), &body).await,
            "put" => cluster.put(&at(""), &body).await,
            "put status" => cluster.put(&at("/status"), &body).await,
            "merge" => cluster.merge(&at(""), &body).await,
            "merge status" => cluster.merge(&at("/status"), &body).await,
            "json patch" => cluster.json_patch(&at(""), &body).await,
            "apply" => cluster.apply_with(&at(""), &body).await,
            "apply status" => cluster.apply_with(&at("/status"), &body).await,
            "scale" => cluster.merge(&at("/scale"), &body).await,
            "delete" => cluster.delete_with(&at(""), &body).await,
            "list" => cluster.get(&format!("{}{parameters}", cluster.widgets())).await,
            _ => cluster.get(&at("")).await,
        };
        self.settle(name).await;
        self.comparable(name, &reply).await
    }

    /// Waits until the garbage collector has seen what was deleted.
    async fn settle(&self, name: &str) {
        let path = self.cluster.widget(name);
        self.cluster
            .eventually("the garbage collector's own finalizers go", async || {
                let object = self.cluster.get(&path).await.body;
                let finalizers = object["metadata"]["finalizers"].to_string();
                !finalizers.contains("\"orphan\"") && !finalizers.contains("\"foregroundDeletion\"")
            })
            .await;
    }

    /// The answer, and what the object then is and whether its version changed.
    async fn comparable(&mut self, name: &str, reply: &Reply) -> Value {
        let answer = match reply.body["kind"].as_str() {
            Some("Status") if reply.code >= 400 => refusal(&reply.body),
            Some("Status") => Value::Null,
            _ => stripped(&reply.body),
        };
        let now = self.cluster.get(&self.cluster.widget(name)).await;
        let before = self.live.get(name).map(version);
        let mut changed = before.is_some();
        if now.code == 200 {
            changed = before != Some(version(&now.body));
            self.first.entry(name.to_owned()).or_insert_with(|| now.body.clone());
            self.live.insert(name.to_owned(), now.body.clone());
        } else {
            self.live.remove(name);
        }
        json!({"code": reply.code, "answer": answer, "now": stripped(&now.body), "changed": changed})
    }

    /// What a watch tells from the start: types and objects.
    async fn events(&self, start: u64) -> Vec<Value> {
        let path = format!(
            "{}?watch=true&timeoutSeconds=2&resourceVersion={start}",
            self.cluster.widgets()
        );
        let text = self.cluster.get(&path).await.text;
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events
            .map(|event| json!({"type": event["type"], "object": stripped(&event["object"])}))
            .collect()
    }
}

/// An object or a list without what two servers can't have in common.
fn stripped(object: &Value) -> Value {
    let mut object = object.clone();
    match &mut object {
        Value::Object(fields) => {
            if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
                for field in [
                    "uid",
                    "resourceVersion",
                    "creationTimestamp",
                    "managedFields",
                    "continue",
                ] {
                    metadata.remove(field);
                }
                if metadata.contains_key("deletionTimestamp") {
                    metadata.insert("deletionTimestamp".into(), true.into());
                }
            }
            if let Some(items) = fields.get_mut("items").and_then(Value::as_array_mut) {
                items.iter_mut().for_each(|item| *item = stripped(item));
            }
            if fields.get("kind").is_some_and(|kind| kind == "Status") {
                return json!("gone");
            }
        }
        _ => return Value::Null,
    }
    object
}

/// Why a request was refused: its reason, and what is said of each field, in no particular order.
fn refusal(status: &Value) -> Value {
    let mut causes: Vec<String> = status["details"]["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(Value::to_string)
        .collect();
    causes.sort();
    causes.dedup();
    json!({"reason": status["reason"], "causes": causes})
}
