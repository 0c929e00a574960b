//! What tests can do to the server, and what its clients then see.

use std::time::Duration;

use holdfast_apiserver::{ApiServer, Fault, RequestInfo, Verb, tokio_clock};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

fn server() -> ApiServer {
    ApiServer::new(tokio_clock("2026-11-24T00:00:00Z".parse().unwrap()), 1)
}

fn config_maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": "1"}})).unwrap()
}

async fn create(client: &Client, name: &str) -> kube::Result<ConfigMap> {
    config_maps(client)
        .create(&PostParams::default(), &config_map(name))
        .await
}

async fn edit(client: &Client, name: &str, value: &str) -> kube::Result<ConfigMap> {
    let patch = Patch::Merge(json!({"data": {"a": value}}));
    config_maps(client).patch(name, &PatchParams::default(), &patch).await
}

/// A server on which every write meets this fault, and a client of it.
fn with_fault(fault: Fault) -> (ApiServer, Client) {
    let server = server();
    server.set_faults(move |request: &RequestInfo| if request.is_write() { fault.clone() } else { Fault::None });
    let client = server.client("operator");
    (server, client)
}

fn exists(server: &ApiServer, name: &str) -> bool {
    server.find("configmaps", "default", name).is_some()
}

#[tokio::test(start_paused = true)]
async fn a_failed_request_is_not_applied() {
    let (server, client) = with_fault(Fault::Fail {
        code: 429,
        retry_after: Some(Duration::from_secs(7)),
    });
    let kube::Error::Api(status) = create(&client, "a").await.unwrap_err() else {
        panic!("no status")
    };
    assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
    assert_eq!(status.details.unwrap().retry_after_seconds, 7);
    assert!(!exists(&server, "a"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_applies_nothing() {
    let (server, client) = with_fault(Fault::RefuseConnection);
    let error = create(&client, "a").await.unwrap_err();
    assert!(
        matches!(&error, kube::Error::Service(e) if e.to_string().contains("connection refused")),
        "{error}"
    );
    assert!(!exists(&server, "a"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_applied() {
    let (server, client) = with_fault(Fault::LoseAnswer);
    let error = create(&client, "a").await.unwrap_err();
    assert!(
        matches!(&error, kube::Error::Service(e) if e.to_string().contains("connection reset")),
        "{error}"
    );
    assert!(exists(&server, "a"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_afterwards_is_applied() {
    let (server, client) = with_fault(Fault::FailAfterwards { code: 504 });
    let kube::Error::Api(status) = create(&client, "a").await.unwrap_err() else {
        panic!("no status")
    };
    assert_eq!(status.code, 504);
    assert!(exists(&server, "a"));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_write_lands_and_is_answered_with_its_own_conflict() {
    let (server, client) = with_fault(Fault::Repeat);
    assert!(matches!(create(&client, "a").await, Err(kube::Error::Api(s)) if s.is_already_exists()));
    let mut live = config_maps(&client).get("a").await.unwrap();
    live.data = Some([("a".to_owned(), "2".to_owned())].into());
    let replaced = config_maps(&client).replace("a", &PostParams::default(), &live).await;
    assert!(matches!(replaced, Err(kube::Error::Api(s)) if s.is_conflict()));
    assert_eq!(server.find("configmaps", "default", "a").unwrap()["data"]["a"], "2");
    let deleted = config_maps(&client).delete("a", &DeleteParams::default()).await;
    assert!(matches!(deleted, Err(kube::Error::Api(s)) if s.is_not_found()));
}

#[tokio::test(start_paused = true)]
async fn delays_take_their_time_and_a_hanging_request_never_ends() {
    let (server, client) = with_fault(Fault::DelayAnswer(Duration::from_secs(5)));
    let start = Instant::now();
    create(&client, "a").await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    server.set_faults(|_| Fault::Delay(Duration::from_secs(3)));
    let created = create(&client, "b").await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(8));
    // It is created when it arrives.
    assert_eq!(
        created.creation_timestamp().unwrap().0,
        "2026-11-24T00:00:08Z".parse().unwrap()
    );
    server.set_faults(|_| Fault::Hang);
    assert!(timeout(Duration::from_secs(3600), create(&client, "c")).await.is_err());
    assert!(!exists(&server, "c"));
}

#[tokio::test(start_paused = true)]
async fn stale_reads_see_the_past_and_their_watches_replay_what_follows() {
    let server = server();
    let client = server.client("operator");
    create(&client, "a").await.unwrap();
    let then = server.revision();
    edit(&client, "a", "2").await.unwrap();
    create(&client, "b").await.unwrap();
    server.set_stale_reads(Some(then));

    let stale = ListParams::default().match_any();
    let list = config_maps(&client).list(&stale).await.unwrap();
    assert_eq!(
        (list.items.len(), list.metadata.resource_version.as_deref()),
        (1, Some(then.to_string().as_str()))
    );
    assert_eq!(list.items[0].data.as_ref().unwrap()["a"], "1");
    assert_eq!(
        config_maps(&client)
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        2
    );
    assert_eq!(config_maps(&client).get("a").await.unwrap().data.unwrap()["a"], "2");

    let params = WatchParams::default().timeout(1);
    let events = config_maps(&client).watch(&params, &then.to_string()).await.unwrap();
    let events: Vec<_> = futures::TryStreamExt::try_collect(events).await.unwrap();
    assert_eq!(format!("{events:?}"), "[Modified event, Added event]");
}

#[tokio::test(start_paused = true)]
async fn compaction_expires_watches_and_pages() {
    let server = server();
    let client = server.client("operator");
    for name in ["a", "b", "c"] {
        create(&client, name).await.unwrap();
    }
    let page = config_maps(&client)
        .list(&ListParams::default().limit(2))
        .await
        .unwrap();
    edit(&client, "a", "2").await.unwrap();
    server.compact();
    let next = ListParams::default()
        .limit(2)
        .continue_token(&page.metadata.continue_.unwrap());
    let kube::Error::Api(status) = config_maps(&client).list(&next).await.unwrap_err() else {
        panic!("no status")
    };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    let events = config_maps(&client).watch(&WatchParams::default(), "1").await.unwrap();
    let events: Vec<_> = futures::TryStreamExt::try_collect(events).await.unwrap();
    assert!(
        matches!(&events[..], [kube::api::WatchEvent::Error(status)] if status.code == 410),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_keeps_up_is_not_expired_by_compaction() {
    let server = server();
    let client = server.client("operator");
    let start = server.revision().to_string();
    let events = config_maps(&client)
        .watch(&WatchParams::default().timeout(5), &start)
        .await
        .unwrap();
    let events = tokio::spawn(futures::TryStreamExt::try_collect::<Vec<_>>(events));
    create(&client, "a").await.unwrap();
    server.compact();
    assert_eq!(format!("{:?}", events.await.unwrap().unwrap()), "[Added event]");
}

#[tokio::test(start_paused = true)]
async fn the_log_of_writes_says_who_changed_what() {
    let server = server();
    let (operator, user) = (server.client("operator"), server.client("user"));
    create(&user, "a").await.unwrap();
    edit(&operator, "a", "2").await.unwrap();
    edit(&operator, "a", "2").await.unwrap();
    config_maps(&user).delete("a", &DeleteParams::default()).await.unwrap();

    let writes = server.writes();
    let shown: Vec<_> = writes
        .iter()
        .filter(|write| write.change.key.resource == "configmaps")
        .map(|write| {
            let value = |object: Option<&Value>| object.map(|o| o["data"]["a"].clone()).unwrap_or_default();
            let after = write.change.after.as_ref().map(|after| &*after.object);
            (
                write.user.as_str(),
                write.verb,
                value(write.change.before.as_deref()),
                value(after),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("user", Verb::Create, Value::Null, json!("1")),
            ("operator", Verb::Patch, json!("1"), json!("2")),
            ("user", Verb::Delete, json!("2"), Value::Null),
        ]
    );
    assert_eq!(server.request_counts()[&(Verb::Patch, "configmaps".to_owned())], 2);
    assert!(
        server
            .requests()
            .iter()
            .enumerate()
            .all(|(at, request)| request.number == at as u64 + 1)
    );
}

#[tokio::test(start_paused = true)]
async fn impersonation_needs_leave_and_acts_as_the_other() {
    let server = server();
    server.put(&ServiceAccount {
        metadata: config_map("releaser").metadata.clone(),
        ..Default::default()
    });
    server.set_authorizer(|request| match (request.user.as_str(), request.verb) {
        ("operator", Verb::Impersonate) => request.resource == "serviceaccounts" && request.name == "releaser",
        ("system:serviceaccount:default:releaser", Verb::Get) => request.resource == "configmaps",
        ("operator", _) => true,
        _ => false,
    });
    let operator = server.client("operator");
    create(&operator, "a").await.unwrap();
    let get = async |user: &str| -> (u16, Value) {
        let request = http::Request::get("/api/v1/namespaces/default/configmaps/a").header("impersonate-user", user);
        let response = operator
            .send(request.body(kube::client::Body::empty()).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        (
            parts.status.as_u16(),
            serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap(),
        )
    };

    assert_eq!(get("system:serviceaccount:default:releaser").await.0, 200);
    let (code, status) = get("system:serviceaccount:default:other").await;
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "serviceaccounts \"other\" is forbidden: User \"operator\" cannot impersonate resource \"serviceaccounts\" in API group \"\" in the namespace \"default\""
    );
    let last = server.requests().pop().unwrap();
    assert_eq!(
        (last.client.as_str(), last.user.as_str()),
        ("operator", "system:serviceaccount:default:other")
    );
}

#[tokio::test(start_paused = true)]
async fn pods_log_what_the_test_says() {
    let server = server();
    server.put(
        &serde_json::from_value::<Pod>(json!({
        "metadata": {"namespace": "prod", "name": "p"},
        "spec": {"containers": [{"name": "main", "image": "i"}]},
        "status": {"phase": "Failed"}}))
        .unwrap(),
    );
    server.set_pod_log("prod", "p", "main", "one\ntwo\nthree\n");
    let pods: Api<Pod> = Api::namespaced(server.client("operator"), "prod");
    assert_eq!(
        pods.logs("p", &LogParams::default()).await.unwrap(),
        "one\ntwo\nthree\n"
    );
    let last = LogParams {
        tail_lines: Some(2),
        container: Some("main".into()),
        ..Default::default()
    };
    assert_eq!(pods.logs("p", &last).await.unwrap(), "two\nthree\n");
    assert_eq!(
        server.get::<Pod>("prod", "p").unwrap().status.unwrap().phase.as_deref(),
        Some("Failed")
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_is_its_service_accounts() {
    let server = server();
    let accounts: Api<ServiceAccount> = Api::namespaced(server.client("operator"), "default");
    let request = serde_json::from_value(json!({"spec": {"audiences": ["x"]}})).unwrap();
    let answer = accounts
        .create_token_request("default", &PostParams::default(), &request)
        .await
        .unwrap();
    let token = answer.status.unwrap();
    assert_eq!(
        token.expiration_timestamp.unwrap().0,
        "2026-11-24T01:00:00Z".parse().unwrap()
    );
    let request =
        http::Request::get("/api/v1/namespaces").header("authorization", format!("Bearer {}", token.token.unwrap()));
    let response = server
        .client("nobody")
        .send(request.body(kube::client::Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        server.requests().pop().unwrap().user,
        "system:serviceaccount:default:default"
    );
}

#[tokio::test(start_paused = true)]
async fn discovery_finds_every_resource() {
    let server = server();
    server.register_crd(include_str!("../src/conformance/widget.yaml"));
    let client = server.client("operator");
    for discovery in [
        kube::Discovery::new(client.clone()).run().await.unwrap(),
        kube::Discovery::new(client.clone()).run_aggregated().await.unwrap(),
    ] {
        let kind = kube::core::GroupVersionKind::gvk("conformance.holdfast.dev", "v1", "Widget");
        let (resource, capabilities) = discovery.resolve_gvk(&kind).unwrap();
        assert_eq!(resource.plural, "widgets");
        assert!(capabilities.supports_operation(kube::discovery::verbs::WATCH));
        let kind = kube::core::GroupVersionKind::gvk("", "v1", "Namespace");
        assert_eq!(
            discovery.resolve_gvk(&kind).unwrap().1.scope,
            kube::discovery::Scope::Cluster
        );
    }
}
