//! Arguments of `flawtune learn`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune learn screw.flaw --defect new_flaws/
  flawtune learn screw.flaw --good false_alarms/ --defect new_flaws/ --masks new_masks/
  flawtune learn screw.flaw --defect new_flaws/ --output screw2.flaw

Nothing of the first fit is read again but what the file keeps. What the new images change is told in counts: every image is
judged by models that had not seen it. If known images are told apart worse than before, nothing is written, unless --force says so.")]
pub(crate) struct LearnArgs {
    /// File of `flawtune fit`
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Folder of good images to learn, such as false alarms
    #[arg(long, value_name = "DIR", required_unless_present = "defect")]
    pub(crate) good: Option<PathBuf>,
    /// Folder of defects to learn; those in a folder of it are of the type that the folder is called
    #[arg(long, value_name = "DIR")]
    pub(crate) defect: Option<PathBuf>,
    /// Folder of masks of the defects, under the same names
    #[arg(long, value_name = "DIR", requires = "defect")]
    pub(crate) masks: Option<PathBuf>,
    /// Where the file is written [default: FILE itself, whose old version stays beside it as NAME.1.flaw]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Take what was learned even if known images are told apart worse
    #[arg(long)]
    pub(crate) force: bool,
    /// Weight file of the backbone; it must be the one the file was fitted with
    #[arg(long, value_name = "PATH")]
    pub(crate) weights: Option<PathBuf>,
    /// Leave out images that cannot be read (they are named) instead of stopping
    #[arg(long)]
    pub(crate) skip_bad_images: bool,
    /// End with an error where something about the images would only be warned of
    #[arg(long)]
    pub(crate) strict: bool,
}
