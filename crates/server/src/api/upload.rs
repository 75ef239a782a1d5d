//! Images that come with a request: one as the body, or several as a form.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::multipart::{Field, Multipart};
use axum::extract::{FromRequest as _, Request};
use axum::http::header::CONTENT_TYPE;

use crate::app::App;
use crate::refusal::Refusal;

/// Longest time that an image may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// Images, one after the other.
pub(super) enum Images {
    /// The body.
    One(Option<(String, Body)>),
    /// Parts of a form.
    Form(Multipart),
}

impl Images {
    /// Of a request. `name` is that of an image that is the body.
    pub(super) async fn of(
        app: &Arc<App>,
        request: Request,
        name: Option<String>,
    ) -> Result<Self, Refusal> {
        let kind = request.headers().get(CONTENT_TYPE);
        let form = kind.and_then(|kind| kind.to_str().ok());
        if form.is_some_and(|kind| kind.starts_with("multipart/form-data")) {
            let form = Multipart::from_request(request, app).await;
            let form = form.map_err(|e| Refusal::wrong(format!("the form cannot be read: {e}")))?;
            return Ok(Self::Form(form));
        }
        let name = name.unwrap_or_else(|| "image".into());
        Ok(Self::One(Some((name, request.into_body()))))
    }

    /// The next image: its name and its bytes.
    pub(super) async fn next(&mut self, app: &App) -> Result<Option<(String, Vec<u8>)>, Refusal> {
        let late = |_| Refusal::late("the image took more than a minute to arrive");
        match self {
            Self::One(body) => {
                let Some((name, body)) = body.take() else {
                    return Ok(None);
                };
                let bytes = to_bytes(body, app.options.upload_bytes());
                let bytes = tokio::time::timeout(PATIENCE, bytes).await.map_err(late)?;
                let bytes = bytes.map_err(|e| cut(app, &e.to_string()))?;
                Ok(Some((base_name(&name), bytes.into())))
            }
            Self::Form(form) => loop {
                let field = tokio::time::timeout(PATIENCE, form.next_field())
                    .await
                    .map_err(late)?
                    .map_err(|e| Refusal::wrong(format!("the form cannot be read: {e}")))?;
                let Some(field) = field else { return Ok(None) };
                if field.name() != Some("image") {
                    continue;
                }
                let name = base_name(field.file_name().unwrap_or("image"));
                let bytes = tokio::time::timeout(PATIENCE, whole(app, field)).await;
                return Ok(Some((name, bytes.map_err(late)??)));
            },
        }
    }
}

async fn whole(app: &App, mut field: Field<'_>) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    while let Some(more) = field
        .chunk()
        .await
        .map_err(|e| Refusal::wrong(format!("the form ends too early: {e}")))?
    {
        if bytes.len() + more.len() > app.options.upload_bytes() {
            return Err(cut(app, "more"));
        }
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

fn cut(app: &App, what: &str) -> Refusal {
    if what.contains("length limit") || what == "more" {
        return Refusal::too_large(format!(
            "the image has more than {} MB",
            app.options.max_upload
        ))
        .hint("--max-upload allows larger ones");
    }
    Refusal::wrong(format!("the image ends too early: {what}"))
}

/// The name without folders, of a length that can be shown.
fn base_name(name: &str) -> String {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).take(200).collect();
    if name.is_empty() {
        "image".into()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::base_name;

    #[test]
    fn names_have_no_folders() {
        assert_eq!(base_name("../../etc/passwd"), "passwd");
        assert_eq!(base_name("C:\\parts\\a b.png"), "a b.png");
        assert_eq!(base_name("a/\n"), "image");
    }
}
