//! Random faults, from a seed: the API server refuses, conflicts, is late and loses answers, its cache lags behind,
//! watches drop and expire, the service vanishes, two operators run, die and stand still, and their clocks jump.
//! Whatever happened, once it is over, every operation ends as it should.
//!
//! A seed that fails is told; `HOLDFAST_SEED=n cargo test --test simulation faults` runs it alone,
//! `HOLDFAST_SEEDS=n` so many.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::blows::{Blow, Crew};
use crate::samples::sample;
use crate::world::World;

/// For how long things go wrong.
const STORM: Duration = Duration::from_secs(90);

async fn survive(seed: u64) {
    let mut world = World::new(u32::try_from(seed).unwrap());
    let names = [
        "calls", "graph", "flaky", "refused", "timer", "objects", "job", "template", "async",
    ];
    world.set_unreliable(seed.wrapping_add(1), 15);
    world.service.set_unreliable(seed.wrapping_add(2), 20);
    let cluster = tokio::spawn(crate::cluster::serve(world.server.clone()));
    let mut crew = Crew::start(&mut world, 2);
    for name in names {
        world.apply_sample(&sample(name)).await;
    }
    let mut dice = fastrand::Rng::with_seed(seed);
    let storm = async {
        loop {
            let pause = dice.u64(1..15_000);
            let blow = match dice.u8(..6) {
                0 | 1 => Blow::Death,
                _ => Blow::draw(&mut dice),
            };
            sleep(Duration::from_millis(pause)).await;
            crew.strike(&mut world, blow).await;
        }
    };
    let _ = timeout(STORM, storm).await;
    crew.calm(&world);
    for name in names {
        world.until("the operation ends", |world| world.finished(name)).await;
        assert_eq!(
            world.state(name),
            Some(sample(name).expect),
            "{name}: {:?}",
            world.operation(name).status
        );
    }
    cluster.abort();
    world.check();
    let jobs = world.deeds().get("migrate: Job created").copied();
    assert_eq!(jobs, Some(1), "one Job, whatever happened");
    world.kill_all().await;
}

#[test]
fn whatever_happens_every_operation_ends_as_it_should() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let seeds = match number("HOLDFAST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HOLDFAST_SEEDS").unwrap_or(12),
    };
    for seed in seeds {
        println!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(survive(seed));
    }
}
