//! Deleting objects, and what depends on them.

use serde_json::{Value, json};

use super::cluster::{Cluster, names, owned_by, version, widget};

pub async fn a_delete_says_what_is_gone(cluster: Cluster) {
    let live = cluster.create_widget("gone", json!({"size": 1})).await;
    let path = cluster.widget("gone");
    let reply = cluster.delete(&path).await.expect(200);
    assert_eq!(
        (&reply["kind"], &reply["status"]),
        (&json!("Status"), &json!("Success"))
    );
    let uid = &live["metadata"]["uid"];
    let details = json!({"name": "gone", "group": "conformance.holdfast.dev", "kind": "widgets", "uid": uid});
    assert_eq!(reply["details"], details);
    cluster.get(&path).await.refuses(404, "NotFound", "not found");
    cluster.delete(&path).await.refuses(404, "NotFound", "not found");
}

pub async fn options_in_the_body_replace_the_query(cluster: Cluster) {
    cluster.create_widget("options", json!({"size": 1})).await;
    let path = cluster.widget("options");
    cluster
        .delete_with(&path, &json!({"dryRun": ["All"]}))
        .await
        .expect(200);
    cluster.get(&path).await.expect(200);
    cluster
        .delete_with(
            &format!("{path}?dryRun=All"),
            &json!({"propagationPolicy": "Background"}),
        )
        .await
        .expect(200);
    cluster.get(&path).await.refuses(404, "NotFound", "not found");
}

pub async fn preconditions_hold(cluster: Cluster) {
    let live = cluster.create_widget("pre", json!({"size": 1})).await;
    let path = cluster.widget("pre");
    let (uid, rv) = (
        live["metadata"]["uid"].as_str().unwrap_or_default(),
        version(&live).to_string(),
    );
    let options =
        |preconditions: Value| json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions});
    cluster.delete_with(&path, &options(json!({"uid": "abc"}))).await.refuses(
        409,
        "Conflict",
        &format!("Operation cannot be fulfilled on Widget.conformance.holdfast.dev \"pre\": the UID in the precondition (abc) does not match the UID in record ({uid}). The object might have been deleted and then recreated"),
    );
    cluster.delete_with(&path, &options(json!({"uid": uid, "resourceVersion": "1"}))).await.refuses(
        409,
        "Conflict",
        &format!("the ResourceVersion in the precondition (1) does not match the ResourceVersion in record ({rv}). The object might have been modified"),
    );
    cluster
        .delete_with(&path, &options(json!({"uid": uid, "resourceVersion": rv})))
        .await
        .expect(200);
    cluster.get(&path).await.refuses(404, "NotFound", "not found");
}

pub async fn finalizers_hold_an_object(cluster: Cluster) {
    let mut sent = widget("held", json!({"size": 1}));
    sent["metadata"]["finalizers"] = json!(["example.dev/one"]);
    let live = cluster.post(&cluster.widgets(), &sent).await.expect(201);
    let path = cluster.widget("held");

    let marked = cluster.delete(&path).await.expect(200);
    assert_eq!(marked["kind"], "Widget");
    assert!(marked["metadata"]["deletionTimestamp"].is_string() && version(&marked) > version(&live));
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(marked["metadata"]["generation"], 2);
    let again = cluster.delete(&path).await.expect(200);
    assert_eq!(again, marked);
    assert_eq!(cluster.get(&path).await.expect(200), marked);

    let more = json!({"metadata": {"finalizers": ["example.dev/one", "example.dev/two"]}});
    cluster.merge(&path, &more).await.refuses(
        422,
        "Invalid",
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"example.dev/two\"}",
    );
    let edited = cluster.merge(&path, &json!({"spec": {"size": 2}})).await.expect(200);
    assert_eq!(
        (&edited["spec"]["size"], &edited["metadata"]["generation"]),
        (&json!(2), &json!(3))
    );
    let written = cluster
        .merge(&format!("{path}/status"), &json!({"status": {"state": "Ending"}}))
        .await
        .expect(200);
    assert_eq!(written["status"]["state"], "Ending");

    let last = cluster
        .merge(&path, &json!({"metadata": {"finalizers": null}}))
        .await
        .expect(200);
    assert_eq!(version(&last), version(&written));
    cluster.get(&path).await.refuses(404, "NotFound", "not found");
}

