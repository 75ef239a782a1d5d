//! The command line as it was given: arguments, and the name of the command.

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use crate::args::Cli;
use crate::failure::Failure;

/// The arguments, and the command's name as it is typed: `cache clear`. Help and version are printed here, and wrong arguments end
/// the process.
pub(crate) fn parse() -> Result<(Cli, String), Failure> {
    let matches = Cli::command().try_get_matches();
    let parsed = matches.and_then(|m| Ok((Cli::from_arg_matches(&m)?, name(&m))));
    parsed.map_err(|error| {
        if !error.use_stderr() || !wants_json(std::env::args_os().map(|a| a.to_string_lossy().into_owned())) {
            error.exit();
        }
        let text = error.render().to_string();
        Failure::Input(text.trim_start_matches("error: ").trim_end().to_owned())
    })
}

fn name(matches: &ArgMatches) -> String {
    let mut names = Vec::new();
    let mut next = matches.subcommand();
    while let Some((name, matches)) = next {
        names.push(name);
        next = matches.subcommand();
    }
    names.join(" ")
}

/// Whether arguments that could not be read ask for JSON lines.
fn wants_json(arguments: impl Iterator<Item = String>) -> bool {
    let given: Vec<String> = arguments.take_while(|a| a != "--").collect();
    given.iter().any(|a| a == "--progress=json") || given.windows(2).any(|w| w == ["--progress", "json"])
}
