//! Score images with a bundle, one batch after the other, for any number of images.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use flawtune_backbone::preprocess::{
    ImageError, Looked, Preprocess, RgbImage8, decode_looked, read_file,
};
use rayon::prelude::*;

use super::intake::depth_text;
use super::shape::is_stretched;
use super::{Detector, Event, OnEvent, WorkflowError};
use crate::bundle::Finding;
use crate::dataset::Oddity;
use crate::features::{BadImage, FeatureError, Inputs};
use crate::score::map::{AnomalyMap, Region, regions, worst_region};

/// How images are gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PredictOptions {
    /// Leave unreadable images out, with a warning, instead of ending.
    pub skip_bad_images: bool,
    /// Draw the map of every image and keep its pixels, for overlays; otherwise only flaws are drawn, for their box.
    pub maps: bool,
    /// Most pixels that a map is drawn with. Of a larger image it is drawn at a half, a third, … of its size, which is all
    /// that patches tell of it; regions are given in pixels of the image all the same.
    pub max_map_pixels: Option<usize>,
    /// Also say what the detector would have found without the defects that it learned from.
    pub untaught: bool,
}

/// What the source of images has.
#[derive(Debug)]
pub enum Next {
    /// A batch.
    Paths(Vec<PathBuf>),
    /// Nothing yet.
    NotNow,
    /// Nothing any more.
    End,
}

/// What a detector says of an image.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Prediction {
    /// Height and width of the image in pixels.
    pub size: (usize, usize),
    /// Image score; larger is more anomalous.
    pub score: f64,
    /// Calibrated probability of a flaw.
    pub probability: f64,
    /// Whether the score reaches the threshold.
    pub flaw: bool,
    /// Of a flaw, the type of known defects that it is like, or [`UNKNOWN`](crate::score::residual::UNKNOWN); `None` where the
    /// detector knows no types.
    pub kind: Option<String>,
    /// How unlike the good images it was fitted to the image is as a whole: 0 as they are, from 1 on unlike them, as after the
    /// camera moved or the light changed. Then the verdict says little.
    pub drift: f64,
    /// Of a flaw, the regions of its map, in pixels of the image; the worst comes first.
    pub regions: Vec<Region>,
    /// The map, where maps are wanted.
    pub map: Option<AnomalyMap>,
    /// What would have been found without the defects that were learned from, where that is wanted and there are any: the score,
    /// and the map where maps are wanted.
    pub untaught: Option<(f64, Option<AnomalyMap>)>,
}

/// A prediction and the file it is about.
#[derive(Debug, Clone)]
pub struct Predicted {
    /// The file.
    pub path: PathBuf,
    /// What is said of it.
    pub prediction: Prediction,
    /// The image, where maps are wanted.
    pub picture: Option<RgbImage8>,
    /// What of the image is not as it is seen.
    pub oddities: Vec<Oddity>,
}

/// An image that is ready for the backbone.
#[derive(Debug)]
struct Ready {
    path: PathBuf,
    size: (usize, usize),
    looked: Looked,
    picture: Option<RgbImage8>,
}

/// A batch that is decoded: images in order, and the inputs of those that could be read.
#[derive(Debug, Default)]
struct Batch {
    pictures: Vec<Result<Ready, (PathBuf, ImageError)>>,
    /// At each size that the detector looks at.
    inputs: Vec<Inputs>,
}

/// Scores the images that `next` gives until it ends or `on_prediction` breaks off; returns how many were scored.
///
/// `next(wait)` gives a batch; with `wait` it may block until there is one. The batch after the one at hand is decoded while
/// that one is scored. Predictions come in order, and depend on neither batches nor threads.
///
/// # Errors
/// An image that cannot be read, named, after the predictions before it, unless they are skipped; a failing backbone;
/// whatever `on_prediction` returns.
pub fn predict(
    detector: &Detector,
    options: PredictOptions,
    next: &mut dyn FnMut(bool) -> Result<Next, WorkflowError>,
    on_prediction: &mut dyn FnMut(Predicted) -> Result<ControlFlow<()>, WorkflowError>,
    on_event: OnEvent<'_>,
) -> Result<usize, WorkflowError> {
    let on_bad = &mut |bad: BadImage, scored: usize, on_event: OnEvent<'_>| {
        if !options.skip_bad_images {
            return Err(FeatureError::BadImages {
                images: vec![bad],
                asked: scored + 1,
            }
            .into());
        }
        on_event(Event::Warning(format!("left out {bad}")));
        Ok(())
    };
    predict_past(detector, options, next, on_prediction, on_bad, on_event)
}

