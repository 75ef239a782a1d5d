//! What a page needs first.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::extract::Json;
use crate::app::{App, blocking};
use crate::guard::Caller;
use crate::jobs::Job;
use crate::refusal::Refusal;
use crate::store::{DetectorRow, User};

/// The server, and who asks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Everything {
    /// Of flawtune.
    version: &'static str,
    /// What the header X-Flawtune must say.
    csrf: String,
    /// Who asks, where people log in.
    user: Option<User>,
    /// Whether one must log in first.
    login: bool,
    /// The detectors.
    detectors: Vec<Summary>,
}

/// A detector in short.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Summary {
    /// Its name.
    pub(super) name: String,
    /// `empty`, `fitting` or `ready`.
    pub(super) state: &'static str,
    /// The version in force.
    pub(super) version: Option<i64>,
    /// Good images that it learned, or that were handed in.
    pub(super) good: usize,
    /// Defects that it learned.
    pub(super) defects: usize,
    /// Kinds of flaws that it knows, or that were named.
    pub(super) kinds: Vec<String>,
    /// Judgements that it has not learned.
    pub(super) pending: usize,
    /// Parts that it stopped.
    pub(super) stopped: i64,
    /// Parts that it looked at.
    pub(super) parts: i64,
    /// The last long work.
    pub(super) job: Option<Job>,
}

/// Of a detector.
pub(super) fn summary(app: &Arc<App>, row: &DetectorRow) -> Result<Summary, Refusal> {
    let counts = app.store.counts(row.id, 0)?;
    let job = app.jobs.last(&row.name);
    let at_work = job
        .as_ref()
        .is_some_and(|job| job.state == crate::jobs::JobState::Running);
    let mut kinds = app.store.kinds(row.id)?;
    let (good, defects) = match row.current {
        Some(_) => {
            let live = app.live(row)?;
            let header = live.detector.header();
            let known = live.detector.kinds();
            kinds.extend(known.into_iter().map(str::to_owned));
            (header.support.len(), live.detector.defects())
        }
        None => (app.store.good(row.id)?.len(), 0),
    };
    kinds.sort();
    kinds.dedup();
    Ok(Summary {
        name: row.name.clone(),
        state: match (row.current, at_work) {
            (Some(_), _) => "ready",
            (None, true) => "fitting",
            (None, false) => "empty",
        },
        version: row.current,
        good,
        defects,
        kinds,
        pending: app.store.pending(row.id)?,
        stopped: counts.stopped,
        parts: counts.parts,
        job,
    })
}

/// The server, who asks, and the detectors.
#[utoipa::path(get, path = "/api/state", responses((status = 200, body = Everything), Refusal))]
pub(super) async fn state(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
) -> Result<Json<Everything>, Refusal> {
    everything(app, caller).await
}

/// As a log-in answers too.
pub(super) async fn everything(
    app: Arc<App>,
    caller: Option<Caller>,
) -> Result<Json<Everything>, Refusal> {
    let version = env!("CARGO_PKG_VERSION");
    let Some(caller) = caller else {
        return Ok(Json(Everything {
            version,
            csrf: String::new(),
            user: None,
            login: true,
            detectors: Vec::new(),
        }));
    };
    let detectors = blocking(&app, |app| {
        let all = app.store.detectors()?;
        all.iter().map(|row| summary(app, row)).collect()
    });
    Ok(Json(Everything {
        version,
        csrf: caller.csrf,
        user: caller.user,
        login: false,
        detectors: detectors.await?,
    }))
}
