//! docs/reference/cli.md, made from the arguments, and the proof that their examples work. Tests only: nothing of it is in the binary.

mod examples;
mod markdown;

use std::path::Path;

use clap::Command;

use crate::args;

/// The command line of flawtune with everything filled in that clap derives, without the `help` commands.
fn built() -> Command {
    let mut command = args::command().disable_help_subcommand(true);
    command.build();
    command
}

/// A command and all below it that `--help` shows, each before its own.
fn all(command: &Command) -> Vec<&Command> {
    let shown = command.get_subcommands().filter(|c| !c.is_hide_set());
    std::iter::once(command)
        .chain(shown.flat_map(all))
        .collect()
}

#[test]
fn docs_cli_md_is_what_the_binary_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    let text = markdown::page(&built());
    if std::env::var_os("UPDATE_REFERENCE").is_some_and(|v| v == "1") {
        std::fs::write(&path, &text).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let different = text.lines().zip(kept.lines()).position(|(a, b)| a != b);
    let at = different.unwrap_or_else(|| text.lines().count().min(kept.lines().count()));
    assert!(
        kept == text,
        "docs/reference/cli.md is not what the binary says, from line {}: {:?}, wanted {:?}; make it again with\n  \
         UPDATE_REFERENCE=1 cargo test -p flawtune-cli reference",
        at + 1,
        kept.lines().nth(at),
        text.lines().nth(at)
    );
}

#[test]
fn every_command_and_option_is_in_the_reference() {
    let (command, text) = (built(), markdown::page(&built()));
    let names: Vec<&str> = all(&command).into_iter().map(markdown::name).collect();
    for name in [
        "flawtune",
        "flawtune train",
        "flawtune cache clear",
        "flawtune man",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    for command in all(&command) {
        let name = markdown::name(command);
        let sections: Vec<&str> = text
            .split("\n## ")
            .filter(|s| s.starts_with(&format!("{name}\n")))
            .collect();
        assert_eq!(sections.len(), 1, "sections of {name}");
        for arg in command
            .get_arguments()
            .filter(|a| !a.is_hide_set() && !a.is_global_set())
        {
            if markdown::is_help(arg) && name.contains(' ') {
                continue;
            }
            let shown = arg.get_long().map_or_else(
                || format!("<{}>", markdown::value(arg)),
                |long| format!("--{long}"),
            );
            assert!(
                sections[0].contains(&shown),
                "{shown} is not in the section of {name}"
            );
        }
    }
    // numbers that a reader must find as they are
    assert!(
        text.contains("`--num-defect-samples <M>`") && text.contains("Default: `10`"),
        "{text}"
    );
    assert!(text.contains("Environment: `FLAWTUNE_CACHE_DIR`"));
}
