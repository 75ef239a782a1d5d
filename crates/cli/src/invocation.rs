//! The command line as it was given, or why it cannot be followed.

use crate::args::Cli;
use crate::failure::Failure;
use crate::settings::{self, Refusal, Settings};

/// The arguments, and what they are with environment and file under them. Help and version are printed here, and wrong
/// arguments end the process.
pub(crate) fn parse() -> Result<(Cli, Settings), Failure> {
    settings::of_process().map_err(|refusal| match refusal {
        Refusal::Failure(failure) => failure,
        Refusal::Clap(error) => {
            if !error.use_stderr() {
                // help and version are results: they arrive, or it is said that they did not
                match error.print() {
                    Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
                        return Failure::Machine(format!("cannot write to standard output: {e}"));
                    }
                    _ => std::process::exit(error.exit_code()),
                }
            }
            if !wants_json() {
                error.exit();
            }
            let text = error.render().to_string();
            Failure::Input(text.trim_start_matches("error: ").trim_end().to_owned())
        }
    })
}

/// Whether the arguments, which may be wrong, ask for JSON lines.
pub(crate) fn wants_json() -> bool {
    let arguments = std::env::args_os().map(|a| a.to_string_lossy().into_owned());
    let given: Vec<String> = arguments.take_while(|a| a != "--").collect();
    given.iter().any(|a| a == "--progress=json")
        || given.windows(2).any(|w| w == ["--progress", "json"])
}
