//! Why tokens could not be extracted.

use std::fmt;
use std::path::PathBuf;

use flawtune_backbone::preprocess::ImageError;

use super::ForwardError;

/// An image that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadImage {
    /// Its position in the list asked for.
    pub index: usize,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, without the path.
    pub reason: String,
}

impl BadImage {
    /// An image and what is wrong with it.
    pub fn new(index: usize, path: PathBuf, error: &ImageError) -> Self {
        let text = error.to_string();
        let reason = text
            .strip_prefix(&format!("{}: ", error.path().display()))
            .unwrap_or(&text)
            .replace("\nhint: ", "; ");
        Self {
            index,
            path,
            reason,
        }
    }
}

impl fmt::Display for BadImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

/// Why tokens could not be extracted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeatureError {
    /// Images that cannot be read; every one is named, in the order asked for.
    #[error("{}", list(images, *asked))]
    BadImages {
        /// Which, and why.
        images: Vec<BadImage>,
        /// How many were asked for.
        asked: usize,
    },
    /// Nothing is left to work on.
    #[error("{}", none_left(skipped))]
    NoImages {
        /// Those that were skipped.
        skipped: Vec<BadImage>,
    },
    /// The images are smaller than one patch.
    #[error(
        "images of {height}x{width} pixels have no whole patch for {model}\nhint: ask for a larger image size"
    )]
    TooSmall {
        /// Rows of the prepared images.
        height: usize,
        /// Columns of the prepared images.
        width: usize,
        /// The backbone.
        model: String,
    },
    /// The forward pass failed.
    #[error("the forward pass of {model} failed: {source}")]
    Forward {
        /// The backbone.
        model: String,
        /// What it reported.
        source: ForwardError,
    },
    /// The forward pass returned another number of values than its shape says.
    #[error(
        "{model} returned {found} values for a batch of {batch}; wanted {wanted} ([{batch}, 1 + patches, dim])"
    )]
    Shape {
        /// The backbone.
        model: String,
        /// Images in the batch.
        batch: usize,
        /// Values wanted.
        wanted: usize,
        /// Values returned.
        found: usize,
    },
}

fn list(images: &[BadImage], asked: usize) -> String {
    let mut text = match images.len() {
        1 => format!("1 of {asked} images cannot be read:"),
        n => format!("{n} of {asked} images cannot be read:"),
    };
    for image in images {
        text.push_str("\n  ");
        text.push_str(&image.to_string());
    }
    text.push_str("\nhint: repair or remove the files, or leave them out with `skip_bad_images`");
    text
}

fn none_left(skipped: &[BadImage]) -> String {
    if skipped.is_empty() {
        return "no images were given".to_string();
    }
    let mut text = format!("none of the {} images can be read:", skipped.len());
    for image in skipped {
        text.push_str("\n  ");
        text.push_str(&image.to_string());
    }
    text
}
