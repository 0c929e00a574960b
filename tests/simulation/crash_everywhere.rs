//! For each sample workflow: the operator dies at every single API call and at every call of the service, before and
//! after it had its effect; another starts. Every run ends as the one without a crash does, and the service has seen
//! every effect under one key.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast::api::{ActionState, OperationState};
use serde_json::{Map, Value};
use tokio::time::sleep;

use crate::callbacks::CallbackFault;
use crate::samples::{Sample, sample};
use crate::service::CallFault;
use crate::sniper::{NEVER, Sniper, but_renewals};
use crate::world::World;

/// Where the operator dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    Never,
    /// At API request number n, from 1, before or after it was applied.
    AtRequest(usize, bool),
    /// At the service's call number n, from 1, before or after it had its effect.
    AtCall(usize, bool),
    /// At the service's callback number n, from 1, before it arrives or after it was answered.
    AtCallback(usize, bool),
}

/// How a run ended.
#[derive(Debug, PartialEq)]
struct Ending {
    state: OperationState,
    output: Option<Map<String, Value>>,
    effects: BTreeMap<String, usize>,
    deeds: BTreeMap<String, usize>,
    actions: Vec<(String, Option<ActionState>)>,
}

/// What a run used up.
struct Used {
    requests: usize,
    calls: usize,
    callbacks: usize,
}

async fn run(sample: &Sample, crash: Crash) -> (Ending, Used) {
    let mut world = World::new(1);
    let (at, applied) = match crash {
        Crash::AtRequest(at, applied) => (at, applied),
        _ => (NEVER, false),
    };
    let sniper = Sniper::aim(&world, at, applied, but_renewals());
    let own = sniper.clone();
    world.service.set_faults(move |number| match crash {
        Crash::AtCall(at, done) if at == number => {
            own.shoot();
            if done {
                CallFault::DieAfter
            } else {
                CallFault::DieBefore
            }
        }
        _ => CallFault::None,
    });
    let own = sniper.clone();
    world.service.gateway.set_faults(move |number| match crash {
        Crash::AtCallback(at, taken) if at == number => {
            own.shoot();
            if taken {
                CallbackFault::DieAfter
            } else {
                CallbackFault::DieBefore
            }
        }
        _ => CallbackFault::None,
    });
    let mut operator = world.start();
    world.apply_sample(sample).await;
    for (number, what) in sample.actions.iter().enumerate() {
        world.ask(&sample.name, number, what).await;
    }
    let cluster = tokio::spawn(crate::cluster::serve(world.server.clone()));
    let (mut died, mut asked) = (false, sample.later.is_empty());
    loop {
        tokio::select! {
            biased;
            () = sniper.shot(), if !died => {
                died = true;
                world.kill(operator).await;
                operator = world.start();
            }
            () = world.until("the operation ends or is stuck", |world| {
                let stuck = !asked && world.state(&sample.name) == Some(OperationState::Stuck);
                stuck || world.finished(&sample.name)
            }) => {
                if world.finished(&sample.name) {
                    break;
                }
                asked = true;
                for (number, what) in sample.later.iter().enumerate() {
                    world.ask(&sample.name, 100 + number, what).await;
                }
            }
        }
    }
    // What the end makes of it, such as Events, may crash it too, and must change nothing.
    for _ in 0..4 {
        tokio::select! {
            biased;
            () = sniper.shot(), if !died => {
                died = true;
                world.kill(operator).await;
                operator = world.start();
            }
            () = sleep(Duration::from_secs(5)) => {}
        }
    }
    cluster.abort();
    world.check();
    if let Some(writes) = sample.writes {
        assert_eq!(
            world.writes_of(&sample.name),
            writes,
            "writes when it crashes {crash:?}"
        );
    }
    let status = world.operation(&sample.name).status.unwrap();
    let ending = Ending {
        state: status.state.unwrap(),
        output: status.output,
        effects: world.service.effects(),
        deeds: world.deeds(),
        actions: world.came_of_it(),
    };
    let used = Used {
        requests: sniper.seen(),
        calls: world.service.calls(),
        callbacks: world.service.gateway.calls(),
    };
    world.kill_all().await;
    (ending, used)
}

async fn crash_everywhere(name: &str) {
    let sample = sample(name);
    let (expected, used) = run(&sample, Crash::Never).await;
    assert_eq!(expected.state, sample.expect);
    assert!(
        expected.actions.iter().all(|(_, state)| state.is_some()),
        "{:?}",
        expected.actions
    );
    assert!(used.requests > 10, "only {} requests were seen", used.requests);
    let requests = (1..=used.requests).flat_map(|n| [Crash::AtRequest(n, false), Crash::AtRequest(n, true)]);
    let calls = (1..=used.calls).flat_map(|n| [Crash::AtCall(n, false), Crash::AtCall(n, true)]);
    let callbacks = (1..=used.callbacks).flat_map(|n| [Crash::AtCallback(n, false), Crash::AtCallback(n, true)]);
    let mut runs = 0;
    for crash in requests.chain(calls).chain(callbacks) {
        let (ending, _) = run(&sample, crash).await;
        assert_eq!(ending, expected, "{name} when it crashes {crash:?}");
        runs += 1;
    }
    println!(
        "{name}: {runs} crashes ({} API requests, {} calls and {} callbacks, before and after each)",
        used.requests, used.calls, used.callbacks
    );
}

macro_rules! crash_everywhere {
    ($($name:ident),*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            crash_everywhere(stringify!($name).trim_start_matches("r#")).await;
        }
    )*};
}

crash_everywhere!(
    r#async, calls, graph, flaky, timer, refused, slow, objects, job, saga, list, group, people, local, reads, long,
    parent, template
);
