//! Detectors: made, fed with good images, fitted.

use std::sync::{Arc, PoisonError};

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use flawtune_backbone::hub;
use flawtune_backbone::models::{self, VARIANTS};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{Json, Path, Query};
use super::state::{Summary, summary};
use super::upload::Images;
use crate::app::{App, Notice, blocking};
use crate::compute::Live;
use crate::files::{extension, is_name};
use crate::guard::Caller;
use crate::jobs::{Fit, Job, Jobs, WEIGHT_FILE};
use crate::refusal::{Refusal, Said};
use crate::store::Role;

/// A detector's name.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Named {
    /// Letters, digits, `-`, `_` and `.`, at most 64.
    name: String,
}

/// Makes a detector.
#[utoipa::path(post, path = "/api/detectors", request_body = Named,
    responses((status = 201, body = Summary), Refusal))]
pub(super) async fn make(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
    Json(named): Json<Named>,
) -> Result<(StatusCode, Json<Summary>), Refusal> {
    let caller = of(caller, Role::Engineer)?;
    if !is_name(&named.name) {
        return Err(
            Refusal::wrong(format!("'{}' cannot be the name of a detector", named.name))
                .hint("take letters, digits, '-', '_' and '.', at most 64 of them"),
        );
    }
    let made = blocking(&app, move |app| {
        let made = app.store.new_detector(&named.name, caller.name())?;
        let made = made.ok_or_else(|| {
            Refusal::conflict(format!("there is a detector '{}' already", named.name))
        })?;
        summary(app, &made)
    })
    .await?;
    app.tell(Notice::Detectors);
    Ok((StatusCode::CREATED, Json(made)))
}

/// Somebody who may.
pub(super) fn of(caller: Option<Caller>, role: Role) -> Result<Caller, Refusal> {
    let caller = caller.ok_or_else(|| Refusal::unknown("log in first"))?;
    caller.must_be(role)?;
    Ok(caller)
}

/// A detector.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Detail {
    #[serde(flatten)]
    summary: Summary,
    /// The threshold in force.
    threshold: Option<f64>,
    /// What was chosen, and why.
    about: Vec<About>,
    /// The good images that look least like the others, the oddest first.
    #[schema(value_type = Vec<Object>)]
    oddest: serde_json::Value,
    /// Backbones to fit with.
    backbones: Vec<Offered>,
}

/// Something that was chosen.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct About {
    /// What.
    what: &'static str,
    /// What it came to.
    value: String,
    /// Why.
    why: String,
}

/// A backbone to fit with.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Offered {
    /// Its name.
    name: String,
    /// What it is.
    title: String,
    /// Whether its weights are here.
    ready: bool,
}

