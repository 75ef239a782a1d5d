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
//! Modules follow the data: dataset, features, score, evaluate, report. [`bundle`] is the file of a detector; [`workflow`] walks
//! all of them from end to end.
#![warn(missing_docs)]

pub mod bundle;
pub mod dataset;
pub mod evaluate;
pub mod features;
pub mod image_size;
mod little_endian;
pub mod machine;
pub mod names;
pub mod random;
pub mod record;
pub mod report;
pub mod score;
pub use flawtune_synth as synth;
pub mod unit;
pub mod values;
pub mod workflow;

pub use dataset::MoreImages;
pub use flawtune_backbone::preprocess::RgbImage8 as Image;
pub use score::map::{AnomalyMap, Region};
pub use workflow::{
    Backbone, Detector, DetectorBuilder, Lessons, Prediction, Taught, WorkflowError as Error,
};
