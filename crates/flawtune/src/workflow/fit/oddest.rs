//! The good images that look least like the others: training data that lies is found among them.

use std::path::{Path, PathBuf};

use flawtune_backbone::preprocess::{Preprocess, decode, read_file};
use image::RgbImage;
use serde::Serialize;

use super::Scored;
use crate::dataset::ODDEST;
use crate::report::overlay::write_png;
use crate::report::panel::{Panel, Tile};
use crate::workflow::{Category, WorkflowError};

/// Images that are named.
const NAMED: usize = 5;
/// Deviations above the median from which on an image stands out (B. Iglewicz and D. Hoaglin, How to Detect and Handle Outliers,
/// 1993).
pub(super) const STANDS_OUT: f64 = 3.5;
/// A median absolute deviation of a normal distribution times this is its standard deviation, and a mean one times the other.
const OF_MEDIAN: f64 = 1.482_602_218_505_602;
const OF_MEAN: f64 = 1.253_314_137_315_500_3;

/// A good image that was learned from, as it was judged without itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OddImage {
    /// Its name in the data set.
    pub image: String,
    /// Its file.
    pub path: PathBuf,
    /// Its score.
    pub score: f64,
    /// By how many robust standard deviations that is above the median of all of them.
    pub deviations: f64,
}

impl OddImage {
    /// Whether it is much odder than good images are among each other.
    pub fn stands_out(&self) -> bool {
        self.deviations > STANDS_OUT
    }
}

/// The oddest good images of those that were judged, the oddest first: five, or half of fewer than ten.
pub(super) fn oddest(category: &Category, scored: &Scored) -> Vec<OddImage> {
    let scores: Vec<f64> = scored.good.iter().map(|found| found.score).collect();
    let deviations = robust(&scores);
    let mut order: Vec<usize> = (0..scores.len().min(scored.good_at.len())).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(NAMED.min(scores.len() / 2));
    let one = |i: usize| {
        let sample = &category.dataset.samples[scored.good_at[i]];
        OddImage {
            image: sample.id.clone(),
            path: sample.path.clone(),
            score: scores[i],
            deviations: deviations[i],
        }
    };
    order.into_iter().map(one).collect()
}

/// How many standard deviations each value is above the median, told from the median deviation, which a few odd values do not
/// move; 0 where all are equal.
fn robust(values: &[f64]) -> Vec<f64> {
    let Some(middle) = median(values) else {
        return Vec::new();
    };
    let away: Vec<f64> = values.iter().map(|v| (v - middle).abs()).collect();
    let by_median = OF_MEDIAN * median(&away).unwrap_or(0.0);
    let by_mean = OF_MEAN * away.iter().sum::<f64>() / away.len() as f64;
    let deviation = if by_median > 0.0 { by_median } else { by_mean };
    let one = |v: &f64| {
        if deviation > 0.0 {
            (v - middle) / deviation
        } else {
            0.0
        }
    };
    values.iter().map(one).collect()
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len().is_multiple_of(2) {
        sorted[sorted.len() / 2 - 1].midpoint(upper)
    } else {
        upper
    })
}

/// `parts.oddest.png` beside `parts.flaw`.
pub(super) fn file_beside(detector: &Path) -> PathBuf {
    let mut name = detector.file_stem().unwrap_or_default().to_owned();
    name.push(ODDEST);
    detector.with_file_name(name)
}

/// Draws the images beside each other, as they are looked at, and writes them as PNG.
///
/// # Errors
/// An image that cannot be read any more, a file that cannot be written.
pub(super) fn write(
    images: &[OddImage],
    preprocess: &Preprocess,
    file: &Path,
) -> Result<(), WorkflowError> {
    let options = preprocess.decode_options();
    let tile = |odd: &OddImage| {
        let image = decode(&read_file(&odd.path, &options)?, &odd.path, &options)?;
        let part = preprocess.cut(&image);
        let (height, width) = (part.height() as u32, part.width() as u32);
        let pixels = RgbImage::from_raw(width, height, part.pixels().to_vec()).unwrap_or_default();
        let name = odd.path.file_name().unwrap_or_default().to_string_lossy();
        let note = format!("score {:.3}, {:.1} deviations", odd.score, odd.deviations);
        Ok(Tile::whole(name, note, &pixels))
    };
    let tiles: Vec<Tile> = images
        .iter()
        .map(tile)
        .collect::<Result<_, WorkflowError>>()?;
    let panel = Panel {
        title: "The oddest good images: are they good?".into(),
        columns: tiles.len(),
        tiles,
    };
    Ok(write_png(&panel.draw()?, file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_odd_value_does_not_hide_itself() {
        let found = robust(&[1.0, 1.1, 0.9, 1.2, 0.8, 9.0]);
        // median 1.05, median deviation .15
        assert!(
            (found[5] - (9.0 - 1.05) / (OF_MEDIAN * 0.15)).abs() < 1e-9,
            "{found:?}"
        );
        assert!(found[5] > STANDS_OUT && found[..5].iter().all(|d| d.abs() < 1.5));
        // most are equal: the mean deviation decides
        let found = robust(&[1.0, 1.0, 1.0, 1.0, 5.0]);
        assert!((found[4] - 4.0 / (OF_MEAN * 0.8)).abs() < 1e-9, "{found:?}");
        assert_eq!(robust(&[2.0, 2.0]), [0.0, 0.0]);
        assert!(robust(&[]).is_empty());
    }

    #[test]
    fn its_file_lies_beside_the_detector() {
        let beside = |path: &str| file_beside(Path::new(path));
        assert_eq!(beside("out/parts.flaw"), Path::new("out/parts.oddest.png"));
        assert_eq!(beside("parts"), Path::new("parts.oddest.png"));
        assert_eq!(beside("v1.2.flaw"), Path::new("v1.2.oddest.png"));
    }
}
