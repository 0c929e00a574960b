//! kube's own runtime on the server, under paused time: reflectors and controllers lose nothing, whatever happens to
//! their watches.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use holdfast_apiserver::{ApiServer, Fault, Verb, seed_jitter, tokio_clock};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::{Controller, WatchStreamExt, controller::Action, reflector, watcher},
};
use serde_json::json;

fn server() -> ApiServer {
    seed_jitter(1);
    let start = "2026-11-24T00:00:00Z".parse().unwrap();
    ApiServer::new(tokio_clock(start), 1)
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"value": value}})).unwrap()
}

async fn set(client: &Client, name: &str, value: usize) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let patch = Patch::Merge(json!({"data": {"value": value.to_string()}}));
    api.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// What a reflector's store holds: names and values.
fn values(store: &reflector::Store<ConfigMap>) -> BTreeMap<String, String> {
    let value = |c: &ConfigMap| {
        c.data
            .iter()
            .flatten()
            .map(|(_, v)| v.clone())
            .next()
            .unwrap_or_default()
    };
    store.state().iter().map(|c| (c.name_any(), value(c))).collect()
}

fn actual(server: &ApiServer) -> BTreeMap<String, String> {
    let value = |c: &ConfigMap| {
        c.data
            .iter()
            .flatten()
            .map(|(_, v)| v.clone())
            .next()
            .unwrap_or_default()
    };
    server
        .list::<ConfigMap>()
        .iter()
        .map(|c| (c.name_any(), value(c)))
        .collect()
}

