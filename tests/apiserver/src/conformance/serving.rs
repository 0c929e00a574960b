//! What is served, and to whom.

use http::Method;
use k8s_openapi::jiff::fmt::rfc2822::DateTimeParser;
use kube::core::discovery::v2::ACCEPT_AGGREGATED_DISCOVERY_V2;
use serde_json::{Value, json};

use super::{
    STRANGER,
    cluster::{Cluster, widget},
};

fn find<'v>(list: &'v Value, field: &str, value: &str) -> &'v Value {
    let found = list
        .as_array()
        .and_then(|list| list.iter().find(|entry| entry[field] == value));
    found.unwrap_or_else(|| panic!("no {field} {value} in {list}"))
}

pub async fn resources_are_discovered(cluster: Cluster) {
    assert_eq!(cluster.get("/api").await.expect(200)["versions"], json!(["v1"]));
    let groups = cluster.get("/apis").await.expect(200);
    let group = find(&groups["groups"], "name", "conformance.holdfast.dev");
    assert_eq!(group["preferredVersion"]["groupVersion"], "conformance.holdfast.dev/v1");
    assert_eq!(
        cluster.get("/apis/conformance.holdfast.dev").await.expect(200)["versions"],
        group["versions"]
    );

    let list = cluster.get("/apis/conformance.holdfast.dev/v1").await.expect(200);
    assert_eq!(list["groupVersion"], "conformance.holdfast.dev/v1");
    let widgets = find(&list["resources"], "name", "widgets");
    assert_eq!(
        (&widgets["kind"], &widgets["namespaced"]),
        (&json!("Widget"), &json!(true))
    );
    assert_eq!(
        (&widgets["singularName"], &widgets["shortNames"]),
        (&json!("widget"), &json!(["wdg"]))
    );
    assert_eq!(widgets["categories"], json!(["conformance"]));
    for verb in [
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    ] {
        assert!(
            widgets["verbs"]
                .as_array()
                .is_some_and(|verbs| verbs.iter().any(|v| v == verb)),
            "{verb}"
        );
    }
    find(&list["resources"], "name", "widgets/status");
    assert_eq!(
        find(&list["resources"], "name", "widgets/scale")["group"],
        "autoscaling"
    );
    let core = cluster.get("/api/v1").await.expect(200);
    assert_eq!(find(&core["resources"], "name", "namespaces")["namespaced"], false);
    assert_eq!(find(&core["resources"], "name", "pods/eviction")["kind"], "Eviction");

    let accept = [("accept", ACCEPT_AGGREGATED_DISCOVERY_V2)];
    let all = cluster.send_with(Method::GET, "/apis", &accept, "").await.expect(200);
    assert_eq!(all["kind"], "APIGroupDiscoveryList");
    let items = all["items"].as_array().cloned().unwrap_or_default();
    let group = items
        .iter()
        .find(|item| item["metadata"]["name"] == "conformance.holdfast.dev")
        .expect("the group");
    let widgets = find(&group["versions"][0]["resources"], "resource", "widgets");
    assert_eq!(
        (&widgets["scope"], &widgets["responseKind"]["kind"]),
        (&json!("Namespaced"), &json!("Widget"))
    );
    find(&widgets["subresources"], "subresource", "status");
}

pub async fn unknown_paths_are_not_found(cluster: Cluster) {
    for path in [
        "/apis/no.such.group/v1/things",
        "/apis/conformance.holdfast.dev/v1/things",
        "/apis/conformance.holdfast.dev/v2",
        "/nonsense",
    ] {
        let reply = cluster.get(path).await;
        assert_eq!((reply.code, reply.text.trim()), (404, "404 page not found"), "{path}");
    }
    let words = "the server could not find the requested resource";
    cluster.get("/api/v1/things").await.refuses(404, "NotFound", words);
    cluster
        .get(&cluster.path("things/x"))
        .await
        .refuses(404, "NotFound", words);
}

