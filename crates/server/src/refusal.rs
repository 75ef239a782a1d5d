//! What is answered where something cannot be done.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::{self, Content, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use crate::store::StoreError;

/// An answer that is not what was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// What it says.
    pub(crate) said: Said,
    /// After how many seconds to try again.
    pub(crate) retry_after: Option<u64>,
}

/// What was wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Said {
    /// What, where, found and wanted.
    pub(crate) error: String,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// Whether what was learned would make a detector worse; it can be taken all the same, by force.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) worse: bool,
}

const STOPPING: &str = "the server is stopping";

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            said: Said {
                error: error.into(),
                hint: None,
                worse: false,
            },
            retry_after: None,
        }
    }

    /// The request is wrong.
    pub(crate) fn wrong(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// There is no such thing.
    pub(crate) fn missing(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    /// The method is not for this address.
    pub(crate) fn method(error: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, error)
    }

    /// It cannot be done as things are.
    pub(crate) fn conflict(error: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, error)
    }

    /// Nobody knows who asks.
    pub(crate) fn unknown(error: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error)
    }

    /// Who asks may not.
    pub(crate) fn forbidden(error: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, error)
    }

    /// More than is taken.
    pub(crate) fn too_large(error: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, error)
    }

    /// So much waits already that nothing more is taken.
    pub(crate) fn busy(seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds.max(1)),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many images wait already",
            )
        }
        .hint("send this one again after the time that Retry-After says")
    }

    /// It took too long.
    pub(crate) fn late(what: &str) -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, what)
        }
    }

    /// The server ends.
    pub(crate) fn stopping() -> Self {
        Self::late(STOPPING)
    }

    /// Whether that is why.
    pub(crate) fn is_stopping(&self) -> bool {
        self.said.error == STOPPING
    }

    /// The machine failed.
    pub(crate) fn machine(error: &dyn std::error::Error) -> Self {
        Self::of(StatusCode::INTERNAL_SERVER_ERROR, &text(error))
    }

    /// With what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.said.hint = Some(hint.into());
        self
    }

    /// Of a text whose lines that begin with `hint:` say what to do.
    fn of(status: StatusCode, text: &str) -> Self {
        let (hints, what): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with("hint: "));
        let hints: Vec<&str> = hints
            .iter()
            .filter_map(|line| line.strip_prefix("hint: "))
            .collect();
        let refusal = Self::new(status, what.join("\n"));
        if hints.is_empty() {
            refusal
        } else {
            refusal.hint(hints.join("\n"))
        }
    }
}

/// An error and what it comes from.
fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

impl From<flawtune::Error> for Refusal {
    fn from(error: flawtune::Error) -> Self {
        use flawtune::Error;
        let status = match &error {
            Error::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Error::Worse { .. } => StatusCode::CONFLICT,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let mut refusal = Self::of(status, &text(&error));
        refusal.said.worse = matches!(error, Error::Worse { .. });
        refusal
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::machine(&error)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::machine(&error)
    }
}

impl IntoResponses for Refusal {
    /// Every answer that is not what was asked for has one form.
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        let json = Content::new(Some(Ref::from_schema_name(Said::name())));
        let response = ResponseBuilder::new()
            .description("What is wrong, and what to do.")
            .content("application/json", json)
            .build();
        BTreeMap::from([("default".to_owned(), RefOr::T(response))])
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::error!(status = self.status.as_u16(), error = %self.said.error, "refused");
        }
        let mut response = (self.status, Json(self.said)).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
