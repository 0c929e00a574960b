//! `get`: a table of operations, or the tree of one.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use kube::api::{DynamicObject, ListParams};
use kube::discovery::ApiResource;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};

use super::cluster::{Cluster, bare, tolerant};
use super::output::{Format, Output, machine};
use super::table::{Cell, one_line};
use super::tree::{self, message_of};
use super::{CliError, NAME, history, table, times};
use crate::api::{CloudOperation, OperationState, Time};

/// How many objects one request answers.
const PAGE: u32 = 500;

#[derive(Args)]
pub struct Get {
    /// The operation whose steps are shown; all operations if absent.
    name: Option<String>,
    /// Of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "name")]
    all_namespaces: bool,
    /// Only operations with these labels, as kubectl's.
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "name")]
    selector: Option<String>,
    /// In another form.
    #[arg(short, long, value_enum)]
    output: Option<Format>,
    /// Goes on showing what changes; for one operation, until it has ended.
    #[arg(short, long)]
    watch: bool,
}

impl Get {
    pub async fn run(&self, cluster: &Cluster, out: &mut Output) -> Result<ExitCode, CliError> {
        if self.watch && matches!(self.output, Some(Format::Json | Format::Yaml | Format::Name)) {
            return Err(CliError::Usage(
                "-w shows a tree or a table: leave out -o, or use -o wide".into(),
            ));
        }
        match (&self.name, self.output) {
            (Some(name), Some(Format::Json | Format::Yaml)) => self.print_one(cluster, out, name).await?,
            (Some(name), Some(Format::Name)) => {
                let operation = cluster.operation(name).await?;
                out.print(&format!("{}\n", full_name(&operation.name_any())))?;
            }
            (Some(name), _) if self.watch => watch_one(cluster, out, name).await?,
            (Some(name), _) => {
                let operation = cluster.whole(cluster.operation(name).await?).await;
                out.print(&tree::render(&operation, times::now(), out.width()))?;
                out.print(&hint(cluster, &operation))?;
            }
            (None, _) if self.watch => self.watch_all(cluster, out).await?,
            (None, format) => self.print_all(cluster, out, format).await?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The objects as the API server has them: with fields that this version doesn't know.
    fn objects(&self, cluster: &Cluster) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<CloudOperation>(&());
        match self.all_namespaces {
            true => Api::all_with(cluster.client.clone(), &resource),
            false => Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource),
        }
    }

    async fn print_one(&self, cluster: &Cluster, out: &mut Output, name: &str) -> Result<(), CliError> {
        let name = bare(name);
        let found = self.objects(cluster).get_opt(name).await;
        let found = found.map_err(CliError::cluster(format!("CloudOperation {name} can't be read")))?;
        let object = found.ok_or_else(|| cluster.no_operation(name))?;
        Ok(out.print(&machine(&object, self.output.unwrap_or(Format::Yaml))?)?)
    }

    async fn print_all(&self, cluster: &Cluster, out: &mut Output, format: Option<Format>) -> Result<(), CliError> {
        let objects = self.list(cluster).await?;
        match format {
            Some(Format::Name) => {
                let names: String = objects
                    .iter()
                    .map(|object| full_name(&object.name_any()) + "\n")
                    .collect();
                return Ok(out.print(&names)?);
            }
            Some(format @ (Format::Json | Format::Yaml)) => {
                let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": objects});
                return Ok(out.print(&machine(&list, format)?)?);
            }
            Some(Format::Wide) | None => {}
        }
        if objects.is_empty() {
            let place = match self.all_namespaces {
                true => "the cluster".to_owned(),
                false => format!("namespace {}", cluster.namespace),
            };
            let those = if self.selector.is_some() {
                " with these labels"
            } else {
                ""
            };
            anstream::eprintln!(
                "There are no operations{those} in {place}. All: {NAME} get -A{}",
                cluster.flags.cluster
            );
            return Ok(());
        }
        let mut operations = Vec::with_capacity(objects.len());
        for object in objects {
            operations.push(parse(object)?);
        }
        let most = if format == Some(Format::Wide) {
            None
        } else {
            out.width()
        };
        Ok(out.print(&self.table(&operations, times::now(), most))?)
    }

