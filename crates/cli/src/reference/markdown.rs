//! The reference as Markdown: a section a command. It depends on neither the terminal nor the environment.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

const HEAD: &str = "# Command line

Made from the arguments themselves; a test compares it with the binary. Make it again with
`UPDATE_REFERENCE=1 cargo test -p flawtune-cli reference`.

";

pub(super) fn page(root: &Command) -> String {
    let mut text = HEAD.to_owned();
    for command in super::all(root) {
        let name = name(command);
        let about = command
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        let _ = writeln!(
            text,
            "- [{name}](#{}): {}",
            name.replace(' ', "-"),
            escaped(&about)
        );
    }
    sections(&mut text, root, &[]);
    text
}

/// A command and those below it. Options that all of them take are in the section of the first: `said` are those of the
/// commands above.
fn sections(text: &mut String, command: &Command, said: &[&str]) {
    section(text, command, said);
    let global = command
        .get_arguments()
        .filter(|a| a.is_global_set())
        .map(|a| a.get_id().as_str());
    let said: Vec<&str> = said.iter().copied().chain(global).collect();
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        sections(text, below, &said);
    }
}

/// A command as it is typed.
pub(super) fn name(command: &Command) -> &str {
    command.get_bin_name().unwrap_or_else(|| command.get_name())
}

fn section(text: &mut String, command: &Command, said: &[&str]) {
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let _ = write!(
        text,
        "\n## {}\n\n{}\n\n```\n{usage}\n```\n",
        name(command),
        escaped(&about)
    );
    let root = said.is_empty();
    // what every command takes stands together
    let heading = |a: &Arg| a.get_help_heading().filter(|_| !root).map(str::to_owned);
    let shown = |a: &&Arg| {
        !a.is_hide_set() && !said.contains(&a.get_id().as_str()) && (root || !is_help(a))
    };
    let arguments: Vec<&Arg> = command.get_positionals().filter(shown).collect();
    list(text, "Arguments", &arguments);
    let options: Vec<&Arg> = command
        .get_arguments()
        .filter(|a| !a.is_positional())
        .filter(shown)
        .collect();
    let mut headings: Vec<Option<String>> = Vec::new();
    for option in &options {
        if !headings.contains(&heading(option)) {
            headings.push(heading(option));
        }
    }
    headings.sort_by_key(Option::is_some);
    for title in headings {
        let under: Vec<&Arg> = options
            .iter()
            .copied()
            .filter(|a| heading(a) == title)
            .collect();
        let title = title.as_deref().unwrap_or(if root {
            "Options of every command"
        } else {
            "Options"
        });
        list(text, title, &under);
    }
    after(
        text,
        &command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default(),
    );
}

/// Help and version: every command has them, each its own.
pub(super) fn is_help(arg: &Arg) -> bool {
    matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    )
}

fn list(text: &mut String, title: &str, args: &[&Arg]) {
    if args.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}:\n");
    for arg in args {
        let help = arg
            .get_long_help()
            .or_else(|| arg.get_help())
            .map(ToString::to_string)
            .unwrap_or_default();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        // a default that depends on something stands in the text
        let help = match help
            .strip_suffix(']')
            .and_then(|h| h.rsplit_once(" [default: "))
        {
            Some((help, default)) => format!("{help}. Default: {default}"),
            None => help,
        };
        let _ = writeln!(
            text,
            "- `{}`: {}{}",
            spelling(arg),
            escaped(&help),
            facts(arg)
        );
        if takes_value(arg) {
            for value in arg
                .get_possible_values()
                .iter()
                .filter(|v| !v.is_hide_set())
            {
                let help = value
                    .get_help()
                    .map_or_else(String::new, |h| format!(": {}", escaped(&h.to_string())));
                let _ = writeln!(text, "  - `{}`{help}", value.get_name());
            }
        }
    }
}

/// What a value is called.
pub(super) fn value(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    names
        .iter()
        .map(clap::builder::Str::as_str)
        .collect::<Vec<_>>()
        .join("> <")
}

fn takes_value(arg: &Arg) -> bool {
    arg.is_positional() || matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn spelling(arg: &Arg) -> String {
    let many = arg.is_positional() && arg.get_num_args().is_some_and(|n| n.max_values() > 1);
    let value = if takes_value(arg) {
        format!("<{}>{}", value(arg), if many { "..." } else { "" })
    } else {
        String::new()
    };
    let short = arg.get_short().map(|c| format!("-{c}"));
    let names: Vec<String> = short
        .into_iter()
        .chain(arg.get_long().map(|l| format!("--{l}")))
        .collect();
    format!("{} {value}", names.join(", ")).trim().to_owned()
}

/// The default and the name of the environment's variable. Never its value.
fn facts(arg: &Arg) -> String {
    let mut text = String::new();
    let defaults: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|v| v.to_string_lossy().into_owned())
        .collect();
    if takes_value(arg) && !defaults.is_empty() && !arg.is_hide_default_value_set() {
        let _ = write!(text, ". Default: `{}`", defaults.join(","));
    }
    if let Some(variable) = arg.get_env() {
        let _ = write!(text, ". Environment: `{}`", variable.to_string_lossy());
    }
    text
}

/// Examples as they are typed, and the notes after them.
fn after(text: &mut String, help: &str) {
    let (examples, notes) = help.split_once("\n\n").unwrap_or((help, ""));
    if let Some(lines) = examples.strip_prefix("Examples:\n") {
        let lines: Vec<&str> = lines.lines().map(str::trim_start).collect();
        let _ = write!(text, "\nExamples:\n\n```sh\n{}\n```\n", lines.join("\n"));
    }
    if !notes.is_empty() {
        let _ = write!(text, "\n{}\n", escaped(notes));
    }
}

/// Text in which Markdown sees no markup but that of code.
fn escaped(text: &str) -> String {
    let mut code = false;
    let mut found = String::new();
    for c in text.chars() {
        code ^= c == '`';
        if !code && matches!(c, '<' | '>' | '*' | '_' | '[' | ']' | '\\') {
            found.push('\\');
        }
        found.push(c);
    }
    found
}
