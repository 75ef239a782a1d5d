//! What happens, as it happens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use tokio_stream::wrappers::BroadcastStream;

use crate::app::{App, Notice};
use crate::refusal::Refusal;

/// Server-sent events: `part`, `job`, `version`, `detectors`.
#[utoipa::path(get, path = "/api/events", responses((status = 200, content_type = "text/event-stream"), Refusal))]
pub(super) async fn events(
    State(app): State<Arc<App>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let notices = BroadcastStream::new(app.notices.subscribe());
    let events = notices.map(|notice| {
        Ok(match notice {
            Ok(Notice::Part(part)) => event("part", &*part),
            Ok(Notice::Job(job)) => event("job", &*job),
            Ok(Notice::Version(version)) => event("version", &*version),
            // who was too slow to hear all looks again
            Ok(Notice::Detectors) | Err(_) => event("detectors", &serde_json::json!({})),
        })
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

fn event(name: &str, data: &impl Serialize) -> Event {
    let event = Event::default().event(name);
    match event.json_data(data) {
        Ok(event) => event,
        Err(_) => Event::default().event("detectors").data("{}"),
    }
}
