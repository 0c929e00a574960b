//! What the API server itself refuses, and what it says: a bad spec never reaches the operator, and a good one can't be
//! changed. Needs the CRDs and the policy in the cluster, no operator.

use std::time::{Duration, Instant};

use holdfast_e2e::kubectl::{Printed, kubectl, kubectl_with};
use serde_json::{Value, json};

/// A namespace for one test.
struct Place {
    namespace: String,
}

impl Place {
    async fn new(name: &str) -> Self {
        holdfast_e2e::install::present().await;
        let namespace = format!("admission-{name}-{}", std::process::id());
        let created = kubectl(&["create", "namespace", &namespace]).await;
        assert!(created.ok, "{}", created.err);
        Self { namespace }
    }

    async fn kubectl(&self, arguments: &[&str], input: &str) -> Printed {
        let mut all = vec!["--namespace", &self.namespace];
        all.extend(arguments);
        kubectl_with(input, &all).await
    }

    /// What the API server would say to an operation with this spec.
    async fn try_spec(&self, spec: &str) -> Printed {
        self.kubectl(&["create", "--dry-run=server", "-f", "-"], &manifest("tried", spec))
            .await
    }

    /// Applies an operation with this spec.
    async fn apply(&self, spec: &str) -> Printed {
        self.kubectl(&["apply", "-f", "-"], &manifest("operation", spec)).await
    }

    async fn merge(&self, patch: &Value) -> Printed {
        self.kubectl(
            &[
                "patch",
                "cop",
                "operation",
                "--type=merge",
                "--patch",
                &patch.to_string(),
            ],
            "",
        )
        .await
    }

    async fn end(self) {
        let deleted = kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]).await;
        assert!(deleted.ok, "{}", deleted.err);
    }
}

