//! Patch and scale.

use super::*;
use crate::activities::kubernetes::PATCH_ANNOTATION;

#[tokio::test(start_paused = true)]
async fn patches_change_what_they_name_and_leave_the_rest() {
    let bench = Bench::new();
    settings(&bench, json!({"a": "1", "b": "1"})).await;
    let merged = succeeded(attempt(&bench, patched("Merge", json!({"data": {"a": "2"}}))).await);
    assert_eq!(merged["data"], json!({"a": "2", "b": "1"}));
    let operations = json!([{"op": "test", "path": "/data/a", "value": "2"}, {"op": "remove", "path": "/data/b"}]);
    let patched = succeeded(attempt(&bench, patched("JSON", operations)).await);
    assert_eq!(patched["data"], json!({"a": "2"}));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_others_made_meanwhile_is_not_written_over() {
    let changes = [
        ("Merge", json!({"data": {"a": "2"}})),
        ("JSON", json!([{"op": "add", "path": "/data/a", "value": "2"}])),
    ];
    for (kind, change) in changes {
        let bench = Bench::new();
        settings(&bench, json!({"a": "1"})).await;
        disturb(&bench, |r| r.is(Verb::Patch, "configmaps"), 2);
        let result = succeeded(attempt(&bench, patched(kind, change)).await);
        assert_eq!(result["data"], json!({"a": "2", "other": "2"}), "{kind}");
    }
    let bench = Bench::new();
    settings(&bench, json!({"a": "1"})).await;
    disturb(&bench, |r| r.is(Verb::Patch, "configmaps"), usize::MAX);
    let failure = failed(attempt(&bench, patched("Merge", json!({"data": {"a": "3"}}))).await);
    assert_failure(&failure, "Conflict", Effect::None, RetryAdvice::Backoff);
}

#[tokio::test(start_paused = true)]
async fn a_json_patch_whose_answer_was_lost_is_not_applied_twice() {
    let bench = Bench::new();
    let pods =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 1}]}});
    succeeded(attempt(&bench, json!({"apply": {"manifest": pods}})).await);
    let request = json!({"patch": {
        "resource": reference("v1", "Service", "web"),
        "type": "JSON",
        "patch": [{"op": "add", "path": "/spec/ports/-", "value": {"port": 2}}],
    }});
    bench.server.set_faults(|info| {
        if info.verb == Verb::Patch {
            Fault::LoseAnswer
        } else {
            Fault::None
        }
    });
    assert_eq!(failed(attempt(&bench, request.clone()).await).effect, Effect::Unknown);
    bench.server.clear_faults();
    let result = succeeded(attempt(&bench, request.clone()).await);
    assert_eq!(result["spec"]["ports"], json!([{"port": 1}, {"port": 2}]));

    // Another step's patch under its own key is another patch.
    let result = succeeded(attempt_by(&bench, &bench.context("again"), request).await);
    assert_eq!(result["spec"]["ports"].as_array().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_json_patch_that_writes_all_annotations_anew_is_not_applied_twice_either() {
    for annotations in [
        json!({"op": "remove", "path": "/metadata/annotations"}),
        json!({"op": "replace", "path": "/metadata/annotations", "value": {"a": "1"}}),
        json!({"op": "move", "from": "/metadata/annotations", "path": "/metadata/labels"}),
    ] {
        let bench = Bench::new();
        settings(&bench, json!({"a": "1"})).await;
        let own = json!({"op": "add", "path": "/metadata/finalizers", "value": ["x/own"]});
        succeeded(attempt_by(&bench, &bench.context("first"), patched("JSON", json!([own]))).await);
        let append = json!({"op": "add", "path": "/metadata/finalizers/-", "value": "x/more"});
        let patch = patched("JSON", json!([append, annotations]));
        bench.server.set_faults(|info| match info.verb {
            Verb::Patch => Fault::LoseAnswer,
            _ => Fault::None,
        });
        assert_eq!(failed(attempt(&bench, patch.clone()).await).effect, Effect::Unknown);
        bench.server.clear_faults();
        let again = AttemptContext {
            maybe_done: true,
            attempt: 2,
            ..bench.context("change")
        };
        let result = succeeded(attempt_by(&bench, &again, patch).await);
        assert_eq!(
            result["metadata"]["finalizers"],
            json!(["x/own", "x/more"]),
            "{annotations}"
        );
    }
}

/// As many others patch the object before the next attempt as it keeps keys of; one more, and nobody knows.
#[tokio::test(start_paused = true)]
async fn a_json_patch_whose_answer_was_lost_is_recognised_though_others_patched_since() {
    let bench = Bench::new();
    settings(&bench, json!({"a": "1"})).await;
    let append = patched(
        "JSON",
        json!([{"op": "add", "path": "/metadata/finalizers/-", "value": "x/own"}]),
    );
    let others = patched(
        "JSON",
        json!([{"op": "add", "path": "/metadata/finalizers/-", "value": "x/other"}]),
    );
    let first = patched(
        "JSON",
        json!([{"op": "add", "path": "/metadata/finalizers", "value": ["x/first"]}]),
    );
    succeeded(attempt_by(&bench, &bench.context("first"), first).await);
    let own = |object: &Value| {
        let finalizers = object["metadata"]["finalizers"].as_array().unwrap();
        finalizers.iter().filter(|of| *of == "x/own").count()
    };
    bench.server.set_faults(|info| match info.verb {
        Verb::Patch => Fault::LoseAnswer,
        _ => Fault::None,
    });
    assert_eq!(failed(attempt(&bench, append.clone()).await).effect, Effect::Unknown);
    bench.server.clear_faults();

    let again = AttemptContext {
        maybe_done: true,
        attempt: 2,
        ..bench.context("change")
    };
    for n in 1..64 {
        let context = bench.context(&format!("other[{n}]"));
        succeeded(attempt_by(&bench, &context, others.clone()).await);
        let found = succeeded(attempt_by(&bench, &again, append.clone()).await);
        assert_eq!(own(&found), 1, "after {n} others");
    }
    let last = succeeded(attempt_by(&bench, &bench.context("last"), others).await);
    let keys = last["metadata"]["annotations"][PATCH_ANNOTATION].as_str().unwrap();
    assert_eq!(keys.split(',').count(), 64);
    let failure = failed(attempt_by(&bench, &again, append.clone()).await);
    assert_failure(&failure, "PatchForgotten", Effect::Unknown, RetryAdvice::Never);
    assert_eq!(own(&last), 1);

    // Another step's, which can't have been made, is.
    assert_eq!(
        own(&succeeded(attempt_by(&bench, &bench.context("new"), append).await)),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn a_patch_that_names_a_version_itself_is_bound_to_it() {
    let bench = Bench::new();
    settings(&bench, json!({"a": "1"})).await;
    let failure = failed(
        attempt(
            &bench,
            patched(
                "Merge",
                json!({"metadata": {"resourceVersion": "1"}, "data": {"a": "2"}}),
            ),
        )
        .await,
    );
    assert_failure(&failure, "Conflict", Effect::None, RetryAdvice::Never);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_can_not_be_changed_or_read() {
    let bench = Bench::new();
    let requests = [
        patched("Merge", json!({"data": {}})),
        json!({"scale": {"resource": reference("apps/v1", "Deployment", "web"), "replicas": 1}}),
        json!({"get": {"resource": reference("v1", "ConfigMap", "settings")}}),
    ];
    for request in requests {
        let failure = failed(attempt(&bench, request).await);
        assert_failure(&failure, "NotFound", Effect::None, RetryAdvice::Never);
        assert!(
            failure.message.ends_with("in namespace prod doesn't exist"),
            "{}",
            failure.message
        );
    }
}

#[tokio::test(start_paused = true)]
async fn scale_sets_the_replicas_of_anything_that_has_some() {
    let bench = Bench::new();
    succeeded(attempt(&bench, json!({"apply": {"manifest": deployment(1)}})).await);
    for replicas in [json!(3), json!("4"), json!(4)] {
        let request = json!({"scale": {"resource": reference("apps/v1", "Deployment", "web"), "replicas": replicas}});
        let result = succeeded(attempt(&bench, request).await);
        assert_eq!(
            result["spec"]["replicas"].to_string(),
            replicas.to_string().replace('"', "")
        );
    }
    assert_eq!(
        writes(&bench),
        [Verb::Patch, Verb::Update, Verb::Update],
        "what is as wanted isn't written"
    );
    for (kind, replicas) in [
        ("ConfigMap", json!(1)),
        ("ConfigMap", json!(-1)),
        ("ConfigMap", json!("many")),
    ] {
        let request = json!({"scale": {"resource": reference("v1", kind, "web"), "replicas": replicas}});
        assert_failure(
            &failed(attempt(&bench, request).await),
            "Invalid",
            Effect::None,
            RetryAdvice::Never,
        );
    }
}
