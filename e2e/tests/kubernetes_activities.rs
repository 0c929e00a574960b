//! The `kubernetes` and `job` activities against a real API server: what it answers, refuses and denies.
//!
//! Needs a cluster whose user may do everything: `KUBECONFIG`.

use std::sync::Arc;
use std::time::Duration;

use holdfast::activities::clients::Clients;
use holdfast::activities::discovery::Discovery;
use holdfast::activities::watches::Watches;
use holdfast::activities::{AttemptContext, Claim, job, kubernetes};
use holdfast::engine::expression::Scope;
use holdfast::engine::{AttemptFailure, Effect, IdempotencyKey, Outcome, RetryAdvice};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};

struct Leads;

impl Claim for Leads {
    fn is_held(&self) -> bool {
        true
    }
}

/// A namespace with the service accounts `releaser`, which may do everything in it, and `nobody`.
struct Bench {
    client: Client,
    clients: Clients,
    discovery: Discovery,
    watches: Watches,
    namespace: String,
}

impl Bench {
    async fn new() -> Self {
        let mut config = Config::infer()
            .await
            .expect("KUBECONFIG names a cluster whose user may do everything");
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        let params = PostParams::default();
        let created = read(json!({"metadata": {"generateName": "activities-"}}));
        let created = Api::<Namespace>::all(client.clone())
            .create(&params, &created)
            .await
            .unwrap();
        let namespace = created.name_any();
        let clients = Clients::new(client.clone(), None);
        let discovery = Discovery::new(client.clone());
        let bench = Self {
            watches: Watches::new(clients.clone(), discovery.clone()),
            clients,
            discovery,
            client,
            namespace,
        };
        for name in ["releaser", "nobody"] {
            let account = json!({"metadata": {"name": name}});
            bench
                .api::<ServiceAccount>()
                .create(&params, &read(account))
                .await
                .unwrap();
        }
        let role =
            json!({"metadata": {"name": "all"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
        bench.api::<Role>().create(&params, &read(role)).await.unwrap();
        let binding = json!({
            "metadata": {"name": "all"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "all"},
            "subjects": [{"kind": "ServiceAccount", "name": "releaser", "namespace": bench.namespace}],
        });
        bench
            .api::<RoleBinding>()
            .create(&params, &read(binding))
            .await
            .unwrap();
        bench.until_rights_are_known().await;
        bench
    }

    /// The API server's authorizer learns of a binding by watch, a moment after it was made.
    async fn until_rights_are_known(&self) {
        let releaser = self.clients.as_service_account(&self.namespace, "releaser");
        let pods: Api<Pod> = Api::namespaced(releaser, &self.namespace);
        for _ in 0..600 {
            if pods.list(&ListParams::default()).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the service account releaser gets no rights");
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn context(&self, account: &str, step: &str) -> AttemptContext {
        AttemptContext {
            namespace: self.namespace.clone(),
            operation: "deploy".into(),
            service_account: account.into(),
            operation_uid: "0b9e2b9c-0000-4000-8000-000000000000".into(),
            step: step.into(),
            attempt: 1,
            key: IdempotencyKey::new("u1", step, 0),
            failures: 0,
            maybe_done: false,
            undoes: false,
            sensitive: false,
            writes_secret: false,
            result_counts: true,
            scope: Scope::default(),
            kubernetes: self.clients.as_service_account(&self.namespace, account),
            claim: Arc::new(Leads),
            target: None,
        }
    }

    async fn run(&self, step: &str, request: Value) -> Outcome {
        kubernetes::run(&self.context("releaser", step), &self.discovery, &read(request)).await
    }

    async fn done(&self, request: Value) -> Value {
        succeeded(self.run("change", request).await)
    }

    async fn fails(&self, request: Value) -> AttemptFailure {
        failed(self.run("change", request).await)
    }

    async fn wait(&self, request: Value) -> Outcome {
        let waiting = async {
            let context = self.context("releaser", "wait");
            kubernetes::wait(&context, &self.watches, &self.discovery, &read(request)).await
        };
        tokio::time::timeout(Duration::from_secs(60), waiting)
            .await
            .expect("it comes")
    }

    async fn remove(self) {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await
            .unwrap();
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[track_caller]
fn succeeded(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Succeeded { result, .. } => result,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn failed(outcome: Outcome) -> AttemptFailure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_failure(failure: &AttemptFailure, reason: &str, effect: Effect, retry: RetryAdvice) {
    let found = (failure.reason.as_str(), failure.effect, failure.retry);
    assert_eq!(found, (reason, effect, retry), "{}", failure.message);
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data})
}

fn reference(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name})
}

#[tokio::test]
async fn requests() {
    let bench = Bench::new().await;

    // Apply: its own fields again, and those of another.
    for size in ["1", "2"] {
        let applied = bench
            .done(json!({"apply": {"manifest": map(json!({"size": size}))}}))
            .await;
        assert_eq!(applied["data"]["size"], size);
        assert!(applied["metadata"].get("managedFields").is_none());
    }
    let theirs = Patch::Apply(map(json!({"colour": "red"})));
    let maps = bench.api::<k8s_openapi::api::core::v1::ConfigMap>();
    maps.patch("settings", &PatchParams::apply("kubectl"), &theirs)
        .await
        .unwrap();
    let failure = bench
        .fails(json!({"apply": {"manifest": map(json!({"colour": "blue"}))}}))
        .await;
    assert_failure(&failure, "FieldConflict", Effect::None, RetryAdvice::Never);
    assert!(
        failure.message.contains(".data.colour") && failure.message.contains("kubectl"),
        "{}",
        failure.message
    );
    let mut misspelt = map(json!({}));
    misspelt["dat"] = json!({"a": "b"});
    let failure = bench.fails(json!({"apply": {"manifest": misspelt}})).await;
    assert!(failure.message.contains("dat"), "{}", failure.message);
    assert_failure(&failure, "Invalid", Effect::None, RetryAdvice::Never);

    // Create: once, again by the same step, and by another.
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}, "stringData": {"token": "hunter2"}});
    for _ in 0..2 {
        let created = bench.done(json!({"create": {"manifest": secret}})).await;
        assert_eq!(created["data"], json!({"token": "***"}));
    }
    let failure = failed(bench.run("other", json!({"create": {"manifest": secret}})).await);
    assert_failure(&failure, "AlreadyExists", Effect::None, RetryAdvice::Never);

    // Patches carry the version that was read; a JSON patch is made once.
    let settings = reference("v1", "ConfigMap", "settings");
    let merged = bench
        .done(json!({"patch": {"resource": settings, "patch": {"data": {"size": "3"}}}}))
        .await;
    assert_eq!(merged["data"]["size"], "3");
    let web = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "none"}]}},
        },
    });
    bench.done(json!({"apply": {"manifest": web}})).await;
    let deployment = reference("apps/v1", "Deployment", "web");
    let add = json!([{"op": "add", "path": "/spec/template/spec/containers/0/args", "value": ["a"]}, {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "b"}]);
    for _ in 0..2 {
        let patched = bench
            .done(json!({"patch": {"resource": deployment, "type": "JSON", "patch": add}}))
            .await;
        assert_eq!(
            patched["spec"]["template"]["spec"]["containers"][0]["args"],
            json!(["a", "b"])
        );
    }
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"size": "4"}});
    let failure = bench
        .fails(json!({"patch": {"resource": settings, "patch": stale}}))
        .await;
    assert_failure(&failure, "Conflict", Effect::None, RetryAdvice::Never);
    let failure = bench
        .fails(json!({"patch": {"resource": settings, "patch": {"data": {"size": 4}}}}))
        .await;
    assert_failure(&failure, "Invalid", Effect::None, RetryAdvice::Never);

    let scaled = bench
        .done(json!({"scale": {"resource": deployment, "replicas": 2}}))
        .await;
    assert_eq!(
        (&scaled["kind"], &scaled["spec"]["replicas"]),
        (&json!("Scale"), &json!(2))
    );

    let listed = bench
        .done(json!({"list": {"apiVersion": "apps/v1", "kind": "Deployment"}}))
        .await;
    assert_eq!(listed["items"][0]["kind"], "Deployment");
    let failure = bench
        .fails(json!({"get": {"resource": reference("v1", "ConfigMap", "none")}}))
        .await;
    assert_failure(&failure, "NotFound", Effect::None, RetryAdvice::Never);

    bench.done(json!({"delete": {"resource": settings}})).await;
    assert_eq!(bench.done(json!({"delete": {"resource": settings}})).await, json!({}));
    bench.remove().await;
}

