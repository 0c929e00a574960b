//! What is drawn from a seed: a workflow, what people do, and when what fails.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use serde_json::{Value, json};

use super::STORM;
use super::people::{Deed, deed};
use crate::blows::Blow;

/// What is drawn from a seed.
pub struct Plan {
    pub spec: Value,
    pub templates: BTreeMap<String, Value>,
    /// What people do, and when, in milliseconds from the start.
    pub people: Vec<(u64, Deed)>,
    /// How often the API server and the service fail, in percent.
    pub trouble: (u8, u8),
    /// What else goes wrong, and when, in milliseconds from the start.
    pub blows: Vec<(u64, Blow)>,
    /// And at which requests of operators.
    pub amid: Vec<(usize, Blow)>,
    pub standby: bool,
    /// The ConfigMaps that are there, for steps that change or delete them.
    pub fixtures: Vec<String>,
}

pub fn pick<'a, T>(rng: &mut Rng, among: &'a [T]) -> &'a T {
    &among[rng.usize(..among.len())]
}

pub fn percent(rng: &mut Rng, chance: u8) -> bool {
    rng.u8(..100) < chance
}

fn url(path: &str) -> String {
    format!("http://inventory.prod/{path}")
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": "1"}})
}

fn post(path: &str) -> Value {
    json!({"method": "POST", "url": url(path)})
}

