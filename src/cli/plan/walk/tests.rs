use std::cell::RefCell;

use super::*;
use crate::cli::fixtures::operation;
use crate::cli::plan::rehearsal::{Attempt, Effect};
use crate::cli::plan::words::named;

/// A cluster in which a few things are there, and nobody may write Secrets.
#[derive(Default)]
struct Pretended {
    tried: RefCell<Vec<String>>,
}

impl Rehearse for Pretended {
    async fn attempt(&self, attempt: Attempt<'_>) -> Result<Effect, AttemptFailure> {
        let (kind, name) = named(&attempt.request);
        let name = name.unwrap_or_default();
        self.tried.borrow_mut().push(format!("{} {kind} {name}", attempt.step));
        let reads = attempt.request.get("get").is_some();
        match (kind.as_str(), name.as_str()) {
            _ if attempt.step_type == StepType::Job => Ok(Effect::Create),
            ("Secret", _) => Err(AttemptFailure::retryable("AccessDenied", "you may not")),
            (_, "web") if reads => Ok(Effect::Read(json!({"spec": {"replicas": 3}}))),
            (_, "web") => Ok(Effect::Change(vec![])),
            (_, "same") => Ok(Effect::Nothing),
            _ if attempt.request.get("apply").is_some() => Ok(Effect::Create),
            _ => Err(AttemptFailure::definite(
                "NotFound",
                format!("{kind} {name} doesn't exist"),
            )),
        }
    }
}

async fn planned(spec: &str) -> (Walked, Vec<String>) {
    let operation = operation("web", spec, "{}");
    let workflow = Workflow::compile(&operation.spec).unwrap();
    let identity = Identity {
        namespace: "prod".into(),
        name: "web".into(),
        uid: "u".into(),
        ..Identity::default()
    };
    let pretended = Pretended::default();
    let walked = walk(&workflow, &operation.spec, &identity, &pretended).await;
    (walked, pretended.tried.into_inner())
}

fn told(steps: &[Planned]) -> Vec<String> {
    let line = |step: &Planned| {
        let after: Vec<&str> = step.known_after.iter().map(String::as_str).collect();
        let after = if after.is_empty() {
            String::new()
        } else {
            format!(" <{}>", after.join(","))
        };
        format!("{} {:?}{after} {}", step.name, step.action, step.message)
    };
    steps
        .iter()
        .flat_map(|step| std::iter::once(step).chain(&step.items))
        .map(line)
        .collect()
}

const GET_WEB: &str = "kubernetes: {get: {resource: {apiVersion: apps/v1, kind: Deployment, name: web}}}, output: {size: '${result.spec.replicas}'}";

#[tokio::test]
async fn what_is_known_is_evaluated_and_what_is_not_says_after_what() {
    let (walked, _) = planned(&format!(
        "
        input: {{size: 5}}
        steps:
        - {{name: now, {GET_WEB}}}
        - {{name: more, set: {{by: '${{input.size - steps.now.output.size}}'}}}}
        - {{name: sane, assert: steps.more.output.by > 0}}
        - {{name: never, when: steps.more.output.by > 9, http: {{url: 'http://a/'}}}}
        - {{name: buy, http: {{method: POST, url: 'http://a/${{string(input.size)}}', body: {{key: '${{step.idempotencyKey}}'}}, auth: {{bearer: {{secretKeyRef: {{name: shop, key: token}}}}}}}}, output: {{id: '${{result.body.id}}'}}}}
        - {{name: use, set: {{id: '${{steps.buy.output.id}}', size: '${{input.size}}'}}}}
        - {{name: maybe, when: steps.buy.output.id == 'x', kubernetes: {{get: {{resource: {{apiVersion: v1, kind: Pod, name: web}}}}}}}}
        - {{name: scale, kubernetes: {{scale: {{resource: {{apiVersion: apps/v1, kind: Deployment, name: web}}, replicas: '${{input.size}}'}}}}}}
        - {{name: again, {GET_WEB}}}
        finally:
        - {{name: tell, when: operation.state == 'Failed', http: {{url: 'http://a/'}}}}
        output: {{was: '${{steps.now.output.size}}', id: '${{steps.buy.output.id}}'}}
        "
    ))
    .await;
    assert_eq!(
        told(&walked.steps),
        [
            "now Read get Deployment web",
            "more Computed {\"by\":2}",
            "sane Holds steps.more.output.by > 0",
            "never Skipped when steps.more.output.by > 9 is false",
            "buy Call POST http://a/5 {\"key\":\"${step.idempotencyKey}\"} (with token of Secret shop)",
            "use Unknown <buy> {\"id\":\"${steps.buy.output.id}\",\"size\":5}",
            "maybe Read <buy> get Pod web",
            "scale Change scale Deployment web to 5",
            "again Unknown <scale> get Deployment web",
        ]
    );
    assert_eq!(told(&walked.finally), ["tell Call <the other steps> GET http://a/"]);
    assert_eq!(walked.steps[6].when.as_deref(), Some("steps.buy.output.id == 'x'"));
    assert_eq!(walked.output, Some(json!({"was": 3, "id": "${steps.buy.output.id}"})));
}

