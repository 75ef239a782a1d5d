//! The `flawtune` binary: arguments, progress, messages and exit codes; the work is the library's.

mod args;
mod commands;
mod console;
mod failure;
mod interrupt;
mod invocation;
mod lock;
mod progress;
mod recording;
#[cfg(test)]
mod reference;
mod settings;

use std::process::ExitCode;

use flawtune_backbone::preprocess::limit_pixels;
use flawtune_kernels::{dispatch, profile};

use args::{Cli, Global};
use console::Console;
use failure::Failure;
use settings::Settings;

/// What every command is given.
#[derive(Debug, Clone, Copy)]
struct Context {
    console: Console,
    json: bool,
    /// Where the command's options come from.
    settings: &'static Settings,
}

fn main() -> ExitCode {
    let (cli, settings) = match invocation::parse() {
        // there is one command line a process, and everything may look at it
        Ok((cli, settings)) => (cli, &*Box::leak(Box::new(settings))),
        Err(failure) => {
            console::refused(&failure, invocation::wants_json());
            return ExitCode::from(failure.exit_code());
        }
    };
    let console = Console::new(cli.global.progress, cli.global.quiet, &settings.path);
    let result = run(cli, console, settings);
    // a result that nobody got is not a success, and no verdict either
    let result = match (result, console::unwritten()) {
        (Ok(()) | Err(Failure::Flawed { .. } | Failure::Differs { .. }), Some(failure)) => {
            Err(failure)
        }
        (result, _) => result,
    };
    if profile::enabled() {
        console::line(profile::report().to_string().trim_end());
    }
    match result {
        Ok(()) => {
            console.done();
            ExitCode::SUCCESS
        }
        Err(failure) => {
            console::failed(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(cli: Cli, console: Console, settings: &'static Settings) -> Result<(), Failure> {
    let context = Context {
        console,
        json: cli.global.json,
        settings,
    };
    // a wrong FLAWTUNE_KERNELS is said at once, not where the first product runs
    dispatch::isa().map_err(|e| Failure::Input(e.to_string()))?;
    start_threads(&cli.global)?;
    if let Some(millions) = cli.global.max_megapixels {
        limit_pixels(u64::from(millions) * 1_000_000);
    }
    interrupt::install()?;
    commands::run(cli.command, context)
}

/// One pool for everything; hyper-threads do not help dense arithmetic.
fn start_threads(global: &Global) -> Result<(), Failure> {
    let threads = global
        .threads
        .map_or_else(num_cpus::get_physical, usize::from)
        .max(1);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("flawtune-{i}"))
        .build_global()
        .map_err(|e| Failure::Machine(format!("cannot start {threads} threads: {e}")))
}
