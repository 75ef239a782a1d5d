//! Teach a detector what it missed, and good images that it stopped; see in counts what changed, and keep it if it is better.
//!
//! ```sh
//! cargo run --release -p flawtune --example teach -- parts.flaw MISSED_FLAWS [FALSE_ALARMS]
//! ```

#![allow(clippy::print_stdout)]

use flawtune::{Detector, Lessons, MoreImages};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(missed)) = (arguments.next(), arguments.next()) else {
        return Err("usage: teach parts.flaw MISSED_FLAWS [FALSE_ALARMS]".into());
    };
    let detector = Detector::open(&file)?;
    // an error, and nothing changed, where the detector would be worse
    let taught = detector.learn(&Lessons::new(MoreImages {
        defect: Some(missed.into()),
        good: arguments.next().map(Into::into),
        ..MoreImages::default()
    }))?;
    for (when, counts) in [("before", taught.before), ("after", taught.after)] {
        println!(
            "{when:<7} finds {} of {} defects, stops {} of {} good images",
            counts.found, counts.defects, counts.stopped, counts.good
        );
    }
    Ok(taught.detector.save(&file)?)
}
