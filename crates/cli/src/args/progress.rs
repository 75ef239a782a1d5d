//! Where progress goes: the argument.

use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressArg {
    /// Bars on a terminal, lines elsewhere
    Auto,
    /// Bars, also where standard error is not a terminal
    Bars,
    /// A line an epoch
    Plain,
    /// One JSON object a line, for programs: docs/guides/progress.md
    Json,
    /// Notes only
    None,
}