    async fn list(&self, cluster: &Cluster) -> Result<Vec<DynamicObject>, CliError> {
        let api = self.objects(cluster);
        let mut params = ListParams::default().limit(PAGE);
        params.label_selector = self.selector.clone();
        let mut objects = vec![];
        loop {
            let page = api
                .list(&params)
                .await
                .map_err(CliError::cluster("operations can't be listed"))?;
            objects.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(objects),
            }
        }
    }

    fn table(&self, operations: &[CloudOperation], now: Time, most: Option<usize>) -> String {
        let wide = self.output == Some(Format::Wide);
        let rows: Vec<_> = operations.iter().map(|operation| self.row(operation, now)).collect();
        let mut headings = vec!["NAME", "STATE", "PROGRESS", "STEP", "AGE"];
        if self.all_namespaces {
            headings.insert(0, "NAMESPACE");
        }
        if wide {
            headings.extend(["TOOK", "ACCOUNT"]);
        }
        headings.push("MESSAGE");
        table::render(&headings, &rows, most)
    }

    fn row(&self, operation: &CloudOperation, now: Time) -> Vec<Cell> {
        let status = operation.status.clone().unwrap_or_default();
        let state = status.state.map_or_else(
            || Cell::styled("not seen yet", super::output::WARN),
            |state| Cell::styled(state.to_string(), tree::style_of(state)),
        );
        let created = operation.metadata.creation_timestamp.as_ref();
        let age = created
            .map(|at| times::whole(now.since(Time::new(at.0))))
            .unwrap_or_default();
        let mut row: Vec<Cell> = vec![
            operation.name_any().into(),
            state,
            status.progress.clone().unwrap_or_default().into(),
            status.current_step.clone().unwrap_or_default().into(),
            age.into(),
        ];
        if self.all_namespaces {
            row.insert(0, operation.namespace().unwrap_or_default().into());
        }
        if self.output == Some(Format::Wide) {
            let end = status.completion_time.unwrap_or(now);
            let took = status.start_time.map(|start| times::short(end.since(start)));
            row.push(took.unwrap_or_default().into());
            row.push(operation.spec.service_account().into());
        }
        row.push(one_line(&message_of(&status)).into());
        row
    }

    /// On a terminal the table is drawn anew with every change; else each operation that changed has a line.
    async fn watch_all(&self, cluster: &Cluster, out: &mut Output) -> Result<(), CliError> {
        let api: Api<CloudOperation> = match self.all_namespaces {
            true => Api::all(cluster.client.clone()),
            false => cluster.api(),
        };
        let config = watcher::Config {
            label_selector: self.selector.clone(),
            ..watcher::Config::default()
        };
        let events = watcher(api, config).default_backoff();
        let mut events = std::pin::pin!(tolerant(events, "operations can't be watched".into()));
        let mut known = BTreeMap::new();
        let mut listed = false;
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                event = events.next() => {
                    let Some(event) = event else { return Ok(()) };
                    use watcher::Event::*;
                    match event? {
                        // What is gone by now isn't listed again.
                        Init => {
                            listed = false;
                            known.clear();
                        }
                        InitApply(operation) => drop(known.insert(key(&operation), operation)),
                        InitDone => {
                            listed = true;
                            if !out.is_terminal() {
                                let operations: Vec<_> = known.values().cloned().collect();
                                out.print(&self.table(&operations, times::now(), None))?;
                            }
                        }
                        Apply(operation) => {
                            self.print_change(out, &operation, "")?;
                            known.insert(key(&operation), operation);
                        }
                        Delete(operation) => {
                            self.print_change(out, &operation, "deleted")?;
                            known.remove(&key(&operation));
                        }
                    }
                }
                _ = tick.tick(), if out.is_terminal() => {}
            }
            if listed && out.is_terminal() {
                let operations: Vec<_> = known.values().cloned().collect();
                let table = self.table(&operations, times::now(), out.width());
                out.redraw(&table)?;
            }
        }
    }

    fn print_change(&self, out: &mut Output, operation: &CloudOperation, what: &str) -> Result<(), CliError> {
        if out.is_terminal() {
            return Ok(());
        }
        let row = self.row(operation, times::now());
        let mut texts: Vec<&str> = row.iter().map(|cell| cell.text.as_str()).collect();
        texts.push(what);
        Ok(out.print(&format!("{}\n", texts.join("   ").trim_end()))?)
    }
}