#[tokio::test]
async fn what_an_earlier_step_makes_is_no_failure_and_what_nobody_makes_is() {
    let (walked, tried) = planned(
        "
        order: Graph
        steps:
        - {name: make, kubernetes: {apply: {manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: new}}}}}
        - {name: read, needs: [make], kubernetes: {get: {resource: {apiVersion: v1, kind: Namespace, name: other}}}}
        - {name: lost, kubernetes: {get: {resource: {apiVersion: v1, kind: ConfigMap, name: lost}}}}
        - {name: after, needs: [lost], http: {url: 'http://a/'}}
        - {name: fine, onFailure: Continue, kubernetes: {get: {resource: {apiVersion: v1, kind: ConfigMap, name: lost}}}}
        - {name: then, when: steps.fine.state == 'Failed', set: {why: '${steps.fine.failure.reason}'}}
        - {name: secret, kubernetes: {apply: {manifest: {apiVersion: v1, kind: Secret, metadata: {name: s}}}}}
        - {name: same, needs: [secret], kubernetes: {apply: {manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: same}}}}}
        ",
    )
    .await;
    assert_eq!(
        told(&walked.steps),
        [
            "make Create apply ConfigMap new",
            "read Unknown <make> get Namespace other (now: Namespace other doesn't exist)",
            "lost Fails NotFound: ConfigMap lost doesn't exist",
            "after NotReached after lost",
            "fine FailsAndGoesOn NotFound: ConfigMap lost doesn't exist",
            "then Computed {\"why\":\"NotFound\"}",
            "secret Refused AccessDenied: you may not",
            "same NoChange apply ConfigMap same",
        ]
    );
    assert_eq!(tried.len(), 6);
}

#[tokio::test]
async fn lists_and_what_would_undo() {
    let (walked, _) = planned(
        "
        input: {names: [web, other]}
        steps:
        - {name: each, forEach: input.names, kubernetes: {apply: {manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: '${item}'}}}},
           compensate: {kubernetes: {delete: {resource: {apiVersion: v1, kind: ConfigMap, name: '${item}'}}}}}
        - {name: size, forEach: input.names, set: {n: '${size(item)}'}}
        - {name: sum, set: {all: '${steps.size.output.items}'}}
        - {name: later, forEach: steps.each.output.items, job: {image: x}}
        ",
    )
    .await;
    assert_eq!(
        told(&walked.steps),
        [
            "each Items 2 items",
            "each[0] Change apply ConfigMap web",
            "each[1] Create apply ConfigMap other",
            "size Items 2 items",
            "size[0] Computed {\"n\":3}",
            "size[1] Computed {\"n\":5}",
            "sum Computed {\"all\":[{\"n\":3},{\"n\":5}]}",
            "later Unknown <each> for each item of steps.each.output.items",
        ]
    );
    assert_eq!(told(&walked.undo), ["each:undo Undo delete ConfigMap ${item}"]);
}

#[tokio::test]
async fn groups_and_groups_for_each_item() {
    let (walked, _) = planned(&format!(
        "
        input: {{names: [web, other]}}
        steps:
        - name: look
          steps:
          - {{name: now, {GET_WEB}}}
          - {{name: sane, assert: steps.now.output.size > 0}}
          output: {{size: '${{steps.now.output.size}}'}}
        - {{name: read, set: {{group: '${{steps.look.output.size}}', step: '${{steps.now.output.size}}'}}}}
        - name: each
          forEach: input.names
          steps:
          - {{name: known, set: {{n: '${{size(item)}}'}}}}
          - {{name: call, when: steps.known.output.n > 3, http: {{url: 'http://a/${{item}}'}}, output: {{id: '${{result.body}}'}}}}
          - {{name: then, set: {{id: '${{steps.call.state}}'}}}}
          output: {{n: '${{steps.known.output.n}}'}}
        - {{name: later, set: {{all: '${{steps.each.output.items}}'}}}}
        output: {{size: '${{steps.now.output.size}}'}}
        "
    ))
    .await;
    let told: Vec<String> = walked.steps.iter().flat_map(|step| deep(step, 0)).collect();
    assert_eq!(
        told,
        [
            "look Items 2 steps",
            " look/now Read get Deployment web",
            " look/sane Holds steps.now.output.size > 0",
            "read Computed {\"group\":3,\"step\":3}",
            "each Items 2 items",
            " each[0] Items 3 steps",
            "  each[0]/known Computed {\"n\":3}",
            "  each[0]/call Skipped when steps.known.output.n > 3 is false",
            "  each[0]/then Computed {\"id\":\"Skipped\"}",
            " each[1] Items 3 steps",
            "  each[1]/known Computed {\"n\":5}",
            "  each[1]/call Call GET http://a/other",
            "  each[1]/then Unknown <each/call> {\"id\":\"${steps.call.state}\"}",
            "later Unknown <each> {\"all\":\"${steps.each.output.items}\"}",
        ]
    );
    assert_eq!(walked.output, Some(json!({"size": 3})));
}

fn deep(step: &Planned, depth: usize) -> Vec<String> {
    let own = Planned {
        items: vec![],
        ..step.clone()
    };
    let mut lines = vec![" ".repeat(depth) + &told(&[own])[0]];
    lines.extend(step.items.iter().flat_map(|item| deep(item, depth + 1)));
    lines
}
