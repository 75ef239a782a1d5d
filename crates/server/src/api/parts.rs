//! Parts: looked at, listed, shown.

use std::fs;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flawtune::Image;
use flawtune_backbone::preprocess::{DecodeOptions, decode};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::detectors::Bad;
use super::extract::{Json, Path, Query};
use super::upload::Images;
use crate::app::{App, blocking};
use crate::compute::{Answer, Live};
use crate::guard::HEADER;
use crate::overlay;
use crate::refusal::Refusal;
use crate::store::{Counts, Order, PartFilter, PartRow, now};
use crate::verdict::{Part, Source};

/// Images of a request that wait at once, at most.
const TOGETHER: usize = 8;
/// Parts that are listed at once, at most.
const MOST: usize = 500;
/// Longest side of a picture, at most.
const LONGEST: usize = 4096;
/// Longest side of the map that a verdict brings.
const MAP: usize = 512;
const DAY: i64 = 24 * 3600 * 1000;

/// How images are to be looked at.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
pub(super) struct Ask {
    /// Name of the image that is the body.
    name: Option<String>,
    /// Send the map too.
    map: bool,
}

/// What is said of images, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Results {
    results: Vec<Outcome>,
}

/// What is said of an image.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Outcome {
    /// A verdict.
    Part(Box<Verdict>),
    /// It cannot be looked at.
    Bad(Bad),
}

/// A verdict.
#[derive(Debug, Serialize, ToSchema)]
struct Verdict {
    #[serde(flatten)]
    part: Part,
    /// The map as the data URL of a PNG with alpha, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<String>,
}

/// Looks at images: one as the body, or several as parts `image` of a form.
#[utoipa::path(post, path = "/api/detectors/{name}/predict", params(("name" = String, Path), Ask),
    responses((status = 200, body = Results), Refusal))]
pub(super) async fn predict(
    State(app): State<Arc<App>>,
    Path(detector): Path<String>,
    Query(ask): Query<Ask>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<Results>, Refusal> {
    let _turn = app.uploads.try_acquire().map_err(|_| Refusal::busy(1))?;
    let source = if headers.contains_key(HEADER) {
        Source::Upload
    } else {
        Source::Post
    };
    let live = blocking(&app, move |app| app.live(&app.detector(&detector)?)).await?;
    let mut images = Images::of(&app, request, ask.name).await?;
    let alone = matches!(images, Images::One(_));
    let mut results = Vec::new();
    // several wait at once, so that they share forward passes
    let mut looking = FuturesOrdered::new();
    let look = |(name, bytes): (String, Vec<u8>)| {
        let (app, live) = (&app, &live);
        async move {
            let said = app.look(live, name.clone(), bytes, source).await;
            (name, said)
        }
    };
    let answered = |(name, said): (String, Result<Answer, Refusal>)| match said {
        Ok(answer) => Ok(Outcome::Part(Box::new(verdict(&live, &answer, ask.map)?))),
        Err(refusal) if alone || !refusal.status.is_client_error() => Err(refusal),
        Err(refusal) if refusal.retry_after.is_some() => Err(refusal),
        Err(refusal) => Ok(Outcome::Bad(Bad {
            name,
            said: refusal.said,
        })),
    };
    while let Some(image) = images.next(&app).await? {
        looking.push_back(look(image));
        if looking.len() == TOGETHER
            && let Some(said) = looking.next().await
        {
            results.push(answered(said)?);
        }
    }
    while let Some(said) = looking.next().await {
        results.push(answered(said)?);
    }
    if results.is_empty() {
        return Err(Refusal::wrong("the form has no image").hint("call its parts 'image'"));
    }
    Ok(Json(Results { results }))
}

fn verdict(live: &Live, answer: &Answer, map: bool) -> Result<Verdict, Refusal> {
    let part = (*answer.part).clone();
    let map = if map {
        let png = overlay::map(live, part.size, part.flaw, &answer.patches, MAP)?;
        Some(format!("data:image/png;base64,{}", STANDARD.encode(png)))
    } else {
        None
    };
    Ok(Verdict { part, map })
}

/// Which parts are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
pub(super) struct Wanted {
    /// `new` or `doubtful` first.
    #[param(inline)]
    order: Order,
    /// Only those that were judged, or only those that were not.
    judged: Option<bool>,
    /// Only flaws, or only good ones.
    flaw: Option<bool>,
    /// At most so many, 50 where nothing is said.
    limit: Option<usize>,
    /// Only parts with smaller numbers.
    before: Option<i64>,
}

/// Parts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Parts {
    parts: Vec<Part>,
    counts: AllCounts,
}

