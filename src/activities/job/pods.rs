//! What a Job's Pods say: why one doesn't start, what its container wrote as it ended, why it failed.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use serde_json::Value;

use crate::engine::{AttemptFailure, shorten};

/// How much a container's termination message can have, in bytes: the kubelet cuts what is longer.
const MAX_MESSAGE: usize = 4096;
/// How much those of all containers of a Pod can have together; each gets the same.
const MAX_MESSAGES: usize = 12 * 1024;
/// How much of a log goes into a failure's message, in characters.
const MAX_LOG: usize = 1024;

/// Why a Pod waits to be started, if it does: `container main waits: ErrImagePull: ...`.
pub fn waiting(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    for container in statuses(pod) {
        let Some(waiting) = container.state.as_ref().and_then(|s| s.waiting.as_ref()) else {
            continue;
        };
        let reason = waiting.reason.as_deref().unwrap_or_default();
        if matches!(reason, "" | "ContainerCreating" | "PodInitializing") {
            continue; // on its way
        }
        let message = waiting
            .message
            .as_deref()
            .map(|m| format!(": {}", shorten(m, 256)))
            .unwrap_or_default();
        return Some(format!("container {} waits: {reason}{message}", container.name));
    }
    let conditions = status.conditions.iter().flatten();
    let unscheduled = conditions
        .into_iter()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some(format!(
        "the pod waits for a node: {}",
        unscheduled.message.as_deref().unwrap_or_default()
    ))
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status
        .and_then(|s| s.init_container_statuses.as_deref())
        .unwrap_or_default();
    let main = status.and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    init.iter().chain(main)
}

fn terminated(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    container.state.as_ref()?.terminated.as_ref()
}

fn containers(pod: &Pod) -> usize {
    let spec = pod.spec.as_ref();
    spec.map_or(1, |s| {
        s.containers.len() + s.init_containers.as_ref().map_or(0, Vec::len)
    })
    .max(1)
}

/// The name of a Pod's first container.
fn first_container(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .containers
        .first()
        .map(|container| container.name.as_str())
}

/// The Pod that a Job succeeded with, as long as it is there.
pub fn succeeded(pods: &[Pod]) -> Option<&Pod> {
    let phase = |pod: &&Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded");
    pods.iter().find(phase)
}

/// The Pod that a Job failed with: the last one.
pub fn last(pods: &[Pod]) -> Option<&Pod> {
    pods.iter()
        .max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|t| t.0))
}

/// What a Job's first container wrote to its termination message: JSON if it is, text otherwise; null if nothing.
///
/// # Errors
/// If it was cut.
pub fn output(job: &str, pod: &Pod) -> Result<Value, AttemptFailure> {
    let name = first_container(pod);
    let container = statuses(pod).find(|container| Some(container.name.as_str()) == name);
    let message = container
        .and_then(terminated)
        .and_then(|t| t.message.as_deref())
        .unwrap_or_default();
    if message.is_empty() {
        return Ok(Value::Null);
    }
    if let Ok(value) = serde_json::from_str(message) {
        return Ok(value);
    }
    let most = MAX_MESSAGE.min(MAX_MESSAGES / containers(pod));
    if message.len() >= most {
        let message = format!(
            "Job {job} succeeded, but what it wrote to /dev/termination-log was cut: at most {} bytes fit; write less, or to a place of its own",
            most - 1
        );
        return Err(AttemptFailure::done("OutputTruncated", message));
    }
    Ok(message.into())
}

/// A container that failed, and why.
pub struct Failed<'a> {
    /// Its name.
    pub container: &'a str,
    /// What became of it: `container main exited with code 137 (OOMKilled)`.
    pub what: String,
    /// What it wrote to its termination message.
    pub said: &'a str,
}

/// The container that a Pod failed with.
pub fn failed(pod: &Pod) -> Option<Failed<'_>> {
    let ended = statuses(pod).filter_map(|container| Some((container.name.as_str(), terminated(container)?)));
    let (container, end) = ended.into_iter().find(|(_, end)| end.exit_code != 0)?;
    let reason = end
        .reason
        .as_deref()
        .filter(|r| !matches!(*r, "" | "Error"))
        .map(|r| format!(" ({r})"));
    Some(Failed {
        container,
        what: format!(
            "container {container} exited with code {}{}",
            end.exit_code,
            reason.unwrap_or_default()
        ),
        said: end.message.as_deref().unwrap_or_default().trim(),
    })
}

/// What a Pod says of its own end: `Evicted: The node was low on resource: memory.`
pub fn own_reason(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let reason = status.reason.as_deref().filter(|r| !r.is_empty())?;
    Some(match status.message.as_deref() {
        Some(message) if !message.is_empty() => format!("{reason}: {message}"),
        _ => reason.to_owned(),
    })
}

