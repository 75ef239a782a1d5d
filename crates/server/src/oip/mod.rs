//! The Open Inference Protocol, version 2, as `KServe`, Triton and `MLServer` speak it.
//!
//! Input `image`: `BYTES` `[n]`, image files (base64 in JSON, as they are in the binary extension), or `UINT8` `[n, height, width, 3]` or
//! `[height, width, 3]`, pixels. Outputs, each `[n]` but the map: `score` and `probability` `FP64`, `flaw` `BOOL`, `kind` `BYTES`,
//! `drift` `FP64`, and, where it is asked for, `map` `FP32` `[n, rows, columns]`, the scores of the patches.

mod tensor;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use self::tensor::{Given, InferRequest, Output, split};
use crate::api::extract::{Json, Path};
use crate::app::{App, blocking};
use crate::compute::{Answer, Live};
use crate::refusal::Refusal;
use crate::verdict::Source;

/// How long the JSON before binary tensors is.
const LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// Images of a request, at most.
const MOST: usize = 64;

/// The routes.
pub(crate) fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    let several = DefaultBodyLimit::max(app.options.upload_bytes().saturating_mul(8));
    Router::new()
        .route("/v2", get(server))
        .route(
            "/v2/health/live",
            get(|| async { Json(json!({"live": true})) }),
        )
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{name}", get(model))
        .route("/v2/models/{name}/ready", get(model_ready))
        .route("/v2/models/{name}/infer", post(infer).layer(several))
}

async fn server() -> Json<Value> {
    Json(json!({
        "name": "flawtune",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data"],
    }))
}

async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    let stopping = app.stopping.load(std::sync::atomic::Ordering::SeqCst);
    let status = if stopping {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    (status, Json(json!({"ready": !stopping})))
}

async fn the_live(app: &Arc<App>, name: String) -> Result<Arc<Live>, Refusal> {
    blocking(app, move |app| app.live(&app.detector(&name)?)).await
}

async fn model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let live = the_live(&app, name).await?;
    let (rows, columns) = live.detector.header().grid;
    let tensor = |name: &str, datatype: &str, shape: &[i64]| json!({"name": name, "datatype": datatype, "shape": shape});
    Ok(Json(json!({
        "name": live.row.name,
        "versions": [live.version.to_string()],
        "platform": "flawtune",
        "inputs": [tensor("image", "BYTES", &[-1])],
        "outputs": [
            tensor("score", "FP64", &[-1]),
            tensor("probability", "FP64", &[-1]),
            tensor("flaw", "BOOL", &[-1]),
            tensor("kind", "BYTES", &[-1]),
            tensor("drift", "FP64", &[-1]),
            tensor("map", "FP32", &[-1, rows as i64, columns as i64]),
        ],
    })))
}

async fn model_ready(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let live = the_live(&app, name).await?;
    Ok(Json(json!({"name": live.row.name, "ready": true})))
}

async fn infer(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let _turn = app.uploads.try_acquire().map_err(|_| Refusal::busy(1))?;
    let live = the_live(&app, name).await?;
    let length = headers.get(LENGTH).and_then(|h| h.to_str().ok());
    let (header, binary) = split(&body, length)?;
    let request: InferRequest = serde_json::from_slice(header)
        .map_err(|e| Refusal::wrong(format!("the request is not of the protocol: {e}")))?;
    let images = request.images(binary, MOST)?;
    let mut asked = Vec::new();
    for (number, given) in images.into_iter().enumerate() {
        let (app, live) = (Arc::clone(&app), Arc::clone(&live));
        // all of them wait at once: they share forward passes
        asked.push(tokio::spawn(async move {
            match given {
                Given::File(bytes) => {
                    let name = format!("image {number}");
                    app.look(&live, name, bytes, Source::Post).await
                }
                Given::Pixels(image) => app.look_at_pixels(&live, image).await,
            }
        }));
    }
    let mut answers = Vec::new();
    for answer in asked {
        answers.push(answer.await.map_err(|e| Refusal::machine(&e))??);
    }
    let outputs = outputs(&live, &answers, &request)?;
    respond(&live, &request, outputs)
}

fn outputs(
    live: &Live,
    answers: &[Answer],
    request: &InferRequest,
) -> Result<Vec<Output>, Refusal> {
    let (rows, columns) = live.detector.header().grid;
    let n = answers.len();
    let number = |name: &'static str, of: fn(&Answer) -> f64| {
        let values: Vec<f64> = answers.iter().map(of).collect();
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Output::new(name, "FP64", vec![n], json!(values), bytes)
    };
    let flaws: Vec<bool> = answers.iter().map(|a| a.part.flaw).collect();
    let kinds: Vec<&str> = answers
        .iter()
        .map(|a| a.part.kind.as_deref().unwrap_or_default())
        .collect();
    let kind_bytes = kinds.iter().flat_map(|kind| {
        let length = (kind.len() as u32).to_le_bytes();
        length.into_iter().chain(kind.bytes())
    });
    let mut all = vec![
        number("score", |a| a.part.score),
        number("probability", |a| a.part.probability),
        Output::new(
            "flaw",
            "BOOL",
            vec![n],
            json!(flaws),
            flaws.iter().map(|f| u8::from(*f)).collect(),
        ),
        Output::new("kind", "BYTES", vec![n], json!(kinds), kind_bytes.collect()),
        number("drift", |a| a.part.drift),
    ];
    if request.wants("map") {
        let values: Vec<f32> = answers.iter().flat_map(|a| a.patches.clone()).collect();
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        all.push(Output::new(
            "map",
            "FP32",
            vec![n, rows, columns],
            json!(values),
            bytes,
        ));
    }
    request.chosen(all)
}

fn respond(live: &Live, request: &InferRequest, outputs: Vec<Output>) -> Result<Response, Refusal> {
    let mut binary = Vec::new();
    let outputs: Vec<Value> = outputs
        .into_iter()
        .map(|output| {
            let as_bytes = request.wants_binary(output.name);
            output.json(as_bytes, &mut binary)
        })
        .collect();
    let answer = json!({
        "model_name": live.row.name,
        "model_version": live.version.to_string(),
        "id": request.id,
        "outputs": outputs,
    });
    if binary.is_empty() {
        return Ok(Json(answer).into_response());
    }
    let mut bytes = serde_json::to_vec(&answer).map_err(|e| Refusal::machine(&e))?;
    let length = bytes.len();
    bytes.append(&mut binary);
    let mut response = Body::from(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(LENGTH, HeaderValue::from(length));
    Ok(response)
}