#[tokio::test]
async fn evictions_obey_disruption_budgets() {
    let bench = Bench::new().await;
    let pod = json!({
        "metadata": {"name": "web", "labels": {"app": "web"}},
        // No scheduler's: on a node, the kubelet would say how it really is.
        "spec": {"schedulerName": "nobody", "serviceAccountName": "releaser", "containers": [{"name": "main", "image": "none"}]},
    });
    bench
        .api::<Pod>()
        .create(&PostParams::default(), &read(pod))
        .await
        .unwrap();
    let running =
        Patch::Merge(json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}));
    bench
        .api::<Pod>()
        .patch_status("web", &PatchParams::default(), &running)
        .await
        .unwrap();
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "web"}}},
    });
    bench.done(json!({"create": {"manifest": budget}})).await;
    let failure = bench.fails(json!({"evict": {"pod": "web"}})).await;
    assert_eq!(
        (failure.reason.as_str(), failure.effect),
        ("DisruptionBudget", Effect::None),
        "{}",
        failure.message
    );
    bench
        .done(json!({"delete": {"resource": reference("policy/v1", "PodDisruptionBudget", "web")}}))
        .await;
    for _ in 0..2 {
        bench.done(json!({"evict": {"pod": "web"}})).await;
    }
    bench.remove().await;
}