/// A detector: what it learned, what was chosen and why.
#[utoipa::path(get, path = "/api/detectors/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Detail), Refusal))]
pub(super) async fn detail(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Detail>, Refusal> {
    let detail = blocking(&app, move |app| {
        let row = app.detector(&name)?;
        let live = match row.current {
            Some(_) => Some(app.live(&row)?),
            None => None,
        };
        let versions = app.store.versions(row.id)?;
        let current = versions.iter().find(|v| Some(v.number) == row.current);
        let base = current.and_then(|c| versions.iter().find(|v| v.number == c.base));
        let oddest = base.and_then(|v| v.is.oddest.as_deref());
        let oddest = oddest.and_then(|text| serde_json::from_str(text).ok());
        Ok(Detail {
            summary: summary(app, &row)?,
            threshold: live.as_ref().map(|live| live.threshold()),
            about: live.as_ref().map(|live| about(live)).unwrap_or_default(),
            oddest: oddest.unwrap_or_else(|| serde_json::json!([])),
            backbones: offered(app),
        })
    });
    Ok(Json(detail.await?))
}

fn about(live: &Live) -> Vec<About> {
    let header = live.detector.header();
    let demo = header.model_name == models::DEMO;
    let row = |what, value: String, why: &str| About {
        what,
        value,
        why: why.to_owned(),
    };
    let sizes = flawtune::ImageSize::join(&header.sizes(), " and ");
    let t = &header.threshold;
    let found = |scores: &[f64]| scores.iter().filter(|s| t.is_flaw(**s)).count();
    let mut rows = vec![
        row(
            "backbone",
            header.model_name.clone(),
            if demo {
                "inside of the program, to try with: small and quick; a larger one finds more"
            } else {
                "frozen: what it sees is never changed, only compared"
            },
        ),
        row(
            "image size",
            format!("{sizes} px"),
            if header.more_sizes.is_empty() {
                "one size: quick"
            } else {
                "two sizes: each sees what the other misses"
            },
        ),
        row(
            "compared with",
            format!("{} good images", header.support.len()),
            "every patch with the nearest patch of all of them; none is left out",
        ),
    ];
    rows.push(match live.detector.defects() {
        0 => row(
            "flaws learned",
            "none".into(),
            "judge parts as flaws and let it learn them",
        ),
        n => row(
            "flaws learned",
            n.to_string(),
            "their weight grows with how many there are",
        ),
    });
    rows.push(row(
        "threshold",
        format!("{:.4}", t.value),
        &format!(
            "stops {} of {} good parts, each judged without itself{}",
            found(&t.good),
            t.good.len(),
            match t.defects.len() {
                0 => String::new(),
                n => format!("; finds {} of {n} flaws", found(&t.defects)),
            }
        ),
    ));
    rows
}

/// The embedded backbone, the weight file that the server was started with, and those whose weights lie here.
fn offered(app: &App) -> Vec<Offered> {
    let mut all = Vec::new();
    if let Some(weights) = app.registry.weights() {
        all.push(Offered {
            name: WEIGHT_FILE.into(),
            title: weights.display().to_string(),
            ready: true,
        });
    }
    all.push(Offered {
        name: models::DEMO.into(),
        title: "small, inside of the program: ready at once, for trials".into(),
        ready: true,
    });
    for name in ["dinov2_vits14", "dinov3_vits16"] {
        let Some(variant) = VARIANTS.iter().find(|v| v.name == name) else {
            continue;
        };
        let here = hub::LocateOptions {
            offline: true,
            ..hub::LocateOptions::from_env()
        };
        let ready = hub::locate(variant.name, &here, &mut |_| {}).is_ok();
        all.push(Offered {
            name: name.into(),
            title: if ready {
                "finds more; its weights are on this machine".into()
            } else {
                "finds more; about 90 MB are fetched at the first use".into()
            },
            ready,
        });
    }
    all
}

/// Forgets a detector.
#[utoipa::path(delete, path = "/api/detectors/{name}", params(("name" = String, Path)),
    responses((status = 204), Refusal))]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    let caller = of(caller, Role::Admin)?;
    blocking(&app, move |app| {
        let row = app.detector(&name)?;
        app.store.remove_detector(&row, caller.name())?;
        app.registry.close(row.id);
        match std::fs::remove_dir_all(app.files.detector(&row.name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    })
    .await?;
    app.tell(Notice::Detectors);
    Ok(StatusCode::NO_CONTENT)
}

/// What became of good images.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Added {
    /// Images that were not known.
    #[serde(rename = "added")]
    new: usize,
    /// Images that were.
    known: usize,
    /// Files that are no images, and why.
    refused: Vec<Bad>,
    /// Good images now.
    good: usize,
}

/// A file that is no image.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Bad {
    /// Its name.
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) said: Said,
}

/// Name of the image that is the body.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct BodyName {
    /// Name of the image that is the body.
    name: Option<String>,
}

/// Hands in good images: one as the body, or several as parts `image` of a form.
#[utoipa::path(post, path = "/api/detectors/{name}/good", params(("name" = String, Path), BodyName),
    responses((status = 200, body = Added), Refusal))]
pub(super) async fn add_good(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
    Path(detector): Path<String>,
    Query(body): Query<BodyName>,
    request: Request,
) -> Result<Json<Added>, Refusal> {
    of(caller, Role::Engineer)?;
    let _turn = app.uploads.try_acquire().map_err(|_| Refusal::busy(1))?;
    let row = {
        let detector = detector.clone();
        blocking(&app, move |app| app.detector(&detector)).await?
    };
    let mut images = Images::of(&app, request, body.name).await?;
    let mut added = Added::default();
    while let Some((name, bytes)) = images.next(&app).await? {
        let id = row.id;
        let one = name.clone();
        let kept = blocking(&app, move |app| keep_good(app, id, &one, &bytes)).await;
        match kept {
            Ok(true) => added.new += 1,
            Ok(false) => added.known += 1,
            Err(refusal) if refusal.status.is_client_error() => {
                added.refused.push(Bad {
                    name,
                    said: refusal.said,
                });
            }
            Err(refusal) => return Err(refusal),
        }
    }
    added.good = blocking(&app, move |app| Ok(app.store.good(row.id)?.len())).await?;
    app.tell(Notice::Detectors);
    Ok(Json(added))
}

