//! How checks talk to the server.

use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt, stream::BoxStream};
use http::{HeaderMap, Method, Request};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The server under test, and the namespace that the checks have to themselves.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    pub namespace: String,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    asked: String,
    pub code: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Cluster {
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
        }
    }

    pub async fn prepare(&self) {
        let crd: Value = serde_yaml::from_str(include_str!("widget.yaml")).expect("the file is YAML");
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.conformance.holdfast.dev";
        let reply = self.force_apply(path, "conformance", &crd).await;
        assert!([200, 201].contains(&reply.code), "{reply:?}");
        let reply = self
            .post("/api/v1/namespaces", &json!({"metadata": {"name": self.namespace}}))
            .await;
        assert!([201, 409].contains(&reply.code), "{reply:?}");
        self.eventually("widgets are served, and pods can be created", async || {
            let account = self.get(&self.path("serviceaccounts/default")).await.code;
            let widgets = self.get(&self.widgets()).await.code;
            (account == 200 || account == 404) && widgets == 200
        })
        .await;
        // The real server's controllers make it in their own time.
        let account = json!({"metadata": {"name": "default"}});
        let reply = self.post(&self.path("serviceaccounts"), &account).await;
        assert!([201, 409].contains(&reply.code), "{reply:?}");
    }

    /// The path of something in the namespace: `pods/a`, `leases.coordination.k8s.io/v1`... as `group/version:rest`.
    pub fn path(&self, rest: &str) -> String {
        match rest.split_once(':') {
            Some((group_version, rest)) => format!("/apis/{group_version}/namespaces/{}/{rest}", self.namespace),
            None => format!("/api/v1/namespaces/{}/{rest}", self.namespace),
        }
    }

    pub fn widgets(&self) -> String {
        self.path("conformance.holdfast.dev/v1:widgets")
    }

    pub fn widget(&self, name: &str) -> String {
        format!("{}/{name}", self.widgets())
    }

    /// Creates a widget with this spec, and returns it.
    pub async fn create_widget(&self, name: &str, spec: Value) -> Value {
        self.post(&self.widgets(), &widget(name, spec)).await.expect(201)
    }

    /// Creates a config map with these labels, and returns it.
    pub async fn create_config_map(&self, name: &str, metadata: Value) -> Value {
        let mut object = json!({"metadata": metadata, "data": {"a": "1"}});
        object["metadata"]["name"] = name.into();
        self.post(&self.path("configmaps"), &object).await.expect(201)
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, "", "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, "application/json", &body.to_string())
            .await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PUT, path, "application/json", &body.to_string())
            .await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PATCH, path, "application/merge-patch+json", &body.to_string())
            .await
    }

    pub async fn json_patch(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PATCH, path, "application/json-patch+json", &body.to_string())
            .await
    }

    /// Server-side apply, as `manager`.
    pub async fn apply(&self, path: &str, manager: &str, body: &Value) -> Reply {
        let path = format!("{path}?fieldManager={manager}");
        self.send(Method::PATCH, &path, "application/apply-patch+yaml", &body.to_string())
            .await
    }

    /// Server-side apply, with the parameters in the path.
    pub async fn apply_with(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PATCH, path, "application/apply-patch+yaml", &body.to_string())
            .await
    }

    pub async fn force_apply(&self, path: &str, manager: &str, body: &Value) -> Reply {
        let path = format!("{path}?fieldManager={manager}&force=true");
        self.send(Method::PATCH, &path, "application/apply-patch+yaml", &body.to_string())
            .await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, "", "").await
    }

    pub async fn delete_with(&self, path: &str, options: &Value) -> Reply {
        self.send(Method::DELETE, path, "application/json", &options.to_string())
            .await
    }

    pub async fn send(&self, method: Method, path: &str, content_type: &str, body: &str) -> Reply {
        self.send_with(method, path, &[("content-type", content_type)], body)
            .await
    }

    pub async fn send_with(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let asked = format!("{method} {path} {body}");
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.as_bytes().to_vec())).expect("a request");
        let exchange = async {
            let response = self
                .client
                .send(request)
                .await
                .unwrap_or_else(|e| panic!("{asked}: {e}"));
            let (parts, body) = response.into_parts();
            (
                parts,
                body.collect_bytes().await.unwrap_or_else(|e| panic!("{asked}: {e}")),
            )
        };
        let (parts, bytes): (_, Bytes) = timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| panic!("{asked}: no answer"));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Reply {
            asked,
            code: parts.status.as_u16(),
            headers: parts.headers,
            text,
            body,
        }
    }

    /// Opens a watch of a collection, with these parameters besides.
    pub async fn watch(&self, path: &str, parameters: &str) -> Watch {
        let uri = format!("{path}?watch=true&timeoutSeconds=60&{parameters}");
        let request = Request::get(&uri)
            .header("accept-encoding", "identity")
            .body(Vec::new())
            .expect("a request");
        let lines = self
            .client
            .request_stream(request)
            .await
            .unwrap_or_else(|e| panic!("watch {uri}: {e}"));
        Watch {
            lines: lines.lines().map_err(|e| e.to_string()).boxed(),
        }
    }

    /// Waits until a condition holds.
    pub async fn eventually(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let wait = async {
            while !condition().await {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"));
    }
}

impl Reply {
    /// The body of a successful answer.
    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}: {}", self.asked, self.text);
        self.body
    }

    /// Checks a Status that refuses: its code, reason and words.
    #[track_caller]
    pub fn refuses(&self, code: u16, reason: &str, words: &str) {
        assert_eq!(self.code, code, "{}: {}", self.asked, self.text);
        assert_eq!(self.body["kind"], "Status", "{}: {}", self.asked, self.text);
        assert_eq!(self.body["status"], "Failure", "{}: {}", self.asked, self.text);
        assert_eq!(self.body["code"], code, "{}: {}", self.asked, self.text);
        assert_eq!(
            self.body["reason"].as_str().unwrap_or_default(),
            reason,
            "{}: {}",
            self.asked,
            self.text
        );
        let message = self.body["message"].as_str().unwrap_or_default();
        assert!(
            message.contains(words),
            "{}: expected \"{words}\" in: {message}",
            self.asked
        );
    }

    /// The fields that an invalid object's Status names, sorted.
    pub fn fields(&self) -> Vec<String> {
        let causes = self.body.pointer("/details/causes").and_then(Value::as_array);
        let mut fields: Vec<String> = causes
            .into_iter()
            .flatten()
            .filter_map(|c| c["field"].as_str().map(str::to_owned))
            .collect();
        fields.sort();
        fields.dedup();
        fields
    }
}

