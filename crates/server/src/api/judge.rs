//! What people say of parts, and learning from it.

use std::sync::{Arc, PoisonError};

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::detectors::of;
use super::extract::{Json, Path};
use super::parts::the_part;
use crate::app::{App, Notice, blocking};
use crate::files::is_kind;
use crate::guard::Caller;
use crate::jobs::{Job, Jobs, Learn};
use crate::refusal::Refusal;
use crate::store::{NewJudgement, Role};
use crate::verdict::{Judgement, Label};

/// What a part is.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Says {
    /// Number of the part.
    part: i64,
    /// `good` or `flaw`.
    label: Label,
    /// Kind of the flaw.
    kind: Option<String>,
    /// Where the flaw is: a PNG in base64, white where it is, in the shape of the image.
    mask: Option<String>,
}

/// A judgement that is remembered.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Judged {
    judgement: Judgement,
    /// Judgements that the version in force has not learned.
    pending: usize,
}

/// Judges a part. An earlier judgement of the same image is withdrawn.
#[utoipa::path(post, path = "/api/detectors/{name}/judgements", params(("name" = String, Path)), request_body = Says,
    responses((status = 201, body = Judged), Refusal))]
pub(super) async fn judge(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
    Path(name): Path<String>,
    Json(said): Json<Says>,
) -> Result<(StatusCode, Json<Judged>), Refusal> {
    let caller = of(caller, Role::Operator)?;
    let judged = blocking(&app, move |app| {
        let row = app.detector(&name)?;
        let part = the_part(app, said.part)?;
        if part.detector != row.id {
            return Err(Refusal::missing(format!(
                "'{name}' has not looked at part {}",
                said.part
            )));
        }
        let new = NewJudgement {
            part: said.part,
            content: part.part.content.clone(),
            label: said.label,
            kind: kind(&said)?,
            mask: mask(&said)?,
        };
        {
            // it is to stay: neither the tidier nor a power cut may take it
            let _keeping = app.keeping.lock().unwrap_or_else(PoisonError::into_inner);
            let gone = |_| {
                Refusal::conflict(
                    "the image is not kept any longer, so nothing can be learned from it",
                )
                .hint("--keep says of how many parts images are kept")
            };
            let kept = app.files.keep(&part.part.content, &part.kind);
            kept.map_err(gone)?;
            let judgement = app.store.judge(&row, &new, caller.name())?;
            let pending = app.store.pending(row.id)?;
            Ok(Judged { judgement, pending })
        }
    });
    let judged = judged.await?;
    app.tell(Notice::Detectors);
    Ok((StatusCode::CREATED, Json(judged)))
}

fn kind(said: &Says) -> Result<Option<String>, Refusal> {
    let Some(kind) = said.kind.as_deref().filter(|kind| !kind.trim().is_empty()) else {
        return Ok(None);
    };
    let kind = kind.trim();
    if said.label == Label::Good {
        return Err(Refusal::wrong("a good part has no kind of flaw"));
    }
    if !is_kind(kind) {
        return Err(Refusal::wrong(format!("'{kind}' cannot be a kind of flaw"))
            .hint("take a short word without / \\ : * ? \" < > |"));
    }
    Ok(Some(kind.to_owned()))
}

fn mask(said: &Says) -> Result<Option<Vec<u8>>, Refusal> {
    let Some(mask) = said.mask.as_deref().filter(|mask| !mask.is_empty()) else {
        return Ok(None);
    };
    if said.label == Label::Good {
        return Err(Refusal::wrong("a good part has no place of a flaw"));
    }
    let mask = mask.strip_prefix("data:image/png;base64,").unwrap_or(mask);
    let bytes = STANDARD
        .decode(mask)
        .map_err(|e| Refusal::wrong(format!("the mask is not base64: {e}")))?;
    crate::masks::read(&bytes)?;
    Ok(Some(bytes))
}

/// Judgements that are left to learn.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Left {
    pending: usize,
}

/// Withdraws a judgement.
#[utoipa::path(delete, path = "/api/judgements/{id}", params(("id" = i64, Path)),
    responses((status = 200, body = Left), Refusal))]
pub(super) async fn withdraw(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
    Path(id): Path<i64>,
) -> Result<Json<Left>, Refusal> {
    let caller = of(caller, Role::Operator)?;
    let left = blocking(&app, move |app| {
        let row = app.store.withdraw(id, caller.name())?;
        let row = row.ok_or_else(|| Refusal::missing(format!("there is no judgement {id}")))?;
        Ok(Left {
            pending: app.store.pending(row.id)?,
        })
    });
    let left = left.await?;
    app.tell(Notice::Detectors);
    Ok(Json(left))
}

/// How to learn.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct LearnBody {
    /// Take it even where known images are told apart worse.
    force: bool,
}

/// Teaches a detector what was judged. It is taken where known images are told apart no worse.
#[utoipa::path(post, path = "/api/detectors/{name}/learn", params(("name" = String, Path)), request_body = LearnBody,
    responses((status = 202, body = Job), Refusal))]
pub(super) async fn learn(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
    Path(name): Path<String>,
    Json(wanted): Json<LearnBody>,
) -> Result<(StatusCode, Json<Job>), Refusal> {
    let caller = of(caller, Role::Engineer)?;
    let job = blocking(&app, move |app| {
        let row = app.detector(&name)?;
        if app.store.pending(row.id)? == 0 {
            return Err(
                Refusal::conflict(format!("'{name}' has nothing new to learn"))
                    .hint("judge some parts first"),
            );
        }
        let work = Learn {
            force: wanted.force,
            by: caller.name().map(str::to_owned),
        };
        Jobs::start(app, row, work)
    });
    Ok((StatusCode::ACCEPTED, Json(job.await?)))
}
