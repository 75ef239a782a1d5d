//! Where images come from and verdicts go.

use std::sync::{Arc, PoisonError};

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::detectors::of;
use super::extract::Json;
use crate::app::App;
use crate::guard::Caller;
use crate::receivers::Counted;
use crate::refusal::Refusal;
use crate::sources::Sources;
use crate::store::Role;

/// Where images come from and verdicts go.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ways {
    ways: Vec<Counted>,
}

/// What became of images of sources and of verdicts to receivers.
#[utoipa::path(get, path = "/api/ways", responses((status = 200, body = Ways), Refusal))]
pub(super) async fn ways(State(app): State<Arc<App>>) -> Json<Ways> {
    Json(Ways { ways: app.ways() })
}

/// Takes the newest image of the camera that the server was started with `--on-trigger` for.
#[utoipa::path(post, path = "/api/trigger", responses((status = 202), Refusal))]
pub(super) async fn trigger(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
) -> Result<StatusCode, Refusal> {
    of(caller, Role::Operator)?;
    let sources = app.sources.lock().unwrap_or_else(PoisonError::into_inner);
    if sources.as_ref().is_some_and(Sources::trigger) {
        return Ok(StatusCode::ACCEPTED);
    }
    Err(Refusal::conflict("no camera waits for a trigger")
        .hint("start the server with --source and --on-trigger"))
}