pub async fn methods_are_checked(cluster: Cluster) {
    let words = "the server does not allow this method on the requested resource";
    cluster
        .post(&cluster.path("configmaps/x"), &json!({}))
        .await
        .refuses(405, "MethodNotAllowed", words);
    cluster
        .put(&cluster.path("configmaps"), &json!({}))
        .await
        .refuses(405, "MethodNotAllowed", words);
}

pub async fn the_server_is_ready(cluster: Cluster) {
    let ready = cluster.get("/readyz").await;
    assert_eq!((ready.code, ready.text.as_str()), (200, "ok"));
    let version = cluster.get("/version").await.expect(200);
    assert!(version["major"] == "1" && version["gitVersion"].as_str().is_some_and(|v| v.starts_with("v1.")));
}

pub async fn answers_carry_the_time(cluster: Cluster) {
    for path in ["/readyz".to_owned(), cluster.widgets(), cluster.widget("nobody")] {
        let reply = cluster.get(&path).await;
        let date = reply
            .headers
            .get("date")
            .and_then(|d| d.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        assert!(DateTimeParser::new().parse_timestamp(&date).is_ok(), "{path}: {date}");
    }
}

pub async fn strangers_are_forbidden(cluster: Cluster) {
    let (namespace, group) = (&cluster.namespace, "conformance.holdfast.dev");
    let stranger = [
        ("impersonate-user", STRANGER),
        ("content-type", "application/merge-patch+json"),
    ];
    let object = cluster.widget("any");
    let body = widget("any", json!({"size": 1})).to_string();
    for (method, path, words) in [
        (
            Method::GET,
            object.clone(),
            format!(
                "widgets.{group} \"any\" is forbidden: User \"{STRANGER}\" cannot get resource \"widgets\" in API group \"{group}\" in the namespace \"{namespace}\""
            ),
        ),
        (
            Method::GET,
            cluster.widgets(),
            format!(
                "widgets.{group} is forbidden: User \"{STRANGER}\" cannot list resource \"widgets\" in API group \"{group}\" in the namespace \"{namespace}\""
            ),
        ),
        (
            Method::POST,
            cluster.widgets(),
            format!(
                "widgets.{group} is forbidden: User \"{STRANGER}\" cannot create resource \"widgets\" in API group \"{group}\" in the namespace \"{namespace}\""
            ),
        ),
        (
            Method::PATCH,
            format!("{object}/status"),
            format!(
                "widgets.{group} \"any\" is forbidden: User \"{STRANGER}\" cannot patch resource \"widgets/status\" in API group \"{group}\" in the namespace \"{namespace}\""
            ),
        ),
        (
            Method::GET,
            format!("/apis/{group}/v1/widgets?watch=true"),
            format!(
                "widgets.{group} is forbidden: User \"{STRANGER}\" cannot watch resource \"widgets\" in API group \"{group}\" at the cluster scope"
            ),
        ),
        (
            Method::DELETE,
            cluster.widgets(),
            format!(
                "widgets.{group} is forbidden: User \"{STRANGER}\" cannot deletecollection resource \"widgets\" in API group \"{group}\" in the namespace \"{namespace}\""
            ),
        ),
        (
            Method::GET,
            format!("/api/v1/namespaces/{namespace}"),
            format!(
                "namespaces \"{namespace}\" is forbidden: User \"{STRANGER}\" cannot get resource \"namespaces\" in API group \"\" in the namespace \"{namespace}\""
            ),
        ),
    ] {
        let body = if method == Method::GET || method == Method::DELETE {
            ""
        } else {
            body.as_str()
        };
        let reply = cluster.send_with(method, &path, &stranger, body).await;
        reply.refuses(403, "Forbidden", &words);
    }
    let reply = cluster.send_with(Method::GET, &object, &stranger, "").await;
    assert_eq!(
        reply.body["details"],
        json!({"name": "any", "group": group, "kind": "widgets"})
    );
}
