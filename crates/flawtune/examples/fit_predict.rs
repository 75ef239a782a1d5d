//! Fit a detector to folders of good images and, if there are any, of defects; save it, open it and look at an image.
//!
//! ```sh
//! cargo run --release -p flawtune --example fit_predict -- WEIGHTS GOOD [DEFECT] IMAGE
//! ```

#![allow(clippy::print_stdout)]

use flawtune::{Backbone, Detector, Image};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (weights, good, defect, image) = match arguments.as_slice() {
        [weights, good, image] => (weights, good, None, image),
        [weights, good, defect, image] => (weights, good, Some(defect), image),
        _ => return Err("usage: fit_predict WEIGHTS GOOD [DEFECT] IMAGE".into()),
    };
    let backbone = Backbone::open(weights)?;
    let mut builder = Detector::builder(&backbone).good_folder(good)?;
    if let Some(defect) = defect {
        builder = builder.defect_folder(defect)?;
    }
    builder.fit()?.save("parts.flaw")?;

    let detector = Detector::open("parts.flaw")?;
    let found = detector.predict(&Image::open(image)?)?;
    println!("flaw {} probability {:.2}", found.flaw, found.probability);
    for region in &found.regions {
        println!("{region:?}");
    }
    Ok(())
}
