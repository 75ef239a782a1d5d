//! What happened, for who looks after the server: on standard error, as text or as JSON.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

/// Starts the log. `FLAWTUNE_LOG` says how much is told, as `info` (the default), `debug`, or by module.
pub fn start_log(json: bool) {
    let filter = EnvFilter::try_from_env("FLAWTUNE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_target(false);
    // one that was started before stays
    let started = if json {
        log.json().try_init()
    } else {
        log.with_ansi(stderr().is_terminal()).try_init()
    };
    drop(started);
}
