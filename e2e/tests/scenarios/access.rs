//! Who may do what: an operation what its service account may, the operator next to nothing, `http` steps what was allowed.

use holdfast::api::OperationState;
use holdfast_e2e::kubectl::kubectl;
use holdfast_e2e::world::{World, condition, message_of, step};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

/// Waits until `kubectl events` shows an Event of an operation with this reason, and answers its note.
async fn event(world: &World, operation: &str, reason: &str) -> String {
    let started = std::time::Instant::now();
    loop {
        let selector = format!("regarding.name={operation},reason={reason}");
        let printed = world
            .prints(&[
                "get",
                "events.v1.events.k8s.io",
                "--field-selector",
                &selector,
                "-o",
                "json",
            ])
            .await;
        let events: Value = serde_json::from_str(&printed).unwrap();
        if let Some(event) = events["items"].as_array().and_then(|items| items.first()) {
            assert_eq!(event["type"], "Warning");
            return event["note"].as_str().unwrap_or_default().to_owned();
        }
        assert!(
            started.elapsed() < holdfast_e2e::world::PATIENCE,
            "there is no Event {reason} of {operation}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn denied_access_is_seen_from_the_first_attempt_and_goes_on_once_it_is_granted() {
    let world = World::new("access-denied").await;
    let _operator = world.operator();
    let namespace = world.namespace.clone();
    world.prints(&["create", "serviceaccount", "nobody"]).await;
    world.prints(&["create", "configmap", "there"]).await;
    world
        .prints(&["create", "secret", "generic", "api", "--from-literal=token=x"])
        .await;
    let steps = [
        (
            "apply",
            "kubernetes: {apply: {manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: applied}}}}",
            "patch configmaps",
        ),
        (
            "wait",
            "kubernetes: {wait: {resource: {apiVersion: v1, kind: ConfigMap, name: there}, until: 'true'}}",
            "list configmaps",
        ),
        (
            "secret",
            "http: {url: INVENTORY/secret, auth: {bearer: {secretKeyRef: {name: api, key: token}}}}",
            "get secrets",
        ),
        (
            "token",
            "http: {url: INVENTORY/token-call, auth: {serviceAccountToken: {audience: a}}}",
            "create serviceaccounts/token",
        ),
        ("job", "job: {image: 'localhost/nobody:1'}", "create jobs.batch"),
    ];
    for (name, does, _) in steps {
        world
            .run(
                name,
                &format!("{{serviceAccountName: nobody, retry: {{initialInterval: 1s, backoffCoefficient: 1}}, steps: [{{name: a, {does}}}]}}"),
            )
            .await;
    }
    for (name, _, right) in steps {
        let denied = world
            .until(name, "denied", |operation| {
                message_of(operation).contains("AccessDenied")
            })
            .await;
        let (verb, resource) = right.split_once(' ').unwrap();
        let message = message_of(&denied);
        for part in [verb, resource, &format!("service account {namespace}/nobody")] {
            assert!(message.contains(part), "{name}: {part}: {message}");
        }
        assert_eq!(condition(&denied, "Succeeded").0, "Unknown", "it is no failure");
        assert_eq!(condition(&denied, "Finished").0, "False");
        let note = event(&world, name, "AttemptFailed").await;
        assert!(note.contains("step a, attempt 1: AccessDenied"), "{note}");
    }
    assert!(world.inventory.requests("/").is_empty());

    world
        .prints(&[
            "create",
            "rolebinding",
            "nobody",
            "--clusterrole=edit",
            &format!("--serviceaccount={namespace}:nobody"),
        ])
        .await;
    for name in ["apply", "wait", "secret", "token"] {
        let ended = world.ends(name, OperationState::Succeeded).await;
        assert!(step(&ended, "a").failure.is_none());
    }
    world.api::<ConfigMap>().get("applied").await.unwrap();
    world
        .until("job", "as far as its Pod", |operation| {
            step(operation, "a").external.is_some()
        })
        .await;
}

#[tokio::test]
async fn an_operation_reaches_no_other_namespace_and_nothing_of_the_cluster() {
    let world = World::new("access-elsewhere").await;
    let _operator = world.operator();
    for (name, resource) in [
        (
            "namespaced",
            "{apiVersion: v1, kind: ConfigMap, name: kube-root-ca.crt, namespace: kube-system}",
        ),
        ("cluster", "{apiVersion: v1, kind: Node, name: any}"),
    ] {
        world
            .run(
                name,
                &format!("{{serviceAccountName: runner, steps: [{{name: a, kubernetes: {{get: {{resource: {resource}}}}}, retry: {{maximumAttempts: 1}}}}]}}"),
            )
            .await;
        let ended = world.ends(name, OperationState::Failed).await;
        assert_eq!(
            step(&ended, "a").failure.as_ref().unwrap().reason,
            "AccessDenied",
            "{name}"
        );
    }
}

#[tokio::test]
async fn the_operators_own_account_is_never_acted_as() {
    let world = World::new("access-own").await;
    let _operator = world.operator();
    world
        .run(
            "own",
            "{serviceAccountName: holdfast, steps: [{name: a, kubernetes: {list: {apiVersion: holdfast.dev/v1alpha1, kind: CloudOperation}}}]}",
        )
        .await;
    let ended = world.ends("own", OperationState::Failed).await;
    assert_eq!(step(&ended, "a").failure.as_ref().unwrap().reason, "AccessDenied");
    assert!(
        message_of(&ended).contains("the operator's own service account is never acted as"),
        "{}",
        message_of(&ended)
    );
}

#[tokio::test]
async fn the_operators_own_rights_are_few() {
    let world = World::new("access-operator").await;
    let user = format!("--as=system:serviceaccount:{}:holdfast", world.namespace);
    let may = async |verb: &str, resource: &str, namespace: &str| {
        // `jobs.batch`, `leases/NAME` or `cloudoperations:SUBRESOURCE`.
        let (resource, subresource) = resource.split_once(':').unwrap_or((resource, ""));
        let subresource = format!("--subresource={subresource}");
        let asked = kubectl(&["auth", "can-i", verb, resource, &subresource, "-n", namespace, &user]).await;
        assert!(["yes", "no"].contains(&asked.out.trim()), "{}", asked.err);
        asked.out.trim() == "yes"
    };
    let here = &world.namespace;
    for (verb, resource) in [
        ("get", "secrets"),
        ("list", "secrets"),
        ("get", "configmaps"),
        ("create", "pods"),
        ("create", "jobs.batch"),
        ("create", "serviceaccounts:token"),
        ("update", "cloudoperations"),
        ("patch", "operationschedules"),
        ("delete", "operationhistories"),
        ("impersonate", "users"),
        ("impersonate", "groups"),
        ("get", "leases/other"),
    ] {
        assert!(!may(verb, resource, here).await, "the operator may {verb} {resource}");
    }
    for (verb, resource) in [
        ("watch", "cloudoperations"),
        ("create", "cloudoperations"), // of schedules, which also cancel some
        ("patch", "cloudoperations"),
        ("update", "cloudoperations:status"),
        ("impersonate", "serviceaccounts"),
        ("update", "leases/holdfast"),
    ] {
        assert!(
            may(verb, resource, here).await,
            "the operator may not {verb} {resource}"
        );
        assert!(
            !may(verb, resource, "default").await,
            "the operator may {verb} {resource} in other namespaces"
        );
    }
}

#[tokio::test]
async fn http_steps_call_what_is_allowed_and_nothing_else() {
    let world = World::new("access-targets").await;
    let api_server = world
        .prints(&[
            "config",
            "view",
            "--minify",
            "-o",
            "jsonpath={.clusters[0].cluster.server}",
        ])
        .await;
    let operator = world.operator_with(&["--allow-http", "169.254.0.0/16,0.0.0.0/0"]);
    let itself = format!("http://{}/metrics", operator.address().await);
    for (name, url, says) in [
        (
            "metadata",
            "http://169.254.169.254/latest/meta-data",
            "which no step may call",
        ),
        ("api", &*api_server, "the API server, which no step may call"),
        ("operator", &*itself, "the operator, which no step may call"),
        (
            "loopback",
            &*world.inventory.url("/called"),
            "only the operator's administrator can allow it",
        ),
        (
            "name",
            "http://localhost:1/",
            "only the operator's administrator can allow it",
        ),
    ] {
        world
            .run(name, &format!("steps: [{{name: a, http: {{url: '{url}'}}}}]"))
            .await;
        let ended = world.ends(name, OperationState::Failed).await;
        assert_eq!(
            step(&ended, "a").failure.as_ref().unwrap().reason,
            "TargetNotAllowed",
            "{name}"
        );
        assert!(message_of(&ended).contains(says), "{name}: {}", message_of(&ended));
    }
    assert!(world.inventory.requests("/").is_empty());
}

#[tokio::test]
async fn a_namespaces_annotation_opens_private_addresses() {
    let world = World::new("access-annotation").await;
    let _operator = world.operator();
    // Who is there, if anybody, doesn't matter: allowed or not is seen by how it fails.
    let spec = "steps: [{name: a, http: {url: 'http://10.255.255.1:9/'}, timeouts: {startToClose: 500ms}, retry: {maximumAttempts: 1}}]";
    world.run("before", spec).await;
    let ended = world.ends("before", OperationState::Failed).await;
    assert_eq!(step(&ended, "a").failure.as_ref().unwrap().reason, "TargetNotAllowed");
    let ask = format!(
        "add 10.255.255.1 to the annotation holdfast.dev/http-targets of namespace {}",
        world.namespace
    );
    assert!(message_of(&ended).contains(&ask), "{}", message_of(&ended));
    world
        .prints(&[
            "annotate",
            "namespace",
            &world.namespace,
            "holdfast.dev/http-targets=inventory.corp,10.0.0.0/8",
        ])
        .await;
    // The operator hears of it by its watch, in its own time.
    for n in 0.. {
        let name = format!("after{n}");
        world.run(&name, spec).await;
        let ended = world
            .until(&name, "finished", |operation| {
                condition(operation, "Finished").0 == "True"
            })
            .await;
        let failure = step(&ended, "a").failure.clone();
        if failure.is_none_or(|failure| failure.reason != "TargetNotAllowed") {
            break;
        }
        assert!(n < 50, "the annotation is not heard of: {}", message_of(&ended));
    }
}
