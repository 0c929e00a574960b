//! Installing Holdfast by kustomize and by Helm: both give the same, with the least rights, and both can be removed in any
//! order without leaving anything stuck.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_e2e::install::install;
use holdfast_e2e::kubectl::{Printed, kubectl, kubectl_with, run};
use holdfast_e2e::operator::{Operator, binary};
use holdfast_e2e::world::PATIENCE;
use serde_json::{Value, json};
use tokio::sync::Mutex;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn path(of: &str) -> String {
    root().join(of).display().to_string()
}

async fn helm(arguments: &[&str]) -> Printed {
    let printed = run(&path("e2e/helm/run"), "", arguments).await;
    assert!(
        printed.ok,
        "helm {}\n{}{}",
        arguments.join(" "),
        printed.out,
        printed.err
    );
    printed
}

/// The objects in a stream of YAML documents.
fn objects(yaml: &str) -> Vec<Value> {
    let documents = yaml.split("\n---").map(|document| document.trim_start_matches("---"));
    let parsed =
        documents.map(|document| serde_yaml::from_str::<Value>(document).unwrap_or_else(|e| panic!("{e}\n{document}")));
    parsed.filter(|object| object.is_object()).collect()
}

async fn kustomized(of: &str) -> Vec<Value> {
    let built = kubectl(&["kustomize", &path(of)]).await;
    assert!(built.ok, "{of}: {}", built.err);
    objects(&built.out)
}

async fn templated(arguments: &[&str]) -> Vec<Value> {
    let chart = path("charts/holdfast");
    let mut all = vec!["template", "holdfast", &chart, "--namespace", "holdfast-system"];
    all.extend(arguments);
    objects(&helm(&all).await.out)
}

/// The one object of this kind whose name ends so.
fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let named = |object: &&Value| {
        object["kind"] == kind && object["metadata"]["name"].as_str().is_some_and(|n| n.ends_with(name))
    };
    let found: Vec<&Value> = objects.iter().filter(named).collect();
    assert_eq!(found.len(), 1, "objects of kind {kind} named *{name}");
    found[0]
}

#[tokio::test]
async fn chart_and_kustomize_give_the_same() {
    let config = kustomized("config/default").await;
    let chart = templated(&[]).await;
    for (kind, name) in [
        ("ClusterRole", "-operations"),
        ("ClusterRole", "-cluster"),
        ("Role", "-lease"),
        ("Role", "-callbacks"),
        ("ClusterRole", "holdfast-view"),
        ("ClusterRole", "holdfast-edit"),
        ("ClusterRole", "holdfast-admin"),
    ] {
        assert_eq!(
            find(&chart, kind, name)["rules"],
            find(&config, kind, name)["rules"],
            "{kind} {name}"
        );
    }
    let policies = |objects: &[Value]| -> BTreeMap<(String, String), Value> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let named = objects.iter().map(|object| {
            let key = (text(&object["kind"]), text(&object["metadata"]["name"]));
            (key, object["spec"].clone())
        });
        named
            .filter(|((kind, _), _)| kind.contains("AdmissionPolicy"))
            .collect()
    };
    let expected = policies(&config);
    let immutable = (
        "ValidatingAdmissionPolicy".to_owned(),
        "holdfast-immutable-spec".to_owned(),
    );
    assert!(expected.contains_key(&immutable), "{:?}", expected.keys());
    let newer = [
        "--api-versions",
        "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy",
    ];
    assert_eq!(policies(&templated(&newer).await), expected);
    // The chart sees by itself that a cluster is older.
    let mut older = expected;
    older.retain(|(kind, _), _| !kind.starts_with("Mutating"));
    assert_eq!(policies(&chart), older);
    // The CRDs are the same text, but for this: see tests/packaging.rs.
    let kept = &find(&chart, "CustomResourceDefinition", "cloudoperations.holdfast.dev")["metadata"]["annotations"];
    assert_eq!(kept["helm.sh/resource-policy"], "keep");

    let pods = [&config, &chart].map(|objects| &find(objects, "Deployment", "holdfast")["spec"]["template"]["spec"]);
    assert_eq!(pods[0]["securityContext"], pods[1]["securityContext"]);
    assert_eq!(
        pods[0]["terminationGracePeriodSeconds"],
        pods[1]["terminationGracePeriodSeconds"]
    );
    for field in [
        "image",
        "env",
        "ports",
        "livenessProbe",
        "readinessProbe",
        "resources",
        "securityContext",
    ] {
        assert_eq!(
            pods[0]["containers"][0][field], pods[1]["containers"][0][field],
            "{field}"
        );
    }
    let budgets =
        [&config, &chart].map(|objects| &find(objects, "PodDisruptionBudget", "holdfast")["spec"]["maxUnavailable"]);
    assert_eq!(budgets[0], budgets[1]);
}

