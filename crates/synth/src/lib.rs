//! Drawn parts, a drawn and a photographed texture, and synthetic defects for a user's own images.
//!
//! [`generate`] writes a whole category in the `MVTec` AD layout; [`paste_defects`] puts one defect on
//! any image and returns where it is, and [`paste_on`] makes a category of a user's own images that
//! way. All depend on nothing but their arguments: the same seed gives the same bytes on every machine
//! and with any number of threads. For that, each image has its own `ChaCha8` stream, named by what
//! the image is, and all drawing uses only the operations that IEEE 754 defines to the bit (+, −, ×,
//! ÷, √, floor) and integers; sines and noise are this module's own. The encoders are pure Rust and
//! integer arithmetic, so the files agree wherever the lock file does. (A user's JPEG is decoded by a
//! decoder that need not agree between machines; see [`flawtune_backbone::preprocess`].)
//!
//! What is drawn is a demonstration: an AUROC on it says that a pipeline works, not that it will
//! work on real parts.
//!
//! ```
//! use flawtune_synth::{Category, Counts, generate};
//!
//! let folder = tempfile::tempdir()?;
//! let counts = Counts { train_good: 2, test_good: 1, test_per_type: 1, ..Counts::default() };
//! let made = generate(Category::Flange, &counts, 7, 64, folder.path(), &|_, _| {})?;
//! assert_eq!(made.images, 2 + 1 + 4);
//! assert!(folder.path().join("flange/test/scratch/000.jpg").is_file());
//! assert!(folder.path().join("flange/ground_truth/scratch/000_mask.png").is_file());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(missing_docs)]

mod camera;
pub mod embedded;
mod error;
mod files;
mod flange;
mod generate;
mod gravel;
mod noise;
mod paste;
mod paste_on;
mod photograph;
mod plate;
mod random;
mod scene;
mod shape;
mod twill;

use std::fmt;
use std::str::FromStr;

use image::{GrayImage, RgbImage};

pub use error::SynthError;
pub use generate::{Counts, Generated, generate};
pub use paste::{PasteKind, paste_defects};
pub use paste_on::{PasteOn, PasteStage, Pasted, paste_on};

use camera::Camera;
use random::Chance;
use scene::Scene;

/// Smallest and largest image edge that can be drawn, in pixels.
pub const SIZE_RANGE: std::ops::RangeInclusive<u32> = 32..=2048;

/// How plain a defect can be drawn; see [`draw`].
pub const SEVERITY_RANGE: std::ops::RangeInclusive<f32> = 0.5..=3.0;

/// Image edge that the categories are designed for, in pixels.
pub const DEFAULT_SIZE: u32 = 192;

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Category {
    /// A turned steel flange with six socket screws on a foam tray, in any pose.
    Flange,
    /// A slab of exposed gravel that fills the frame, cut from a photograph.
    Gravel,
    /// A brushed and drilled steel plate with oil and chips on it, which are harmless.
    Plate,
    /// A two-coloured 2/2 twill cloth that fills the frame.
    Twill,
}

impl Category {
    /// Every category, in the order of their names.
    pub const ALL: [Self; 4] = [Self::Flange, Self::Gravel, Self::Plate, Self::Twill];

    /// Name of the category's folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flange => "flange",
            Self::Gravel => "gravel",
            Self::Plate => "plate",
            Self::Twill => "twill",
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Category {
    type Err = SynthError;

    fn from_str(text: &str) -> Result<Self, SynthError> {
        Self::ALL
            .into_iter()
            .find(|category| category.name() == text)
            .ok_or_else(|| SynthError::UnknownName {
                what: "category",
                found: text.to_owned(),
                known: "flange, gravel, plate, twill",
            })
    }
}

/// The defect types of every drawn category.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DefectType {
    /// A pit in the steel or between stones; a hole worn through the cloth.
    Hole,
    /// A screw that is missing, off its seat or of the wrong kind; a washer left on the plate; a weft yarn missing or misrouted; a
    /// stone missing, foreign or too large.
    Misplaced,
    /// A thin line across the surface.
    Scratch,
    /// A dried liquid or a bloom.
    Stain,
}

impl DefectType {
    /// Every defect type, in the order of their names.
    pub const ALL: [Self; 4] = [Self::Hole, Self::Misplaced, Self::Scratch, Self::Stain];

    /// Name of the defect type's folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hole => "hole",
            Self::Misplaced => "misplaced",
            Self::Scratch => "scratch",
            Self::Stain => "stain",
        }
    }
}

/// Light that reaches the camera (`[2·size, 2·size]` linear RGB) and the mask of the defect.
struct Drawing {
    light: Vec<[f32; 3]>,
    mask: GrayImage,
}

/// Draws one image and its mask (0 sound, 255 defect), both `size` × `size` pixels.
///
/// `size` is clamped to [`SIZE_RANGE`]. The stream of random numbers is named by all arguments but
/// `severity` and `size`, so that images of different splits never share a scene; a texture that is cut from a
/// photograph is cut from one half of it for the split `train`, from the other half for any other.
///
/// `severity`, clamped to [`SEVERITY_RANGE`], multiplies how large a defect is and how far it stands out: at 1
/// it is no plainer than the harmless marks of a good part, at 2 a person sees it at a glance.
pub fn draw(
    category: Category,
    defect: Option<DefectType>,
    severity: f32,
    split: &str,
    index: u32,
    seed: u64,
    size: u32,
) -> (RgbImage, GrayImage) {
    let size = size.clamp(*SIZE_RANGE.start(), *SIZE_RANGE.end());
    let severity = severity.clamp(*SEVERITY_RANGE.start(), *SEVERITY_RANGE.end());
    let stream = |use_for: &str| {
        Chance::named(&[
            &seed.to_le_bytes(),
            category.name().as_bytes(),
            split.as_bytes(),
            defect.map_or("good", DefectType::name).as_bytes(),
            &index.to_le_bytes(),
            use_for.as_bytes(),
        ])
    };
    let (mut scene, mut flaw, mut exposure) = (stream("scene"), stream("flaw"), stream("exposure"));
    let mut part: Box<dyn Scene> = match category {
        Category::Flange => Box::new(flange::Part::draw(&mut scene)),
        Category::Gravel => Box::new(gravel::Slab::draw(photograph::of(split), &mut scene)),
        Category::Plate => Box::new(plate::Plate::draw(&mut scene)),
        Category::Twill => Box::new(twill::Cloth::draw(&mut scene)),
    };
    if let Some(defect) = defect {
        part.damage(defect, severity, &mut flaw);
    }
    let drawing = part.render(size);
    let camera = Camera::draw(&mut exposure);
    (
        camera.develop(&drawing.light, size, &mut exposure),
        drawing.mask,
    )
}