#[tokio::test]
async fn denied_access_says_who_may_not_do_what() {
    let bench = Bench::new().await;
    let context = bench.context("nobody", "change");
    let request = read(json!({"apply": {"manifest": map(json!({}))}}));
    let failure = failed(kubernetes::run(&context, &bench.discovery, &request).await);
    assert_failure(&failure, "AccessDenied", Effect::None, RetryAdvice::Backoff);
    let namespace = &bench.namespace;
    let who = format!("service account {namespace}/nobody may not patch configmaps in namespace {namespace}: ");
    assert!(failure.message.starts_with(&who), "{}", failure.message);
    let request = read(json!({"resource": reference("v1", "ConfigMap", "m"), "for": "Current"}));
    let failure = failed(kubernetes::wait(&context, &bench.watches, &bench.discovery, &request).await);
    assert_failure(&failure, "AccessDenied", Effect::None, RetryAdvice::Backoff);
    bench.remove().await;
}

#[tokio::test]
async fn waits_follow_an_object_from_before_it_is_there_to_after_it_is_gone() {
    let bench = Bench::new().await;
    let settings = reference("v1", "ConfigMap", "settings");
    let until = bench.wait(json!({"resource": settings, "until": "object.data.size == '3'"}));
    let changes = async {
        for size in ["1", "2", "3"] {
            tokio::time::sleep(Duration::from_millis(200)).await;
            bench
                .done(json!({"apply": {"manifest": map(json!({"size": size}))}}))
                .await;
        }
    };
    let (until, ()) = tokio::join!(until, changes);
    assert_eq!(succeeded(until)["data"]["size"], "3");
    // The watch is there already: what follows sees no state from before the last change.
    bench
        .done(json!({"apply": {"manifest": map(json!({"size": "4"}))}}))
        .await;
    let seen = succeeded(bench.wait(json!({"resource": settings, "for": "Current"})).await);
    assert_eq!(seen["data"]["size"], "4");
    assert_eq!(bench.watches.count(), 1);
    let (gone, _) = tokio::join!(
        bench.wait(json!({"resource": settings, "for": "Deleted"})),
        bench.done(json!({"delete": {"resource": settings}}))
    );
    assert_eq!(succeeded(gone), json!({}));
    let namespace =
        json!({"resource": reference("v1", "Namespace", &bench.namespace), "until": "object.status.phase == 'Active'"});
    assert_eq!(
        failed(bench.wait(namespace).await).reason,
        "AccessDenied",
        "a Role gives nothing in the cluster"
    );
    bench.remove().await;
}

#[tokio::test]
async fn a_job_is_started_once_found_again_and_stopped() {
    let bench = Bench::new().await;
    let context = bench.context("releaser", "runTool");
    let request = read(json!({"image": "none", "resources": {"limits": {"memory": "16Mi"}}}));
    let external = match job::start(&context, &request).await {
        Outcome::Accepted { external } => external,
        other => panic!("{other:?}"),
    };
    // The operation that owns it isn't there: the garbage collector may take the Job at any time, and also right after it
    // was in the way of another.
    loop {
        match job::start(&context, &request).await {
            Outcome::Accepted { external: again } => break assert_eq!(again.name, external.name),
            Outcome::Failed(failure) if failure.reason == "Vanished" => {}
            other => panic!("{other:?}"),
        }
    }
    let progress: job::Progress = Arc::new(|_| {});
    for found in [Some(&external), None] {
        job::stop(&context, &bench.watches, found, &progress).await.unwrap();
    }
    let failure = failed(job::follow(&context, &bench.watches, &external, &progress).await);
    assert_eq!((failure.reason.as_str(), failure.effect), ("Vanished", Effect::Unknown));
    bench.remove().await;
}