/// The end of a log, as much as goes into a message.
pub fn log_tail(log: &str) -> String {
    let log = log.trim_end();
    let start = log.char_indices().rev().nth(MAX_LOG - 1).map_or(0, |(i, _)| i);
    log[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(containers: usize, status: Value) -> Pod {
        let containers: Vec<Value> = (0..containers).map(|n| json!({"name": format!("c{n}")})).collect();
        serde_json::from_value(json!({"spec": {"containers": containers}, "status": status})).unwrap()
    }

    fn ended(name: &str, code: i32, reason: &str, message: &str) -> Value {
        json!({
            "name": name, "image": "x", "imageID": "x", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "reason": reason, "message": message}},
        })
    }

    fn wrote(containers: usize, message: &str) -> Result<Value, AttemptFailure> {
        let all = (0..containers)
            .rev()
            .map(|n| ended(&format!("c{n}"), 0, "Completed", if n == 0 { message } else { "other" }));
        output(
            "j",
            &pod(containers, json!({"containerStatuses": all.collect::<Vec<_>>()})),
        )
    }

    #[test]
    fn the_first_containers_termination_message_is_the_output() {
        assert_eq!(wrote(2, r#"{"size": 3}"#).unwrap(), json!({"size": 3}));
        assert_eq!(wrote(1, "[1, 2]").unwrap(), json!([1, 2]));
        assert_eq!(wrote(1, "done\n").unwrap(), json!("done\n"));
        assert_eq!(wrote(1, "{not json").unwrap(), json!("{not json"));
        assert_eq!(wrote(1, "").unwrap(), Value::Null);
        assert_eq!(output("j", &pod(1, json!({}))).unwrap(), Value::Null);
    }

    #[test]
    fn a_message_that_was_cut_is_no_output() {
        let long = format!("{{\"a\": \"{}\"}}", "x".repeat(5000));
        let failure = wrote(1, &long[..4096]).unwrap_err();
        assert_eq!(failure.reason, "OutputTruncated");
        assert_eq!(
            wrote(1, &long[long.len() - 4096..]).unwrap_err().reason,
            "OutputTruncated",
            "the kubelet keeps the end"
        );
        assert_eq!(wrote(1, &"x".repeat(4096)).unwrap_err().reason, "OutputTruncated");
        assert_eq!(wrote(1, &"x".repeat(4095)).unwrap(), json!("x".repeat(4095)));
        assert_eq!(
            wrote(6, &long[..2048]).unwrap_err().reason,
            "OutputTruncated",
            "six containers share 12 KiB"
        );
        let whole = format!("\"{}\"", "x".repeat(4094));
        assert_eq!(
            wrote(1, &whole).unwrap(),
            json!("x".repeat(4094)),
            "one that just fits is whole"
        );
    }

    #[test]
    fn a_failure_names_the_container_that_failed_and_why() {
        let what = |statuses: Value| failed(&pod(2, statuses)).map(|f| f.what);
        let oom = json!({"containerStatuses": [ended("c0", 0, "Completed", ""), ended("c1", 137, "OOMKilled", "")]});
        assert_eq!(what(oom).unwrap(), "container c1 exited with code 137 (OOMKilled)");
        let error = json!({"initContainerStatuses": [ended("i", 1, "Error", "")]});
        assert_eq!(what(error).unwrap(), "container i exited with code 1");
        assert_eq!(what(json!({})), None);
        let evicted = pod(1, json!({"reason": "Evicted", "message": "low on memory"}));
        assert_eq!(own_reason(&evicted).unwrap(), "Evicted: low on memory");
    }

    #[test]
    fn a_pod_that_can_not_start_says_why() {
        let state = |state: Value| {
            let container =
                json!({"name": "c0", "image": "x", "imageID": "x", "ready": false, "restartCount": 0, "state": state});
            waiting(&pod(1, json!({"containerStatuses": [container]})))
        };
        let pull = state(json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}}));
        assert_eq!(pull.unwrap(), "container c0 waits: ErrImagePull: not found");
        assert_eq!(state(json!({"waiting": {"reason": "ContainerCreating"}})), None);
        assert_eq!(state(json!({"running": {}})), None);
        let unscheduled = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]});
        assert_eq!(
            waiting(&pod(1, unscheduled)).unwrap(),
            "the pod waits for a node: 0/3 nodes are available"
        );
    }

    #[test]
    fn a_log_is_shown_from_its_end() {
        assert_eq!(log_tail("a\nb\n"), "a\nb");
        let log = "ü".repeat(3000);
        assert_eq!(log_tail(&log).chars().count(), MAX_LOG);
    }
}
