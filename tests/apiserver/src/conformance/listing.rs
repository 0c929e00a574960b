//! Reading collections.

use http::Method;
use serde_json::{Value, json};

use super::cluster::{Cluster, names, version, widget};

/// Creates widgets with a label of their own, so that a check's list has only those.
async fn widgets(cluster: &Cluster, group: &str, colors: &[&str]) -> String {
    for (number, color) in colors.iter().enumerate() {
        let mut sent = widget(&format!("{group}-{number}"), json!({"size": number, "color": color}));
        sent["metadata"]["labels"] = json!({"group": group, "number": number.to_string(), "color": color});
        cluster.post(&cluster.widgets(), &sent).await.expect(201);
    }
    format!("{}?labelSelector=group%3D{group}", cluster.widgets())
}

pub async fn labels_select(cluster: Cluster) {
    let path = widgets(&cluster, "labels", &["red", "green", "red"]).await;
    for (selector, expected) in [
        ("", vec!["labels-0", "labels-1", "labels-2"]),
        (",color%3D%3Dred", vec!["labels-0", "labels-2"]),
        (",color!%3Dred", vec!["labels-1"]),
        (",number+in+(0,1),color!%3Dgreen", vec!["labels-0"]),
        (",number+notin+(0,+1)", vec!["labels-2"]),
        (",number", vec!["labels-0", "labels-1", "labels-2"]),
        (",!number", vec![]),
    ] {
        let list = cluster.get(&format!("{path}{selector}")).await.expect(200);
        assert_eq!(names(&list), expected, "{selector}");
        assert_eq!(
            (&list["kind"], &list["apiVersion"]),
            (&json!("WidgetList"), &json!("conformance.holdfast.dev/v1"))
        );
    }
    let wrong = cluster
        .get(&format!("{}?labelSelector=%3D%3D%3D", cluster.widgets()))
        .await;
    wrong.refuses(400, "BadRequest", "expected: !, identifier, or 'end of string'");
}

pub async fn fields_select(cluster: Cluster) {
    let path = widgets(&cluster, "fields", &["red", "green", "red"]).await;
    let status = format!("{}/status", cluster.widget("fields-1"));
    cluster
        .merge(&status, &json!({"status": {"state": "Done"}}))
        .await
        .expect(200);
    for (selector, expected) in [
        ("metadata.name%3Dfields-1", vec!["fields-1"]),
        ("metadata.name!%3Dfields-1", vec!["fields-0", "fields-2"]),
        ("spec.color%3Dred", vec!["fields-0", "fields-2"]),
        ("status.state%3DDone", vec!["fields-1"]),
        ("status.state%3D", vec!["fields-0", "fields-2"]),
        ("spec.color%3Dred,metadata.name%3D%3Dfields-2", vec!["fields-2"]),
    ] {
        let list = cluster
            .get(&format!("{path}&fieldSelector={selector}"))
            .await
            .expect(200);
        assert_eq!(names(&list), expected, "{selector}");
    }
    let wrong = cluster.get(&format!("{path}&fieldSelector=spec.size%3D1")).await;
    wrong.refuses(400, "BadRequest", "field label not supported: spec.size");
}

pub async fn lists_come_in_pages(cluster: Cluster) {
    let path = widgets(&cluster, "pages", &["red"; 5]).await;
    let mut seen = Vec::new();
    let mut token = String::new();
    let mut sizes = Vec::new();
    loop {
        let page = cluster
            .get(&format!("{path}&limit=2&continue={token}"))
            .await
            .expect(200);
        sizes.push(names(&page).len());
        seen.extend(names(&page));
        token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["pages-0", "pages-1", "pages-2", "pages-3", "pages-4"]);
    assert_eq!(sizes, [2, 2, 1]);
    let cached = cluster
        .get(&format!("{path}&limit=2&resourceVersion=0"))
        .await
        .expect(200);
    assert_eq!(names(&cached).len(), 5, "a list from the cache comes whole");
    let wrong = cluster.get(&format!("{path}&limit=2&continue=bogus")).await;
    wrong.refuses(400, "BadRequest", "continue key is not valid");
}

