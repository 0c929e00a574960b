//! `OperationSchedule`: operations on a cron.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CloudOperationSpec, Duration, Time, atomic};

/// Starts an operation at each of the times that a cron expression names: exactly one for each, whatever crashes.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "OperationSchedule",
    plural = "operationschedules",
    singular = "operationschedule",
    shortname = "opsched",
    category = "holdfast",
    namespaced,
    status = "OperationScheduleStatus",
    annotation("holdfast.dev/schema", "1"),
    derive = "PartialEq",
    doc = "An OperationSchedule starts a CloudOperation at each of the times that a cron expression names: exactly one for each, whatever crashes.",
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule", description = "When operations start"),
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.timeZone", description = "The time zone of the schedule; UTC if there is none", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, description = "Whether operations start, or why not"),
    printcolumn(name = "Last", type_ = "date", json_path = ".status.lastScheduleTime", description = "Time since the last one was due that was started"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextTimes[0]", description = "When the next one is due"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.active[0].name", description = "The operation that is under way; the first one where there are several"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, description = "What is wrong, or why it is paused", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since it was created"),
    validation = Rule::new("size(self.metadata.name) <= 180").message("metadata.name must have at most 180 characters: operations are named by it and the time")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.operation.spec.startDeadline)").message("leave it out: spec.startDeadline says how late an operation may start").field_path(".operation.spec.startDeadline"))]
#[x_kube(validation = Rule::new("!has(self.operation.spec.ttlSecondsAfterFinished)").message("leave it out: successfulHistoryLimit and failedHistoryLimit say how many operations are kept").field_path(".operation.spec.ttlSecondsAfterFinished"))]
#[x_kube(validation = Rule::new("!has(self.operation.spec.cancel)").message("leave it out: an operation that is cancelled at its start does nothing").field_path(".operation.spec.cancel"))]
pub struct OperationScheduleSpec {
    /// When operations start: minute, hour, day of the month, month, day of the week, as cron has them. Names of months and
    /// days are `JAN` and `MON`; Sunday is 0 and 7.
    #[schemars(
        length(min = 9, max = 256),
        regex(pattern = r"^[0-9*/,-]+ +[0-9*/,-]+ +[0-9*/,-]+ +([0-9*/,-]|[A-Za-z]{3})+ +([0-9*/,-]|[A-Za-z]{3})+$")
    )]
    pub schedule: String,

    /// The time zone of `schedule`, such as `Europe/Berlin`. UTC if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,

    /// Each operation starts up to so much later, so that not all of a cluster start in the same moment: by how much is
    /// the same each time one looks, and never as much as to reach the next time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Duration>,

    /// What happens at a due time while an earlier operation is under way. Default: `Skip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_policy: Option<ConcurrencyPolicy>,

    /// What is started.
    pub operation: OperationToStart,

    /// Due times that were missed while no operator ran, or the namespace was held, are made up for if no more than this
    /// has passed since. Default: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up_window: Option<Duration>,

    /// How long after its due time an operation may start: one that waited longer, for another to end, is not started, and
    /// one that the operator sees later ends as `Expired`. No limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_deadline: Option<Duration>,

    /// True: nothing is started but what `backfill` says. What is due meanwhile is not made up for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,

    /// Why it is paused, or anything else that others should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub note: Option<String>,

    /// Times in the past whose due times are run now: each range once, one operation after the other, or all at once with
    /// the `concurrencyPolicy` `AllowAll`. What was started before, and is still there, is not started again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub backfill: Vec<Backfill>,

    /// How many operations that succeeded are kept. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub successful_history_limit: Option<i32>,

    /// How many operations that ended otherwise are kept. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub failed_history_limit: Option<i32>,
}

/// The operations that a schedule starts.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationToStart {
    /// What they have beside their name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataToStart>,

    /// Their spec: as a CloudOperation's, with its steps or by `templateRef`.
    pub spec: CloudOperationSpec,
}

/// Metadata of the operations that a schedule starts.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetadataToStart {
    /// Their labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,

    /// Their annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What happens at a due time while an earlier operation of the schedule is under way. `Skip` (the default): nothing is
/// started. `BufferOne`, `BufferAll`: one waits, or up to a hundred do. `CancelOther`: the other is cancelled first.
/// `AllowAll`: they run side by side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// Nothing is started: the due time is skipped.
    #[default]
    Skip,
    /// One waits until the other has ended; further ones are skipped.
    BufferOne,
    /// All wait, and run one after the other. Beyond 100 that wait, they are skipped.
    BufferAll,
    /// The other is cancelled, and the new one starts once it has ended.
    CancelOther,
    /// They run side by side.
    AllowAll,
}

/// A range of time.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.from <= self.to").message("to is before from").field_path(".to"))]
pub struct Backfill {
    /// Its begin; a due time at this moment is run.
    pub from: Time,
    /// Its end; a due time at this moment is run. Due times that are still to come are run when they are due.
    pub to: Time,
}

/// How far a schedule is: written by the operator alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationScheduleStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`: operations start at their times. `Stalled`: what is wrong needs a change of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The next five due times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_times: Vec<Time>,

    /// The last due time for which an operation was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,

    /// The operations that are under way, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "atomic::<ActiveOperation>")]
    pub active: Vec<ActiveOperation>,

    /// Due times whose operation waits until another has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Time>,

    /// How many due times were skipped, as `concurrencyPolicy` says.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: i64,

    /// How many due times were missed: `catchUpWindow` or `startDeadline` had passed. At least so many, after a long outage.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: i64,

    /// How far each backfill is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "atomic::<BackfillStatus>")]
    pub backfills: Vec<BackfillStatus>,

    /// Every due time up to this moment was decided on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_until: Option<Time>,

    /// The schedule and time zone that `decidedUntil` is about. Absent while it is paused or invalid: what is due then is not
    /// made up for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
}

/// An operation that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveOperation {
    /// Its name.
    pub name: String,
    /// When it was due.
    pub due: Time,
}

/// How far a backfill is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackfillStatus {
    /// Its begin.
    pub from: Time,
    /// Its end.
    pub to: Time,
    /// The last due time in it whose operation was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Time>,
    /// How many operations were started for it, or were there already.
    pub started: i64,
    /// True once all were.
    pub done: bool,
    /// True if it came back from a backup without its status, so that it may have run: it waits until the schedule's label
    /// `velero.io/restore-name` is gone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub restored: bool,
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}
