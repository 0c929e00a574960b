//! What the operator and the API server say of themselves, and what Linux says of the operator's process.

use std::time::Duration;

use holdfast_e2e::operator::Operator;
use kube::Client;

use super::Result;

/// The unit of CPU time in /proc, which every Linux has.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads the counters of one operator and its API server.
pub struct Observer<'a> {
    client: Client,
    namespace: String,
    operator: &'a Operator,
}

/// Counters at one moment, or what was added to them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observation {
    /// Status writes that the operator counted.
    pub status_writes: f64,
    /// Requests of the operator beyond watches and its Lease, as the API server counted them.
    pub requests: f64,
    /// CPU time of the operator.
    pub operator_cpu: Duration,
    /// CPU time of the API server (etcd apart, or with it where they are one process).
    pub api_server_cpu: Duration,
}

impl Observation {
    /// Adds what was added elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.status_writes += other.status_writes;
        self.requests += other.requests;
        self.operator_cpu += other.operator_cpu;
        self.api_server_cpu += other.api_server_cpu;
    }

    /// What was added since.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            status_writes: self.status_writes - before.status_writes,
            requests: self.requests - before.requests,
            operator_cpu: self.operator_cpu.saturating_sub(before.operator_cpu),
            api_server_cpu: self.api_server_cpu.saturating_sub(before.api_server_cpu),
        }
    }
}

impl<'a> Observer<'a> {
    /// Of this operator.
    pub fn new(client: Client, namespace: &str, operator: &'a Operator) -> Self {
        Self {
            client,
            namespace: namespace.into(),
            operator,
        }
    }

    /// The counters now. The API server gathers its own for a good part of a second.
    pub async fn observe(&self) -> Result<Observation> {
        let api_server = self
            .client
            .request_text(axum::http::Request::get("/metrics").body(vec![])?)
            .await?;
        Ok(Observation {
            status_writes: sum(&self.operator_metrics().await, "holdfast_status_writes_total", &[]),
            requests: sum(
                &api_server,
                "apiserver_flowcontrol_dispatched_requests_total",
                &[&format!("flow_schema=\"{}-requests\"", self.namespace)],
            ),
            operator_cpu: self.cpu()?,
            api_server_cpu: Duration::from_secs_f64(sum(&api_server, "process_cpu_seconds_total", &[])),
        })
    }

    /// How many operations are in this state, as the operator counts them.
    pub async fn operations(&self, state: &str) -> usize {
        sum(
            &self.operator_metrics().await,
            "holdfast_operations",
            &[&format!("state=\"{state}\"")],
        ) as usize
    }

    async fn operator_metrics(&self) -> String {
        self.operator.get("/metrics").await.1
    }

    fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.operator.pid()))?;
        // proc(5): user and system time are the 14th and 15th field; the second, in brackets, may hold anything.
        let fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(11)
            .take(2);
        let ticks: u32 = fields.filter_map(|field| field.parse::<u32>().ok()).sum();
        Ok(Duration::from_secs_f64(f64::from(ticks) / TICKS_PER_SECOND))
    }

    /// The operator's memory, in MiB: a line of /proc/PID/status, such as `VmRSS` (now) or `VmHWM` (the most so far).
    pub fn memory(&self, line: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.operator.pid()))?;
        let found = status
            .lines()
            .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let kib: f64 = found
            .and_then(|text| text.split_whitespace().next()?.parse().ok())
            .ok_or("no memory in /proc")?;
        Ok(kib / 1024.0)
    }
}

/// The sum of a metric's samples that have these labels.
fn sum(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let samples = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (found, value) = rest.rsplit_once(' ')?;
        let whole = found.is_empty() || found.starts_with('{');
        (whole && labels.iter().all(|label| found.contains(label))).then(|| value.parse::<f64>().ok())?
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn samples_are_summed_by_name_and_labels() {
        let metrics = "# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"1\"} 4\na{x=\"2\"} 5\na_total 6\nb 7\n";
        assert_eq!(sum(metrics, "a", &[]), 12.0);
        assert_eq!(sum(metrics, "a", &["x=\"1\""]), 7.0);
        assert_eq!(sum(metrics, "b", &[]), 7.0);
        assert_eq!(sum(metrics, "c", &[]), 0.0);
    }
}
