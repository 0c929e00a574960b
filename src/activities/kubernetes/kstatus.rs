//! How far an object is, whatever its kind: in the sense of kstatus (sigs.k8s.io/cli-utils), which Helm, Flux and kubectl
//! plugins read too.
//!
//! What every kind may say is looked at first: that it is being deleted, that its controller hasn't seen its latest
//! spec, the conditions `Reconciling` and `Stalled`. Then the rules of built-in kinds, which predate those conventions;
//! for any other kind the condition `Ready`. An object that says nothing is current.
//!
//! One rule differs: a Pod that can't be scheduled is in progress, however long, where kstatus calls it failed after
//! 15 s. A node may be on its way, and a step that waits has timeouts of its own.

use serde_json::Value;

/// How far an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is as its spec says.
    Current,
    /// It is on its way: what is missing.
    InProgress(String),
    /// It won't get there by itself: why.
    Failed(String),
    /// It is being deleted.
    Terminating,
}

use Status::{Current, Failed, InProgress, Terminating};

/// Computes how far an object is.
pub fn compute(object: &Value) -> Status {
    generic(object).unwrap_or_else(|| {
        let (group, kind) = group_and_kind(object);
        match (group, kind) {
            ("", "Service") => service(object),
            ("", "Pod") => pod(object),
            ("", "PersistentVolumeClaim") => volume_claim(object),
            ("", "Secret" | "ConfigMap") | ("batch", "CronJob") => Current,
            // Its status has observedGeneration: the controller has seen it, and computed what it allows.
            ("policy", "PodDisruptionBudget") => Current,
            ("apps", "StatefulSet") => stateful_set(object),
            ("apps", "DaemonSet") => daemon_set(object),
            ("apps", "Deployment") => deployment(object),
            ("apps", "ReplicaSet") => replica_set(object),
            ("batch", "Job") => job(object),
            ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(object),
            _ => ready(object),
        }
    })
}

fn group_and_kind(object: &Value) -> (&str, &str) {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    (group, object["kind"].as_str().unwrap_or_default())
}

/// What every kind may say.
fn generic(object: &Value) -> Option<Status> {
    let metadata = &object["metadata"];
    if metadata["deletionTimestamp"].is_string() {
        return Some(Terminating);
    }
    let (wanted, observed) = (&metadata["generation"], &object["status"]["observedGeneration"]);
    if wanted.is_number() && observed.is_number() && wanted != observed {
        return Some(InProgress(format!(
            "its controller has seen generation {observed}, not {wanted} yet"
        )));
    }
    conditions(object).find_map(|condition| match (condition.kind, condition.is_true()) {
        ("Reconciling", true) => Some(InProgress(condition.says())),
        ("Stalled", true) => Some(Failed(condition.says())),
        _ => None,
    })
}

/// The condition `Ready` of kinds without rules of their own.
fn ready(object: &Value) -> Status {
    match condition(object, "Ready") {
        Some(ready) if !ready.is_true() => InProgress(ready.says()),
        _ => Current,
    }
}