/// Makes 30 changes, doing something to the server between them; then a reflector must have seen the last state.
async fn reflects_through(config: watcher::Config, disturb: impl Fn(&ApiServer, usize)) {
    let server = server();
    let client = server.client("writer");
    let (store, writer) = reflector::store();
    let api: Api<ConfigMap> = Api::namespaced(server.client("reader"), "default");
    let stream = reflector::reflector(writer, watcher(api.clone(), config).default_backoff());
    let reflecting = tokio::spawn(stream.for_each(|_| async {}));
    store.wait_until_ready().await.unwrap();

    for n in 0..10 {
        let created = config_map(&format!("c{n}"), "0");
        Api::namespaced(client.clone(), "default")
            .create(&PostParams::default(), &created)
            .await
            .unwrap();
    }
    for n in 0..30 {
        disturb(&server, n);
        set(&client, &format!("c{}", n % 10), n).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Api::<ConfigMap>::namespaced(client, "default")
        .delete("c3", &Default::default())
        .await
        .unwrap();
    server.release_watches();
    tokio::time::sleep(Duration::from_secs(120)).await;

    assert_eq!(values(&store), actual(&server));
    assert_eq!(values(&store).len(), 9);
    reflecting.abort();
}

#[tokio::test(start_paused = true)]
async fn a_reflector_follows() {
    reflects_through(watcher::Config::default(), |_, _| {}).await;
    reflects_through(watcher::Config::default().streaming_lists(), |_, _| {}).await;
}

#[tokio::test(start_paused = true)]
async fn a_reflector_survives_dropped_watches() {
    reflects_through(watcher::Config::default(), |server, _| server.drop_watches(|_| true)).await;
}

#[tokio::test(start_paused = true)]
async fn a_reflector_survives_expired_watches() {
    let disturb = |server: &ApiServer, n: usize| match n % 3 {
        0 => server.hold_watches(),
        1 => {
            server.compact();
            server.drop_watches(|_| true);
        }
        _ => server.release_watches(),
    };
    reflects_through(watcher::Config::default(), disturb).await;
    reflects_through(watcher::Config::default().streaming_lists(), disturb).await;
}

#[tokio::test(start_paused = true)]
async fn a_reflector_survives_failing_and_hanging_requests() {
    let disturb = |server: &ApiServer, _: usize| {
        server.set_faults(|request| match (request.user.as_str(), request.number % 4) {
            ("reader", 0) => Fault::RefuseConnection,
            ("reader", 1) => Fault::Fail {
                code: 503,
                retry_after: Some(Duration::from_secs(1)),
            },
            ("reader", 2) => Fault::Delay(Duration::from_secs(2)),
            _ => Fault::None,
        });
        server.drop_watches(|_| true);
    };
    reflects_through(watcher::Config::default(), disturb).await;
}

#[tokio::test(start_paused = true)]
async fn a_held_watch_is_stale_and_then_catches_up() {
    let server = server();
    let client = server.client("writer");
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let (store, writer) = reflector::store();
    let reflecting =
        tokio::spawn(reflector::reflector(writer, watcher(api.clone(), Default::default())).for_each(|_| async {}));
    store.wait_until_ready().await.unwrap();

    server.hold_watches();
    api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(values(&store), BTreeMap::new());

    server.release_watches();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(values(&store), BTreeMap::from([("a".into(), "1".into())]));
    reflecting.abort();
}

#[tokio::test(start_paused = true)]
async fn a_reflector_notices_that_the_server_went_back_in_time() {
    let server = server();
    let api: Api<ConfigMap> = Api::namespaced(server.client("writer"), "default");
    api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let snapshot = server.revision();
    set(&server.client("writer"), "a", 2).await;
    api.create(&PostParams::default(), &config_map("b", "1")).await.unwrap();

    server.rewind(snapshot);

    assert_eq!(actual(&server), BTreeMap::from([("a".into(), "1".into())]));
    let live = api.get("a").await.unwrap();
    assert_eq!(live.resource_version(), Some(snapshot.to_string()));
    let stale = ConfigMap {
        metadata: live.metadata.clone(),
        ..config_map("a", "3")
    };
    assert_eq!(
        api.replace("a", &PostParams::default(), &stale)
            .await
            .unwrap()
            .resource_version(),
        Some((snapshot + 1).to_string())
    );
    assert!(api.create(&PostParams::default(), &config_map("b", "1")).await.is_ok());
}

/// A controller that copies `value` to `seen` gets there for every object, through every disturbance. What it was called
/// with, in order.
async fn converges(objects: usize, disturb: impl Fn(&ApiServer, usize)) -> Vec<String> {
    let server = server();
    let client = server.client("controller");
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let log = Arc::new(Mutex::new(Vec::new()));
    let reconcile = {
        let (api, log) = (api.clone(), log.clone());
        move |object: Arc<ConfigMap>, _: Arc<()>| {
            let (api, log) = (api.clone(), log.clone());
            async move {
                let data = object.data.clone().unwrap_or_default();
                log.lock().unwrap().push(format!("{} {:?}", object.name_any(), data));
                if data.get("seen") != data.get("value") {
                    let patch = Patch::Merge(json!({
                        "metadata": {"resourceVersion": object.resource_version()},
                        "data": {"seen": data.get("value")}}));
                    api.patch(&object.name_any(), &PatchParams::default(), &patch).await?;
                }
                Ok::<_, kube::Error>(Action::await_change())
            }
        }
    };
    let controller = Controller::new(api.clone(), watcher::Config::default()).run(
        reconcile,
        |_, _, _| Action::requeue(Duration::from_secs(1)),
        Arc::new(()),
    );
    let running = tokio::spawn(controller.for_each(|_| async {}));

    let user = server.client("user");
    for n in 0..objects {
        let created = config_map(&format!("c{n}"), "0");
        Api::namespaced(user.clone(), "default")
            .create(&PostParams::default(), &created)
            .await
            .unwrap();
    }
    for n in 0..25 {
        disturb(&server, n);
        set(&user, &format!("c{}", n % objects), n).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    server.clear_faults();
    server.release_watches();
    tokio::time::sleep(Duration::from_secs(300)).await;
    running.abort();

    for object in server.list::<ConfigMap>() {
        let data = object.data.clone().unwrap_or_default();
        assert_eq!(data.get("seen"), data.get("value"), "{}", object.name_any());
    }
    let log = log.lock().unwrap();
    log.clone()
}

#[tokio::test(start_paused = true)]
async fn a_controller_converges() {
    converges(5, |_, _| {}).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_converges_through_lost_answers_conflicts_and_broken_watches() {
    let disturb = |server: &ApiServer, n: usize| {
        server.set_faults(|request| match request.number % 5 {
            _ if request.user != "controller" => Fault::None,
            0 if request.is_write() => Fault::LoseAnswer,
            1 if request.is_write() => Fault::Fail {
                code: 429,
                retry_after: None,
            },
            2 => Fault::DelayAnswer(Duration::from_millis(700)),
            3 => Fault::Delay(Duration::from_millis(300)),
            _ => Fault::None,
        });
        match n % 4 {
            0 => server.drop_watches(|_| true),
            1 => server.hold_watches(),
            2 => server.compact(),
            _ => server.release_watches(),
        }
    };
    converges(5, disturb).await;
    // The same disturbances give the same run. (Only for one object: kube's controller runs those that are ready at the
    // same time in a hash map's order.)
    assert_eq!(converges(1, disturb).await, converges(1, disturb).await);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_write_arrives_though_its_sender_gave_up() {
    let server = server();
    let client = server.client("writer");
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    server.set_faults(|request| match request.verb {
        Verb::Create => Fault::Delay(Duration::from_secs(60)),
        _ => Fault::None,
    });

    let (params, object) = (PostParams::default(), config_map("a", "1"));
    let write = tokio::time::timeout(Duration::from_secs(10), api.create(&params, &object));
    assert!(write.await.is_err());
    assert!(server.get::<ConfigMap>("default", "a").is_none());

    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(server.get::<ConfigMap>("default", "a").is_some());
    let writes = server.writes();
    assert_eq!(
        (writes.last().unwrap().user.as_str(), writes.last().unwrap().verb),
        ("writer", Verb::Create)
    );
}

#[tokio::test(start_paused = true)]
async fn watches_end_when_their_time_is_up() {
    let server = server();
    let api: Api<ConfigMap> = Api::namespaced(server.client("reader"), "default");
    let before = tokio::time::Instant::now();
    let params = kube::api::WatchParams::default().timeout(290);
    let events: Vec<_> = api.watch(&params, "0").await.unwrap().try_collect().await.unwrap();
    assert_eq!(before.elapsed(), Duration::from_secs(290));
    assert_eq!(events.len(), 4, "bookmarks");
    assert!(server.open_watches().is_empty());
}
