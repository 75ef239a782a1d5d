//! What comes from a camera or a folder, on its way to the detector of the line.

use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::runtime::Handle;

use crate::app::App;
use crate::refusal::Refusal;
use crate::sources::{Refused, Submit};
use crate::verdict::Source;

/// How long what comes waits for a detector that has learned nothing yet.
const UNTIL_FITTED: Duration = Duration::from_secs(2);

/// Hands images to a detector, from threads of their own.
pub(crate) struct Line {
    app: Weak<App>,
    runtime: Handle,
    detector: String,
}

impl Line {
    /// To the detector of a name, which may be made later.
    pub(crate) fn new(app: &Arc<App>, runtime: Handle, detector: String) -> Self {
        Self {
            app: Arc::downgrade(app),
            runtime,
            detector,
        }
    }
}

impl Submit for Line {
    fn submit(&self, name: &str, source: Source, bytes: Vec<u8>) -> Result<(), Refused> {
        let app = self.app.upgrade().ok_or(Refused::Closed)?;
        if bytes.len() > app.options.upload_bytes() {
            return Err(Refused::Bad(format!(
                "the image has more than {} MB\nhint: --max-upload allows larger ones",
                app.options.max_upload
            )));
        }
        let row = match app.detector(&self.detector) {
            Ok(row) if row.current.is_some() => row,
            _ => return Err(Refused::Busy(UNTIL_FITTED)),
        };
        let live = app.live(&row).map_err(refused)?;
        let looked = app.look(&live, name.to_owned(), bytes, source);
        self.runtime.block_on(looked).map(drop).map_err(refused)
    }
}

fn refused(refusal: Refusal) -> Refused {
    if refusal.is_stopping() {
        return Refused::Closed;
    }
    let later = refusal.retry_after.map(Duration::from_secs);
    match refusal.status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Refused::Busy(later.unwrap_or(Duration::from_secs(1)))
        }
        _ => Refused::Bad(match refusal.said.hint {
            Some(hint) => format!("{}\nhint: {hint}", refusal.said.error),
            None => refusal.said.error,
        }),
    }
}