pub async fn a_page_is_of_its_list(cluster: Cluster) {
    let path = widgets(&cluster, "stable", &["red"; 4]).await;
    let first = cluster.get(&format!("{path}&limit=2")).await.expect(200);
    cluster.delete(&cluster.widget("stable-3")).await.expect(200);
    let mut late = widget("stable-2a", json!({"size": 1}));
    late["metadata"]["labels"] = json!({"group": "stable"});
    cluster.post(&cluster.widgets(), &late).await.expect(201);
    let token = first["metadata"]["continue"].as_str().unwrap_or_default();
    let second = cluster
        .get(&format!("{path}&limit=5&continue={token}"))
        .await
        .expect(200);
    assert_eq!(names(&second), ["stable-2", "stable-3"]);
    assert_eq!(version(&second), version(&first));
}

pub async fn versions_select(cluster: Cluster) {
    let path = widgets(&cluster, "versions", &["red"]).await;
    let before = cluster.get(&path).await.expect(200);
    let object = cluster.get(&cluster.widget("versions-0")).await.expect(200);
    assert!(version(&before) >= version(&object));
    let changed = cluster
        .merge(&cluster.widget("versions-0"), &json!({"spec": {"size": 9}}))
        .await
        .expect(200);
    let after = cluster.get(&path).await.expect(200);
    assert!(version(&after) >= version(&changed) && version(&changed) > version(&before));

    let exact = format!("{path}&resourceVersion={}&resourceVersionMatch=Exact", version(&before));
    let exact = cluster.get(&exact).await.expect(200);
    assert_eq!((&exact["items"][0], version(&exact)), (&object, version(&before)));
    let newer = cluster
        .get(&format!("{path}&resourceVersion={}", version(&changed)))
        .await
        .expect(200);
    assert_eq!(newer["items"][0], changed);
    assert_eq!(
        cluster
            .get(&format!("{}?resourceVersion=0", cluster.widget("versions-0")))
            .await
            .code,
        200
    );

    let future = cluster
        .get(&format!("{path}&resourceVersion={}", version(&after) + 1_000_000))
        .await;
    future.refuses(504, "Timeout", "Too large resource version");
    assert_eq!(future.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    let wrong = cluster.get(&format!("{path}&resourceVersion=abc")).await;
    wrong.refuses(
        400,
        "BadRequest",
        "invalid resource version: resourceVersion: Invalid value: \"abc\"",
    );
}

pub async fn items_of_built_in_kinds_do_not_say_kind(cluster: Cluster) {
    cluster
        .create_config_map("item", json!({"labels": {"item": "1"}}))
        .await;
    let list = cluster
        .get(&format!("{}?labelSelector=item%3D1", cluster.path("configmaps")))
        .await
        .expect(200);
    assert_eq!(
        (&list["kind"], names(&list)),
        (&json!("ConfigMapList"), vec!["item".to_owned()])
    );
    assert_eq!(
        (&list["items"][0]["kind"], &list["items"][0]["apiVersion"]),
        (&Value::Null, &Value::Null)
    );
    widgets(&cluster, "kinds", &["red"]).await;
    let list = cluster
        .get(&format!("{}?labelSelector=group%3Dkinds", cluster.widgets()))
        .await
        .expect(200);
    assert_eq!(list["items"][0]["kind"], "Widget");
}

pub async fn metadata_can_be_listed_alone(cluster: Cluster) {
    let path = widgets(&cluster, "partial", &["red"]).await;
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = cluster
        .send_with(Method::GET, &path, &[("accept", accept)], "")
        .await
        .expect(200);
    assert_eq!(
        (&list["kind"], names(&list)),
        (&json!("PartialObjectMetadataList"), vec!["partial-0".to_owned()])
    );
    assert!(list["items"][0]["spec"].is_null());
    let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let path = cluster.widget("partial-0");
    let object = cluster
        .send_with(Method::GET, &path, &[("accept", accept)], "")
        .await
        .expect(200);
    assert_eq!(
        (&object["kind"], &object["apiVersion"]),
        (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1"))
    );
    assert!(object["spec"].is_null() && object["metadata"]["labels"]["group"] == "partial");
}