/// A step. `at` says in its path which it is: what each does can be told by its path alone.
fn step(rng: &mut Rng, number: usize, order: &str) -> Value {
    let list = percent(rng, 20);
    let at = if list {
        format!("s{number}-${{string(index)}}")
    } else {
        format!("s{number}")
    };
    let times = rng.u8(1..4);
    let mut step = match rng.u8(..24) {
        0..4 => json!({"http": post(&format!("do/{at}")), "output": {"n": "${result.body.size}"}}),
        4 => json!({"http": post(&format!("status/{at}/503?times={times}"))}),
        5 | 6 => json!({"http": post(&format!("silent/{at}?times={times}"))}),
        7 => json!({"http": post(&format!("slow/{at}/{}", rng.u32(100..6000)))}),
        8 => {
            json!({"http": post(&format!("slow/{at}/5000")), "timeouts": {"startToClose": "2s", "scheduleToClose": "20s"}})
        }
        9 => json!({"http": post(&format!("status/{at}/422"))}),
        10 => {
            json!({"http": post(&format!("status/{at}/500")), "retry": {"maximumAttempts": times, "initialInterval": "1s"}})
        }
        11 => json!({"http": post(&format!("silent/{at}?times={times}")), "idempotent": false}),
        12 => json!({"http": post(&format!("local/{at}")), "local": true}),
        13 => json!({"set": {"n": number}}),
        14 => json!({"assert": if percent(rng, 80) { "true" } else { "false" }}),
        15 => json!({"wait": {"duration": format!("{}s", rng.u32(1..30))}}),
        16 => json!({"signal": {"name": "go"}}),
        17 => json!({"approval": {"message": "go on?"}}),
        18 => {
            let calls = json!({"steps": [
                {"name": "call", "http": post(&format!("child/s{number}-${{string(input.n)}}")), "timeouts": {"scheduleToClose": "1m"}},
                {"name": "nap", "wait": {"duration": format!("{}s", rng.u32(1..10))}},
                {"name": "end", "http": post(&format!("status/child-s{number}-${{string(input.n)}}/{}?times=1", pick(rng, &[422, 503])))},
            ], "output": {"n": "${input.n}"}});
            let mut child =
                json!({"spec": calls, "input": {"n": if list { "${index}".into() } else { json!(number) }}});
            if percent(rng, 50) {
                child["parentClosePolicy"] = json!(pick(rng, &["Cancel", "Abandon", "Wait"]));
            }
            json!({"operation": child})
        }
        19 => json!({"operation": {"templateRef": {"name": "callee"}, "input": {"at": at}}}),
        20 => json!({"kubernetes": {"create": {"manifest": config_map(&format!("made-{at}"))}}}),
        21 => json!({"kubernetes": {"apply": {"manifest": config_map(&format!("applied-{at}"))}}}),
        22 => {
            let fixture = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": format!("fixture-{at}")});
            match percent(rng, 50) {
                true => json!({"kubernetes": {"delete": {"resource": fixture}}}),
                false => json!({"kubernetes": {"patch": {"resource": fixture, "patch": {"data": {"n": "1"}}}}}),
            }
        }
        _ => {
            let code = if percent(rng, 70) { "0" } else { "1" };
            json!({"job": {"image": "x", "args": ["{\"n\": 1}", code]}, "retry": {"maximumAttempts": times}})
        }
    };
    let kind = |step: &Value, kind: &str| step.get(kind).is_some();
    let (http, child) = (kind(&step, "http"), kind(&step, "operation"));
    let in_cluster = kind(&step, "kubernetes") || kind(&step, "job");
    step["name"] = json!(format!("s{number}"));
    if http && step.get("timeouts").is_none() {
        step["timeouts"] = json!({"scheduleToClose": format!("{}s", rng.u32(30..120))});
    }
    if (kind(&step, "signal") || kind(&step, "approval")) && percent(rng, 30) {
        step["timeouts"] = json!({"scheduleToClose": "40s"});
        if kind(&step, "signal") && percent(rng, 50) {
            step["signal"]["default"] = json!({"by": "nobody"});
        }
    }
    let repeated = http && step.get("local").is_none() || child || in_cluster || kind(&step, "set");
    if list && repeated {
        step["forEach"] = json!(format!("lists.range({})", rng.u8(0..5)));
        step["maxParallel"] = json!(rng.u8(1..4));
        step["maxFailures"] = json!(rng.u8(0..3));
    } else if list {
        // It has no items after all.
        let text = step
            .to_string()
            .replace("-${string(index)}", "")
            .replace("${index}", "0");
        step = serde_json::from_str(&text).unwrap();
    }
    if (http || child || in_cluster) && percent(rng, 35) {
        let undo = if step.get("forEach").is_some() {
            format!("undo-s{number}-${{string(index)}}")
        } else {
            format!("undo-s{number}")
        };
        let path = match rng.u8(..4) {
            0 => format!("status/{undo}/500?times=1"),
            1 => format!("status/{undo}/422?times=1"),
            _ => format!("do/{undo}"),
        };
        step["compensate"] = json!({"http": post(&path), "timeouts": {"scheduleToClose": "1m"}});
    }
    if percent(rng, 10) {
        step["when"] = json!(pick(rng, &["input.yes", "input.no"]));
    }
    if percent(rng, 15) {
        step["onFailure"] = json!("Continue");
    }
    if order == "Graph" && number > 0 {
        let needs: BTreeSet<String> = (0..rng.usize(..3))
            .map(|_| format!("s{}", rng.usize(..number)))
            .collect();
        step["needs"] = json!(needs);
    }
    step
}