fn key(operation: &CloudOperation) -> (String, String) {
    (operation.namespace().unwrap_or_default(), operation.name_any())
}

fn full_name(name: &str) -> String {
    format!("cloudoperation.holdfast.dev/{name}")
}

fn parse(object: DynamicObject) -> Result<CloudOperation, CliError> {
    let name = object.name_any();
    let unreadable = |error: &dyn std::fmt::Display| {
        CliError::Usage(format!(
            "CloudOperation {name} is of another version than this plugin: {error}"
        ))
    };
    let value = serde_json::to_value(object).map_err(|error| unreadable(&error))?;
    serde_json::from_value(value).map_err(|error| unreadable(&error))
}

/// Where to read on, for an operation that struggles or ended badly.
fn hint(cluster: &Cluster, operation: &CloudOperation) -> String {
    use OperationState::*;
    let state = operation.status.as_ref().and_then(|status| status.state);
    match state {
        Some(Succeeded | Running | Compensating) => String::new(),
        _ => {
            let command = cluster.command("describe", &operation.name_any(), "");
            format!(
                "\n{}\n",
                super::output::paint(super::output::FAINT, &format!("What can be done: {command}"))
            )
        }
    }
}

/// Follows an operation until it has ended: on a terminal its tree is drawn anew, else every entry of its history has a
/// line.
async fn watch_one(cluster: &Cluster, out: &mut Output, name: &str) -> Result<(), CliError> {
    let mut operation = cluster.whole(cluster.operation(name).await?).await;
    let name = operation.name_any();
    let mut changes = std::pin::pin!(cluster.follow::<CloudOperation>(&name));
    let mut seen = 0;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        if out.is_terminal() {
            let tree = tree::render(&operation, times::now(), out.width());
            out.redraw(&tree)?;
        } else {
            for entry in history::after(cluster, &operation, seen).await {
                out.print(&history::line(&entry))?;
                seen = entry.seq;
            }
        }
        if ended(&operation) {
            if out.is_terminal() {
                out.print(&hint(cluster, &operation))?;
            }
            return Ok(());
        }
        loop {
            tokio::select! {
                change = changes.next() => match change.transpose()? {
                    // What it runs is settled once it has started: the template is read once.
                    Some(Some(changed)) if has_started_as(&operation, &changed) => {
                        operation = CloudOperation { spec: operation.spec, ..changed };
                    }
                    Some(Some(changed)) => operation = cluster.whole(changed).await,
                    Some(None) => return Err(CliError::Deleted(name)),
                    None => return Ok(()),
                },
                _ = tick.tick() => if !out.is_terminal() { continue },
            }
            break;
        }
    }
}

/// True if the steps that are known of an operation are still those that it runs.
fn has_started_as(known: &CloudOperation, now: &CloudOperation) -> bool {
    let digest = |of: &CloudOperation| of.status.as_ref()?.spec_digest.clone();
    !known.spec.steps.is_empty() && digest(known).is_some() && digest(known) == digest(now)
}

/// True once an operation has ended, however.
pub fn ended(operation: &CloudOperation) -> bool {
    let state = operation.status.as_ref().and_then(|status| status.state);
    state.is_some_and(OperationState::is_finished)
}