/// Puts a good image on disk to stay; whether it is new.
fn keep_good(app: &App, detector: i64, name: &str, bytes: &[u8]) -> Result<bool, Refusal> {
    let options = flawtune_backbone::preprocess::DecodeOptions::default();
    let image = flawtune_backbone::preprocess::decode(bytes, name.as_ref(), &options)
        .map_err(flawtune::Error::from)?;
    let extension = extension(bytes).unwrap_or("png");
    let content = blake3::hash(bytes).to_hex().to_string();
    let _keeping = app.keeping.lock().unwrap_or_else(PoisonError::into_inner);
    app.files.put(&content, extension, bytes)?;
    app.files.keep(&content, extension)?;
    app.store
        .remember_image(&content, extension, (image.height(), image.width()))?;
    Ok(app
        .store
        .add_good(detector, &[(content, name.to_owned())])?
        > 0)
}

/// Good images that were handed in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GoodImages {
    images: Vec<Good>,
}

/// A good image that was handed in.
#[derive(Debug, Serialize, ToSchema)]
struct Good {
    /// BLAKE3 hash of the file.
    content: String,
    /// Its name.
    name: String,
    /// Whether it is left out.
    excluded: bool,
}

/// The good images that were handed in.
#[utoipa::path(get, path = "/api/detectors/{name}/good", params(("name" = String, Path)),
    responses((status = 200, body = GoodImages), Refusal))]
pub(super) async fn good(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<GoodImages>, Refusal> {
    let images = blocking(&app, move |app| {
        Ok(app.store.good(app.detector(&name)?.id)?)
    });
    let images = images.await?.into_iter().map(|image| Good {
        content: image.content,
        name: image.name,
        excluded: image.excluded,
    });
    Ok(Json(GoodImages {
        images: images.collect(),
    }))
}

/// A good image that is left out of the next fit, or not any more.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Exclude {
    /// BLAKE3 hash of the file.
    content: String,
    /// Whether it is left out.
    excluded: bool,
}

/// Leaves a good image out of the next fit, or takes it in again.
#[utoipa::path(post, path = "/api/detectors/{name}/good/exclude", params(("name" = String, Path)), request_body = Exclude,
    responses((status = 204), Refusal))]
pub(super) async fn exclude(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
    Path(name): Path<String>,
    Json(wanted): Json<Exclude>,
) -> Result<StatusCode, Refusal> {
    let caller = of(caller, Role::Engineer)?;
    blocking(&app, move |app| {
        let row = app.detector(&name)?;
        let there = app
            .store
            .exclude(&row, &wanted.content, wanted.excluded, caller.name())?;
        let missing = || Refusal::missing(format!("'{name}' has no good image {}", wanted.content));
        there.then_some(()).ok_or_else(missing)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What to fit.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct FitBody {
    /// Name of the backbone.
    backbone: Option<String>,
}

/// Fits a detector to its good images.
#[utoipa::path(post, path = "/api/detectors/{name}/fit", params(("name" = String, Path)), request_body = FitBody,
    responses((status = 202, body = Job), Refusal))]
pub(super) async fn fit(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
    Path(name): Path<String>,
    Json(wanted): Json<FitBody>,
) -> Result<(StatusCode, Json<Job>), Refusal> {
    let caller = of(caller, Role::Engineer)?;
    let job = blocking(&app, move |app| {
        let row = app.detector(&name)?;
        let work = Fit {
            backbone: wanted.backbone,
            by: caller.name().map(str::to_owned),
        };
        Jobs::start(app, row, work)
    });
    Ok((StatusCode::ACCEPTED, Json(job.await?)))
}

/// How far a job is, and what it came to.
#[utoipa::path(get, path = "/api/jobs/{id}", params(("id" = u64, Path)),
    responses((status = 200, body = Job), Refusal))]
pub(super) async fn job(
    State(app): State<Arc<App>>,
    Path(id): Path<u64>,
) -> Result<Json<Job>, Refusal> {
    let job = app.jobs.get(id);
    let missing = || {
        Refusal::missing(format!("there is no job {id}"))
            .hint("jobs are forgotten when the server ends; what they made is in the versions")
    };
    job.map(Json).ok_or_else(missing)
}
