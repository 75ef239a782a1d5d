//! What is said of a part, as programs and people read it.

use flawtune::Region;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where an image came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A person handed it in on the page.
    Upload,
    /// A program sent it.
    Post,
    /// It lay in a watched folder.
    Folder,
    /// It is of a camera, a stream or a film.
    Camera,
}

/// A connected region of a flaw, in pixels of the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Pixels of the region, not of the box round it.
    pub area: usize,
    /// Largest number of the map in it.
    pub peak: f32,
}

impl Source {
    /// As a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Post => "post",
            Self::Folder => "folder",
            Self::Camera => "camera",
        }
    }
}

impl From<&Region> for Place {
    fn from(region: &Region) -> Self {
        Self {
            left: region.left,
            top: region.top,
            width: region.width,
            height: region.height,
            area: region.area,
            peak: region.peak,
        }
    }
}

/// What a person said of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Judgement {
    /// Its number.
    pub id: i64,
    /// `good` or `flaw`.
    pub label: Label,
    /// Kind of the flaw.
    pub kind: Option<String>,
    /// Whether a region was drawn.
    pub mask: bool,
    /// Who said it.
    pub by: Option<String>,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// The version that learned it.
    pub learned: Option<i64>,
}

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// As it shall be.
    Good,
    /// It has a flaw.
    Flaw,
}

/// A part that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Part {
    /// Its number.
    pub part: i64,
    /// The detector that looked.
    pub detector: String,
    /// Its version.
    pub version: i64,
    /// BLAKE3 hash of the image file, in hex.
    pub content: String,
    /// Name of the image.
    pub name: String,
    /// Where it came from.
    pub source: Source,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Height and width of the image in pixels.
    pub size: (usize, usize),
    /// Image score; larger is more anomalous.
    pub score: f64,
    /// Calibrated probability of a flaw.
    pub probability: f64,
    /// Whether the score reaches the threshold.
    pub flaw: bool,
    /// The same as a word.
    pub verdict: Label,
    /// Of a flaw, the type of known defects that it is like, or `unknown`.
    pub kind: Option<String>,
    /// How unlike the good images it is as a whole: from 1 on its verdict says little.
    pub drift: f64,
    /// How much it deserves a person's look: 1 at the threshold, 0 far from it, one more where it drifted.
    pub doubt: f64,
    /// The threshold that it was held against.
    pub threshold: f64,
    /// Of a flaw, its regions, the worst first.
    pub regions: Vec<Place>,
    /// What a person said of it.
    pub judgement: Option<Judgement>,
    /// Whether the image is still there.
    pub kept: bool,
}