#[tokio::test]
async fn older_clusters_are_spared_what_they_do_not_have() {
    let overlay = root().join("target/older-cluster");
    std::fs::create_dir_all(&overlay).unwrap();
    for base in ["default", "namespaced"] {
        let lines = format!("resources: [../../config/{base}]\ncomponents: [../../config/before-1.36]\n");
        std::fs::write(overlay.join("kustomization.yaml"), lines).unwrap();
        let (all, older) = (
            kustomized(&format!("config/{base}")).await,
            kustomized("target/older-cluster").await,
        );
        let kinds = |objects: &[Value], mutating: bool| {
            let kinds = objects.iter().filter_map(|object| object["kind"].as_str());
            kinds.filter(|kind| kind.starts_with("Mutating") == mutating).count()
        };
        assert_eq!((kinds(&all, true), kinds(&older, true)), (4, 0), "{base}");
        assert_eq!(kinds(&all, false), kinds(&older, false), "{base}");
    }
}

#[tokio::test]
async fn one_namespace_means_rights_in_one_namespace() {
    let config = kustomized("config/namespaced").await;
    let chart = templated(&["--set", "watchNamespace=team-a"]).await;
    for objects in [&config, &chart] {
        // What the operator does, and impersonates, ends at the namespace
        for kind in ["Role", "RoleBinding"] {
            assert_eq!(find(objects, kind, "-operations")["metadata"]["namespace"], "team-a");
        }
        assert_eq!(find(objects, "RoleBinding", "-operations")["roleRef"]["kind"], "Role");
        // Of the cluster it reads that namespace's object, its own CRDs and its own policy, each by name
        for rule in find(objects, "ClusterRole", "-cluster")["rules"].as_array().unwrap() {
            let names = rule["resourceNames"].as_array().expect("objects by name");
            let own = |name: &Value| name.as_str().is_some_and(|name| name.contains("holdfast"));
            assert!(*names == [json!("team-a")] || names.iter().all(own), "{rule}");
        }
        let operators = |role: &&Value| {
            role["kind"] == "ClusterRole"
                && role["metadata"]["labels"]
                    .as_object()
                    .unwrap()
                    .keys()
                    .all(|l| !l.contains("aggregate-to"))
        };
        assert_eq!(objects.iter().filter(operators).count(), 1);
        assert_eq!(
            objects
                .iter()
                .filter(|object| object["kind"] == "ClusterRoleBinding")
                .count(),
            1
        );
    }
    let rules = |objects| find(objects, "Role", "-operations")["rules"].clone();
    assert_eq!(rules(&config), rules(&chart));
    let env = &find(&config, "Deployment", "holdfast")["spec"]["template"]["spec"]["containers"][0]["env"];
    assert!(
        env.as_array()
            .unwrap()
            .contains(&json!({"name": "HOLDFAST_NAMESPACE", "value": "team-a"})),
        "{env}"
    );
    let args = &find(&chart, "Deployment", "holdfast")["spec"]["template"]["spec"]["containers"][0]["args"];
    assert!(
        args.as_array().unwrap().contains(&json!("--namespace=team-a")),
        "{args}"
    );
}

