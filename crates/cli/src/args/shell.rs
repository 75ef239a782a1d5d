//! Arguments of `flawtune completions` and `flawtune man`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune completions bash > ~/.local/share/bash-completion/completions/flawtune
  flawtune completions zsh > ~/.zfunc/_flawtune      # a folder of $fpath
  flawtune completions fish > ~/.config/fish/completions/flawtune.fish
  flawtune completions powershell >> $PROFILE

Shells read them when they start.")]
pub(crate) struct CompletionsArgs {
    /// Shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune man | man -l -
  flawtune man train | man -l -
  flawtune man --output-dir ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// The command whose page is printed: none for flawtune itself, or a name such as train, or cache clear
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// Write the pages of all commands into this folder instead: flawtune.1, flawtune-train.1, …
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub(crate) output_dir: Option<PathBuf>,
}
