//! The results, for people and for programs.

use std::time::Duration;

use serde_json::json;

use super::fairness::{AT_ONCE, Fairness, QUEUED};
use super::idle::{Idle, OPERATIONS, SPAN};
use super::one::STEPS;
use super::raw::Raw;
use super::{LIST_ITEMS, Observed, quantile};

/// All that was measured.
pub struct Report {
    /// The size of a finished operation's status, as JSON.
    pub status_bytes: usize,
    /// The API server alone.
    pub raw: Raw,
    /// One operation at a time.
    pub alone: Observed,
    /// 50 at once.
    pub fifty: Observed,
    /// 500 at once.
    pub many: Observed,
    /// 50 at once, of local steps.
    pub local: Observed,
    /// One at a time, of one step with a list.
    pub list: Observed,
    /// From a signal's creation to the end of the step that waited for it.
    pub signals: Vec<Duration>,
    /// What a late step of one operation costs, over an early one.
    pub late_over_early: f64,
    /// Those that wait.
    pub idle: Idle,
    /// One namespace beside another; nothing if it took too long.
    pub fairness: Option<Fairness>,
}

impl Report {
    /// Prints a table.
    pub fn print(&self) {
        let Self {
            status_bytes,
            raw,
            alone,
            fifty,
            many,
            local,
            list,
            signals,
            late_over_early,
            idle,
            fairness,
        } = self;
        row("measured", "value", "ratio", "target");
        row("---", "---", "---", "---");
        row(
            "raw creations, best of 8, 16, 32 at once",
            &format!("{:.0}/s", raw.creates_per_s()),
            "",
            "",
        );
        row(
            &format!("raw status writes of {status_bytes} bytes, best of 8, 16, 32 at once"),
            &format!("{:.0}/s", raw.status_writes_per_s()),
            "",
            "",
        );
        row("one raw status write alone, p50", &ms(raw.write_p50()), "", "");
        let p50 = alone.run.latency(0.5);
        row(
            "one operation of 3 steps alone, create to finished, p50",
            &ms(p50),
            &format!("{:.1} × a raw write", p50.as_secs_f64() / raw.write_p50().as_secs_f64()),
            "≤ 6",
        );
        row("the same, p99", &ms(alone.run.latency(0.99)), "", "");
        for (observed, at_once, target) in [(fifty, 50, "≥ 0.8"), (many, 500, "")] {
            row(
                &format!("operations, {at_once} at once"),
                &format!("{:.0}/s", observed.run.per_s()),
                &format!(
                    "{:.2} of what raw predicts",
                    observed.run.per_s() / raw.predicted(observed.writes_per_operation())
                ),
                target,
            );
        }
        row(
            "operations of 3 local steps, 50 at once",
            &format!("{:.0}/s", local.run.per_s()),
            &format!("{:.2} × ordinary steps", local.run.per_s() / fifty.run.per_s()),
            "≥ 1.8",
        );
        row(
            &format!("forEach over {LIST_ITEMS} items, 50 at once"),
            &format!("{:.0} items/s", self.items_per_s()),
            "",
            "",
        );
        row(
            "status writes an item",
            &format!("{:.3}", list.writes_per_operation() / LIST_ITEMS as f64),
            "",
            "",
        );
        let wakeup = quantile(signals, 0.5);
        row(
            "a signal, from its creation to the recorded end of its step, p50",
            &ms(wakeup),
            &format!(
                "{:.1} × a raw write",
                wakeup.as_secs_f64() / raw.write_p50().as_secs_f64()
            ),
            "≤ 10",
        );
        row(
            &format!("step {STEPS} of one operation over its step 10"),
            "",
            &format!("{late_over_early:.2}"),
            "≤ 1.3",
        );
        let (value, ratio) = match fairness {
            None => ("took too long".to_owned(), String::new()),
            Some(fairness) => {
                let [alone_p99, beside_p99] = [&fairness.alone, &fairness.beside].map(|run| ms(run.latency(0.99)));
                let ratio = format!("{:.1} × alone ({alone_p99})", fairness.p99_ratio());
                (beside_p99, ratio)
            }
        };
        let what = format!("{AT_ONCE} at once beside {QUEUED} that are queued in another namespace, p99");
        row(&what, &value, &ratio, "≤ 2");
        row("time of one operation, 50 at once, p50 / p99", &both(fifty), "", "");
        row("time of one operation, 500 at once, p50 / p99", &both(many), "", "");
        row(
            "status writes an operation",
            &format!("{:.2}", fifty.writes_per_operation()),
            "",
            "≤ 4",
        );
        row(
            "status writes, 50 at once",
            &format!("{:.0}/s", fifty.status_writes_per_s()),
            "",
            "",
        );
        row(
            "requests an operation beyond watches and Lease, alone / 50 / 500",
            &each(self, |o| o.each(o.spent.requests)),
            "",
            "",
        );
        row(
            "CPU of the operator an operation, alone / 50 / 500, ms",
            &each(self, |o| o.each(o.spent.operator_cpu.as_secs_f64() * 1e3)),
            "",
            "",
        );
        row(
            "CPU of the API server an operation, alone / 50 / 500, ms",
            &each(self, |o| o.each(o.spent.api_server_cpu.as_secs_f64() * 1e3)),
            "",
            "",
        );
        row(
            &format!("{OPERATIONS} waiting: requests beyond watches and Lease"),
            &format!("{:.2}/s", idle.requests_per_s),
            "",
            "0",
        );
        row(
            &format!("{OPERATIONS} waiting: memory (RSS) of the operator"),
            &format!("{:.0} MiB", idle.rss_mib),
            "",
            "≤ 120",
        );
        row("its most until then", &format!("{:.0} MiB", idle.peak_mib), "", "");
        row(
            &format!("{OPERATIONS} waiting: CPU of the operator in {} s", SPAN.as_secs()),
            &format!("{:.2} s", idle.cpu.as_secs_f64()),
            "",
            "",
        );
    }

