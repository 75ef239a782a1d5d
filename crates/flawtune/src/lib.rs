//! Few-shot visual flaw detection on the tokens of a frozen vision transformer: show it images of good parts and, if you have
//! them, a few defects; it gives one file that finds flaws on a CPU and says where they are.
//!
//! ```no_run
//! use flawtune::{Backbone, Detector, Image};
//!
//! # fn main() -> Result<(), flawtune::Error> {
//! let backbone = Backbone::open("dinov2_vits14")?;
//! let detector = Detector::builder(&backbone)
//!     .good_folder("parts/good")?
//!     .defect_folder("parts/defects")? // leave it out where no defect is known
//!     .fit()?;
//! detector.save("parts.flaw")?;
//!
//! let detector = Detector::open("parts.flaw")?;
//! let found = detector.predict(&Image::open("new/part.png")?)?;
//! println!("flaw {}, probability {:.2}, at {:?}", found.flaw, found.probability, found.regions);
//! # Ok(())
//! # }
//! ```
//!
//! A detector that has learned goes on to learn, in seconds and without the images of before:
//!
//! ```no_run
//! use flawtune::{Detector, Lessons, MoreImages};
//!
//! # fn main() -> Result<(), flawtune::Error> {
//! let detector = Detector::open("parts.flaw")?;
//! let missed = MoreImages { defect: Some("missed_flaws".into()), good: Some("false_alarms".into()), ..MoreImages::default() };
//! let taught = detector.learn(&Lessons::new(missed))?; // an error if it would be worse
//! println!("finds {} of {} defects, found {} before", taught.after.found, taught.after.defects, taught.before.found);
//! taught.detector.save("parts.flaw")?;
//! # Ok(())
//! # }
//! ```
//!
//! What is documented is what a user of the library needs: the types above, [`bundle`] (the file of a detector), [`dataset`] (images,
//! labels and masks), [`evaluate`] (what a test set says) and [`workflow`] (whole jobs, as the command line runs them). The rest is
//! public for the other crates of this project, hidden from this documentation, and changes without notice.
#![warn(missing_docs)]

pub mod bundle;
pub mod dataset;
pub mod evaluate;
#[doc(hidden)]
pub mod features;
#[doc(hidden)]
pub mod image_size;
mod little_endian;
#[doc(hidden)]
pub mod machine;
#[doc(hidden)]
pub mod names;
#[doc(hidden)]
pub mod random;
#[doc(hidden)]
pub mod record;
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod score;
#[doc(hidden)]
pub use flawtune_synth as synth;
#[doc(hidden)]
pub mod unit;
pub mod values;
pub mod workflow;

pub use dataset::MoreImages;
pub use features::FeatureCache;
pub use flawtune_backbone::preprocess::RgbImage8 as Image;
pub use image_size::ImageSize;
pub use score::Aggregate;
pub use score::map::{AnomalyMap, Region};
pub use score::threshold::{Calibration, Threshold};
pub use workflow::{
    Backbone, Detector, DetectorBuilder, Lessons, Prediction, Taught, WorkflowError as Error,
};
