//! `job` steps: containers that run to their end.

use holdfast::api::{CloudOperation, HistoryEvent, OperationState, StepState};
use holdfast_e2e::image;
use holdfast_e2e::world::{World, events, message_of, output, step};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Resource, ResourceExt};
use serde_json::json;

/// Runs an operation whose steps' `IMAGE` is this one.
async fn run(world: &World, image: &str, name: &str, spec: &str) {
    world.run(name, &spec.replace("IMAGE", image)).await;
}

async fn jobs(world: &World, of: &str) -> Vec<Job> {
    let label = ListParams::default().labels(&format!("holdfast.dev/operation={of}"));
    world.api::<Job>().list(&label).await.unwrap().items
}

#[tokio::test]
async fn what_a_container_writes_is_the_steps_output() {
    let Some(image) = image::task().await else { return };
    let world = World::new("job-output").await;
    let _operator = world.operator();
    world
        .prints(&["create", "secret", "generic", "api", "--from-literal=token=t0p-secret"])
        .await;
    run(
        &world,
        image,
        "outputs",
        r#"
        order: Graph
        serviceAccountName: runner
        input: {size: 3}
        steps:
        - name: object
          job: {image: IMAGE, command: [/task], args: [say, hello, write, '{"size": ${input.size}, "ok": true}']}
        - name: named
          job: {image: IMAGE, command: [/task, write, '[1, 2]'], resources: {limits: {memory: 64Mi}}}
          output: {second: "${result[1]}"}
        - name: text
          job: {image: IMAGE, command: [/task, env, SIZE], env: [{name: SIZE, value: "size ${input.size}"}]}
          output: {said: "${result}"}
        - name: secret
          job: {image: IMAGE, command: [/task, env, TOKEN], env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: api, key: token}}}]}
          output: {length: "${size(result)}"}
        - name: key
          job: {image: IMAGE, command: [/task, env, HOLDFAST_IDEMPOTENCY_KEY]}
          output: {same: "${result == step.idempotencyKey}"}
        - name: template
          job:
            template:
              metadata: {labels: {team: data}}
              spec:
                securityContext: {runAsUser: 1000, runAsNonRoot: true}
                containers:
                - {name: work, image: IMAGE, command: [/task, write, "${operation.name}"]}
                - {name: side, image: IMAGE, command: [/task, write, ignored]}
          output: {name: "${result}"}
        "#,
    )
    .await;
    let ended = world.ends("outputs", OperationState::Succeeded).await;
    for (name, expected) in [
        ("object", json!({"size": 3, "ok": true})),
        ("named", json!({"second": 2})),
        ("text", json!({"said": "size 3"})),
        ("secret", json!({"length": 10})),
        ("key", json!({"same": true})),
        ("template", json!({"name": "outputs"})),
    ] {
        assert_eq!(output(&ended, name), expected, "{name}");
    }
    use HistoryEvent::{Accepted, AttemptStarted, StepSucceeded};
    assert_eq!(events(&ended, "text"), [AttemptStarted, Accepted, StepSucceeded]);
    let jobs = jobs(&world, "outputs").await;
    assert_eq!(jobs.len(), 6);
    for job in &jobs {
        let owner = &job.owner_references()[0];
        assert_eq!(&owner.uid, ended.meta().uid.as_ref().unwrap());
    }
    let external = step(&ended, "template").external.clone().unwrap();
    let template = jobs.iter().find(|job| job.name_any() == external.name).unwrap();
    let pod = &template.spec.as_ref().unwrap().template;
    assert_eq!(pod.metadata.as_ref().unwrap().labels.as_ref().unwrap()["team"], "data");
    world.prints(&["delete", "cop", "outputs"]).await;
    world.until_gone::<CloudOperation>("outputs").await;
    world.until_gone::<Job>(&external.name).await;
}

#[tokio::test]
async fn a_failed_job_says_why_and_is_retried_under_another_name() {
    let Some(image) = image::task().await else { return };
    let world = World::new("job-failure").await;
    let _operator = world.operator();
    run(
        &world,
        image,
        "fails",
        r#"
        serviceAccountName: runner
        steps:
        - name: migrate
          job: {image: IMAGE, command: [/task, say, connecting, say, the table is locked, exit, "3"]}
          retry: {initialInterval: 100ms, maximumAttempts: 2}
        "#,
    )
    .await;
    run(
        &world,
        image,
        "cut",
        "{serviceAccountName: runner, steps: [{name: a, job: {image: IMAGE, command: [/task, fill, '5000']}}]}",
    )
    .await;
    let ended = world.ends("fails", OperationState::Failed).await;
    assert_eq!(step(&ended, "migrate").attempt, 2);
    for part in [
        "JobFailed",
        "exited with code 3",
        "connecting\nthe table is locked",
        "(after 2 attempts)",
    ] {
        assert!(message_of(&ended).contains(part), "{part}: {}", message_of(&ended));
    }
    let mut names: Vec<_> = jobs(&world, "fails").await.iter().map(ResourceExt::name_any).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 2, "{names:?}");

    let ended = world.ends("cut", OperationState::Failed).await;
    assert!(
        message_of(&ended).contains("OutputTruncated") && message_of(&ended).contains("was cut"),
        "{}",
        message_of(&ended)
    );
    assert_eq!(
        jobs(&world, "cut").await.len(),
        1,
        "it did its work: it isn't run again"
    );
}

