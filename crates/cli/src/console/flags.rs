//! The library speaks of its fields, in backticks; who types a command line knows them as flags.

use std::collections::HashSet;
use std::sync::LazyLock;

use clap::{Command, CommandFactory as _};

use crate::args::Cli;

/// The long flags of all commands, without their dashes.
static FLAGS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let mut flags = HashSet::new();
    collect(&Cli::command(), &mut flags);
    flags
});

fn collect(command: &Command, flags: &mut HashSet<String>) {
    flags.extend(
        command
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .map(str::to_owned),
    );
    for inner in command.get_subcommands() {
        collect(inner, flags);
    }
}

/// `text` with every field in backticks that is a flag written as one: of `support_shots` becomes --support-shots.
pub(super) fn named(text: &str) -> String {
    let mut parts = text.split('`');
    let mut out = parts.next().unwrap_or_default().to_owned();
    let mut rest = parts.peekable();
    while let Some(field) = rest.next() {
        let flag = field.replace('_', "-");
        let lower = |c: char| c.is_ascii_lowercase() || c == '_';
        if rest.peek().is_some() && field.chars().all(lower) && FLAGS.contains(&flag) {
            out.push_str("--");
            out.push_str(&flag);
            out.push_str(rest.next().unwrap_or_default());
        } else {
            out.push('`');
            out.push_str(field);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn fields_become_flags_and_other_code_stays() {
        for (text, wanted) in [
            ("`image_size` 8 is small", "--image-size 8 is small"),
            (
                "omit `layers`, or give `output_dir`",
                "omit --layers, or give --output-dir",
            ),
            (
                "run `git lfs pull` with `weights`",
                "run `git lfs pull` with --weights",
            ),
            ("asks for `os.system`, code", "asks for `os.system`, code"),
            (
                "a lone ` and `no_such_field`",
                "a lone ` and `no_such_field`",
            ),
            ("nothing", "nothing"),
        ] {
            assert_eq!(named(text), wanted);
        }
    }
}