#[cfg(test)]
mod tests {
    use holdfast_apiserver::{ApiServer, Verb};
    use kube::api::DeleteParams;
    use serde_json::{Value, json};

    use super::super::fixtures::{at, operation, said, server, watched};
    use super::*;
    use crate::api::{OPERATION_UID_LABEL, OperationHistory};

    const SPEC: &str = "steps: [{name: a, set: {v: 1}}]";

    #[tokio::test]
    async fn of_all_namespaces_by_labels_and_for_programs() {
        let server = server();
        for (namespace, name, team) in [("prod", "web", "shop"), ("prod", "api", "core"), ("dev", "web", "shop")] {
            let mut operation = operation(name, SPEC, "{state: Succeeded, progress: 1/1}");
            operation.metadata.namespace = Some(namespace.into());
            operation.labels_mut().insert("team".into(), team.into());
            server.put(&operation);
        }
        let (api, web) = ("cloudoperation.holdfast.dev/api\n", "cloudoperation.holdfast.dev/web\n");
        for (line, names) in [
            ("get -o name", vec![api, web]),
            ("get -l team=shop -o name", vec![web]),
            ("get -l team!=shop -o name", vec![api]),
            ("get -A -l team=shop -o name", vec![web, web]),
            ("get web -o name", vec![web]),
        ] {
            assert_eq!(said(&server, line).await.out, names.concat(), "{line}");
        }
        let table = said(&server, "get -A -l team=shop").await.out;
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|row| row.split_whitespace().take(3).collect())
            .collect();
        assert_eq!(
            rows,
            [
                ["NAMESPACE", "NAME", "STATE"],
                ["dev", "web", "Succeeded"],
                ["prod", "web", "Succeeded"]
            ]
        );
        for form in ["json", "yaml"] {
            let all: Value = serde_yaml::from_str(&said(&server, &format!("get -o {form}")).await.out).unwrap();
            assert_eq!(all["kind"], "List");
            let line = format!("get cloudoperation.holdfast.dev/web -o {form}");
            let one: Value = serde_yaml::from_str(&said(&server, &line).await.out).unwrap();
            assert_eq!(
                (&one["kind"], &one["spec"]["steps"][0]["set"]),
                (&json!("CloudOperation"), &json!({"v": 1}))
            );
            assert_eq!(all["items"].as_array().unwrap().len(), 2);
            assert_eq!(all["items"][1], one);
        }
        assert_eq!(said(&server, "get -l team=none -o name").await.out, "");
        let refused = said(&server, "get web -w -o yaml").await;
        assert_eq!(refused.code, ExitCode::from(2), "{}", refused.err);
    }

    /// The history of an operation under way.
    fn under_way(server: &ApiServer, state: &str, spilled: i64, history: impl Iterator<Item = i64>) {
        let history: Vec<Value> = history.map(entry).collect();
        let status = json!({"state": state, "historySpilled": spilled, "history": history}).to_string();
        server.put(&operation("web", SPEC, &status));
    }

    fn entry(seq: i64) -> Value {
        json!({"seq": seq, "time": "2026-11-24T03:00:00.000Z", "type": "AttemptStarted", "step": "a", "attempt": seq})
    }

    #[tokio::test]
    async fn a_watch_misses_nothing_that_left_the_status_and_repeats_nothing() {
        let server = server();
        let spill = |from: i64, to: i64| {
            let uid = server.get::<CloudOperation>("prod", "web").unwrap().uid();
            let entries: Vec<Value> = (from..=to).map(entry).collect();
            let part: OperationHistory = serde_json::from_value(json!({
                "metadata": {"name": format!("web-{from}"), "namespace": "prod", "labels": {OPERATION_UID_LABEL: uid}},
                "spec": {"operationRef": {"name": "web", "uid": uid}, "from": from, "to": to, "entries": entries},
            }))
            .unwrap();
            server.put(&part);
        };
        under_way(&server, "Running", 0, 1..=4);
        spill(1, 2);
        under_way(&server, "Running", 2, 3..=4);
        let (printed, ()) = tokio::join!(said(&server, "get web -w"), async {
            watched(&server).await;
            // 5 to 8 come and go between two looks; the second part is there before the status says so.
            spill(3, 6);
            spill(7, 8);
            under_way(&server, "Running", 6, 7..=9);
            under_way(&server, "Running", 8, 9..=10);
            under_way(&server, "Succeeded", 8, 9..=11);
        });
        let seen: Vec<&str> = printed.out.lines().filter_map(|line| line.split('#').nth(1)).collect();
        assert_eq!(seen, ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]);
        assert_eq!(printed.code, ExitCode::SUCCESS);
    }

    #[tokio::test]
    async fn the_template_of_one_that_is_watched_is_read_once() {
        let server = server();
        let run = |state: &str| {
            let status = json!({"state": state, "specDigest": "abc"}).to_string();
            server.put(&operation("web", "{templateRef: {name: t}}", &status));
        };
        run("Running");
        let uid = server.get::<CloudOperation>("prod", "web").unwrap().uid();
        let part: OperationHistory = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "prod", "labels": {OPERATION_UID_LABEL: uid}},
            "spec": {"operationRef": {"name": "web", "uid": uid}, "template": {"name": "t", "spec": {"steps": [{"name": "a", "set": {}}]}}},
        }))
        .unwrap();
        server.put(&part);
        let (ended, ()) = tokio::join!(said(&server, "get web -w"), async {
            watched(&server).await;
            for state in ["Waiting", "Running", "Succeeded"] {
                run(state);
            }
        });
        assert_eq!(ended.code, ExitCode::SUCCESS, "{}", ended.err);
        let reads = server.request_counts()[&(Verb::List, "operationhistories".to_owned())];
        assert_eq!(reads, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_deleted_while_it_is_watched_or_waited_for_is_said_to_be() {
        for (line, comes_again) in [
            ("get web -w", false),
            ("wait web", false),
            ("get web -w", true),
            ("wait web", true),
        ] {
            let server = server();
            under_way(&server, "Running", 0, 1..=1);
            let (ended, ()) = tokio::join!(said(&server, line), async {
                watched(&server).await;
                server.hold_watches();
                let operations: Api<CloudOperation> = Api::namespaced(server.client("bob"), "prod");
                operations.delete("web", &DeleteParams::default()).await.unwrap();
                if comes_again {
                    // What happened between is lost: another one has its name, and has ended.
                    under_way(&server, "Succeeded", 0, 1..=2);
                    server.compact();
                    server.drop_watches(|_| true);
                }
                server.release_watches();
            });
            assert!(
                ended
                    .err
                    .starts_with("CloudOperation web was deleted before it ended: "),
                "{line}: {}",
                ended.err
            );
            assert_eq!(ended.code, ExitCode::from(2));
        }
    }

    #[test]
    fn the_table_has_the_message_last_and_cut() {
        let mut web = operation(
            "resize-web",
            "steps: [{name: a, set: {}}]",
            r"
            state: BackingOff
            progress: 1/3
            currentStep: resize
            startTime: '2026-11-24T03:00:00.000Z'
            conditions: [{type: Succeeded, status: Unknown, reason: BackingOff, message: 'step resize: attempt 3 failed', lastTransitionTime: '2026-11-24T03:00:00Z'}]
            ",
        );
        web.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            at("2026-11-24T03:00:00Z").timestamp(),
        ));
        let get = Get {
            name: None,
            all_namespaces: true,
            selector: None,
            output: None,
            watch: false,
        };
        let text = get.table(&[web], at("2026-11-24T03:05:00Z"), Some(80));
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "\
NAMESPACE   NAME         STATE        PROGRESS   STEP     AGE   MESSAGE
prod        resize-web   BackingOff   1/3        resize   5m    step resize: at…
"
        );
    }
}