fn deployment(object: &Value) -> Status {
    // Without a deadline the controller says nothing of progress.
    let deadline = number(object, "/spec/progressDeadlineSeconds").unwrap_or(i64::from(i32::MAX));
    let mut progressed = deadline == i64::from(i32::MAX);
    if let Some(progressing) = condition(object, "Progressing") {
        if progressing.reason == "ProgressDeadlineExceeded" {
            return Failed(progressing.says());
        }
        progressed |= progressing.is_true() && progressing.reason == "NewReplicaSetAvailable";
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let status = |field: &str| number(object, &format!("/status/{field}")).unwrap_or(0);
    let (replicas, updated, available) = (
        status("replicas"),
        status("updatedReplicas"),
        status("availableReplicas"),
    );
    first_missing([
        fewer("replicas", replicas, wanted),
        fewer("updated replicas", updated, wanted),
        extra(replicas, wanted),
        fewer("available replicas", available, updated),
        fewer("ready replicas", status("readyReplicas"), wanted),
        (!progressed).then(|| "its new ReplicaSet isn't available".to_owned()),
        (!condition(object, "Available").is_some_and(|c| c.is_true())).then(|| "it isn't available".to_owned()),
    ])
}

fn replica_set(object: &Value) -> Status {
    if let Some(failure) = condition(object, "ReplicaFailure").filter(Condition::is_true) {
        return InProgress(failure.says());
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let status = |field: &str| number(object, &format!("/status/{field}")).unwrap_or(0);
    first_missing([
        fewer("labelled replicas", status("fullyLabeledReplicas"), wanted),
        fewer("available replicas", status("availableReplicas"), wanted),
        fewer("ready replicas", status("readyReplicas"), wanted),
        extra(status("replicas"), wanted),
    ])
}

fn stateful_set(object: &Value) -> Status {
    if text(object, "/spec/updateStrategy/type") == "OnDelete" {
        return Current; // a person updates it, Pod by Pod
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let status = |field: &str| number(object, &format!("/status/{field}")).unwrap_or(0);
    let replicas = [
        fewer("replicas", status("replicas"), wanted),
        fewer("ready replicas", status("readyReplicas"), wanted),
        extra(status("replicas"), wanted),
    ];
    let revisions = match number(object, "/spec/updateStrategy/rollingUpdate/partition") {
        Some(partition) => [
            fewer("updated replicas", status("updatedReplicas"), wanted - partition),
            None,
        ],
        None => [
            fewer("current replicas", status("currentReplicas"), wanted),
            (text(object, "/status/currentRevision") != text(object, "/status/updateRevision"))
                .then(|| "not all replicas have the new revision".to_owned()),
        ],
    };
    first_missing(replicas.into_iter().chain(revisions))
}

fn daemon_set(object: &Value) -> Status {
    // Its controller always sets these: without them it hasn't seen the object.
    let seen = number(object, "/metadata/generation").and(number(object, "/status/observedGeneration"));
    let Some(wanted) = seen.and(number(object, "/status/desiredNumberScheduled")) else {
        return InProgress("its controller hasn't seen it yet".into());
    };
    let status = |field: &str| number(object, &format!("/status/{field}")).unwrap_or(0);
    first_missing([
        fewer("scheduled pods", status("currentNumberScheduled"), wanted),
        fewer("updated pods", status("updatedNumberScheduled"), wanted),
        fewer("available pods", status("numberAvailable"), wanted),
        fewer("ready pods", status("numberReady"), wanted),
    ])
}

fn pod(object: &Value) -> Status {
    match text(object, "/status/phase") {
        "Succeeded" | "Failed" => Current, // it has ended, however
        "Running" if condition(object, "Ready").is_some_and(|c| c.is_true()) => Current,
        "Running" => match crash_looping(object) {
            containers if containers.is_empty() => InProgress("it runs, but isn't ready".into()),
            containers => Failed(format!("containers crash again and again: {}", containers.join(", "))),
        },
        "Pending" => match condition(object, "PodScheduled").filter(|c| c.status == "False") {
            Some(unscheduled) => InProgress(unscheduled.says()),
            None => InProgress("it is pending".into()),
        },
        _ => InProgress("it has no phase yet".into()),
    }
}

fn crash_looping(object: &Value) -> Vec<&str> {
    let containers = object.pointer("/status/containerStatuses").and_then(Value::as_array);
    let looping = containers
        .into_iter()
        .flatten()
        .filter(|c| text(c, "/state/waiting/reason") == "CrashLoopBackOff");
    looping.filter_map(|c| c["name"].as_str()).collect()
}

fn volume_claim(object: &Value) -> Status {
    match text(object, "/status/phase") {
        "Bound" => Current,
        phase => InProgress(format!(
            "it is not bound, but {}",
            if phase.is_empty() { "unknown" } else { phase }
        )),
    }
}

/// A Job is current once it has started, as it goes on by itself: `until` waits for its end.
fn job(object: &Value) -> Status {
    for condition in conditions(object).filter(Condition::is_true) {
        match condition.kind {
            "Complete" | "Suspended" => return Current,
            "Failed" => return Failed(condition.says()),
            _ => {}
        }
    }
    match text(object, "/status/startTime") {
        "" => InProgress("it hasn't started".into()),
        _ => Current,
    }
}

fn service(object: &Value) -> Status {
    if text(object, "/spec/type") == "LoadBalancer" && text(object, "/spec/clusterIP").is_empty() {
        return InProgress("it has no cluster IP yet".into());
    }
    Current
}

fn definition(object: &Value) -> Status {
    for condition in conditions(object) {
        match (condition.kind, condition.status) {
            ("NamesAccepted", "False") => return Failed(condition.says()),
            ("Established", "False") if condition.reason != "Installing" => return Failed(condition.says()),
            ("Established", "True") => return Current,
            _ => {}
        }
    }
    InProgress("it is being installed".into())
}

// --- what the rules are made of ------------------------------------------------------------------------------------

fn first_missing(missing: impl IntoIterator<Item = Option<String>>) -> Status {
    missing.into_iter().flatten().next().map_or(Current, InProgress)
}

fn fewer(what: &str, there: i64, wanted: i64) -> Option<String> {
    (there < wanted).then(|| format!("{there} of {wanted} {what}"))
}

fn extra(there: i64, wanted: i64) -> Option<String> {
    (there > wanted).then(|| format!("{} replicas still to end", there - wanted))
}

struct Condition<'a> {
    kind: &'a str,
    status: &'a str,
    reason: &'a str,
    message: &'a str,
}

impl Condition<'_> {
    fn is_true(&self) -> bool {
        self.status == "True"
    }

    fn says(&self) -> String {
        match (self.reason, self.message) {
            ("", "") => format!("{} is {}", self.kind, self.status),
            ("", text) | (text, "") => text.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        }
    }
}

fn conditions(object: &Value) -> impl Iterator<Item = Condition<'_>> {
    let all = object.pointer("/status/conditions").and_then(Value::as_array);
    all.into_iter().flatten().map(|condition| Condition {
        kind: text(condition, "/type"),
        status: text(condition, "/status"),
        reason: text(condition, "/reason"),
        message: text(condition, "/message"),
    })
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<Condition<'a>> {
    conditions(object).find(|condition| condition.kind == kind)
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

#[cfg(test)]
mod tests;
