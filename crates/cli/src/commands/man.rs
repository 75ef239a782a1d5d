//! `flawtune man`

use std::io::Write as _;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use flawtune_backbone::atomic_file;

use crate::args::{self, ManArgs};
use crate::console::out_file;
use crate::failure::Failure;

pub(crate) fn run(args: &ManArgs) -> Result<(), Failure> {
    let mut root = args::command().disable_help_subcommand(true);
    root.build();
    let failed = |e: std::io::Error| Failure::Machine(format!("cannot write a manual page: {e}"));
    let Some(folder) = &args.output_dir else {
        let mut command = &root;
        for name in &args.command {
            command = command.find_subcommand(name).ok_or_else(|| {
                let typed = args.command.join(" ");
                Failure::Input(format!(
                    "flawtune {typed} is not a command; 'flawtune --help' lists them"
                ))
            })?;
        }
        out_file(&page(command).map_err(failed)?);
        return Ok(());
    };
    std::fs::create_dir_all(folder).map_err(|e| {
        Failure::Input(format!(
            "{}: {e}\nhint: choose a folder that can be written with --output-dir",
            folder.display()
        ))
    })?;
    let mut commands = vec![&root];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().filter(|c| !c.is_hide_set()));
        let path = folder.join(Man::new(command.clone()).get_filename());
        let text = page(command).map_err(failed)?;
        atomic_file::write(&path, &text).map_err(|e| {
            Failure::Machine(format!(
                "{}: {e}\nhint: make room, or choose another --output-dir",
                path.display()
            ))
        })?;
    }
    Ok(())
}

/// The page of a built command. What `--help` says after the options has lines of its own, which filled text would join.
fn page(command: &Command) -> std::io::Result<Vec<u8>> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    // the date stays empty, which the library would leave out: what follows would then stand in its place
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name());
    let version = env!("CARGO_PKG_VERSION");
    writeln!(
        page,
        ".TH {name} 1 \"\" \"flawtune {version}\" \"flawtune manual\""
    )?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|c| !c.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(text) = command.get_after_help() {
        let text = text.to_string();
        let (examples, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
        let mut roff = Roff::new();
        roff.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in examples.lines().skip(1) {
            roff.text([roman(line.trim_start())]);
        }
        roff.control("fi", []);
        if !rest.is_empty() {
            roff.control("SH", ["NOTES"]);
            for line in rest.lines() {
                if line.is_empty() {
                    roff.control("PP", [])
                } else {
                    roff.text([roman(line)])
                };
            }
        }
        roff.to_writer(&mut page)?;
    }
    Ok(page)
}
