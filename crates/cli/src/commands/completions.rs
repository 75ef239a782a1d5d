//! `flawtune completions`

use clap::ValueHint;

use crate::args::{self, CompletionsArgs};
use crate::console::out_file;

pub(crate) fn run(args: &CompletionsArgs) {
    let mut command = with_hints(args::command());
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "flawtune", &mut script);
    out_file(&script);
}

/// Says which values are folders, by the name that `--help` gives them: shells then offer nothing else.
fn with_hints(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let folder = arg
            .get_value_names()
            .is_some_and(|names| names.iter().any(|n| matches!(n.as_str(), "DIR" | "FOLDER")));
        if folder {
            arg.value_hint(ValueHint::DirPath)
        } else {
            arg
        }
    });
    command.mut_subcommands(with_hints)
}