#[tokio::test]
async fn the_chart_renders_all_of_its_values_and_refuses_others() {
    let chart = path("charts/holdfast");
    helm(&["lint", "--strict", &chart]).await;
    let rendered = templated(&[
        "--set",
        "serviceMonitor.enabled=true,networkPolicy.enabled=true,networkPolicy.egress[0].ports[0].port=443,priorityClassName=system-cluster-critical",
        "--set",
        "httpTargets={10.0.0.0/8,*.corp.example.com},extraArgs={--hold-all},nodeSelector.disk=ssd",
        "--set",
        &format!("image.digest=sha256:{}", "a".repeat(64)),
        "--set",
        "crds.install=false,admissionPolicy.install=false,userRoles.install=false",
    ])
    .await;
    find(&rendered, "ServiceMonitor", "holdfast");
    let policy = &find(&rendered, "NetworkPolicy", "holdfast")["spec"];
    let replicas = &policy["egress"][0]["to"][0]["podSelector"];
    assert_eq!(
        *replicas, policy["podSelector"],
        "replicas forward callbacks to the one that leads"
    );
    assert_eq!(policy["egress"][1]["ports"][0]["port"], 443);
    let pod = &find(&rendered, "Deployment", "holdfast")["spec"]["template"]["spec"];
    assert_eq!(
        pod["containers"][0]["image"],
        format!("holdfast@sha256:{}", "a".repeat(64))
    );
    let args = pod["containers"][0]["args"].as_array().unwrap();
    assert!(
        args.contains(&json!("--allow-http=10.0.0.0/8,*.corp.example.com")) && args.contains(&json!("--hold-all")),
        "{args:?}"
    );
    for kind in ["CustomResourceDefinition", "ValidatingAdmissionPolicy"] {
        assert!(rendered.iter().all(|object| object["kind"] != kind), "{kind}");
    }
    // The arguments are the operator's own
    let operator = run(&binary().display().to_string(), "", &["operator", "--help"]).await;
    for argument in args
        .iter()
        .filter_map(Value::as_str)
        .filter(|argument| argument.starts_with("--"))
    {
        let flag = argument.split('=').next().unwrap();
        assert!(
            operator.out.contains(flag),
            "{flag} is not an argument of holdfast operator"
        );
    }
    for wrong in [
        "replicas=two",
        "logFormat=xml",
        "image.digest=latest",
        "leaseDuration=1d",
        "replica=3",
    ] {
        let refused = run(&path("e2e/helm/run"), "", &["template", "x", &chart, "--set", wrong]).await;
        assert!(
            !refused.ok && refused.err.contains("schema"),
            "{wrong}: {}{}",
            refused.out,
            refused.err
        );
    }
}

/// A control plane of a test's own, for what there is one of in a cluster. Removed when it is dropped.
struct Cluster {
    name: String,
    kubeconfig: String,
    directory: tempfile::TempDir,
}

impl Cluster {
    /// None where clusters aren't ours to make: with `CLUSTER=kind` and `CLUSTER=current`.
    async fn up(name: &str) -> Option<Self> {
        if holdfast_e2e::cluster() != "local" {
            holdfast_e2e::skipped("it makes a local cluster of its own");
            return None;
        }
        let name = format!("{name}-{}", std::process::id());
        let up = run(&path("e2e/cluster/run"), "", &["up", "--name", &name]).await;
        assert!(up.ok, "{}", up.err);
        let kubeconfig = up.out.lines().last().unwrap_or_default().to_owned();
        Some(Self {
            name,
            kubeconfig,
            directory: tempfile::tempdir().unwrap(),
        })
    }

    async fn try_kubectl(&self, arguments: &[&str], input: &str) -> Printed {
        let mut all = vec!["kubectl", "--kubeconfig", &self.kubeconfig];
        all.extend(arguments);
        run(&path("e2e/cluster/run"), input, &all).await
    }

    async fn kubectl(&self, arguments: &[&str]) -> String {
        let printed = self.try_kubectl(arguments, "").await;
        assert!(
            printed.ok,
            "kubectl {}\n{}{}",
            arguments.join(" "),
            printed.out,
            printed.err
        );
        printed.out
    }

    async fn helm(&self, arguments: &[&str]) -> String {
        let mut all = vec!["--kubeconfig", &self.kubeconfig, "--namespace", "holdfast-system"];
        all.extend(arguments);
        helm(&all).await.out
    }

