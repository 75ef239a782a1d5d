//! The examples of every `--help`.

use clap::{Command, Parser as _};

use super::markdown::name;
use super::{all, built};
use crate::args::Cli;

/// The lines under `Examples:`, up to the first empty one.
fn examples(command: &Command) -> Vec<String> {
    let help = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let lines = help.lines().skip_while(|l| *l != "Examples:").skip(1);
    lines
        .take_while(|l| !l.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The calls of flawtune in a line of a shell: between pipes, without what is redirected and what is set for them.
fn calls(line: &str) -> Vec<Vec<String>> {
    let words = shlex::split(line).unwrap_or_else(|| panic!("no shell reads {line:?}"));
    let commands = words.split(|word| word == "|").map(|command| {
        let set = command
            .iter()
            .skip_while(|word| word.starts_with("FLAWTUNE_") && word.contains('='));
        set.take_while(|word| !word.starts_with('>'))
            .cloned()
            .collect::<Vec<_>>()
    });
    commands
        .filter(|command| command.first().is_some_and(|c| c == "flawtune"))
        .collect()
}

#[test]
fn every_command_has_examples_that_its_own_parser_takes() {
    for command in all(&built()) {
        let name = name(command);
        let lines = examples(command);
        assert!(
            !lines.is_empty(),
            "'{name} --help' ends without 'Examples:' and lines below it"
        );
        let mut own = 0;
        for line in &lines {
            assert!(line.starts_with("  "), "{name}: {line:?} is not indented");
            let found = calls(line);
            assert!(!found.is_empty(), "{name}: {line:?} calls no flawtune");
            for call in found {
                own += usize::from(call.join(" ").starts_with(name));
                if let Err(e) = Cli::try_parse_from(&call) {
                    panic!("{name}: the example {line:?} is not taken: {e}");
                }
            }
        }
        assert!(own > 0, "{name}: no example is of this command: {lines:#?}");
    }
}

#[test]
fn shells_are_read_as_shells_do() {
    assert_eq!(
        calls("find a -name '*.png' | flawtune predict m - # b"),
        [["flawtune", "predict", "m", "-"]]
    );
    assert_eq!(calls("flawtune man > 'x y'"), [["flawtune", "man"]]);
    assert_eq!(
        calls("FLAWTUNE_IMAGE_SIZE=448 flawtune models"),
        [["flawtune", "models"]]
    );
    assert!(calls("ls").is_empty());
}