/// The events of a watch.
pub struct Watch {
    lines: BoxStream<'static, Result<String, String>>,
}

impl Watch {
    /// The next event that is no ordinary bookmark.
    pub async fn next(&mut self) -> (String, Value) {
        loop {
            let line = timeout(PATIENCE, self.lines.next())
                .await
                .expect("an event in time")
                .expect("no end of the watch");
            let event: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
            let kind = event["type"].as_str().unwrap_or_default().to_owned();
            if kind != "BOOKMARK" || event["object"]["metadata"]["annotations"].is_object() {
                return (kind, event["object"].clone());
            }
        }
    }

    /// The next event, in short: its type, and the object's name.
    pub async fn next_name(&mut self) -> String {
        let (kind, object) = self.next().await;
        format!("{kind} {}", object["metadata"]["name"].as_str().unwrap_or_default())
    }
}

/// A widget, to create.
pub fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "conformance.holdfast.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

/// A widget's minimal body for `/status`: identity, version and status, no more.
pub fn status_of(live: &Value, status: Value) -> Value {
    json!({
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": {
            "name": live["metadata"]["name"],
            "namespace": live["metadata"]["namespace"],
            "uid": live["metadata"]["uid"],
            "resourceVersion": live["metadata"]["resourceVersion"],
        },
        "status": status,
    })
}

/// An object's resourceVersion.
pub fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|v| v.parse().ok())
        .expect("a resourceVersion")
}

/// A reference to an owner.
pub fn owned_by(owner: &Value, api_version: &str, kind: &str, blocks: bool) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": blocks,
    })
}

/// The names in a list.
pub fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("items");
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}
