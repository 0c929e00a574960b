//! Images for the cluster's nodes, made of programs that cargo built.

use std::path::Path;

use tokio::sync::OnceCell;

use crate::kubectl::{project, run};
use crate::operator::built;

/// The image of `src/bin/task.rs`, which Jobs of the tests run: the one that `HOLDFAST_TASK_IMAGE` names, where somebody
/// pushed it, else one that is loaded into the cluster, once a process. None, which is said, where no image can be loaded.
pub async fn task() -> Option<&'static str> {
    static IMAGE: OnceCell<Option<String>> = OnceCell::const_new();
    let image = IMAGE.get_or_init(async || {
        if let Ok(pushed) = std::env::var("HOLDFAST_TASK_IMAGE") {
            return Some(pushed);
        }
        if crate::cluster() == "current" {
            return None;
        }
        let image = "localhost/holdfast-task:e2e";
        load(image, &built("task"), "/task").await;
        Some(image.to_owned())
    });
    let image = image.await.as_deref();
    if image.is_none() {
        crate::skipped("images can't be loaded into this cluster, and HOLDFAST_TASK_IMAGE names none");
    }
    image
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