fn manifest(name: &str, spec: &str) -> String {
    let spec: Value = serde_yaml::from_str(spec).unwrap_or_else(|error| panic!("{error}\n{spec}"));
    json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

const STEP: &str = "steps: [{name: a, set: {v: 1}}]";
const DURATION: &str = "must be a duration such as 500ms, 30s, 5m or 24h (hours are the largest unit)";

/// So many steps that do nothing.
fn steps(count: usize) -> String {
    let steps: Vec<String> = (0..count).map(|i| format!("{{name: s{i}, set: {{}}}}")).collect();
    format!("{{steps: [{}]}}", steps.join(", "))
}

/// Bad fields beside a good step, and what the person must be told: the field, and what is wrong with it.
const BAD_OPERATIONS: &[(&str, &str)] = &[
    (
        "order: Random",
        "spec.order: Unsupported value: \"Random\": supported values: \"Sequence\", \"Graph\"",
    ),
    ("timeout: 1d", DURATION),
    ("timeout: 9999999999h", DURATION),
    ("timeout: ''", DURATION),
    (
        "startDeadline: tomorrow",
        "spec.startDeadline in body must be of type date-time",
    ),
    (
        "startDeadline: '2026-11-24T03:00:00+99:99'",
        "spec.startDeadline in body should match",
    ),
    (
        "ttlSecondsAfterFinished: -1",
        "spec.ttlSecondsAfterFinished in body should be greater than or equal to 0",
    ),
    (
        "ttlSecondsAfterFinished: 99999999999",
        "spec.ttlSecondsAfterFinished in body should be less than or equal to",
    ),
    (
        "serviceAccountName: ''",
        "spec.serviceAccountName in body should be at least 1 chars long",
    ),
    ("suspend: later", "spec.suspend in body must be of type boolean"),
    ("retries: 3", "unknown field \"spec.retries\""),
    ("retry: {initialInterval: 1 second}", DURATION),
    (
        "retry: {backoffCoefficient: 0.5}",
        "spec.retry.backoffCoefficient in body should be greater than or equal to 1",
    ),
    (
        "retry: {maximumAttempts: -1}",
        "spec.retry.maximumAttempts in body should be greater than or equal to 0",
    ),
];

/// Bad fields of a step.
const BAD_STEPS: &[(&str, &str)] = &[
    ("name: A, set: {v: 1}", "spec.steps[0].name in body should match"),
    (
        "name: for, set: {v: 1}",
        "spec.steps[0].name: Invalid value: is a reserved word of the expression language",
    ),
    ("set: {v: 1}", "spec.steps[0].name: Required value"),
    (
        "name: a",
        "spec.steps[0]: Invalid value: a step has exactly one of http, kubernetes, job, wait, set, assert",
    ),
    (
        "name: a, set: {v: 1}, assert: 'true'",
        "a step has exactly one of http, kubernetes, job, wait, set, assert",
    ),
    (
        "name: a, set: {v: 1}, needs: [b]",
        "spec.steps: Invalid value: needs of a step names a step that isn't there",
    ),
    (
        "name: a, set: {v: 1}, needs: [a]",
        "spec.steps[0].needs: Invalid value: a step can't need itself",
    ),
    (
        "name: a, set: {v: 1}, when: '${input.on}'",
        "spec.steps[0].when: Invalid value: \"${input.on}\": is an expression by itself: write it without ${...}",
    ),
    (
        "name: a, assert: ''",
        "spec.steps[0].assert in body should be at least 1 chars long",
    ),
    (
        "name: a, set: {v: 1}, idempotent: false",
        "spec.steps[0].idempotent: Invalid value: can only be said of an http step",
    ),
    ("name: a, set: {v: 1}, timeouts: {startToClose: 1w}", DURATION),
    (
        "name: a, set: {v: 1}, outputSecret: {name: s, data: {}}",
        "spec.steps[0].outputSecret.data in body should have at least 1 properties",
    ),
    ("name: a, sett: {v: 1}", "unknown field \"spec.steps[0].sett\""),
    // http
    ("name: a, http: {}", "spec.steps[0].http.url: Required value"),
    (
        "name: a, http: {url: 'ftp://h'}",
        "spec.steps[0].http.url: Invalid value: \"ftp://h\": must begin with http:// or https://",
    ),
    (
        "name: a, http: {url: 'http://h', method: SEND}",
        "spec.steps[0].http.method: Unsupported value: \"SEND\"",
    ),
    (
        "name: a, http: {url: 'http://h', auth: {}}",
        "spec.steps[0].http.auth: Invalid value: auth has exactly one of bearer, basic, serviceAccountToken",
    ),
    (
        "name: a, http: {url: 'http://h', auth: {serviceAccountToken: {}}}",
        "spec.steps[0].http.auth.serviceAccountToken.audience: Required value",
    ),
    (
        "name: a, http: {url: 'http://h', headers: [{name: x}]}",
        "a header has exactly one of value, valueFrom",
    ),
    (
        "name: a, http: {url: 'http://h', headers: [{name: 'x y', value: z}]}",
        "spec.steps[0].http.headers[0].name in body should match",
    ),
    (
        "name: a, http: {url: 'http://h', tls: {ca: {}}}",
        "ca has exactly one of configMapKeyRef, secretKeyRef",
    ),
    (
        "name: a, http: {url: 'http://h', maxResponseBytes: 99999999}",
        "spec.steps[0].http.maxResponseBytes in body should be less than or equal to",
    ),
    // kubernetes
    (
        "name: a, kubernetes: {}",
        "kubernetes has exactly one of apply, create, patch, scale, delete, evict, get, list, wait",
    ),
    (
        "name: a, kubernetes: {apply: {manifest: {kind: ConfigMap}}}",
        "spec.steps[0].kubernetes.apply.manifest.apiVersion: Required value",
    ),
    (
        "name: a, kubernetes: {apply: {manifest: {apiVersion: v1, kind: C, metadata: {}}}}",
        "spec.steps[0].kubernetes.apply.manifest.metadata.name: Required value",
    ),
    (
        "name: a, kubernetes: {get: {resource: {apiVersion: v1, kind: C}}}",
        "spec.steps[0].kubernetes.get.resource.name: Required value",
    ),
    (
        "name: a, kubernetes: {scale: {RESOURCE, replicas: -1}}",
        "spec.steps[0].kubernetes.scale.replicas in body should be greater than or equal to 0",
    ),
    (
        "name: a, kubernetes: {scale: {RESOURCE, replicas: 1.5}}",
        "spec.steps[0].kubernetes.scale.replicas in body must be of type integer,string",
    ),
    (
        "name: a, kubernetes: {patch: {RESOURCE, type: Strategic, patch: {}}}",
        "spec.steps[0].kubernetes.patch.type: Unsupported value: \"Strategic\"",
    ),
    (
        "name: a, kubernetes: {wait: {RESOURCE}}",
        "spec.steps[0].kubernetes.wait: Invalid value: wait has exactly one of for, until",
    ),
    (
        "name: a, kubernetes: {wait: {RESOURCE, for: Current, until: 'true'}}",
        "wait has exactly one of for, until",
    ),
    // job
    (
        "name: a, job: {}",
        "spec.steps[0].job: Invalid value: job has exactly one of image, template",
    ),
    (
        "name: a, job: {template: {spec: {containers: []}}}",
        "spec.steps[0].job.template.spec.containers in body should have at least 1 items",
    ),
    (
        "name: a, job: {template: {spec: {containers: [{name: c}]}}, args: [x]}",
        "job.template says all",
    ),
    (
        "name: a, job: {image: i, env: [{name: E, value: v, valueFrom: {secretKeyRef: {name: s, key: k}}}]}",
        "an env entry has at most one of value, valueFrom",
    ),
    // wait
    (
        "name: a, wait: {}",
        "spec.steps[0].wait: Invalid value: wait has exactly one of duration, untilTime",
    ),
    (
        "name: a, wait: {duration: 1d}",
        "spec.steps[0].wait.duration: Invalid value: \"1d\": must be a duration such as",
    ),
    (
        "name: a, wait: {untilTime: tomorrow}",
        "spec.steps[0].wait.untilTime: Invalid value: \"tomorrow\": must be a time such as 2026-11-24T03:00:00Z",
    ),
];

#[tokio::test]
async fn bad_specs_are_refused_with_the_field_and_the_reason() {
    let place = Place::new("bad").await;
    let mut bad = vec![
        ("{}".to_owned(), "spec has exactly one of steps and templateRef"),
        (
            "{steps: []}".to_owned(),
            "spec.steps in body should have at least 1 items",
        ),
        (steps(101), "spec.steps: Too many: 101"),
        (
            "{steps: [{name: a, set: {}}, {name: a, set: {}}]}".to_owned(),
            "spec.steps[1]: Duplicate value: {\"name\":\"a\"}",
        ),
    ];
    bad.extend(
        BAD_OPERATIONS
            .iter()
            .map(|(fields, said)| (format!("{{{STEP}, {fields}}}"), *said)),
    );
    bad.extend(BAD_STEPS.iter().map(|(fields, said)| {
        let fields = fields.replace("RESOURCE", "resource: {apiVersion: v1, kind: ConfigMap, name: web}");
        (format!("{{steps: [{{{fields}}}]}}"), *said)
    }));
    for (spec, expected) in bad {
        let refused = place.try_spec(&spec).await;
        assert!(!refused.ok, "accepted: {spec}");
        assert!(
            refused.err.contains(expected),
            "{spec}\n  expected: {expected}\n  said: {}",
            refused.err
        );
    }
    let long_name = manifest(&"n".repeat(201), &format!("{{{STEP}}}"));
    let refused = place
        .kubectl(&["create", "--dry-run=server", "-f", "-"], &long_name)
        .await;
    assert!(
        refused.err.contains("metadata.name must have at most 200 characters"),
        "{}",
        refused.err
    );
    place.end().await;
}

#[tokio::test]
async fn good_specs_are_accepted() {
    let place = Place::new("good").await;
    // Every sample
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/samples");
    let applied = place.kubectl(&["apply", "-k", samples], "").await;
    assert!(applied.ok, "{}", applied.err);
    for _ in 0..2 {
        let created = place
            .kubectl(&["create", "-f", &format!("{samples}/runs.yaml")], "")
            .await;
        assert!(created.ok, "{}", created.err);
    }
    let names = place.kubectl(&["get", "cops", "-o", "name"], "").await;
    assert_eq!(names.out.matches("nightly-").count(), 2, "{}", names.out);
    // The edges of what is allowed
    for spec in [
        &steps(100),
        &format!(
            "{{{STEP}, timeout: 1h30m0.5s, startDeadline: '2026-11-24T03:00:00.125+01:00', ttlSecondsAfterFinished: 0}}"
        ),
        "{steps: [{name: a, http: {url: '${input.base}/x', body: [1, two, {three: null}]}}]}",
        "{steps: [{name: a, wait: {duration: '${input.pause}'}}, {name: b, needs: [a], wait: {untilTime: '2026-11-24T03:00:00Z'}}]}",
        "{steps: [{name: a, kubernetes: {scale: {resource: {apiVersion: apps/v1, kind: Deployment, name: web}, replicas: '${input.size}'}}}]}",
        "{steps: [{name: a, job: {template: {metadata: {labels: {x: z}}, spec: {containers: [{name: c, image: i}]}}}}]}",
        // A null is an absent field, as for built-in kinds
        "{steps: [{name: a, http: null, set: {v: 1}}]}",
    ] {
        let accepted = place.try_spec(spec).await;
        assert!(accepted.ok, "{spec}\n{}", accepted.err);
    }
    place.end().await;
}

/// Values of free form are kept as they are, nulls and all: a merge patch removes a field by one. (`kubectl apply` alone
/// drops nulls, before the API server sees them.)
#[tokio::test]
async fn values_of_free_form_are_kept_as_they_are() {
    let place = Place::new("free").await;
    let spec = json!({
        "input": {"none": null, "list": [null, {"none": null}], "big": 9_007_199_254_740_993_i64, "float": 0.5, "text": "1"},
        "steps": [{"name": "a", "kubernetes": {"patch": {
            "resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "web"},
            "patch": {"data": {"gone": null}},
        }}}],
    });
    let created = place
        .kubectl(&["create", "-f", "-"], &manifest("operation", &spec.to_string()))
        .await;
    assert!(created.ok, "{}", created.err);
    let read = place
        .kubectl(&["get", "cop", "operation", "-o", "jsonpath={.spec}"], "")
        .await;
    let read: Value = serde_json::from_str(&read.out).unwrap();
    assert_eq!(read, spec);
    place.end().await;
}

/// The CRD's rules see all but names within values of free form; the policy sees those, too.
#[tokio::test]
async fn a_spec_is_immutable() {
    let place = Place::new("immutable").await;
    let spec = r#"
      input: {group: web, size: 3}
      order: Sequence
      timeout: 1h
      output: {done: "yes"}
      steps:
      - {name: call, http: {method: POST, url: "http://h", body: {deep: {list: [1, 2, {k: v}]}}}}
      - {name: apply, kubernetes: {apply: {manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: web}, data: {mode: "on"}}}}}
      - {name: pause, wait: {duration: 1s}}"#;
    let applied = place.apply(spec).await;
    assert!(applied.ok, "{}", applied.err);
    until_the_policy_is_in_force(&place).await;

    for (old, new, expected) in [
        ("size: 3", "size: 4", "spec.input is immutable"),
        ("size: 3", "sise: 3", "spec.input is immutable"),
        ("group: web, ", "", "spec.input is immutable"),
        ("input: {group: web, size: 3}", "", "spec.input is immutable"),
        ("order: Sequence", "order: Graph", "spec.order is immutable"),
        ("order: Sequence", "", "spec.order is immutable"),
        ("timeout: 1h", "timeout: 2h", "spec.timeout is immutable"),
        ("timeout: 1h", "timeout: 60m", "spec.timeout is immutable"),
        (
            "timeout: 1h",
            "timeout: 1h\n      serviceAccountName: other",
            "spec.serviceAccountName is immutable",
        ),
        (
            "timeout: 1h",
            "timeout: 1h\n      retry: {maximumAttempts: 1}",
            "spec.retry is immutable",
        ),
        (
            "timeout: 1h",
            "timeout: 1h\n      startDeadline: '2026-11-24T03:00:00Z'",
            "spec.startDeadline is immutable",
        ),
        (r#"done: "yes""#, r#"done: "no""#, "spec.output is immutable"),
        (r#"done: "yes""#, r#"ended: "yes""#, "spec.output is immutable"),
        ("k: v", "k: w", "spec.steps[0]"),
        ("k: v", "j: v", "spec.steps[0]"),
        ("[1, 2, ", "[1, ", "spec.steps[0]"),
        (r#"mode: "on""#, r#"mode: "off""#, "spec.steps[1]"),
        (r#"mode: "on""#, r#"state: "on""#, "spec.steps[1]"),
        ("duration: 1s", "duration: 2s", "spec.steps[2]"),
        ("name: pause", "name: rest", "spec.steps is immutable"),
        ("name: pause", "name: pause, when: 'true'", "spec.steps[2]"),
    ] {
        let changed = spec.replace(old, new);
        assert_ne!(changed, spec, "{old}");
        let refused = place.apply(&changed).await;
        assert!(!refused.ok, "accepted: {old} → {new}");
        assert!(
            refused.err.contains(expected),
            "{old} → {new}\n  expected: {expected}\n  said: {}",
            refused.err
        );
        assert!(refused.err.contains("create another CloudOperation"), "{}", refused.err);
    }
    let again = place.apply(spec).await;
    assert!(
        again.ok && again.out.contains("unchanged"),
        "{}{}",
        again.out,
        again.err
    );
    place.end().await;
}

#[tokio::test]
async fn control_fields_can_be_changed_and_a_cancel_stays() {
    let place = Place::new("control").await;
    let applied = place.apply(&format!("{{{STEP}}}")).await;
    assert!(applied.ok, "{}", applied.err);
    for patch in [
        json!({"spec": {"suspend": true}}),
        json!({"spec": {"suspend": null}}),
        json!({"spec": {"ttlSecondsAfterFinished": 60}}),
        json!({"spec": {"ttlSecondsAfterFinished": null}}),
        json!({"metadata": {"labels": {"team": "web"}}}),
        json!({"spec": {"cancel": {}}}),
        json!({"spec": {"cancel": {"reason": "wrong group"}}}),
    ] {
        let changed = place.merge(&patch).await;
        assert!(changed.ok, "{patch}: {}", changed.err);
    }
    let refused = place.merge(&json!({"spec": {"cancel": null}})).await;
    assert!(
        refused
            .err
            .contains("spec.cancel can't be unset: what was cancelled stays cancelled"),
        "{}",
        refused.err
    );
    place.end().await;
}

/// kstatus, by which Helm and Flux wait, takes an object for done that has neither conditions nor an older generation.
#[tokio::test]
async fn an_operation_that_nobody_has_seen_is_not_done() {
    let place = Place::new("unseen").await;
    let applied = place.apply(&format!("{{{STEP}}}")).await;
    assert!(applied.ok, "{}", applied.err);
    // No operator serves this namespace.
    let status = place
        .kubectl(&["get", "cop", "operation", "-o", "jsonpath={.status}"], "")
        .await;
    assert_eq!(status.out, r#"{"observedGeneration":-1}"#);
    place.end().await;
}

#[tokio::test]
async fn kubectl_explains_and_lists_operations() {
    let place = Place::new("kubectl").await;
    for (field, expected) in [
        ("cops", "durable run of a workflow"),
        ("cops.spec.order", "`Sequence` (the default)"),
        ("cops.spec.steps.http.url", "`http://` or `https://`"),
        ("cops.spec.steps.kubernetes.wait.for", "kstatus"),
        ("cops.status.conditions", "`Finished`"),
    ] {
        let explained = kubectl(&["explain", field]).await;
        let text = explained.out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(expected), "{field}: {}{}", explained.out, explained.err);
    }
    let applied = place.apply(&format!("{{{STEP}}}")).await;
    assert!(applied.ok, "{}", applied.err);
    for resource in ["cop", "cops", "cloudoperations", "holdfast"] {
        let listed = place.kubectl(&["get", resource], "").await;
        let header: Vec<&str> = listed
            .out
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        assert_eq!(
            header,
            ["NAME", "STATE", "PROGRESS", "STEP", "MESSAGE", "AGE"],
            "{resource}: {}{}",
            listed.out,
            listed.err
        );
    }
    let selected = place
        .kubectl(
            &[
                "get",
                "cops",
                "--field-selector=spec.serviceAccountName=other,status.state=Running",
            ],
            "",
        )
        .await;
    assert!(
        selected.err.contains("No resources found"),
        "{}{}",
        selected.out,
        selected.err
    );
    place.end().await;
}

/// A policy is in force some time after it was created: then it refuses what the CRD's rules can't see.
async fn until_the_policy_is_in_force(place: &Place) {
    let renamed = json!([{"op": "move", "from": "/spec/input/group", "path": "/spec/input/team"}]).to_string();
    let started = Instant::now();
    loop {
        let tried = place
            .kubectl(
                &[
                    "patch",
                    "cop",
                    "operation",
                    "--type=json",
                    "--dry-run=server",
                    "--patch",
                    &renamed,
                ],
                "",
            )
            .await;
        if !tried.ok {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "the policy is not in force: kubectl apply -k config/admission"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