#[tokio::test]
async fn a_job_that_can_not_start_says_why_and_is_stopped_by_cancel() {
    let Some(image) = image::task().await else { return };
    let world = World::new("job-cancel").await;
    let _operator = world.operator();
    world
        .run(
            "pulls",
            "{serviceAccountName: runner, steps: [{name: a, job: {image: 'localhost/nobody:1'}}]}",
        )
        .await;
    run(
        &world,
        image,
        "sleeps",
        "{serviceAccountName: runner, steps: [{name: a, job: {template: {spec: {terminationGracePeriodSeconds: 5, containers: [{name: main, image: IMAGE, command: [/task, sleep, '3600']}]}}}}]}",
    )
    .await;
    run(
        &world,
        image,
        "expires",
        "{serviceAccountName: runner, steps: [{name: a, job: {image: IMAGE, command: [/task, sleep, '3600']}, timeouts: {scheduleToClose: 5s}}]}",
    )
    .await;
    world
        .until("pulls", "waiting for its image", |operation| {
            message_of(operation).contains("localhost/nobody:1") && message_of(operation).contains("Pull")
        })
        .await;
    let waiting = world.until_state("sleeps", OperationState::Waiting).await;
    let job = step(&waiting, "a").external.clone().unwrap().name;
    world
        .until_object::<Job>(&job, "its Pod runs", |job| {
            job.status.as_ref().is_some_and(|status| status.ready == Some(1))
        })
        .await;
    for (name, state) in [
        ("pulls", StepState::Cancelled),
        ("sleeps", StepState::Cancelled),
        ("expires", StepState::TimedOut),
    ] {
        let ends = match state {
            StepState::Cancelled => {
                world.patch(name, r#"{"spec": {"cancel": {}}}"#).await;
                OperationState::Cancelled
            }
            _ => OperationState::Failed,
        };
        let ended = world.ends(name, ends).await;
        assert_eq!(step(&ended, "a").state, state);
        let job = step(&ended, "a").external.clone().unwrap().name;
        assert!(jobs(&world, name).await.is_empty(), "{name}: its Job is gone");
        let pods = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
        let pods = world.api::<Pod>().list(&pods).await.unwrap().items;
        assert!(pods.is_empty(), "{name}: what it started still runs: {pods:?}");
    }
}

#[tokio::test]
async fn a_job_goes_on_while_the_operator_is_gone_and_is_never_started_again() {
    let Some(image) = image::task().await else { return };
    let world = World::new("job-crash").await;
    let first = world.operator();
    run(
        &world,
        image,
        "vanishes",
        "{serviceAccountName: runner, steps: [{name: a, job: {image: IMAGE, command: [/task, sleep, '3600']}}]}",
    )
    .await;
    run(
        &world,
        image,
        "survives",
        r#"{serviceAccountName: runner, steps: [{name: a, job: {image: IMAGE, command: [/task, sleep, "20", write, '{"done": true}']}}]}"#,
    )
    .await;
    world.until_state("survives", OperationState::Waiting).await;
    let waiting = world.until_state("vanishes", OperationState::Waiting).await;
    first.kill().await;
    let job = step(&waiting, "a").external.clone().unwrap().name;
    world.prints(&["delete", "job", &job]).await;

    let _second = world.operator();
    let ended = world.ends("survives", OperationState::Succeeded).await;
    assert_eq!(output(&ended, "a"), json!({"done": true}));
    assert_eq!(
        (step(&ended, "a").attempt, jobs(&world, "survives").await.len()),
        (1, 1)
    );
    let stuck = world.until_state("vanishes", OperationState::Stuck).await;
    assert!(message_of(&stuck).contains("is gone"), "{}", message_of(&stuck));
    assert!(
        jobs(&world, "vanishes").await.is_empty(),
        "unknown is not failed: it isn't run again"
    );
}
