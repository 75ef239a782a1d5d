//! Thresholds, versions, and what happened over time.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use flawtune::score::threshold::{self, Method, Rule};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::detectors::of;
use super::extract::{Json, Path, Query};
use crate::app::{App, blocking};
use crate::guard::Caller;
use crate::refusal::Refusal;
use crate::store::{Bucket, DetectorRow, NewVersion, Role, Version, VersionKind, now};
use crate::verdict::Label;

const HOUR: i64 = 3600 * 1000;

/// The threshold, and what it is chosen by.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ThresholdNow {
    /// Parts whose score reaches it are flaws.
    value: f64,
    /// How it was chosen.
    rule: &'static str,
    /// Scores of good images, each judged without itself, ascending.
    good: Vec<f64>,
    /// Scores of known defects, each by a head that had not seen it, ascending.
    defects: Vec<f64>,
    /// Scores of judged parts that the version in force has not learned.
    judged: JudgedScores,
}

/// Scores of parts that were judged, as they were when they were looked at, ascending.
#[derive(Debug, Default, Serialize, ToSchema)]
struct JudgedScores {
    good: Vec<f64>,
    flaw: Vec<f64>,
}

/// What a threshold would stop and find.
#[utoipa::path(get, path = "/api/detectors/{name}/threshold", params(("name" = String, Path)),
    responses((status = 200, body = ThresholdNow), Refusal))]
pub(super) async fn threshold(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<ThresholdNow>, Refusal> {
    let found = blocking(&app, move |app| {
        let row = app.detector(&name)?;
        let live = app.live(&row)?;
        let t = live.detector.header().threshold.clone();
        let known = current(app, &row)?.is.lessons;
        let mut judged = JudgedScores::default();
        for image in app.store.judgements(row.id)? {
            if !known.contains(&image.id) {
                match image.label {
                    Label::Good => judged.good.push(image.score),
                    Label::Flaw => judged.flaw.push(image.score),
                }
            }
        }
        judged.good.sort_by(f64::total_cmp);
        judged.flaw.sort_by(f64::total_cmp);
        Ok(ThresholdNow {
            value: t.value,
            rule: rule(&t.rule),
            good: t.good,
            defects: t.defects,
            judged,
        })
    });
    Ok(Json(found.await?))
}

fn rule(rule: &Rule) -> &'static str {
    match rule {
        Rule::Quantile { .. } => "from the scores of good images",
        Rule::ExtremeValue { .. } => "from the tail of the scores of good images",
        Rule::Given => "given by a person",
        _ => "from good images and known defects",
    }
}

fn current(app: &App, row: &DetectorRow) -> Result<Version, Refusal> {
    let number = row.current.unwrap_or_default();
    let found = app.store.version(row.id, number)?;
    found.ok_or_else(|| Refusal::missing(format!("'{}' has no version {number}", row.name)))
}

/// A threshold; one of the three.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct NewThreshold {
    /// The score itself.
    value: Option<f64>,
    /// Share of good parts that may be stopped.
    false_alarms: Option<f64>,
    /// Share of known defects that must be found.
    find: Option<f64>,
}

/// Chooses another threshold: a version like the one before, but for it.
#[utoipa::path(post, path = "/api/detectors/{name}/threshold", params(("name" = String, Path)), request_body = NewThreshold,
    responses((status = 200, body = VersionShown), Refusal))]
pub(super) async fn set_threshold(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
    Path(name): Path<String>,
    Json(wanted): Json<NewThreshold>,
) -> Result<Json<VersionShown>, Refusal> {
    let caller = of(caller, Role::Engineer)?;
    let made = blocking(&app, move |app| {
        let row = app.detector(&name)?;
        let live = app.live(&row)?;
        let (value, how) = chosen(&wanted, &live.detector.header().threshold)?;
        let was = current(app, &row)?;
        let new = NewVersion {
            kind: VersionKind::Threshold,
            note: format!("threshold {value:.4}, {how}"),
            base: Some(was.base),
            threshold: value,
            given: true,
            before: None,
            after: None,
            oddest: None,
            ..was.is
        };
        let number = app.store.add_version(&row, &new, caller.name())?;
        app.in_force(&name)?;
        let made = app.store.version(row.id, number)?;
        made.map(VersionShown::from)
            .ok_or_else(|| Refusal::missing("the version is gone"))
    });
    Ok(Json(made.await?))
}

fn chosen(wanted: &NewThreshold, t: &flawtune::Threshold) -> Result<(f64, String), Refusal> {
    let library = |e: threshold::ThresholdError| Refusal::from(flawtune::Error::from(e));
    match (wanted.value, wanted.false_alarms, wanted.find) {
        (Some(value), None, None) if value.is_finite() => Ok((value, "by hand".into())),
        (None, Some(rate), None) => {
            let found = threshold::from_good(&t.good, rate, Method::Auto).map_err(library)?;
            Ok((found.value, format!("for {} % false alarms", 100.0 * rate)))
        }
        (None, None, Some(share)) if (0.0..=1.0).contains(&share) => {
            if t.defects.is_empty() {
                return Err(
                    Refusal::conflict("no defects are known to choose a threshold by")
                        .hint("judge two flaws or more, and let it learn them"),
                );
            }
            let value = threshold::finding(&t.defects, share).map_err(library)?;
            Ok((value, format!("to find {} % of the flaws", 100.0 * share)))
        }
        _ => Err(
            Refusal::wrong("wanted one of 'value', 'false_alarms' and 'find', a number each")
                .hint("{\"false_alarms\": 0.01}"),
        ),
    }
}

