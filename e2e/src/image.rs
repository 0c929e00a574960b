//! Images for the cluster's node, made of programs that cargo built.

use std::path::Path;

use tokio::sync::OnceCell;

use crate::kubectl::{project, run};
use crate::operator::built;

/// The image of `src/bin/task.rs`, which Jobs of the tests run. Loaded once a process.
pub async fn task() -> &'static str {
    static LOADED: OnceCell<()> = OnceCell::const_new();
    const IMAGE: &str = "localhost/holdfast-task:e2e";
    LOADED
        .get_or_init(async || load(IMAGE, &built("task"), "/task").await)
        .await;
    IMAGE
}

/// Makes an image of a program, and loads it into the cluster.
///
/// # Panics
/// If that can't be done: pods need a cluster with a node that takes images.
pub async fn load(image: &str, program: &Path, path: &str) {
    let file = format!("{}:{path}", program.display());
    let loaded = run(&project("e2e/cluster.sh"), "", &["load-image", image, &file]).await;
    assert!(
        loaded.ok,
        "{image} can't be loaded: run the tests by make e2e, on a cluster with a node: {}",
        loaded.err
    );
}
