//! What the API server itself takes of the same object: creations, and writes of the status that a finished operation
//! has, by clients that do nothing else.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use serde_json::Value;

use super::objects::{Brief, Objects};
use super::{Result, quantile};

/// How many clients write at once; the best counts.
const AT_ONCE: [usize; 3] = [8, 16, 32];
/// For how long each is measured in a round: of shorter ones, on a shared machine, the best is one of luck.
const SPAN: Duration = Duration::from_secs(4);
/// How many writes are measured one after the other, in a round.
const ALONE: usize = 100;

/// What was measured so far.
#[derive(Default)]
pub struct Raw {
    creates: [Rate; AT_ONCE.len()],
    status_writes: [Rate; AT_ONCE.len()],
    alone: Vec<Duration>,
}

#[derive(Clone, Copy, Default)]
struct Rate {
    done: usize,
    span: Duration,
}

impl Rate {
    fn add(&mut self, done: usize, started: Instant) {
        self.done += done;
        self.span += started.elapsed();
    }

    fn per_s(self) -> f64 {
        self.done as f64 / self.span.as_secs_f64()
    }
}

impl Raw {
    /// Creations a second.
    pub fn creates_per_s(&self) -> f64 {
        best(&self.creates)
    }

    /// Status writes a second.
    pub fn status_writes_per_s(&self) -> f64 {
        best(&self.status_writes)
    }

    /// The median of one status write alone.
    pub fn write_p50(&self) -> Duration {
        quantile(&self.alone, 0.5)
    }

    /// What the rates predict for operations that cost one creation and so many status writes each.
    pub fn predicted(&self, writes_per_operation: f64) -> f64 {
        1.0 / (1.0 / self.creates_per_s() + writes_per_operation / self.status_writes_per_s())
    }

    /// Measures another round, where no operator serves: creations by the administrator, who makes the operations of the
    /// other phases too; status writes by `writer`, with the operator's own access.
    pub async fn round(&mut self, objects: &Objects, writer: &Objects, spec: &Value, status: &Value) -> Result<()> {
        let mut made: Vec<Brief> = Vec::new();
        for (at_once, rate) in AT_ONCE.into_iter().zip(&mut self.creates) {
            let workers = (0..at_once).map(|worker| async move {
                let mut made = Vec::new();
                let started = Instant::now();
                while started.elapsed() < SPAN {
                    let name = format!("raw-{at_once}-{worker}-{}", made.len());
                    made.push(objects.create(&name, spec).await?);
                }
                Result::Ok(made)
            });
            let started = Instant::now();
            let batch: Vec<Brief> = try_join_all(workers).await?.into_iter().flatten().collect();
            rate.add(batch.len(), started);
            made.extend(batch);
        }
        for (at_once, rate) in AT_ONCE.into_iter().zip(&mut self.status_writes) {
            let each = made.len() / at_once;
            let workers = made
                .chunks_mut(each)
                .take(at_once)
                .enumerate()
                .map(|(worker, own)| async move {
                    let mut written = 0;
                    let started = Instant::now();
                    while started.elapsed() < SPAN {
                        let operation = &mut own[written % each];
                        let status = marked(status, &format!("{at_once}/{worker}/{written}"));
                        *operation = writer.write_status(operation, &status).await?;
                        written += 1;
                    }
                    Result::Ok(written)
                });
            let started = Instant::now();
            rate.add(try_join_all(workers).await?.into_iter().sum(), started);
        }
        for (i, operation) in made.iter().take(ALONE).enumerate() {
            let status = marked(status, &format!("alone/{i}"));
            let started = Instant::now();
            writer.write_status(operation, &status).await?;
            self.alone.push(started.elapsed());
        }
        objects.delete_all().await
    }
}

/// A write that changes nothing would cost the API server little: each has a write id of its own, as the operator's have.
fn marked(status: &Value, id: &str) -> Value {
    let mut status = status.clone();
    status["writeId"] = format!("raw/{id}").into();
    status
}

fn best(rates: &[Rate]) -> f64 {
    rates.iter().map(|rate| rate.per_s()).fold(0.0, f64::max)
}