/// As [`predict`], and gives images that cannot be read, with the number of those scored before, to `on_bad`, which ends
/// the work by an error or lets it go on. What is odd about images (an orientation that is not followed, parts that are
/// not looked at, 16-bit data in few grey levels) is told once, with the number of them at the end.
///
/// # Errors
/// As [`predict`], and whatever `on_bad` returns.
pub fn predict_past(
    detector: &Detector,
    options: PredictOptions,
    next: &mut dyn FnMut(bool) -> Result<Next, WorkflowError>,
    on_prediction: &mut dyn FnMut(Predicted) -> Result<ControlFlow<()>, WorkflowError>,
    on_bad: &mut dyn FnMut(BadImage, usize, OnEvent<'_>) -> Result<(), WorkflowError>,
    on_event: OnEvent<'_>,
) -> Result<usize, WorkflowError> {
    let mut odd = Odd {
        aspect: detector.engine().options().aspect,
        ..Odd::default()
    };
    let preprocess = detector.preprocess();
    let mut scored = 0;
    let mut ahead: Option<Batch> = None;
    loop {
        let batch = match ahead.take() {
            Some(batch) => batch,
            None => match next(true)? {
                Next::Paths(paths) => prepare(detector, options, &paths),
                Next::NotNow => continue,
                Next::End => {
                    odd.sum_up(&preprocess, on_event);
                    return Ok(scored);
                }
            },
        };
        let following = match next(false)? {
            Next::Paths(paths) => Some(paths),
            Next::NotNow | Next::End => None,
        };
        let (found, prepared) = rayon::join(
            || score(detector, options, &batch),
            || following.map(|paths| prepare(detector, options, &paths)),
        );
        ahead = prepared;
        let mut found = found?.into_iter();
        for picture in batch.pictures {
            match picture {
                Ok(ready) => {
                    let Some(found) = found.next() else { break };
                    let oddities = odd.meet(&ready, &preprocess, on_event);
                    odd.judged(&ready.path, &found, on_event);
                    scored += 1;
                    let prediction = Predicted {
                        path: ready.path,
                        prediction: found,
                        picture: ready.picture,
                        oddities,
                    };
                    if on_prediction(prediction)?.is_break() {
                        odd.sum_up(&preprocess, on_event);
                        return Ok(scored);
                    }
                }
                Err((path, error)) => {
                    let bad = BadImage::new(scored, path, &error);
                    on_bad(bad, scored, on_event)?;
                }
            }
        }
    }
}

/// What is odd about the images so far.
#[derive(Debug, Default)]
struct Odd {
    /// Width to height that the detector keeps.
    aspect: Option<f64>,
    turned: usize,
    stretched: usize,
    cropped: usize,
    /// Images of 16 bits, and the largest value in them.
    wide: usize,
    largest: u16,
    said: Option<u8>,
    told_depth: bool,
    /// Images unlike those that the detector knows.
    unlike: usize,
}

/// Images of 16 bits that are waited for before their range is judged.
const WIDE: usize = 8;

impl Odd {
    fn meet(
        &mut self,
        ready: &Ready,
        preprocess: &Preprocess,
        on_event: OnEvent<'_>,
    ) -> Vec<Oddity> {
        let (name, mut oddities) = (ready.path.display(), Vec::new());
        if ready.looked.orientation > 1 && !preprocess.apply_exif_orientation {
            self.turned += 1;
            oddities.push(Oddity::OrientationIgnored);
            if self.turned == 1 {
                on_event(Event::Warning(format!(
                    "{name} says by EXIF that it is to be turned, and is not, as when the file was fitted; pixels of boxes \
                     and maps are those that are stored"
                )));
            }
        }
        let unseen = preprocess.unseen(ready.size.0, ready.size.1);
        if unseen > 0.01 {
            self.cropped += 1;
            oddities.push(Oddity::Cropped);
            if self.cropped == 1 {
                on_event(Event::Warning(format!(
                    "{name}: {:.0} % of it lie outside of the centre crop that the file was fitted with, and are not looked at",
                    100.0 * unseen
                )));
            }
        }
        let part = preprocess.part(ready.size.0, ready.size.1);
        if self
            .aspect
            .is_some_and(|aspect| is_stretched(aspect, (part.height, part.width)))
        {
            self.stretched += 1;
            oddities.push(Oddity::Stretched);
            if self.stretched == 1 {
                on_event(Event::Warning(format!(
                    "{name}: {}×{} pixels are of another shape than the good images that the detector knows, and are stretched to \
                     theirs",
                    part.width, part.height
                )));
            }
        }
        if let Some(largest) = ready.looked.largest {
            self.wide += 1;
            self.largest = self.largest.max(largest);
            self.said = self.said.max(ready.looked.said);
            if self.wide == WIDE {
                self.tell_depth(preprocess, on_event);
            }
        }
        oddities
    }

    /// An image that as a whole does not look like those that the detector knows.
    fn judged(&mut self, path: &Path, found: &Prediction, on_event: OnEvent<'_>) {
        if found.drift < 1.0 {
            return;
        }
        self.unlike += 1;
        if self.unlike == 1 {
            on_event(Event::Warning(format!(
                "{} as a whole does not look like the good images that the detector knows (drift {:.1}, from 1 on): its verdict says \
                 little\nhint: look whether the camera moved, the light changed or it shows another part; teach the detector such \
                 images if they are good",
                path.display(),
                found.drift
            )));
        }
    }

    fn tell_depth(&mut self, preprocess: &Preprocess, on_event: OnEvent<'_>) {
        if self.wide == 0 || std::mem::replace(&mut self.told_depth, true) {
            return;
        }
        if let Some(text) = depth_text(self.largest, self.said, preprocess.bit_depth, self.wide) {
            on_event(Event::Warning(text));
        }
    }

    fn sum_up(&mut self, preprocess: &Preprocess, on_event: OnEvent<'_>) {
        self.tell_depth(preprocess, on_event);
        for (count, what) in [
            (
                self.turned,
                "say by EXIF that they are to be turned, and are not",
            ),
            (self.cropped, "are not looked at as a whole"),
            (
                self.stretched,
                "are stretched to the shape of the good images that the detector knows",
            ),
            (
                self.unlike,
                "do not look like the good images that the detector knows",
            ),
        ] {
            if count > 1 {
                on_event(Event::Note(format!("{count} images {what}")));
            }
        }
    }
}

/// Decodes a batch in parallel.
fn prepare(detector: &Detector, options: PredictOptions, paths: &[PathBuf]) -> Batch {
    let preprocess = detector.preprocess();
    let decoding = preprocess.decode_options();
    let load = |path: &PathBuf, put: &mut dyn FnMut(&RgbImage8)| {
        let read =
            read_file(path, &decoding).and_then(|bytes| decode_looked(&bytes, path, &decoding));
        let (picture, looked) = read.map_err(|error| (path.clone(), error))?;
        let size = (picture.height(), picture.width());
        let fits = preprocess.check_size(path, size);
        fits.map_err(|error| (path.clone(), error))?;
        put(&picture);
        Ok(Ready {
            path: path.clone(),
            size,
            looked,
            picture: options.maps.then_some(picture),
        })
    };
    let (inputs, pictures) = detector.prepare(paths, load);
    Batch { pictures, inputs }
}

/// Predictions of the images of a batch that could be read, without their paths and pixels.
fn score(
    detector: &Detector,
    options: PredictOptions,
    batch: &Batch,
) -> Result<Vec<Prediction>, WorkflowError> {
    let ready: Vec<&Ready> = batch.pictures.iter().flatten().collect();
    let found = detector.score(&batch.inputs, ready.len())?;
    let wanted = Wanted {
        map: options.maps,
        regions: false,
        untaught: options.untaught,
        max_pixels: options.max_map_pixels,
    };
    let one = |(ready, found): (&&Ready, Finding)| judge(detector, wanted, ready.size, &found);
    ready.par_iter().zip(found).map(one).collect()
}

/// What is wanted of a prediction beside the verdict.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// The map.
    pub(super) map: bool,
    /// All regions; otherwise the worst only.
    pub(super) regions: bool,
    /// What would be found without the defects learned from.
    pub(super) untaught: bool,
    /// As [`PredictOptions::max_map_pixels`].
    pub(super) max_pixels: Option<usize>,
}

