//! Who comes in, and who did what.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{ConnectInfo, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::detectors::of;
use super::extract::{Json, Path, Query};
use super::state::{Everything, everything};
use crate::app::{App, blocking};
use crate::guard::{Caller, hashed, of_session};
use crate::refusal::Refusal;
use crate::store::{AuditEntry, Role, User};

/// Name and password.
#[derive(Deserialize, ToSchema)]
pub(super) struct LogIn {
    name: String,
    password: String,
}

/// Logs in: the answer brings the cookie of a session.
#[utoipa::path(post, path = "/api/login", request_body = LogIn,
    responses((status = 200, body = Everything), Refusal))]
pub(super) async fn log_in(
    State(app): State<Arc<App>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Json(who): Json<LogIn>,
) -> Result<(HeaderMap, Json<Everything>), Refusal> {
    if !app.gate.locked() {
        return Err(Refusal::conflict("nobody logs in here"));
    }
    let name = who.name.clone();
    let cookie = blocking(&app, move |app| {
        app.gate
            .log_in(&app.store, from.ip(), &who.name, &who.password)
    })
    .await?;
    tracing::info!(%name, %from, "logged in");
    let caller = session(&app, &cookie).await?;
    let headers = HeaderMap::from_iter([(SET_COOKIE, cookie)]);
    Ok((headers, everything(app, caller).await?))
}

/// Who has this cookie.
async fn session(app: &Arc<App>, cookie: &HeaderValue) -> Result<Option<Caller>, Refusal> {
    let text = cookie.to_str().unwrap_or_default();
    let token = text.split([';', '=']).nth(1).unwrap_or_default().to_owned();
    blocking(app, move |app| of_session(&app.store, &token)).await
}

/// Ends the session.
#[utoipa::path(post, path = "/api/logout", responses((status = 204), Refusal))]
pub(super) async fn log_out(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<(StatusCode, HeaderMap), Refusal> {
    let cookie = blocking(&app, move |app| app.gate.log_out(&app.store, &headers)).await?;
    Ok((
        StatusCode::NO_CONTENT,
        HeaderMap::from_iter([(SET_COOKIE, cookie)]),
    ))
}

/// Everybody.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Users {
    users: Vec<User>,
}

/// Everybody who may log in.
#[utoipa::path(get, path = "/api/users", responses((status = 200, body = Users), Refusal))]
pub(super) async fn users(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
) -> Result<Json<Users>, Refusal> {
    of(caller, Role::Admin)?;
    let users = blocking(&app, |app| Ok(app.store.users()?)).await?;
    Ok(Json(Users { users }))
}

/// Somebody who may log in from now on.
#[derive(Deserialize, ToSchema)]
pub(super) struct NewUser {
    name: String,
    password: String,
    role: Role,
}

/// Adds somebody, or gives another password and role.
#[utoipa::path(post, path = "/api/users", request_body = NewUser,
    responses((status = 204), Refusal))]
pub(super) async fn set_user(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
    Json(new): Json<NewUser>,
) -> Result<StatusCode, Refusal> {
    let caller = of(caller, Role::Admin)?;
    if !app.gate.locked() {
        return Err(Refusal::conflict("nobody logs in here")
            .hint("start the server with --token-file to have people log in"));
    }
    let name = new.name.trim().to_owned();
    if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
        return Err(Refusal::wrong("a name has 1 to 64 characters"));
    }
    blocking(&app, move |app| {
        let hash = hashed(&new.password)?;
        let user = User {
            name,
            role: new.role,
        };
        Ok(app.store.set_user(&user, &hash, caller.name())?)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes somebody.
#[utoipa::path(delete, path = "/api/users/{name}", params(("name" = String, Path)),
    responses((status = 204), Refusal))]
pub(super) async fn remove_user(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    let caller = of(caller, Role::Admin)?;
    if caller.name() == Some(&name) {
        return Err(Refusal::conflict("you cannot remove yourself"));
    }
    blocking(&app, move |app| {
        let gone = app.store.remove_user(&name, caller.name())?;
        let missing = || Refusal::missing(format!("nobody is called '{name}'"));
        gone.then_some(()).ok_or_else(missing)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How much of the log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
pub(super) struct Last {
    /// At most so many entries, 200 where nothing is said.
    limit: Option<usize>,
}

/// Who did what.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Audit {
    entries: Vec<AuditEntry>,
}

/// Who did what, the newest first.
#[utoipa::path(get, path = "/api/audit", params(Last), responses((status = 200, body = Audit), Refusal))]
pub(super) async fn audit(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Option<Caller>>,
    Query(last): Query<Last>,
) -> Result<Json<Audit>, Refusal> {
    of(caller, Role::Admin)?;
    let limit = last.limit.unwrap_or(200).clamp(1, 10_000);
    let entries = blocking(&app, move |app| Ok(app.store.audit(limit)?)).await?;
    Ok(Json(Audit { entries }))
}