/// How many parts there were.
#[derive(Debug, Serialize, ToSchema)]
struct AllCounts {
    #[serde(flatten)]
    all: Counts,
    /// In the last 24 hours.
    today: Counts,
}

/// Lists parts.
#[utoipa::path(get, path = "/api/detectors/{name}/parts", params(("name" = String, Path), Wanted),
    responses((status = 200, body = Parts), Refusal))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Parts>, Refusal> {
    let filter = PartFilter {
        order: wanted.order,
        judged: wanted.judged,
        flaw: wanted.flaw,
        // what nobody can see nobody can judge
        kept: wanted.order == Order::Doubtful,
        before: wanted.before,
        limit: wanted.limit.unwrap_or(50).clamp(1, MOST),
    };
    let parts = blocking(&app, move |app| {
        let row = app.detector(&name)?;
        Ok(Parts {
            parts: app.store.parts(row.id, &filter)?,
            counts: AllCounts {
                all: app.store.counts(row.id, 0)?,
                today: app.store.counts(row.id, now() - DAY)?,
            },
        })
    });
    Ok(Json(parts.await?))
}

/// A part.
#[utoipa::path(get, path = "/api/parts/{id}", params(("id" = i64, Path)),
    responses((status = 200, body = Part), Refusal))]
pub(super) async fn part(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
) -> Result<Json<Part>, Refusal> {
    let row = blocking(&app, move |app| the_part(app, id));
    Ok(Json(row.await?.part))
}

pub(super) fn the_part(app: &App, id: i64) -> Result<PartRow, Refusal> {
    let found = app.store.part(id)?;
    found.ok_or_else(|| Refusal::missing(format!("there is no part {id}")))
}

/// A part, and the version in force of its detector.
fn judged_by(app: &App, id: i64) -> Result<(PartRow, Arc<Live>), Refusal> {
    let row = the_part(app, id)?;
    let live = app.live(&app.detector(&row.part.detector)?)?;
    Ok((row, live))
}

/// The image of a part, as the detector reads it.
fn image_of(app: &App, row: &PartRow, live: &Live) -> Result<Image, Refusal> {
    let file = file_of(app, &row.part.content, &row.kind)?;
    crate::compute::read(live, &row.part.name, &file)
}

/// The file of an image that is kept.
fn file_of(app: &App, content: &str, kind: &str) -> Result<Vec<u8>, Refusal> {
    let gone = || {
        Refusal::missing("the image is not kept any longer")
            .hint("--keep says of how many parts images are kept")
    };
    if kind.is_empty() {
        return Err(gone());
    }
    fs::read(app.files.image(content, kind)).map_err(|_| gone())
}

/// An image as it came.
#[utoipa::path(get, path = "/api/parts/{id}/image", params(("id" = i64, Path)),
    responses((status = 200, content_type = "image/png"), Refusal))]
pub(super) async fn image(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
) -> Result<Response, Refusal> {
    let (bytes, kind) = blocking(&app, move |app| {
        let row = the_part(app, id)?;
        Ok((file_of(app, &row.part.content, &row.kind)?, row.kind))
    })
    .await?;
    let media = match kind.as_str() {
        "png" => "image/png",
        "jpg" => "image/jpeg",
        "bmp" => "image/bmp",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "tiff" => "image/tiff",
        _ => "application/octet-stream",
    };
    let name = format!("inline; filename=\"part-{id}.{kind}\"");
    let name = HeaderValue::from_str(&name).map_err(|e| Refusal::machine(&e))?;
    let mut response = Body::from(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CONTENT_DISPOSITION, name);
    Ok(response)
}

/// How large a picture is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
pub(super) struct Size {
    /// Its longer side at most, in pixels.
    max: Option<usize>,
}

impl Size {
    fn longest(&self) -> usize {
        self.max.unwrap_or(512).clamp(16, LONGEST)
    }
}

