//! The HTTP server: health checks, metrics and callbacks.

pub mod callbacks;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use self::callbacks::Peers;
use crate::activities::callbacks::Callbacks;
use crate::controllers::Health;

/// What the server answers.
///
/// - `/healthz`: the process runs and its event loop turns.
/// - `/readyz`: it leads or stands by to; 503 until the cluster's CRD is as new as the operator.
/// - `/metrics`: numbers for Prometheus.
/// - `/callbacks/v1/`: what other sides say of the work that they took; see [`callbacks`].
pub fn router(health: Arc<Health>, callbacks: Arc<Callbacks>, peers: Arc<dyn Peers>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health.clone())
        .merge(callbacks::router(health, callbacks, peers))
}

async fn ready(State(health): State<Arc<Health>>) -> impl IntoResponse {
    if health.is_ready() {
        (StatusCode::OK, "ok")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "waiting for the API server, and for CRDs of this version: see the log",
        )
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> impl IntoResponse {
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        health.metrics(),
    )
}
