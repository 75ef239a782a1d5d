//! Studies: the same training over a grid of settings, categories and seeds, with the table that comes of it.
//!
//! ```text
//! <folder>/runs/<category>/<settings>/seed-<n>/   what train and evaluate write, and result.json
//! <folder>/runs.csv, runs.jsonl                   one row a run
//! <folder>/summary.csv, summary.md                one row for each category, settings and scorer
//! <folder>/plots/*.svg                            the metric against each axis
//! ```
//!
//! A run is over when its `result.json` is there: it is written last, whole, under its final name. So a study that is
//! killed at any moment goes on where it was, and tables are made of results only, never of what a process remembers.
//! Tables hold nothing that differs between two runs of the same study, such as times: those are in `result.json`.

mod execute;
mod grid;
mod plots;
mod result;
mod run;
mod study;
mod summary;
mod table;

use std::path::PathBuf;

pub use execute::{Ended, Jobs, execute, results};
pub use grid::{Axis, Plan, Setting, points};
pub use plots::plots;
pub use result::{Difference, Finished, RunResult, ScorerResult, Status, is_zero_shot};
pub use run::{Asked, RunRequests, run_key};
pub use study::{RunSpec, Study, StudyLock};
pub use summary::{Against, Spread, Summary, SummaryRow, summarise};
pub use table::{Written, write_tables};

use flawtune::evaluate::metrics::MetricError;
use flawtune::evaluate::score_table::ScoreTableError;
use flawtune::evaluate::statistics::StatisticsError;

/// Why a study cannot be run or summed up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AblateError {
    /// A plan or grid that makes no sense; the text says what and where.
    #[error("{0}")]
    Plan(String),
    /// Another process works in the folder.
    #[error("{}: another ablation is at work in this folder\nhint: wait for it, or choose another `output_dir`", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// A result that was made of something else than this study would.
    #[error(
        "{}: made with other options, images, weights or another version of flawtune than this run\nhint: choose another \
         `output_dir`, or remove the folder", path.display()
    )]
    Other {
        /// The result.
        path: PathBuf,
    },
    /// A result that cannot be read.
    #[error("{}: {what}\nhint: remove the file to repeat the run", path.display())]
    Damaged {
        /// The result.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A run's scores.
    #[error(transparent)]
    Scores(#[from] ScoreTableError),
    /// A metric.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// An interval.
    #[error(transparent)]
    Statistics(#[from] StatisticsError),
    /// A file or folder.
    #[error("{}: {source}\nhint: {hint}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
}

/// What to do about a file that cannot be written.
const MAKE_ROOM: &str = "choose another `output_dir` or make room";

fn io_error(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> AblateError + '_ {
    move |source| AblateError::Io {
        path: path.to_owned(),
        source,
        hint: MAKE_ROOM,
    }
}