fn png(bytes: Vec<u8>) -> Response {
    let mut response = Body::from(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("image/png"));
    // it never changes: it is named by a number or by its content
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=3600"),
    );
    response
}

/// An image as PNG, which every browser shows.
#[utoipa::path(get, path = "/api/parts/{id}/picture", params(("id" = i64, Path), Size),
    responses((status = 200, content_type = "image/png"), Refusal))]
pub(super) async fn picture(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
    Query(size): Query<Size>,
) -> Result<Response, Refusal> {
    let bytes = blocking(&app, move |app| {
        let (row, live) = judged_by(app, id)?;
        let image = image_of(app, &row, &live)?;
        overlay::picture(&image, size.longest())
    });
    Ok(png(bytes.await?))
}

/// The map of a part as PNG, clear where it is good, to lay over its picture.
#[utoipa::path(get, path = "/api/parts/{id}/map", params(("id" = i64, Path), Size),
    responses((status = 200, content_type = "image/png"), Refusal))]
pub(super) async fn map(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
    Query(size): Query<Size>,
) -> Result<Response, Refusal> {
    let bytes = blocking(&app, move |app| {
        let (row, live) = judged_by(app, id)?;
        let part = &row.part;
        overlay::map(&live, part.size, part.flaw, &row.patches, size.longest())
    });
    Ok(png(bytes.await?))
}

/// A good image that was handed in, or one that was judged, as PNG.
#[utoipa::path(get, path = "/api/images/{content}/picture", params(("content" = String, Path), Size),
    responses((status = 200, content_type = "image/png"), Refusal))]
pub(super) async fn known_picture(
    State(app): State<Arc<App>>,
    Path(content): Path<String>,
    Query(size): Query<Size>,
) -> Result<Response, Refusal> {
    let bytes = blocking(&app, move |app| {
        let kind = app.store.image_kind(&content)?;
        let kind = kind.ok_or_else(|| Refusal::missing("there is no such image"))?;
        let file = file_of(app, &content, &kind)?;
        let image: Image = decode(&file, content.as_ref(), &DecodeOptions::default())
            .map_err(flawtune::Error::from)?;
        overlay::picture(&image, size.longest())
    });
    Ok(png(bytes.await?))
}

/// What the oddest place of a part was compared with.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Compared {
    /// BLAKE3 hash of the good image's file.
    content: String,
    /// Its name.
    name: String,
    /// Whether it is on this server, for `/api/images/CONTENT/picture`.
    kept: bool,
    /// Height and width of the good image in pixels, where it is kept.
    size: Option<(usize, usize)>,
    /// The oddest place of the part, in pixels of its image.
    here: Patch,
    /// The place of the good image that looks most like it, in its pixels, where it is kept.
    there: Option<Patch>,
}

/// A patch.
#[derive(Debug, Serialize, ToSchema)]
struct Patch {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl From<(f64, f64, f64, f64)> for Patch {
    fn from((left, top, width, height): (f64, f64, f64, f64)) -> Self {
        Self {
            left,
            top,
            width,
            height,
        }
    }
}

/// The good image that looks most like a part at its oddest place: this looks like there, but.
#[utoipa::path(get, path = "/api/parts/{id}/nearest", params(("id" = i64, Path)),
    responses((status = 200, body = Compared), Refusal))]
pub(super) async fn nearest(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
) -> Result<Json<Compared>, Refusal> {
    let _turn = app.decoding.acquire().await;
    let compared = blocking(&app, move |app| {
        let (row, live) = judged_by(app, id)?;
        let image = image_of(app, &row, &live)?;
        let alike = live.detector.alike(&image)?;
        let alike = alike.ok_or_else(|| {
            Refusal::missing("this detector does not tell what a part was compared with")
        })?;
        let size = app.store.image_size(&alike.good.content)?;
        let place = |patch, size| Patch::from(live.detector.place_of(patch, size));
        Ok(Compared {
            kept: size.is_some(),
            here: place(alike.here, row.part.size),
            there: size.map(|size| place(alike.there, size)),
            size,
            content: alike.good.content,
            name: alike.good.id,
        })
    });
    Ok(Json(compared.await?))
}
