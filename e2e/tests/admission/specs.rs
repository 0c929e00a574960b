//! Specs: bad ones are refused with the field and the reason, good ones accepted and kept as they are.

use serde_json::{Value, json};

use crate::place::{Place, STEP, manifest};

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
        "name: a, http: {url: 'http://h'}, timeouts: {heartbeat: 10s}",
        "spec.steps[0].timeouts.heartbeat: Invalid value: can only be said of an http step with async: true",
    ),
    (
        "name: a, set: {v: 1}, timeouts: {heartbeat: 10s}",
        "spec.steps[0].timeouts.heartbeat: Invalid value: can only be said of an http step with async: true",
    ),
    (
        "name: a, local: true, http: {url: 'http://h', async: true}",
        "spec.steps[0].local: Invalid value: a step that is completed by a callback can't be local",
    ),
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
