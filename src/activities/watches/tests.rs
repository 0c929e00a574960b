//! Scenarios of many who wait, and of watches on bad days.

use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast_apiserver::{Fault, RequestInfo, Verb};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use tokio::task::JoinHandle;

use super::*;
use crate::activities::testing::Bench;

fn watches(bench: &Bench) -> Watches {
    Watches::new(bench.clients.clone(), bench.discovery.clone())
}

fn releaser() -> ServiceAccount {
    ServiceAccount {
        namespace: "prod".into(),
        name: "releaser".into(),
    }
}

fn put(bench: &Bench, name: &str, value: &str) {
    let object = json!({"metadata": {"name": name, "namespace": "prod"}, "data": {"value": value}});
    bench.server.put::<ConfigMap>(&serde_json::from_value(object).unwrap());
}

async fn delete(bench: &Bench, name: &str) {
    let api: Api<ConfigMap> = Api::namespaced(bench.server.client("ann"), "prod");
    api.delete(name, &kube::api::DeleteParams::default()).await.unwrap();
}

fn value(object: Option<&DynamicObject>) -> &str {
    object.map_or("gone", |o| o.data["data"]["value"].as_str().unwrap())
}

/// Waits until the ConfigMap has a value, and answers all values that it had until then.
fn wait_until(watches: &Watches, name: &str, wanted: &'static str) -> JoinHandle<Result<Vec<String>, WatchFailure>> {
    let (watches, name, mut seen) = (watches.clone(), name.to_owned(), Vec::new());
    tokio::spawn(async move {
        let config_maps = ResourceType::namespaced::<ConfigMap>();
        let check = move |object: Option<&DynamicObject>| {
            seen.push(value(object).to_owned());
            (value(object) == wanted).then(|| seen.clone())
        };
        watches
            .wait_for(&releaser(), &config_maps, Some("prod"), Which::Named(&name), check)
            .await
    })
}

/// Lets everything happen that is due.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

fn requests(bench: &Bench, verb: Verb) -> usize {
    bench
        .server
        .requests()
        .iter()
        .filter(|r| r.is(verb, "configmaps"))
        .count()
}

fn is_watch(info: &RequestInfo) -> bool {
    info.verb == Verb::Watch
}

#[tokio::test(start_paused = true)]
async fn five_thousand_waiters_share_a_watch_and_an_event_concerns_one() {
    let bench = Bench::new();
    let watches = watches(&bench);
    let shown = Arc::new(AtomicUsize::new(0));
    for n in 0..5000 {
        let (watches, shown) = (watches.clone(), shown.clone());
        tokio::spawn(async move {
            let check = move |object: Option<&DynamicObject>| {
                shown.fetch_add(1, Ordering::SeqCst);
                (value(object) == "ready").then_some(())
            };
            let (config_maps, name) = (ResourceType::namespaced::<ConfigMap>(), format!("m{n}"));
            watches
                .wait_for(&releaser(), &config_maps, Some("prod"), Which::Named(&name), check)
                .await
                .unwrap();
        });
    }
    settle().await;
    assert_eq!(bench.server.open_watches().len(), 1);
    assert_eq!(requests(&bench, Verb::List), 1);
    assert_eq!(
        shown.swap(0, Ordering::SeqCst),
        5000,
        "each was shown once that its object isn't there"
    );
    put(&bench, "m77", "ready");
    settle().await;
    assert_eq!(shown.load(Ordering::SeqCst), 1);

    // An hour of waiting costs what a watch costs.
    let before = bench.server.requests().len();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let since = bench.server.requests().split_off(before);
    assert!(since.iter().all(is_watch) && since.len() < 15, "{since:?}");
}