impl Wanted {
    /// All but what would be found without defects.
    pub(super) const ALL: Self = Self {
        map: true,
        regions: true,
        untaught: false,
        max_pixels: None,
    };
}

/// The size of a map of an image of `size`: a whole part of it, of at most `most` pixels.
fn bounded(size: (usize, usize), most: Option<usize>) -> (usize, usize) {
    let most = most.unwrap_or(usize::MAX).max(1);
    let of = |part: usize| (size.0.div_ceil(part), size.1.div_ceil(part));
    let longest = size.0.max(size.1).max(1);
    let fits = |part: &usize| {
        let (height, width) = of(*part);
        height.saturating_mul(width) <= most
    };
    of((1..=longest).find(fits).unwrap_or(longest))
}

/// The verdict on an image of `size` (height, width).
pub(super) fn judge(
    detector: &Detector,
    wanted: Wanted,
    size: (usize, usize),
    found: &Finding,
) -> Result<Prediction, WorkflowError> {
    let header = detector.header();
    let flaw = header.threshold.is_flaw(found.score);
    let drawn = bounded(size, wanted.max_pixels);
    let map = if flaw || wanted.map {
        Some(detector.drawing(drawn, size)?.draw(&found.distances)?)
    } else {
        None
    };
    let regions = match map
        .as_ref()
        .filter(|_| flaw)
        .and_then(|map| Some((map, map.range()?.1)))
    {
        None => Vec::new(),
        Some((map, peak)) => {
            // a score can be high where no point of the map is: then the region round its highest point
            let reached = peak >= header.map.threshold;
            let least = if reached {
                header.map.threshold
            } else {
                header.map.low.midpoint(peak).min(peak)
            };
            let worst = worst_region(map, least);
            let mut all: Vec<Region> = worst.iter().cloned().collect();
            if wanted.regions {
                let others = regions(map, least);
                all.extend(others.into_iter().filter(|r| Some(r) != worst.as_ref()));
            }
            all.iter().map(|r| r.scaled(drawn, size)).collect()
        }
    };
    let untaught = match found.untaught.as_ref().filter(|_| wanted.untaught) {
        Some(untaught) => {
            let drawing = wanted
                .map
                .then(|| detector.drawing(drawn, size))
                .transpose()?;
            let map = drawing.map(|d| d.draw(&untaught.distances)).transpose()?;
            Some((untaught.score, map))
        }
        None => None,
    };
    Ok(Prediction {
        size,
        score: found.score,
        probability: header.calibration.probability(found.score),
        flaw,
        kind: found.kind.clone().filter(|_| flaw),
        drift: found.drift,
        regions,
        map: map.filter(|_| wanted.map),
        untaught,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_maps_are_drawn_at_a_part_of_the_size() {
        assert_eq!(bounded((3000, 4000), None), (3000, 4000));
        assert_eq!(bounded((3000, 4000), Some(12_000_000)), (3000, 4000));
        assert_eq!(bounded((3001, 4000), Some(12_000_000)), (1501, 2000));
        assert_eq!(bounded((10_000, 10_000), Some(1 << 24)), (3334, 3334));
        assert_eq!(bounded((1, 1000), Some(0)), (1, 1));
    }
}
