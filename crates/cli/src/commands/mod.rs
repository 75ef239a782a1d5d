//! One module a command: arguments to a request, the library's work, its result to text or JSON.

pub(crate) mod ablate;
pub(crate) mod analyze;
pub(crate) mod baseline;
pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod evaluate;
pub(crate) mod features;
pub(crate) mod fit;
mod in_force;
pub(crate) mod info;
pub(crate) mod learn;
pub(crate) mod man;
mod maps;
pub(crate) mod merge;
pub(crate) mod meta_train;
pub(crate) mod models;
pub(crate) mod predict;
pub(crate) mod report;
pub(crate) mod reproduce;
mod request;
mod serve;
pub(crate) mod synth;
mod tensorboard;
mod threshold;
pub(crate) mod train;
mod universal;
pub(crate) mod visualize;

use crate::Context;
use crate::args::Command;
use crate::failure::Failure;

/// Runs a command.
///
/// # Errors
/// As the command.
pub(crate) fn run(command: Command, context: Context) -> Result<(), Failure> {
    match command {
        Command::Train(args) => train::run(&args, context),
        Command::Evaluate(args) => evaluate::run(&args, context),
        Command::Baseline(args) => baseline::run(&args, context),
        Command::Ablate(args) => ablate::run(&args, context),
        Command::Analyze(args) => analyze::run(&args, context),
        Command::MetaTrain(args) => meta_train::run(&args, context),
        Command::Merge(args) => merge::run(&args, context),
        Command::Fit(args) => fit::run(&args, context),
        Command::Predict(args) => predict::run(&args, context),
        Command::Learn(args) => learn::run(&args, context),
        Command::Threshold(args) => threshold::run(&args, context),
        Command::Visualize(args) => visualize::run(&args, context),
        Command::Report(args) => report::run(&args, context),
        Command::Serve(args) => serve::run(&args, context),
        Command::Features(args) => features::run(&args, context),
        Command::Info(args) => info::run(&args, context),
        Command::Cache(args) => cache::run(&args, context),
        Command::Synth(args) => synth::run(&args, context),
        Command::Demo(args) => demo::run(&args, context),
        Command::Bench(args) => bench::run(&args, context),
        Command::Models => models::run(context),
        Command::Config(args) => config::run(&args, context),
        Command::Reproduce(args) => reproduce::run(&args, context),
        Command::Completions(args) => {
            completions::run(&args);
            Ok(())
        }
        Command::Man(args) => man::run(&args),
    }
}