#[tokio::test(start_paused = true)]
async fn different_accounts_resources_and_namespaces_have_watches_of_their_own() {
    let bench = Bench::new();
    let watches = watches(&bench);
    let pods = ResourceType::namespaced::<k8s_openapi::api::core::v1::Pod>();
    let config_maps = ResourceType::namespaced::<ConfigMap>();
    let other = ServiceAccount {
        name: "other".into(),
        ..releaser()
    };
    for (who, resource, namespace) in [
        (releaser(), &config_maps, "prod"),
        (other, &config_maps, "prod"),
        (releaser(), &pods, "prod"),
        (releaser(), &config_maps, "test"),
    ] {
        for name in ["a", "b"] {
            let (watches, who, resource) = (watches.clone(), who.clone(), resource.clone());
            tokio::spawn(async move {
                watches
                    .wait_for(&who, &resource, Some(namespace), Which::Named(name), |o| o.map(|_| ()))
                    .await
            });
        }
    }
    settle().await;
    let open = bench.server.open_watches();
    assert_eq!((open.len(), watches.count()), (4, 4));
    assert!(open.iter().all(|w| w.user.starts_with("system:serviceaccount:prod:")));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_sees_what_is_there_and_every_change() {
    let bench = Bench::new();
    let watches = watches(&bench);
    put(&bench, "m", "1");
    let waiting = wait_until(&watches, "m", "4");
    settle().await;
    for value in ["2", "3"] {
        put(&bench, "m", value);
    }
    delete(&bench, "m").await;
    put(&bench, "m", "4");
    assert_eq!(waiting.await.unwrap().unwrap(), ["1", "2", "3", "gone", "4"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_later_sees_the_latest_state_and_none_before_it() {
    let bench = Bench::new();
    let watches = watches(&bench);
    let _first = wait_until(&watches, "other", "never");
    put(&bench, "m", "1");
    settle().await;
    // The watch lags: it knows nothing of what the operation has just written.
    bench.server.hold_watches();
    put(&bench, "m", "2");
    put(&bench, "m", "3");
    let waiting = wait_until(&watches, "m", "5");
    settle().await;
    put(&bench, "m", "4");
    bench.server.release_watches();
    settle().await;
    put(&bench, "m", "5");
    assert_eq!(waiting.await.unwrap().unwrap(), ["3", "4", "5"]);
    assert_eq!(bench.server.open_watches().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_before_one_came_is_not_shown_to_it_by_a_watch_that_lags() {
    let bench = Bench::new();
    let watches = watches(&bench);
    let _first = wait_until(&watches, "other", "never");
    put(&bench, "m", "1");
    settle().await;
    bench.server.hold_watches();
    put(&bench, "m", "ready");
    delete(&bench, "m").await;
    let waiting = wait_until(&watches, "m", "ready");
    settle().await;
    bench.server.release_watches();
    settle().await;
    assert!(!waiting.is_finished(), "it was gone before anyone waited for it");
    put(&bench, "m", "ready");
    assert_eq!(waiting.await.unwrap().unwrap(), ["gone", "ready"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_missed_when_watches_end_and_history_is_forgotten() {
    let bench = Bench::new();
    let watches = watches(&bench);
    for name in ["changed", "deleted", "same"] {
        put(&bench, name, "1");
    }
    let changed = wait_until(&watches, "changed", "2");
    let deleted = wait_until(&watches, "deleted", "gone");
    let same = wait_until(&watches, "same", "3");
    settle().await;
    bench.server.drop_watches(|_| true);
    put(&bench, "changed", "2");
    assert_eq!(changed.await.unwrap().unwrap(), ["1", "2"]);

    bench.server.hold_watches();
    delete(&bench, "deleted").await;
    put(&bench, "unrelated", "1");
    bench.server.compact();
    bench.server.drop_watches(|_| true);
    bench.server.release_watches();
    assert_eq!(
        deleted.await.unwrap().unwrap(),
        ["1", "gone"],
        "a list that doesn't have it says so"
    );
    put(&bench, "same", "3");
    assert_eq!(
        same.await.unwrap().unwrap(),
        ["1", "3"],
        "what a list repeats isn't shown again"
    );
}

#[tokio::test(start_paused = true)]
async fn errors_that_pass_are_not_seen() {
    let bench = Bench::new();
    let watches = watches(&bench);
    put(&bench, "m", "1");
    for fault in [
        Fault::Fail {
            code: 500,
            retry_after: None,
        },
        Fault::Fail {
            code: 429,
            retry_after: None,
        },
        Fault::RefuseConnection,
        Fault::Hang,
    ] {
        for verb in [Verb::List, Verb::Watch] {
            let (fault, failures) = (fault.clone(), AtomicUsize::new(0));
            bench.server.set_faults(move |info| {
                match info.verb == verb && failures.fetch_add(1, Ordering::SeqCst) < 3 {
                    true => fault.clone(),
                    false => Fault::None,
                }
            });
            let early = wait_until(&watches, "m", "2");
            tokio::time::sleep(Duration::from_secs(1)).await;
            let late = wait_until(&watches, "m", "2");
            tokio::time::sleep(Duration::from_secs(120)).await;
            put(&bench, "m", "2");
            assert_eq!(early.await.unwrap().unwrap(), ["1", "2"]);
            assert_eq!(late.await.unwrap().unwrap(), ["1", "2"]);
            put(&bench, "m", "1");
            tokio::time::sleep(LINGER * 2).await;
            assert_eq!(watches.count(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn denied_access_ends_the_wait_with_who_may_not_do_what_and_is_gone_when_granted() {
    let bench = Bench::new();
    let watches = watches(&bench);
    for verb in [Verb::List, Verb::Watch] {
        bench.server.set_authorizer(move |info| info.verb != verb);
        let waiting = [wait_until(&watches, "m", "1"), wait_until(&watches, "n", "1")];
        for waiting in waiting {
            let WatchFailure::Denied(message) = waiting.await.unwrap().unwrap_err() else {
                panic!()
            };
            let who = format!(
                "service account prod/releaser may not {} configmaps in namespace prod: ",
                verb.name()
            );
            assert!(message.starts_with(&who), "{message}");
        }
        assert_eq!(watches.count(), 0);
    }
    bench.server.set_authorizer(|_| true);
    put(&bench, "m", "1");
    assert_eq!(wait_until(&watches, "m", "1").await.unwrap().unwrap(), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn access_that_is_taken_away_while_one_waits_ends_the_wait() {
    let bench = Bench::new();
    let watches = watches(&bench);
    let waiting = wait_until(&watches, "m", "1");
    settle().await;
    bench.server.set_authorizer(|info| info.verb != Verb::Watch);
    bench.server.drop_watches(|_| true);
    assert!(matches!(waiting.await.unwrap(), Err(WatchFailure::Denied(_))));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_served_or_may_not_be_acted_as_ends_the_wait() {
    let bench = Bench::new();
    let watches = watches(&bench);
    let mut widgets = ResourceType::namespaced::<ConfigMap>();
    widgets.api.plural = "widgets".into();
    let none = |_: Option<&DynamicObject>| None::<()>;
    let failure = watches
        .wait_for(&releaser(), &widgets, Some("prod"), Which::Named("w"), none)
        .await
        .unwrap_err();
    assert_eq!(failure, WatchFailure::NotServed("widgets".into()));

    let system = ServiceAccount {
        namespace: "kube-system".into(),
        name: "default".into(),
    };
    let config_maps = ResourceType::namespaced::<ConfigMap>();
    let failure = watches
        .wait_for(&system, &config_maps, Some("prod"), Which::Named("m"), none)
        .await
        .unwrap_err();
    assert_eq!(failure, WatchFailure::Refused(Refused::KubeSystem));
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_a_while_after_the_last_has_left() {
    let bench = Bench::new();
    let watches = watches(&bench);
    put(&bench, "m", "1");
    for _ in 0..3 {
        wait_until(&watches, "m", "1").await.unwrap().unwrap();
        tokio::time::sleep(LINGER / 2).await;
    }
    let given_up = wait_until(&watches, "m", "never");
    tokio::time::sleep(LINGER * 3).await;
    assert_eq!(bench.server.open_watches().len(), 1, "one watch for all of them");
    assert_eq!(requests(&bench, Verb::Watch), 1);
    given_up.abort();
    tokio::time::sleep(LINGER / 2).await;
    assert_eq!(watches.count(), 1);
    tokio::time::sleep(LINGER).await;
    assert_eq!((watches.count(), bench.server.open_watches().len()), (0, 0));
    assert_eq!(wait_until(&watches, "m", "1").await.unwrap().unwrap(), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn labelled_objects_are_waited_for_by_their_label() {
    let bench = Bench::new();
    let watches = watches(&bench);
    let pods = ResourceType::namespaced::<k8s_openapi::api::core::v1::Pod>();
    let put = |name: &str, label: Option<&str>| {
        let labels = label.map(|l| json!({"job": l})).unwrap_or_default();
        let pod =
            json!({"metadata": {"name": name, "namespace": "prod", "labels": labels}, "spec": {"containers": []}});
        bench
            .server
            .put::<k8s_openapi::api::core::v1::Pod>(&serde_json::from_value(pod).unwrap());
    };
    put("unlabelled", None);
    put("of-other", Some("other"));
    let waiting: Vec<JoinHandle<String>> = (0..2)
        .map(|_| {
            let (watches, pods) = (watches.clone(), pods.clone());
            tokio::spawn(async move {
                let named = |pod: Option<&DynamicObject>| pod.and_then(|p| p.metadata.name.clone());
                watches
                    .wait_for(&releaser(), &pods, Some("prod"), Which::Labelled("job", "mine"), named)
                    .await
                    .unwrap()
            })
        })
        .collect();
    settle().await;
    put("of-mine", Some("mine"));
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), "of-mine");
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_panics_leaves_nobody_waiting() {
    let bench = Bench::new();
    let watches = watches(&bench);
    let other = wait_until(&watches, "other", "never");
    settle().await;
    let panicking = {
        let watches = watches.clone();
        tokio::spawn(async move {
            let config_maps = ResourceType::namespaced::<ConfigMap>();
            let check = |object: Option<&DynamicObject>| -> Option<()> {
                assert!(object.is_none(), "the bug in this test");
                None
            };
            watches
                .wait_for(&releaser(), &config_maps, Some("prod"), Which::Named("m"), check)
                .await
        })
    };
    settle().await;
    put(&bench, "m", "1");
    assert_eq!(panicking.await.unwrap(), Err(WatchFailure::Ended("configmaps".into())));
    assert_eq!(other.await.unwrap(), Err(WatchFailure::Ended("configmaps".into())));
    assert_eq!(
        wait_until(&watches, "m", "1").await.unwrap().unwrap(),
        ["1"],
        "the next starts another"
    );
}

#[tokio::test(start_paused = true)]
async fn watches_end_with_who_started_them() {
    let bench = Bench::new();
    let watches = watches(&bench);
    let waiting = wait_until(&watches, "m", "never");
    settle().await;
    waiting.abort();
    drop(watches);
    settle().await;
    assert_eq!(bench.server.open_watches().len(), 0);
}
