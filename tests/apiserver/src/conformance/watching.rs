//! Watching collections.

use serde_json::json;

use super::cluster::{Cluster, version, widget};

pub async fn changes_come_in_order(cluster: Cluster) {
    let start = version(&cluster.get(&cluster.widgets()).await.expect(200));
    let mut watch = cluster
        .watch(&cluster.widgets(), &format!("resourceVersion={start}"))
        .await;
    let created = cluster.create_widget("order-a", json!({"size": 1})).await;
    assert_eq!(watch.next().await, ("ADDED".into(), created));
    let changed = cluster
        .merge(&cluster.widget("order-a"), &json!({"spec": {"size": 2}}))
        .await
        .expect(200);
    let other = cluster.create_widget("order-b", json!({"size": 1})).await;
    let status = format!("{}/status", cluster.widget("order-a"));
    let written = cluster
        .merge(&status, &json!({"status": {"state": "X"}}))
        .await
        .expect(200);
    cluster.delete(&cluster.widget("order-b")).await.expect(200);
    assert_eq!(watch.next().await, ("MODIFIED".into(), changed));
    assert_eq!(watch.next().await, ("ADDED".into(), other.clone()));
    assert_eq!(watch.next().await, ("MODIFIED".into(), written.clone()));
    let (kind, last) = watch.next().await;
    assert_eq!(
        (kind.as_str(), &last["spec"], &last["metadata"]["uid"]),
        ("DELETED", &other["spec"], &other["metadata"]["uid"])
    );
    assert!(
        version(&last) > version(&written),
        "the deletion has a version of its own"
    );
}

pub async fn a_watch_starts_from_a_version(cluster: Cluster) {
    let first = cluster.create_widget("from", json!({"size": 1})).await;
    let path = cluster.widget("from");
    let second = cluster.merge(&path, &json!({"spec": {"size": 2}})).await.expect(200);
    let third = cluster.merge(&path, &json!({"spec": {"size": 3}})).await.expect(200);
    let from = |version: u64| format!("resourceVersion={version}&fieldSelector=metadata.name%3Dfrom");
    let mut watch = cluster.watch(&cluster.widgets(), &from(version(&first))).await;
    assert_eq!(watch.next().await, ("MODIFIED".into(), second.clone()));
    assert_eq!(watch.next().await, ("MODIFIED".into(), third.clone()));
    let mut watch = cluster.watch(&cluster.widgets(), &from(version(&second))).await;
    assert_eq!(watch.next().await, ("MODIFIED".into(), third));
}

pub async fn a_watch_can_start_with_a_list(cluster: Cluster) {
    let created = cluster.create_widget("initial", json!({"size": 1})).await;
    let select = "fieldSelector=metadata.name%3Dinitial";
    for parameters in [select.to_owned(), format!("{select}&resourceVersion=0")] {
        let mut watch = cluster.watch(&cluster.widgets(), &parameters).await;
        assert_eq!(watch.next().await, ("ADDED".into(), created.clone()));
    }
}

pub async fn a_streaming_list_ends_with_a_bookmark(cluster: Cluster) {
    let created = cluster.create_widget("streamed", json!({"size": 1})).await;
    let parameters = "fieldSelector=metadata.name%3Dstreamed&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = cluster.watch(&cluster.widgets(), parameters).await;
    assert_eq!(watch.next().await, ("ADDED".into(), created.clone()));
    let (kind, bookmark) = watch.next().await;
    assert_eq!((kind.as_str(), &bookmark["kind"]), ("BOOKMARK", &json!("Widget")));
    assert_eq!(
        bookmark["metadata"]["annotations"],
        json!({"k8s.io/initial-events-end": "true"})
    );
    assert!(version(&bookmark) >= version(&created));
    let changed = cluster
        .merge(&cluster.widget("streamed"), &json!({"spec": {"size": 2}}))
        .await
        .expect(200);
    assert_eq!(watch.next().await, ("MODIFIED".into(), changed));

    let path = format!(
        "{}?watch=true&timeoutSeconds=1&sendInitialEvents=true",
        cluster.widgets()
    );
    cluster.get(&path).await.refuses(
        422,
        "Invalid",
        "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
    );
}