/// A step as the first of a group of two, which has what is said of both.
fn grouped(rng: &mut Rng, mut step: Value) -> Value {
    let name = step["name"].as_str().unwrap().to_owned();
    let listed = step.get("forEach").is_some();
    let mut group = json!({
        "order": pick(rng, &["Sequence", "Graph"]),
        "output": {"how": format!("${{steps.{name}b.state}}")},
    });
    let mut of_group = vec![
        "name",
        "needs",
        "when",
        "onFailure",
        "forEach",
        "maxParallel",
        "maxFailures",
    ];
    if listed {
        of_group.push("compensate");
    }
    for field in of_group {
        if let Some(value) = step.as_object_mut().unwrap().remove(field) {
            group[field] = value;
        }
    }
    if percent(rng, 20) {
        group["timeouts"] = json!({"scheduleToClose": format!("{}s", rng.u32(10..90))});
    }
    let at = if listed { "-${string(index)}" } else { "" };
    let path = match rng.u8(..4) {
        0 => format!("status/{name}b{at}/503?times=1"),
        1 => format!("status/{name}b{at}/422"),
        _ => format!("do/{name}b{at}"),
    };
    step["name"] = json!(format!("{name}a"));
    let second = json!({"name": format!("{name}b"), "http": post(&path), "timeouts": {"scheduleToClose": "1m"}});
    group["steps"] = json!([step, second]);
    group
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let order = *pick(rng, &["Sequence", "Graph"]);
        let steps = (0..rng.usize(1..8)).map(|number| {
            let step = step(rng, number, order);
            if percent(rng, 20) { grouped(rng, step) } else { step }
        });
        let steps: Vec<Value> = steps.collect();
        let mut spec = json!({
            "input": {"yes": true, "no": false},
            "order": order,
            "failurePolicy": pick(rng, &["Stop", "Compensate", "Compensate", "Pause"]),
            "retry": {"initialInterval": "1s", "maximumInterval": "5s"},
            "steps": steps,
        });
        if percent(rng, 25) {
            spec["timeout"] = json!(format!("{}s", rng.u32(5..120)));
        }
        if percent(rng, 30) {
            let last = json!({"name": "last", "http": post("do/last"), "timeouts": {"scheduleToClose": "1m"}});
            let tell =
                json!({"name": "tell", "http": post("status/tell/503?times=1"), "when": "operation.state == 'Failed'"});
            spec["finally"] = json!([last, tell]);
        }
        let mut people: Vec<(u64, Deed)> = (0..rng.usize(..6))
            .map(|_| (rng.u64(..STORM), deed(rng, &steps)))
            .collect();
        if percent(rng, 20) {
            let mode = *pick(rng, &["Stop", "Compensate"]);
            people.push((
                rng.u64(..STORM / 2),
                Deed::Patch(json!({"cancel": {"mode": mode, "reason": "enough"}})),
            ));
        }
        if percent(rng, 10) {
            let at = rng.u64(..STORM / 2);
            people.push((at, Deed::Patch(json!({"suspend": true}))));
            people.push((at + rng.u64(..STORM / 2), Deed::Patch(json!({"suspend": false}))));
        }
        people.sort_by_key(|(at, _)| *at);
        let mut blows: Vec<(u64, Blow)> = (0..rng.usize(..4)).map(|_| (rng.u64(..STORM), Blow::Death)).collect();
        blows.extend((0..rng.usize(..3)).map(|_| (rng.u64(..STORM), Blow::draw(rng))));
        blows.sort_by_key(|(at, _)| *at);
        let mut amid: Vec<(usize, Blow)> = (0..rng.usize(..4))
            .map(|_| (rng.usize(1..150), Blow::draw(rng)))
            .collect();
        amid.sort_by_key(|(at, _)| *at);
        let text = spec.to_string();
        let fixtures = (0..steps.len()).map(|number| format!("fixture-s{number}"));
        let fixtures = fixtures.filter(|name| text.contains(name.as_str()));
        let fixtures = fixtures.flat_map(|name| {
            (0..5)
                .map(|n| format!("{name}-{n}"))
                .chain([name.clone()])
                .collect::<Vec<_>>()
        });
        let fixtures = fixtures.collect();
        let callee = json!({
            "retry": {"initialInterval": "1s", "maximumInterval": "5s"},
            "steps": [
                {"name": "call", "http": post("callee/${input.at}"), "timeouts": {"scheduleToClose": "1m"}},
                {"name": "again", "http": post("silent/callee-${input.at}?times=1"), "timeouts": {"scheduleToClose": "1m"}},
            ],
        });
        Self {
            spec,
            templates: BTreeMap::from([("callee".to_owned(), callee)]),
            people,
            trouble: *pick(rng, &[(0, 0), (5, 5), (15, 10), (25, 20)]),
            blows,
            amid,
            fixtures,
            standby: percent(rng, 25),
        }
    }
}
