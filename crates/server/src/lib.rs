//! `flawtune serve`: a detector that is taught by looking. HTTP and a web page round [`flawtune::Detector`], a store of parts and
//! judgements, sources of images and receivers of verdicts.

mod api;
mod app;
mod compute;
mod files;
mod guard;
mod jobs;
mod line;
mod log;
mod masks;
mod metrics;
mod oip;
mod options;
mod overlay;
mod page;
pub mod receivers;
mod refusal;
mod serve;
pub mod sources;
mod store;
pub mod verdict;

pub use files::FilesError;
pub use log::start_log;
pub use options::ServeOptions;
pub use serve::{Listening, ServeError, serve};
pub use store::StoreError;