    fn items_per_s(&self) -> f64 {
        LIST_ITEMS as f64 / self.list.run.latency(0.5).as_secs_f64()
    }

    /// The same as JSON, for programs.
    pub fn json(&self) -> String {
        let Self {
            raw,
            alone,
            fifty,
            many,
            local,
            signals,
            late_over_early,
            idle,
            fairness,
            ..
        } = self;
        let json = json!({
            "raw_creates_per_s": raw.creates_per_s(),
            "raw_status_writes_per_s": raw.status_writes_per_s(),
            "raw_write_ms_p50": raw.write_p50().as_secs_f64() * 1e3,
            "operator_status_writes_per_s": fifty.status_writes_per_s(),
            "operations_per_s_50": fifty.run.per_s(),
            "operations_per_s_500": many.run.per_s(),
            "operation_ms_p50": alone.run.latency(0.5).as_secs_f64() * 1e3,
            "operation_ms_p99": alone.run.latency(0.99).as_secs_f64() * 1e3,
            "writes_per_operation": fifty.writes_per_operation(),
            "local_over_durable_rate": local.run.per_s() / fifty.run.per_s(),
            "for_each_items_per_s": self.items_per_s(),
            "signal_wakeup_ms_p50": quantile(signals, 0.5).as_secs_f64() * 1e3,
            "step_10000_over_step_10": late_over_early,
            "fairness_p99_ratio": fairness.as_ref().map(Fairness::p99_ratio),
            "idle_10k_requests_per_s": idle.requests_per_s,
            "idle_10k_rss_mib": idle.rss_mib,
        });
        format!("{json:#}\n")
    }
}

fn row(what: &str, value: &str, ratio: &str, target: &str) {
    println!("| {what:<78} | {value:>16} | {ratio:<26} | {target:<6} |");
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn both(observed: &Observed) -> String {
    let [p50, p99] = [0.5, 0.99].map(|q| observed.run.latency(q).as_secs_f64() * 1e3);
    format!("{p50:.0} / {p99:.0} ms")
}

fn each(report: &Report, value: impl Fn(&Observed) -> f64) -> String {
    [&report.alone, &report.fifty, &report.many]
        .map(|o| format!("{:.1}", value(o)))
        .join(" / ")
}