pub async fn selectors_turn_changes_into_additions_and_deletions(cluster: Cluster) {
    let start = version(&cluster.get(&cluster.widgets()).await.expect(200));
    let parameters = format!("resourceVersion={start}&labelSelector=watched%3Dyes");
    let mut watch = cluster.watch(&cluster.widgets(), &parameters).await;
    let states = format!("resourceVersion={start}&fieldSelector=status.state%3DWatched");
    let mut by_state = cluster.watch(&cluster.widgets(), &states).await;
    cluster.create_widget("selected", json!({"size": 1})).await;
    let path = cluster.widget("selected");
    let label = |value: &str| json!({"metadata": {"labels": {"watched": value}}});
    let matching = cluster.merge(&path, &label("yes")).await.expect(200);
    let edited = cluster.merge(&path, &json!({"spec": {"size": 2}})).await.expect(200);
    let left = cluster.merge(&path, &label("no")).await.expect(200);
    assert_eq!(watch.next().await, ("ADDED".into(), matching));
    assert_eq!(watch.next().await, ("MODIFIED".into(), edited.clone()));
    let (kind, last) = watch.next().await;
    // The last state that matched, at the version of the change that made it not match.
    assert_eq!((kind.as_str(), version(&last)), ("DELETED", version(&left)));
    assert_eq!(last["metadata"]["labels"], edited["metadata"]["labels"]);

    for state in ["Watched", "Other"] {
        cluster
            .merge(&format!("{path}/status"), &json!({"status": {"state": state}}))
            .await
            .expect(200);
    }
    assert_eq!(by_state.next_name().await, "ADDED selected");
    assert_eq!(by_state.next_name().await, "DELETED selected");
}

pub async fn a_watch_ends_in_time(cluster: Cluster) {
    let now = version(&cluster.get(&cluster.widgets()).await.expect(200));
    let parameters = format!("resourceVersion={now}&fieldSelector=metadata.name%3Dnobody");
    let path = format!("{}?watch=true&timeoutSeconds=1&{parameters}", cluster.widgets());
    let reply = cluster.get(&path).await;
    assert_eq!((reply.code, reply.text.as_str()), (200, ""));
}

pub async fn an_old_version_is_gone(cluster: Cluster) {
    let path = format!("{}?watch=true&timeoutSeconds=5&resourceVersion=1", cluster.widgets());
    let reply = cluster.get(&path).await;
    assert_eq!(
        (reply.code, &reply.body["type"]),
        (200, &json!("ERROR")),
        "{}",
        reply.text
    );
    let status = &reply.body["object"];
    assert_eq!(
        (&status["code"], &status["reason"], &status["kind"]),
        (&json!(410), &json!("Expired"), &json!("Status"))
    );
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("too old resource version: 1 ("), "{message}");
}

pub async fn writes_that_change_nothing_are_not_seen(cluster: Cluster) {
    let live = cluster.create_widget("silent", json!({"size": 1})).await;
    let path = cluster.widget("silent");
    let parameters = format!(
        "resourceVersion={}&fieldSelector=metadata.name%3Dsilent",
        version(&live)
    );
    let mut watch = cluster.watch(&cluster.widgets(), &parameters).await;
    cluster.put(&path, &live).await.expect(200);
    cluster.merge(&path, &json!({"spec": {"size": 1}})).await.expect(200);
    cluster
        .merge(&format!("{path}?dryRun=All"), &json!({"spec": {"size": 5}}))
        .await
        .expect(200);
    assert_eq!(
        cluster.put(&path, &widget("silent", json!({"size": 2}))).await.code,
        422
    );
    let changed = cluster.merge(&path, &json!({"spec": {"size": 3}})).await.expect(200);
    assert_eq!(watch.next().await, ("MODIFIED".into(), changed));
}

pub async fn all_namespaces_can_be_watched(cluster: Cluster) {
    let all = "/apis/conformance.holdfast.dev/v1/widgets";
    let start = version(&cluster.get(all).await.expect(200));
    // Other checks run beside this one.
    let parameters = format!("resourceVersion={start}&fieldSelector=metadata.name%3Deverywhere");
    let mut watch = cluster.watch(all, &parameters).await;
    let created = cluster.create_widget("everywhere", json!({"size": 1})).await;
    assert_eq!(watch.next().await, ("ADDED".into(), created.clone()));
    let listed = cluster
        .get(&format!("{all}?fieldSelector=metadata.name%3Deverywhere"))
        .await
        .expect(200);
    assert!(listed["items"].as_array().is_some_and(|items| items.contains(&created)));
}
