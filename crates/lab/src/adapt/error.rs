//! What can go wrong while adapting.

use std::path::PathBuf;

use flawtune_backbone::torch_file::TorchFileError;
use flawtune_backbone::vjp::VjpError;

use flawtune::features::ForwardError;

/// Why an adaptation could not be built, trained, saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum AdaptError {
    /// An option has a value that has no meaning.
    #[error("{option} is {found}; {wanted}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// What was given.
        found: String,
        /// What is accepted.
        wanted: String,
    },
    /// Fewer images than the loss can be computed from.
    #[error("{found} {what}, but at least {wanted} are needed{why}")]
    TooFewImages {
        /// Which images.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// The least number that works.
        wanted: usize,
        /// Reason and remedy, starting with a separator.
        why: &'static str,
    },
    /// An index names an image that is not there.
    #[error("{list} names image {index}, but there are only {count}")]
    Index {
        /// Which list.
        list: &'static str,
        /// The index.
        index: usize,
        /// Number of images.
        count: usize,
    },
    /// A parameter or token tensor does not have the shape that is needed.
    #[error("{name} has shape {found:?}, wanted {wanted:?}{hint}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Shape found.
        found: Vec<usize>,
        /// Shape wanted.
        wanted: Vec<usize>,
        /// What to do, starting with a separator, or nothing.
        hint: &'static str,
    },
    /// A parameter is missing.
    #[error("{name} is missing; {hint}")]
    Missing {
        /// Name of the tensor or key.
        name: String,
        /// What to do.
        hint: &'static str,
    },
    /// The loss or a gradient is not a finite number.
    #[error(
        "the {what} is not finite in epoch {epoch}, step {step}: \
         lower the learning rate, or look for NaN in the features"
    )]
    NotFinite {
        /// `loss` or `gradient of NAME`.
        what: String,
        /// Epoch, from 1.
        epoch: usize,
        /// Step in the epoch, from 1.
        step: usize,
    },
    /// A saved state belongs to another run.
    #[error(
        "cannot resume: {what} was {saved} in the saved state and is {asked} now\nhint: use the saved value or start anew"
    )]
    Resume {
        /// Which setting.
        what: &'static str,
        /// Value in the state.
        saved: String,
        /// Value asked for.
        asked: String,
    },
    /// A checkpoint made for another backbone.
    #[error(
        "{path}: made for {found}, but the backbone in use is {wanted}\nhint: choose `model_name` {found} or train again"
    )]
    OtherBackbone {
        /// The checkpoint.
        path: PathBuf,
        /// Model (and width) in the checkpoint.
        found: String,
        /// Model (and width) in use.
        wanted: String,
        /// Name of the model in the checkpoint.
        name: String,
    },
    /// A checkpoint whose contents cannot be understood.
    #[error("{}: {what}\nhint: give a checkpoint that `flawtune train` or the original recipe wrote", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// Key and what is wrong with it.
        what: String,
    },
    /// The backbone refused what is inserted or its images.
    #[error(transparent)]
    Backbone(#[from] VjpError),
    /// Images could not be brought into the backbone.
    #[error("{0}")]
    Images(#[source] ForwardError),
    /// The file is not a readable torch file, or could not be written.
    #[error(transparent)]
    TorchFile(#[from] TorchFileError),
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