/// A version.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionShown {
    /// Its number.
    version: i64,
    /// When, in milliseconds since 1970.
    at: i64,
    /// Who made it.
    by: Option<String>,
    /// How it came to be.
    kind: VersionKind,
    /// In a sentence.
    note: String,
    /// Its threshold.
    threshold: f64,
    /// Good images that it learned.
    good: usize,
    /// Defects that it learned.
    defects: usize,
    /// What the version before stops and finds of images that neither had seen.
    #[schema(value_type = Option<Object>)]
    before: Option<serde_json::Value>,
    /// What it stops and finds of them.
    #[schema(value_type = Option<Object>)]
    after: Option<serde_json::Value>,
}

impl From<Version> for VersionShown {
    fn from(version: Version) -> Self {
        let json = |text: Option<String>| text.and_then(|t| serde_json::from_str(&t).ok());
        Self {
            version: version.number,
            at: version.at,
            by: version.by,
            kind: version.is.kind,
            note: version.is.note,
            threshold: version.is.threshold,
            good: version.is.good,
            defects: version.is.defects,
            before: json(version.is.before),
            after: json(version.is.after),
        }
    }
}

/// The versions of a detector.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Versions {
    /// The one in force.
    current: Option<i64>,
    /// All of them, the newest first.
    versions: Vec<VersionShown>,
}

/// The versions of a detector.
#[utoipa::path(get, path = "/api/detectors/{name}/versions", params(("name" = String, Path)),
    responses((status = 200, body = Versions), Refusal))]
pub(super) async fn versions(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Versions>, Refusal> {
    let all = blocking(&app, move |app| {
        let row = app.detector(&name)?;
        let versions = app.store.versions(row.id)?;
        Ok(Versions {
            current: row.current,
            versions: versions.into_iter().map(VersionShown::from).collect(),
        })
    });
    Ok(Json(all.await?))
}

/// A version to go back to.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Back {
    version: i64,
}

/// The version in force.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Current {
    current: i64,
}

/// Goes back to a version, or forward again: all of them are kept.
#[utoipa::path(post, path = "/api/detectors/{name}/rollback", params(("name" = String, Path)), request_body = Back,
    responses((status = 200, body = Current), Refusal))]
pub(super) async fn roll_back(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
    Path(name): Path<String>,
    Json(back): Json<Back>,
) -> Result<Json<Current>, Refusal> {
    let caller = of(caller, Role::Engineer)?;
    blocking(&app, move |app| {
        let row = app.detector(&name)?;
        if !app.store.roll_back(&row, back.version, caller.name())? {
            return Err(Refusal::missing(format!(
                "'{name}' has no version {}",
                back.version
            )));
        }
        app.in_force(&name)?;
        Ok(Json(Current {
            current: back.version,
        }))
    })
    .await
}

/// Which stretches of time.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
pub(super) struct Stretch {
    /// `hour` or `day`.
    bucket: Option<String>,
    /// Since when, in milliseconds since 1970; the last 30 days where nothing is said.
    since: Option<i64>,
}

/// Parts over time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct History {
    buckets: Vec<Bucket>,
}

/// Parts, stopped ones, doubtful ones and drift over time.
#[utoipa::path(get, path = "/api/detectors/{name}/history", params(("name" = String, Path), Stretch),
    responses((status = 200, body = History), Refusal))]
pub(super) async fn history(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(stretch): Query<Stretch>,
) -> Result<Json<History>, Refusal> {
    let length = match stretch.bucket.as_deref() {
        None | Some("hour") => HOUR,
        Some("day") => 24 * HOUR,
        Some(other) => {
            return Err(Refusal::wrong(format!(
                "'{other}' is no stretch of time, wanted 'hour' or 'day'"
            )));
        }
    };
    let since = stretch.since.unwrap_or_else(|| now() - 30 * 24 * HOUR);
    let buckets = blocking(&app, move |app| {
        let row = app.detector(&name)?;
        Ok(app.store.history(row.id, length, since)?)
    });
    Ok(Json(History {
        buckets: buckets.await?,
    }))
}

/// The version in force as a file, which `flawtune predict` reads.
#[utoipa::path(get, path = "/api/detectors/{name}/file", params(("name" = String, Path)),
    responses((status = 200, content_type = "application/octet-stream"), Refusal))]
pub(super) async fn file(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let (name, bytes) = blocking(&app, move |app| {
        let row = app.detector(&name)?;
        let live = app.live(&row)?;
        let folder = tempfile::tempdir_in(app.files.tmp())?;
        let path = folder.path().join("detector.flaw");
        live.detector.save(&path)?;
        Ok((row.name, std::fs::read(&path)?))
    })
    .await?;
    let shown = format!("attachment; filename=\"{name}.flaw\"");
    let shown = HeaderValue::from_str(&shown).map_err(|e| Refusal::machine(&e))?;
    let mut response = Body::from(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(CONTENT_DISPOSITION, shown);
    Ok(response)
}
