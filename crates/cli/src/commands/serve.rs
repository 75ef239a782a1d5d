//! `flawtune serve`

use flawtune_server::{Listening, ServeError, serve, start_log};
use serde_json::json;

use crate::Context;
use crate::args::ServeArgs;
use crate::console::{out, out_json, warn};
use crate::failure::Failure;
use crate::interrupt;

pub(crate) fn run(args: &ServeArgs, context: Context) -> Result<(), Failure> {
    start_log(args.options.log_json);
    interrupt::serving_starts();
    let on_start = |listening: &Listening| {
        if context.json {
            // nobody may read it; the server serves all the same
            drop(out_json(
                &json!({"url": listening.url, "login": listening.locked}),
            ));
        } else {
            out(&listening.url);
            context.console.note(&format!(
                "listening; what is remembered lies in {}; Ctrl-C ends it",
                args.options.data.display()
            ));
        }
        if listening.plain {
            warn(
                "passwords and images can be read on the way: --tls-cert and --tls-key make it HTTPS",
            );
        }
        if args.open
            && let Err(error) = open::that_detached(&listening.url)
        {
            warn(&format!("no browser can be started: {error}"));
        }
    };
    serve(args.options.clone(), interrupt::cancel(), on_start).map_err(|error| match &error {
        ServeError::Input(_) => Failure::Input(error.to_string()),
        ServeError::System(_) => Failure::Machine(error.to_string()),
        _ => Failure::from_error(&error),
    })
}
