//! REST for people and small programs, as JSON.

mod detectors;
mod events;
mod export;
pub(crate) mod extract;
mod judge;
mod parts;
mod people;
mod state;
mod upload;
mod versions;
mod ways;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use utoipa::OpenApi;

use self::extract::Json;
use crate::app::App;
use crate::refusal::Said;

/// What is described to programs that read such descriptions.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "flawtune serve",
        description = "Detectors of flaws that are taught by looking. Everything that changes something and comes from a browser carries \
                       the header X-Flawtune; where people log in, programs send a bearer token."
    ),
    paths(
        state::state,
        people::log_in,
        people::log_out,
        people::users,
        people::set_user,
        people::remove_user,
        people::audit,
        detectors::make,
        detectors::detail,
        detectors::remove,
        detectors::add_good,
        detectors::good,
        detectors::exclude,
        detectors::fit,
        detectors::job,
        parts::predict,
        parts::list,
        parts::part,
        parts::image,
        parts::picture,
        parts::map,
        parts::nearest,
        parts::known_picture,
        judge::judge,
        judge::withdraw,
        judge::learn,
        versions::threshold,
        versions::set_threshold,
        versions::versions,
        versions::roll_back,
        versions::history,
        versions::file,
        export::export,
        events::events,
    ),
    components(schemas(Said))
)]
struct Description;

async fn description() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}

/// The routes.
pub(crate) fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    let one = DefaultBodyLimit::max(app.options.upload_bytes());
    // several images: each is bounded as it is read, and none is kept in memory with the next
    let many = DefaultBodyLimit::disable();
    let detector = Router::new()
        .route("/", get(detectors::detail).delete(detectors::remove))
        .route(
            "/good",
            get(detectors::good).post(detectors::add_good).layer(many),
        )
        .route("/good/exclude", post(detectors::exclude))
        .route("/fit", post(detectors::fit))
        .route("/predict", post(parts::predict).layer(many))
        .route("/parts", get(parts::list))
        .route("/judgements", post(judge::judge).layer(one))
        .route("/learn", post(judge::learn))
        .route(
            "/threshold",
            get(versions::threshold).post(versions::set_threshold),
        )
        .route("/versions", get(versions::versions))
        .route("/rollback", post(versions::roll_back))
        .route("/history", get(versions::history))
        .route("/export", get(export::export))
        .route("/file", get(versions::file));
    Router::new()
        .route("/api/state", get(state::state))
        .route("/api/login", post(people::log_in))
        .route("/api/logout", post(people::log_out))
        .route("/api/detectors", post(detectors::make))
        .nest("/api/detectors/{name}", detector)
        .route("/api/jobs/{id}", get(detectors::job))
        .route("/api/parts/{id}", get(parts::part))
        .route("/api/parts/{id}/image", get(parts::image))
        .route("/api/parts/{id}/picture", get(parts::picture))
        .route("/api/parts/{id}/map", get(parts::map))
        .route("/api/parts/{id}/nearest", get(parts::nearest))
        .route("/api/images/{content}/picture", get(parts::known_picture))
        .route("/api/judgements/{id}", delete(judge::withdraw))
        .route("/api/events", get(events::events))
        .route("/api/trigger", post(ways::trigger))
        .route("/api/ways", get(ways::ways))
        .route("/api/audit", get(people::audit))
        .route("/api/users", get(people::users).post(people::set_user))
        .route("/api/users/{name}", delete(people::remove_user))
        .route("/api/openapi.json", get(description))
}