/// An owner of a kind that the garbage collector of any server knows.
async fn owner(cluster: &Cluster, name: &str) -> Value {
    cluster.create_config_map(name, json!({})).await
}

fn owned(owners: &[&Value], blocks: bool) -> Value {
    let references: Vec<Value> = owners
        .iter()
        .map(|owner| owned_by(owner, "v1", "ConfigMap", blocks))
        .collect();
    json!({"ownerReferences": references})
}

async fn is_there(cluster: &Cluster, config_map: &str) -> bool {
    cluster
        .get(&cluster.path(&format!("configmaps/{config_map}")))
        .await
        .code
        == 200
}

pub async fn dependents_follow_their_owner(cluster: Cluster) {
    let top = owner(&cluster, "follow-top").await;
    let middle = cluster.create_config_map("follow-middle", owned(&[&top], true)).await;
    cluster
        .create_config_map("follow-bottom", owned(&[&middle], true))
        .await;
    cluster.delete(&cluster.path("configmaps/follow-top")).await.expect(200);
    cluster
        .eventually("dependents go", async || {
            !is_there(&cluster, "follow-middle").await && !is_there(&cluster, "follow-bottom").await
        })
        .await;
}

pub async fn a_dependent_of_two_owners_stays(cluster: Cluster) {
    let (one, two) = (owner(&cluster, "two-one").await, owner(&cluster, "two-two").await);
    cluster.create_config_map("two-alone", owned(&[&one], false)).await;
    cluster.create_config_map("two-both", owned(&[&one, &two], false)).await;
    cluster.delete(&cluster.path("configmaps/two-one")).await.expect(200);
    cluster
        .eventually("the first's own dependent goes", async || {
            !is_there(&cluster, "two-alone").await
        })
        .await;
    let both = cluster.path("configmaps/two-both");
    cluster
        .eventually("the reference to the first goes", async || {
            let owners = cluster.get(&both).await.expect(200)["metadata"]["ownerReferences"].clone();
            owners.as_array().map(Vec::len) == Some(1)
        })
        .await;
    cluster.delete(&cluster.path("configmaps/two-two")).await.expect(200);
    cluster
        .eventually("the common dependent goes", async || {
            !is_there(&cluster, "two-both").await
        })
        .await;
}

pub async fn a_dependent_of_nobody_goes(cluster: Cluster) {
    let never = json!({"metadata": {"name": "never", "uid": "11111111-2222-3333-4444-555555555555"}});
    cluster.create_config_map("nobodys", owned(&[&never], false)).await;
    cluster
        .eventually("it goes", async || !is_there(&cluster, "nobodys").await)
        .await;
}

