//! Judge images that are in memory: frames of a camera, as raw RGB on standard input.
//!
//! ```sh
//! ffmpeg -loglevel error -i rtsp://camera/line -f rawvideo -pix_fmt rgb24 - |
//!     cargo run --release -p flawtune --example frames -- parts.flaw 640 480
//! ```

#![allow(clippy::print_stdout)]

use std::io::{ErrorKind, Read as _};

use flawtune::{Detector, Image};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, width, height] = arguments.as_slice() else {
        return Err("usage: frames parts.flaw WIDTH HEIGHT < FRAMES".into());
    };
    let (width, height): (usize, usize) = (width.parse()?, height.parse()?);
    let detector = Detector::open(file)?;
    let mut frames = std::io::stdin().lock();
    let mut pixels = vec![0; 3 * width * height];
    for number in 0.. {
        match frames.read_exact(&mut pixels) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        let found = detector.predict(&Image::from_pixels(height, width, pixels.clone()))?;
        let verdict = if found.flaw { "flaw" } else { "good" };
        println!(
            "{number} {verdict} {:.3} {:?}",
            found.probability,
            found.regions.first()
        );
    }
    Ok(())
}