    /// The operator with the rights that were installed. There is no node here for its Pods: a process stands in.
    async fn operator(&self) -> Operator {
        let token = self
            .kubectl(&["create", "token", "holdfast", "--namespace", "holdfast-system"])
            .await;
        let mut config: Value = serde_yaml::from_str(&std::fs::read_to_string(&self.kubeconfig).unwrap()).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        let kubeconfig = self.directory.path().join("operator").display().to_string();
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        Operator::start(
            &kubeconfig,
            &["--lease-namespace", "holdfast-system", "--lease-duration", "4s"],
        )
    }

    /// Applies an operation that succeeds and one that goes on, and waits until both are as far.
    async fn two_operations(&self) {
        for (name, step) in [("done", "set: {v: 1}"), ("going", "wait: {duration: 1h}")] {
            let manifest = format!(
                "{{apiVersion: holdfast.dev/v1alpha1, kind: CloudOperation, metadata: {{name: {name}}}, spec: {{steps: [{{name: a, {step}}}]}}}}"
            );
            let begun = Instant::now();
            loop {
                let applied = self.try_kubectl(&["apply", "-f", "-"], &manifest).await;
                if applied.ok {
                    break;
                }
                // As docs/install.md says of the first seconds: kinds are there late, and admission learns of them later.
                assert!(begun.elapsed() < PATIENCE, "{}", applied.err);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        self.kubectl(&["wait", "cop/done", "--for=condition=Succeeded", "--timeout=300s"])
            .await;
        self.kubectl(&[
            "wait",
            "cop/going",
            "--for=jsonpath={.status.state}=Waiting",
            "--timeout=300s",
        ])
        .await;
    }

    async fn states(&self) -> String {
        self.kubectl(&[
            "get",
            "cops",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name}={.status.state} {end}",
        ])
        .await
        .trim()
        .to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let down = std::process::Command::new(path("e2e/cluster/run"))
            .args(["down", "--name", &self.name])
            .output();
        if let Err(error) = down {
            eprintln!("cluster {} is left: {error}", self.name);
        }
    }
}

#[tokio::test]
async fn kustomize_installs_twice_and_removes_everything() {
    let Some(cluster) = Cluster::up("kustomize").await else {
        return;
    };
    // Given
    let config = path("config/default");
    cluster.kubectl(&["apply", "-k", &config]).await;
    cluster
        .kubectl(&[
            "wait",
            "crd/cloudoperations.holdfast.dev",
            "--for=condition=Established",
            "--timeout=300s",
        ])
        .await;
    let generations = [
        "get",
        "deployment,pdb,crd,validatingadmissionpolicy",
        "-A",
        "-o",
        "jsonpath={.items[*].metadata.generation}",
    ];
    let before = cluster.kubectl(&generations).await;
    // When it is applied again
    cluster.kubectl(&["apply", "-k", &config]).await;
    // Then nothing changes
    assert_eq!(cluster.kubectl(&generations).await, before);

    let operator = cluster.operator().await;
    cluster.two_operations().await;
    // When all is deleted while an operation goes on. The API server's own finalizer of a definition was once seen to take more
    // than two minutes, beside other clusters: where it does, its condition says why.
    let deleted = cluster
        .try_kubectl(&["delete", "-k", &config, "--timeout=300s"], "")
        .await;
    if !deleted.ok {
        let crds = cluster
            .kubectl(&[
                "get",
                "crds",
                "-o",
                "jsonpath={range .items[*]}{.metadata.name}: {.status.conditions}{'\\n'}{end}",
            ])
            .await;
        panic!("{}{}\n{crds}", deleted.out, deleted.err);
    }
    // Then nothing is left
    let left = cluster.try_kubectl(&["get", "cops"], "").await;
    assert!(!left.ok, "{}", left.out);
    let left = cluster
        .kubectl(&[
            "get",
            "clusterroles,clusterrolebindings,validatingadmissionpolicies",
            "-l",
            "app.kubernetes.io/name=holdfast",
            "-o",
            "name",
        ])
        .await;
    assert_eq!(left, "");
    operator.kill().await;
}

#[tokio::test]
async fn helm_uninstalls_in_both_orders() {
    let Some(cluster) = Cluster::up("helm").await else {
        return;
    };
    let chart = path("charts/holdfast");
    let install = ["upgrade", "--install", "holdfast", &chart, "--create-namespace"];
    // Given a release with operations
    cluster.helm(&install).await;
    let operator = cluster.operator().await;
    cluster.two_operations().await;
    let done = cluster
        .kubectl(&["get", "cop", "done", "-o", "jsonpath={.status}"])
        .await;

    // When the release goes first
    cluster
        .helm(&["uninstall", "holdfast", "--wait", "--timeout", "300s"])
        .await;
    operator.kill().await;
    // Then the operations stay as they were, and can be deleted
    assert_eq!(cluster.states().await, "done=Succeeded going=Waiting");
    cluster.kubectl(&["delete", "cop", "going", "--timeout=300s"]).await;
    // And a new release takes over what is there, without running it again
    cluster.helm(&install).await;
    let operator = cluster.operator().await;
    cluster.two_operations().await;
    assert_eq!(
        cluster
            .kubectl(&["get", "cop", "done", "-o", "jsonpath={.status}"])
            .await,
        done
    );

    // When the CRD goes first, with all operations
    cluster
        .kubectl(&["delete", "crd", "cloudoperations.holdfast.dev", "--timeout=300s"])
        .await;
    cluster
        .helm(&["uninstall", "holdfast", "--wait", "--timeout", "300s"])
        .await;
    // Then nothing is stuck
    let all = "all,roles,rolebindings,pdb";
    let begun = Instant::now();
    loop {
        let left = ["get", all, "--namespace", "holdfast-system", "-o", "name"];
        let left = cluster.kubectl(&left).await;
        if left.is_empty() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{left}"); // the garbage collector takes its time
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    operator.kill().await;
}

/// The cluster that all tests share: one installation at a time.
static SHARED: Mutex<()> = Mutex::const_new(());

const IMAGE: &str = "localhost/holdfast:e2e";

/// The operator's image, on the nodes of the shared cluster. False where there are none that take one.
async fn image() -> bool {
    if holdfast_e2e::cluster() == "current" || std::env::var("NODE").as_deref() != Ok("1") {
        holdfast_e2e::skipped("there is no node that takes the image");
        return false;
    }
    holdfast_e2e::image::load(IMAGE, &binary(), "/holdfast").await;
    true
}

async fn shared(arguments: &[&str]) -> String {
    let printed = kubectl(arguments).await;
    assert!(
        printed.ok,
        "kubectl {}\n{}{}",
        arguments.join(" "),
        printed.out,
        printed.err
    );
    printed.out
}

/// Applies an operation to the shared cluster.
async fn operation(namespace: &str, name: &str, steps: &str) {
    let manifest = format!(
        "{{apiVersion: holdfast.dev/v1alpha1, kind: CloudOperation, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{serviceAccountName: runner, steps: {steps}}}}}"
    );
    let applied = kubectl_with(&manifest, &["apply", "-f", "-"]).await;
    assert!(applied.ok, "{}", applied.err);
}

/// The image, the probes, restricted pod security, `helm test` and an upgrade in the middle of an operation.
#[tokio::test]
async fn helm_runs_the_operator_in_pods_for_one_namespace() {
    let _alone = SHARED.lock().await;
    if !image().await {
        return;
    }
    install().await;
    let system = format!("pods-{}", std::process::id());
    let team = format!("{system}-team");
    for namespace in [&system, &team] {
        shared(&["create", "namespace", namespace]).await;
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        shared(&["label", "namespace", namespace, restricted]).await;
    }
    let chart = path("charts/holdfast");
    let values = format!("watchNamespace={team},image.repository=localhost/holdfast,image.tag=e2e");
    let shared_parts = "crds.install=false,admissionPolicy.install=false,userRoles.install=false";
    let upgrade = [
        "upgrade",
        "--install",
        "holdfast",
        &chart,
        "--namespace",
        &system,
        "--wait",
        "--timeout",
        "3m",
        "--set",
        &values,
        "--set",
        shared_parts,
    ];
    helm(&upgrade).await;
    let deployment = ["get", "deployment", "holdfast", "--namespace", &system, "-o"];
    let ready = shared(&[&deployment[..], &["jsonpath={.status.readyReplicas}"]].concat()).await;
    assert_eq!(ready, "2");
    helm(&["test", "holdfast", "--namespace", &system, "--timeout", "2m"]).await;

    operation(
        &team,
        "going",
        "[{name: pause, wait: {duration: 30s}}, {name: done, set: {v: 1}}]",
    )
    .await;
    let waiting = "--for=jsonpath={.status.state}=Waiting";
    shared(&["wait", "cop/going", "--namespace", &team, waiting, "--timeout=300s"]).await;
    helm(&[&upgrade[..], &["--set", "logFormat=text"]].concat()).await;
    let succeeded = "--for=condition=Succeeded";
    shared(&["wait", "cop/going", "--namespace", &team, succeeded, "--timeout=300s"]).await;

    // The keys of callbacks outlive the release: of what is under way elsewhere the next one hears.
    operation(
        &team,
        "asks",
        "[{name: ask, retry: {maximumAttempts: 1}, http: {url: 'https://nowhere.invalid/', async: true}}]",
    )
    .await;
    let finished = "--for=condition=Finished";
    shared(&["wait", "cop/asks", "--namespace", &team, finished, "--timeout=300s"]).await;
    let secret = ["get", "secret", "holdfast-callback-keys", "--namespace", &system, "-o"];
    let secret = [&secret[..], &["jsonpath={.data}"]].concat();
    let keys = shared(&secret).await;

    let uninstall = ["uninstall", "holdfast", "--namespace", &system, "--wait"];
    let removed = tokio::time::timeout(Duration::from_secs(120), helm(&uninstall)).await;
    removed.expect("helm uninstall ends");
    assert_eq!(shared(&secret).await, keys);
    shared(&["delete", "namespace", &system, &team, "--wait=false"]).await;
}

#[tokio::test]
async fn kustomize_runs_the_operator_in_pods_for_the_whole_cluster() {
    let _alone = SHARED.lock().await;
    if !image().await {
        return;
    }
    let built = shared(&["kustomize", &path("config/default")]).await;
    let manifests = built.replace("image: holdfast:0.1.0", &format!("image: {IMAGE}"));
    assert!(
        manifests.contains(IMAGE),
        "the image has another name in config/operator"
    );
    let applied = kubectl_with(&manifests, &["apply", "--server-side", "--force-conflicts", "-f", "-"]).await;
    assert!(applied.ok, "{}", applied.err);
    let rollout = [
        "rollout",
        "status",
        "deployment/holdfast",
        "--timeout=180s",
        "--namespace",
    ];
    shared(&[&rollout[..], &["holdfast-system"]].concat()).await;

    // It acts as the operation's account, and as nobody else.
    let namespace = format!("kustomized-{}", std::process::id());
    shared(&["create", "namespace", &namespace]).await;
    shared(&["create", "serviceaccount", "runner", "--namespace", &namespace]).await;
    let account = format!("--serviceaccount={namespace}:runner");
    shared(&[
        "create",
        "rolebinding",
        "runner",
        "--clusterrole=edit",
        &account,
        "--namespace",
        &namespace,
    ])
    .await;
    let apply =
        "[{name: a, kubernetes: {apply: {manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: made}}}}}]";
    operation(&namespace, "makes", apply).await;
    operation(&namespace, "going", "[{name: pause, wait: {duration: 1h}}]").await;
    let succeeded = "--for=condition=Succeeded";
    shared(&[
        "wait",
        "cop/makes",
        "--namespace",
        &namespace,
        succeeded,
        "--timeout=300s",
    ])
    .await;
    shared(&["get", "configmap", "made", "--namespace", &namespace]).await;
    let waiting = "--for=jsonpath={.status.state}=Waiting";
    shared(&[
        "wait",
        "cop/going",
        "--namespace",
        &namespace,
        waiting,
        "--timeout=300s",
    ])
    .await;

    // The operator goes first: what is left stays as it was, and can be deleted.
    shared(&["delete", "namespace", "holdfast-system", "--timeout=300s"]).await;
    shared(&["get", "cop", "going", "--namespace", &namespace]).await;
    shared(&["delete", "namespace", &namespace, "--timeout=300s"]).await;
    let removed = kubectl_with(
        &manifests,
        &["delete", "--ignore-not-found", "--timeout=300s", "-f", "-"],
    )
    .await;
    assert!(removed.ok, "{}", removed.err);
}
