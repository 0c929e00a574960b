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
    (
        "failurePolicy: Undo",
        "spec.failurePolicy: Unsupported value: \"Undo\": supported values: \"Stop\", \"Compensate\", \"Pause\"",
    ),
    (
        "cancel: {mode: Undo}",
        "spec.cancel.mode: Unsupported value: \"Undo\": supported values: \"Stop\", \"Compensate\"",
    ),
    (
        "finally: [{name: z}]",
        "spec.finally[0]: Invalid value: a step has exactly one of",
    ),
    ("finally: [{set: {v: 1}}]", "spec.finally[0].name: Required value"),
    (
        "finally: [{name: Z, set: {v: 1}}]",
        "spec.finally[0].name in body should match",
    ),
    (
        "finally: [{name: z, http: {url: 'ftp://h'}}]",
        "spec.finally[0].http.url: Invalid value: \"ftp://h\": must begin with http:// or https://",
    ),
    (
        "finally: [{name: z, http: {url: 'http://h'}, compensate: {http: {url: 'http://h'}}}]",
        "unknown field \"spec.finally[0].compensate\"",
    ),
    (
        "finally: [{name: z, set: {v: 1}, needs: [a]}]",
        "unknown field \"spec.finally[0].needs\"",
    ),
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
        "spec.steps[0]: Invalid value: a step has exactly one of http, kubernetes, job, operation, steps, wait, signal, approval, set, assert",
    ),
    (
        "name: a, set: {v: 1}, assert: 'true'",
        "a step has exactly one of http, kubernetes, job, operation, steps, wait, signal, approval, set, assert",
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
    // signal, approval
    (
        "name: a, signal: {name: ''}",
        "spec.steps[0].signal.name in body should be at least 1 chars long",
    ),
    (
        "name: a, signal: {schema: integer}",
        "spec.steps[0].signal.schema in body must be of type object",
    ),
    (
        "name: a, signal: {}, approval: {}",
        "a step has exactly one of http, kubernetes, job, operation, steps, wait, signal, approval, set, assert",
    ),
    (
        "name: a, steps: [{name: b, set: {}, wait: {duration: 1s}}]",
        "spec.steps[0].steps[0]: Invalid value: a step has exactly one of http, kubernetes, job, operation, wait, signal, approval, set, assert",
    ),
    (
        "name: a, retry: {maximumAttempts: 1}, steps: [{name: b, set: {}}]",
        "say them of the steps in it",
    ),
    ("name: a, order: Graph, set: {}", "order needs steps"),
    (
        "name: a, steps: [{name: b, set: {}}], compensate: {http: {url: 'http://x'}}",
        "or of steps with forEach",
    ),
    (
        "name: a, approval: {users: [x, x]}",
        "spec.steps[0].approval.users[1]: Duplicate value: \"x\"",
    ),
    (
        "name: a, approval: {approvers: [x]}",
        "unknown field \"spec.steps[0].approval.approvers\"",
    ),
    (
        "name: a, approval: {excludeRequester: maybe}",
        "spec.steps[0].approval.excludeRequester in body must be of type boolean",
    ),
    // lists
    (
        "name: a, set: {v: 1}, forEach: '${input.list}'",
        "spec.steps[0].forEach: Invalid value: \"${input.list}\": is an expression by itself: write it without ${...}",
    ),
    (
        "name: a, set: {v: 1}, maxParallel: 2",
        "spec.steps[0]: Invalid value: maxParallel and maxFailures need forEach",
    ),
    (
        "name: a, set: {v: 1}, maxFailures: 2",
        "maxParallel and maxFailures need forEach",
    ),
    (
        "name: a, set: {v: 1}, forEach: input.list, maxParallel: 0",
        "spec.steps[0].maxParallel in body should be greater than or equal to 1",
    ),
    (
        "name: a, set: {v: 1}, forEach: input.list, maxParallel: 1001",
        "spec.steps[0].maxParallel in body should be less than or equal to 1000",
    ),
    (
        "name: a, set: {v: 1}, forEach: input.list, maxFailures: 101",
        "spec.steps[0].maxFailures in body should be less than or equal to 100",
    ),
    // failure and undo
    (
        "name: a, set: {v: 1}, onFailure: Ignore",
        "spec.steps[0].onFailure: Unsupported value: \"Ignore\": supported values: \"Fail\", \"Continue\"",
    ),
    (
        "name: a, set: {v: 1}, compensate: {http: {url: 'http://h'}}",
        "spec.steps[0].compensate: Invalid value: can only be said of a step with an effect: http, kubernetes, job or operation",
    ),
    (
        "name: a, http: {url: 'http://h'}, compensate: {}",
        "spec.steps[0].compensate: Invalid value: compensate has exactly one of http, kubernetes, job",
    ),
    (
        "name: a, http: {url: 'http://h'}, compensate: {http: {url: 'http://h'}, job: {image: i}}",
        "compensate has exactly one of http, kubernetes, job",
    ),
    (
        "name: a, http: {url: 'http://h'}, compensate: {http: {url: 'ftp://h'}}",
        "spec.steps[0].compensate.http.url: Invalid value: \"ftp://h\": must begin with http:// or https://",
    ),
    (
        "name: a, http: {url: 'http://h'}, compensate: {wait: {duration: 1s}}",
        "unknown field \"spec.steps[0].compensate.wait\"",
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
        "{steps: [{name: a, signal: {}}, {name: b, approval: {}}, {name: c, signal: {name: go, schema: {type: object}, default: {n: 1}}}]}",
        "{steps: [{name: a, forEach: 'lists.range(3)', maxParallel: 1000, maxFailures: 0, set: {v: '${item}'}, onFailure: Continue}]}",
        "{failurePolicy: Compensate, cancel: {mode: Compensate}, steps: [{name: a, job: {image: i}, compensate: {kubernetes: {delete: {resource: {apiVersion: v1, kind: ConfigMap, name: web}}}}}], finally: [{name: z, set: {s: '${operation.state}'}}]}",
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
      failurePolicy: Compensate
      finally: [{name: tell, http: {method: POST, url: "http://h", body: {said: "much"}}}]
      steps:
      - {name: call, http: {method: POST, url: "http://h", body: {deep: {list: [1, 2, {k: v}]}}}, compensate: {http: {url: "http://h", body: {un: "do"}}}}
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
        (
            "failurePolicy: Compensate",
            "failurePolicy: Pause",
            "spec.failurePolicy is immutable",
        ),
        ("failurePolicy: Compensate", "", "spec.failurePolicy is immutable"),
        ("name: tell", "name: tale", "spec.finally is immutable"),
        (r#"said: "much""#, r#"said: "little""#, "spec.finally is immutable"),
        (r#"said: "much""#, r#"sent: "much""#, "spec.finally is immutable"),
        (r#"un: "do""#, r#"un: "done""#, "spec.steps[0]"),
        (r#"un: "do""#, r#"in: "do""#, "spec.steps"),
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

/// An action's manifest, from what it asks.
fn action(spec: &str) -> String {
    let mut spec: Value = serde_yaml::from_str(spec).unwrap_or_else(|error| panic!("{error}\n{spec}"));
    if spec.get("operationRef").is_none() {
        spec["operationRef"] = json!({"name": "operation"});
    }
    json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "OperationAction", "metadata": {"name": "asked"}, "spec": spec})
        .to_string()
}

#[tokio::test]
async fn bad_actions_are_refused_and_an_action_is_immutable() {
    let place = Place::new("actions").await;
    const ONE: &str =
        "an action has exactly one of signal, approve, reject, retry, retryNow, skip, complete, fail, reset";
    for (spec, expected) in [
        ("{}", ONE),
        ("{retry: {}, skip: {step: a}}", ONE),
        ("{approve: {step: a}, reject: {step: a}}", ONE),
        ("{pause: {}}", "unknown field \"spec.pause\""),
        (
            "{operationRef: {name: ''}, retry: {}}",
            "spec.operationRef.name in body should be at least 1 chars long",
        ),
        (
            "{operationRef: {}, retry: {}}",
            "spec.operationRef.name: Required value",
        ),
        ("{signal: {}}", "spec.signal.name: Required value"),
        (
            "{signal: {name: go, payload: [1]}}",
            "spec.signal.payload in body must be of type object",
        ),
        ("{approve: {}}", "spec.approve.step: Required value"),
        (
            "{approve: {step: a, epoch: -1}}",
            "spec.approve.epoch in body should be greater than or equal to 0",
        ),
        ("{retryNow: {}}", "spec.retryNow.step: Required value"),
        ("{skip: {}}", "spec.skip.step: Required value"),
        ("{complete: {output: {}}}", "spec.complete.step: Required value"),
        ("{fail: {message: x}}", "spec.fail.step: Required value"),
        ("{reset: {}}", "spec.reset.step: Required value"),
        (
            "{retry: {newKey: perhaps}}",
            "spec.retry.newKey in body must be of type boolean",
        ),
    ] {
        let refused = place
            .kubectl(&["create", "--dry-run=server", "-f", "-"], &action(spec))
            .await;
        assert!(!refused.ok, "accepted: {spec}");
        assert!(
            refused.err.contains(expected),
            "{spec}\n  expected: {expected}\n  said: {}",
            refused.err
        );
    }
    let created = place.kubectl(&["create", "-f", "-"], &action("retry: {}")).await;
    assert!(created.ok, "{}", created.err);
    for patch in [
        r#"{"spec": {"retry": {"step": "a"}}}"#,
        r#"{"spec": {"operationRef": {"name": "other"}}}"#,
        r#"{"spec": {"requestedBy": {"user": "alice"}}}"#,
    ] {
        let refused = place
            .kubectl(&["patch", "opact", "asked", "--type=merge", "--patch", patch], "")
            .await;
        assert!(
            refused.err.contains("an OperationAction is immutable: create another"),
            "{patch}: {}{}",
            refused.out,
            refused.err
        );
    }
    let listed = place.kubectl(&["get", "opact"], "").await;
    let header: Vec<&str> = listed
        .out
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(header, ["NAME", "OPERATION", "STATE", "BY", "MESSAGE", "AGE"]);
    place.end().await;
}

/// Waits until kubectl, as somebody, gets this answer.
async fn until(place: &Place, arguments: &[&str], input: &str, wanted: impl Fn(&Printed) -> bool) -> Printed {
    let started = Instant::now();
    loop {
        let printed = place.kubectl(arguments, input).await;
        if wanted(&printed) {
            return printed;
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{arguments:?}: {}{}",
            printed.out,
            printed.err
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Users of this test alone may create actions and operations, and what `subresources` says.
async fn let_users(place: &Place, rules: &Value) {
    let manifests = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "users"}, "rules": rules},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "users"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "users"},
         "subjects": [
            {"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"},
            {"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}]},
    ]});
    let applied = place.kubectl(&["apply", "-f", "-"], &manifests.to_string()).await;
    assert!(applied.ok, "{}", applied.err);
}

#[tokio::test]
async fn who_asks_is_who_admission_says_it_is() {
    let place = Place::new("requester").await;
    let rules = json!([{"apiGroups": ["holdfast.dev"], "resources": ["operationactions", "cloudoperations", "cloudoperations/retry"], "verbs": ["get", "create", "patch"]}]);
    let_users(&place, &rules).await;
    let create = [
        "create",
        "--dry-run=server",
        "-o",
        "json",
        "-f",
        "-",
        "--as=alice",
        "--as-group=dev",
    ];
    // Once RBAC and the policies are in force, a forged name is overwritten by the true one.
    let forged = action("{retry: {}, requestedBy: {user: mallory, groups: [system:masters]}}");
    let stamped = until(&place, &create, &forged, |printed| {
        printed.ok && printed.out.contains("alice")
    })
    .await;
    let stamped: Value = serde_json::from_str(&stamped.out).unwrap();
    let by = &stamped["spec"]["requestedBy"];
    assert_eq!(by["user"], "alice");
    assert!(by["groups"].as_array().unwrap().contains(&"dev".into()), "{by}");
    assert!(!by.to_string().contains("system:masters"), "{by}");
    let unsaid = place.kubectl(&create, &action("retry: {}")).await;
    assert!(
        unsaid.out.contains("\"user\": \"alice\""),
        "{}{}",
        unsaid.out,
        unsaid.err
    );

    // Who created an operation is recorded, whatever is said, and stays.
    let mut operation: Value = serde_json::from_str(&manifest("operation", &format!("{{{STEP}}}"))).unwrap();
    operation["metadata"]["annotations"] = json!({"holdfast.dev/created-by": "mallory"});
    let create = ["create", "-o", "json", "-f", "-", "--as=alice"];
    let created = place.kubectl(&create, &operation.to_string()).await;
    assert!(created.ok, "{}", created.err);
    let created: Value = serde_json::from_str(&created.out).unwrap();
    assert_eq!(created["metadata"]["annotations"]["holdfast.dev/created-by"], "alice");
    for said in [json!("bob"), json!(null)] {
        let patch = json!({"metadata": {"annotations": {"holdfast.dev/created-by": said}}}).to_string();
        for user in ["--as=alice", "--as=bob"] {
            let refused = place
                .kubectl(
                    &["patch", "cop", "operation", "--type=merge", "--patch", &patch, user],
                    "",
                )
                .await;
            assert!(!refused.ok, "{patch} {user}");
            assert!(
                refused
                    .err
                    .contains("the annotation holdfast.dev/created-by is not to be set"),
                "{}",
                refused.err
            );
        }
    }
    // What else is written leaves it as it is.
    let noted = place
        .kubectl(
            &[
                "patch",
                "cop",
                "operation",
                "--type=merge",
                "--patch",
                r#"{"spec": {"suspend": true}}"#,
                "--as=bob",
            ],
            "",
        )
        .await;
    assert!(noted.ok, "{}", noted.err);
    place.end().await;
}

#[tokio::test]
async fn an_action_needs_the_right_to_what_it_asks_of_that_operation() {
    let place = Place::new("rights").await;
    let verbs = [
        ("signal: {name: go}", "signal"),
        ("approve: {step: a}", "approve"),
        ("reject: {step: a}", "approve"),
        ("retry: {}", "retry"),
        ("retryNow: {step: a}", "retry"),
        ("skip: {step: a}", "skip"),
        ("complete: {step: a}", "complete"),
        ("fail: {step: a}", "complete"),
        ("reset: {step: a}", "reset"),
    ];
    let create = ["create", "--dry-run=server", "-f", "-", "--as=alice"];
    let actions = json!({"apiGroups": ["holdfast.dev"], "resources": ["operationactions"], "verbs": ["create"]});
    let_users(&place, &json!([actions])).await;
    // Before RBAC knows, the refusal is RBAC's own: after it, the policy's.
    until(&place, &create, &action("retry: {}"), |printed| {
        printed.err.contains("cloudoperations/retry")
    })
    .await;
    for (verb, subresource) in verbs {
        let refused = place.kubectl(&create, &action(verb)).await;
        let expected = format!(
            "alice may not create cloudoperations/{subresource} of operation in namespace {}",
            place.namespace
        );
        assert!(
            !refused.ok && refused.err.contains(&expected),
            "{verb}: {}{}",
            refused.out,
            refused.err
        );
    }
    // A right to one operation, by its name, is none to another; and to one thing none to another.
    let one = json!({"apiGroups": ["holdfast.dev"], "resources": ["cloudoperations/approve"], "resourceNames": ["operation"], "verbs": ["create"]});
    let_users(&place, &json!([actions, one])).await;
    until(&place, &create, &action("approve: {step: a}"), |printed| printed.ok).await;
    let accepted = place.kubectl(&create, &action("reject: {step: a}")).await;
    assert!(accepted.ok, "{}", accepted.err);
    let other = place
        .kubectl(&create, &action("{operationRef: {name: other}, approve: {step: a}}"))
        .await;
    assert!(
        other
            .err
            .contains("alice may not create cloudoperations/approve of other in namespace"),
        "{}",
        other.err
    );
    let skip = place.kubectl(&create, &action("skip: {step: a}")).await;
    assert!(skip.err.contains("cloudoperations/skip of operation"), "{}", skip.err);
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