pub async fn foreground_deletion_waits_for_dependents(cluster: Cluster) {
    let top = owner(&cluster, "fore-top").await;
    let mut held = owned(&[&top], true);
    held["finalizers"] = json!(["example.dev/hold"]);
    cluster.create_config_map("fore-held", held).await;
    let path = cluster.path("configmaps/fore-top");
    let marked = cluster
        .delete_with(&path, &json!({"propagationPolicy": "Foreground"}))
        .await
        .expect(200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let child = cluster.path("configmaps/fore-held");
    cluster
        .eventually("the dependent is being deleted", async || {
            cluster.get(&child).await.expect(200)["metadata"]["deletionTimestamp"].is_string()
        })
        .await;
    assert!(is_there(&cluster, "fore-top").await);
    cluster
        .merge(&child, &json!({"metadata": {"finalizers": null}}))
        .await
        .expect(200);
    cluster
        .eventually("the owner goes", async || !is_there(&cluster, "fore-top").await)
        .await;
}

pub async fn orphans_stay(cluster: Cluster) {
    let top = owner(&cluster, "orphan-top").await;
    cluster.create_config_map("orphan-child", owned(&[&top], true)).await;
    let path = cluster.path("configmaps/orphan-top");
    cluster
        .delete_with(&path, &json!({"propagationPolicy": "Orphan"}))
        .await
        .expect(200);
    cluster
        .eventually("the owner goes", async || !is_there(&cluster, "orphan-top").await)
        .await;
    let child = cluster.get(&cluster.path("configmaps/orphan-child")).await.expect(200);
    assert!(child["metadata"]["ownerReferences"].is_null(), "{child}");
}

pub async fn jobs_orphan_by_default(cluster: Cluster) {
    let job = json!({"metadata": {"name": "job"}, "spec": {"suspend": true, "template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    let created = cluster.post(&cluster.path("batch/v1:jobs"), &job).await.expect(201);
    let uid = created["metadata"]["uid"].as_str().unwrap_or_default();
    let labels = &created["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["batch.kubernetes.io/job-name"], "job");
    assert_eq!(labels["batch.kubernetes.io/controller-uid"], uid);
    assert_eq!(
        created["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"],
        uid
    );
    let path = cluster.path("batch/v1:jobs/job");
    let child = json!({"ownerReferences": [owned_by(&created, "batch/v1", "Job", false)]});
    cluster.create_config_map("job-child", child).await;
    let marked = cluster.delete(&path).await.expect(200);
    assert!(
        marked["metadata"]["finalizers"].to_string().contains("orphan"),
        "{marked}"
    );
    cluster
        .eventually("the job goes", async || cluster.get(&path).await.code == 404)
        .await;
    assert!(is_there(&cluster, "job-child").await);
}

pub async fn a_terminating_namespace_takes_nothing_new(cluster: Cluster) {
    let ending = format!("{}-ending", cluster.namespace);
    let namespace = format!("/api/v1/namespaces/{ending}");
    let created = cluster
        .post("/api/v1/namespaces", &json!({"metadata": {"name": ending}}))
        .await
        .expect(201);
    assert_eq!(created["status"], json!({"phase": "Active"}));
    assert_eq!(
        created["metadata"]["labels"],
        json!({"kubernetes.io/metadata.name": ending})
    );
    let maps = format!("{namespace}/configmaps");
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.dev/hold"]}});
    cluster.post(&maps, &held).await.expect(201);
    cluster
        .post(&maps, &json!({"metadata": {"name": "free"}}))
        .await
        .expect(201);

    let marked = cluster.delete(&namespace).await.expect(200);
    assert_eq!(
        (&marked["kind"], &marked["status"]["phase"]),
        (&json!("Namespace"), &json!("Terminating"))
    );
    cluster
        .eventually("content goes", async || {
            cluster.get(&format!("{maps}/free")).await.code == 404
        })
        .await;
    let late = cluster.post(&maps, &json!({"metadata": {"name": "late"}})).await;
    let words = format!(
        "configmaps \"late\" is forbidden: unable to create new content in namespace {ending} because it is being terminated"
    );
    late.refuses(403, "Forbidden", &words);
    assert_eq!(late.body["details"]["causes"][0]["reason"], "NamespaceTerminating");

    cluster
        .merge(&format!("{maps}/held"), &json!({"metadata": {"finalizers": null}}))
        .await
        .expect(200);
    cluster
        .eventually("the namespace goes", async || cluster.get(&namespace).await.code == 404)
        .await;
}

pub async fn collections_are_deleted(cluster: Cluster) {
    for (name, label) in [("c1", "yes"), ("c2", "yes"), ("c3", "no")] {
        let mut sent = widget(name, json!({"size": 1}));
        sent["metadata"]["labels"] = json!({"collection": label});
        cluster.post(&cluster.widgets(), &sent).await.expect(201);
    }
    let path = format!("{}?labelSelector=collection%3Dyes", cluster.widgets());
    let deleted = cluster.delete(&path).await.expect(200);
    assert_eq!(
        (&deleted["kind"], names(&deleted)),
        (&json!("WidgetList"), vec!["c1".to_owned(), "c2".to_owned()])
    );
    let left = cluster
        .get(&format!("{}?labelSelector=collection", cluster.widgets()))
        .await
        .expect(200);
    assert_eq!(names(&left), ["c3"]);
}

pub async fn a_name_can_be_used_again(cluster: Cluster) {
    let first = cluster.create_widget("again", json!({"size": 1})).await;
    cluster.delete(&cluster.widget("again")).await.expect(200);
    let second = cluster.create_widget("again", json!({"size": 1})).await;
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    assert!(version(&second) > version(&first) + 1);
    let mut stale = first.clone();
    stale["spec"]["size"] = 2.into();
    cluster.put(&cluster.widget("again"), &stale).await.refuses(
        409,
        "Conflict",
        "Precondition failed: UID in precondition",
    );
}
