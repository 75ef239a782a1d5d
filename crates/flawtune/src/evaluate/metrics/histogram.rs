//! Pixel metrics in constant memory: pixels are counted by score, not kept.
//!
//! Scores fall into 2¹⁸ bins of equal width over a span, by default [0, 2] (a distance of cosines), 7.6e-6 wide; what lies outside
//! counts at the end.
//! Pixels of one bin count as equal, so a metric differs from the exact one of
//! [`pixel_metrics`](super::pixel_metrics) by what order within bins can change; for the AUROC that is stated with it.

use serde::{Deserialize, Serialize};

use super::MetricError;
use super::pixels::{PixelImage, check, regions};
use super::ranking::Tally;

const BINS: usize = 1 << 18;
/// Distances of cosines.
const DISTANCES: (f32, f32) = (0.0, 2.0);

/// Pixels counted by score; 6 MiB whatever the number of images.
#[derive(Debug, Clone)]
pub struct PixelHistogram {
    /// The lowest and the highest score that is told apart.
    span: (f32, f32),
    normal: Vec<u64>,
    defective: Vec<u64>,
    /// Sum over regions of the share of their pixels in the bin.
    overlap: Vec<f64>,
    regions: u64,
}

/// What a histogram says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HistogramMetrics {
    /// Area under the ROC curve of all pixels; `None` when all are of one class.
    pub auroc: Option<f64>,
    /// The exact value lies at most this far from it.
    pub auroc_error: Option<f64>,
    /// Average precision; 0 when no pixel is defective.
    pub average_precision: f64,
    /// Area under the per-region-overlap curve up to the limit, over the limit; `None` without a defect or a normal pixel.
    pub aupro: Option<f64>,
    /// Largest F1 of the class "defective" over all thresholds.
    pub f1_max: f64,
    /// The threshold it is reached at, the lowest among equals.
    pub f1_threshold: f64,
    /// Connected defects.
    pub regions: u64,
}

impl Default for PixelHistogram {
    fn default() -> Self {
        Self::spanning(DISTANCES)
    }
}

impl PixelHistogram {
    /// Nothing counted yet, for scores between `span.0` and `span.1`.
    pub fn spanning(span: (f32, f32)) -> Self {
        Self {
            span,
            normal: vec![0; BINS],
            defective: vec![0; BINS],
            overlap: vec![0.0; BINS],
            regions: 0,
        }
    }
}

impl PixelHistogram {
    fn bin(&self, score: f32) -> usize {
        let (low, high) = self.span;
        (((score - low).max(0.0) * (BINS as f32 / (high - low))) as usize).min(BINS - 1)
    }

    /// Counts the pixels of one image.
    ///
    /// # Errors
    /// A mask or map of the wrong size, a score that is not finite.
    pub fn add(&mut self, image: &PixelImage<'_>) -> Result<(), MetricError> {
        check(std::slice::from_ref(image))?;
        let (labels, sizes) = regions(image, 0);
        self.regions += sizes.len() as u64;
        for (&score, label) in image.map.iter().zip(labels) {
            let bin = self.bin(score);
            match sizes.get(label as usize) {
                None => self.normal[bin] += 1,
                Some(&size) => {
                    self.defective[bin] += 1;
                    self.overlap[bin] += 1.0 / f64::from(size);
                }
            }
        }
        Ok(())
    }

    /// The lowest score of a bin.
    fn edge(&self, bin: usize) -> f64 {
        let (low, high) = (f64::from(self.span.0), f64::from(self.span.1));
        low + bin as f64 * (high - low) / BINS as f64
    }

    /// Adds the counts of another over the same span.
    pub fn merge(&mut self, other: &Self) {
        let add = |to: &mut [u64], from: &[u64]| to.iter_mut().zip(from).for_each(|(t, f)| *t += f);
        add(&mut self.normal, &other.normal);
        add(&mut self.defective, &other.defective);
        self.overlap
            .iter_mut()
            .zip(&other.overlap)
            .for_each(|(t, f)| *t += f);
        self.regions += other.regions;
    }

    /// The metrics; `limit` (0 < limit ≤ 1) bounds the false positive rate of the per-region overlap.
    pub fn metrics(&self, limit: f64) -> HistogramMetrics {
        let descending = || {
            (0..BINS)
                .rev()
                .filter(|b| self.normal[*b] + self.defective[*b] > 0)
        };
        let tally = Tally {
            groups: descending()
                .map(|b| (self.defective[b], self.normal[b]))
                .collect(),
        };
        let (defective, normal): (u64, u64) =
            (self.defective.iter().sum(), self.normal.iter().sum());
        let auroc = tally.auroc();
        let within: f64 = descending()
            .map(|b| self.normal[b] as f64 * self.defective[b] as f64)
            .sum();
        let (mut found, mut false_alarms) = (0u64, 0u64);
        let (mut f1_max, mut f1_threshold) = (0.0, 0.0);
        let (mut x0, mut y0, mut area, mut overlap) = (0.0, 0.0, 0.0, 0.0);
        for b in descending() {
            found += self.defective[b];
            false_alarms += self.normal[b];
            let f1 = 2.0 * found as f64 / (found + false_alarms + defective).max(1) as f64;
            if f1 >= f1_max {
                (f1_max, f1_threshold) = (f1, self.edge(b));
            }
            overlap += self.overlap[b];
            if normal > 0 && self.regions > 0 && x0 < limit {
                let (fpr, pro) = (
                    false_alarms as f64 / normal as f64,
                    overlap / self.regions as f64,
                );
                let (x1, y1) = if fpr > limit {
                    (limit, y0 + (pro - y0) * (limit - x0) / (fpr - x0))
                } else {
                    (fpr, pro)
                };
                area += 0.5 * (y0 + y1) * (x1 - x0);
                (x0, y0) = (x1, y1);
            }
        }
        HistogramMetrics {
            auroc,
            auroc_error: auroc.map(|_| 0.5 * within / (normal as f64 * defective as f64)),
            average_precision: tally.average_precision(),
            aupro: (normal > 0 && self.regions > 0).then_some(area / limit),
            f1_max,
            f1_threshold,
            regions: self.regions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{aupro, f1_max, pixel_metrics};
    use super::*;
    use flawtune_testing::SmallNoise;

    /// Maps with a defect in every other image; `steps` distinct scores an image row.
    fn images(steps: u32) -> Vec<(Vec<u8>, Vec<f32>)> {
        let mut small = SmallNoise(7);
        let mut noise = move || small.word() >> 8;
        (0..9)
            .map(|i| {
                let mask: Vec<u8> = (0..30 * 20)
                    .map(|p| {
                        u8::from(i % 2 == 0 && (p % 30 < 4 + i || (p % 30 > 25 && p / 30 > 14)))
                    })
                    .collect();
                let map = mask.iter().map(|m| {
                    let step = noise() % steps + u32::from(*m) * steps / 4;
                    step as f32 / (steps as f32 * 1.25)
                });
                let map = map.collect();
                (mask, map)
            })
            .collect()
    }

    fn both(steps: u32) -> (HistogramMetrics, HistogramMetrics) {
        let data = images(steps);
        let list: Vec<PixelImage<'_>> = data
            .iter()
            .map(|(mask, map)| PixelImage {
                width: 30,
                height: 20,
                mask: Some(mask),
                map,
            })
            .collect();
        let (mut whole, mut other) = (PixelHistogram::default(), PixelHistogram::default());
        for (i, image) in list.iter().enumerate() {
            if i < 4 { &mut whole } else { &mut other }
                .add(image)
                .unwrap();
        }
        whole.merge(&other);
        let exact = pixel_metrics(&list).unwrap();
        let labels: Vec<bool> = data
            .iter()
            .flat_map(|d| d.0.iter().map(|m| *m != 0))
            .collect();
        let scores: Vec<f64> = data
            .iter()
            .flat_map(|d| d.1.iter().map(|v| f64::from(*v)))
            .collect();
        let best = f1_max(&labels, &scores).unwrap();
        let found = whole.metrics(0.3);
        let wanted = HistogramMetrics {
            auroc: exact.auroc,
            average_precision: exact.average_precision,
            aupro: aupro(&list, 0.3).unwrap(),
            f1_max: best.f1,
            ..found
        };
        (found, wanted)
    }

    #[test]
    fn scores_further_apart_than_bins_give_the_exact_metrics() {
        let (found, wanted) = both(50);
        assert_eq!(
            (found.auroc, found.average_precision),
            (wanted.auroc, wanted.average_precision)
        );
        assert!((found.aupro.unwrap() - wanted.aupro.unwrap()).abs() < 1e-12);
        assert!((found.f1_max - wanted.f1_max).abs() < 1e-12);
        assert_eq!(found.regions, 5 * 2);
    }

    #[test]
    fn any_scores_give_metrics_within_what_is_stated() {
        let (found, wanted) = both(1 << 22);
        let error = found.auroc_error.unwrap();
        assert!(error > 0.0 && error < 1e-4, "{error}");
        assert!((found.auroc.unwrap() - wanted.auroc.unwrap()).abs() <= error);
        assert!((found.aupro.unwrap() - wanted.aupro.unwrap()).abs() < 1e-3);
        assert!((found.average_precision - wanted.average_precision).abs() < 1e-3);
        assert!((found.f1_max - wanted.f1_max).abs() < 1e-3);
    }

    #[test]
    fn one_class_and_wrong_input() {
        let mut all = PixelHistogram::default();
        all.add(&PixelImage {
            width: 2,
            height: 1,
            mask: None,
            map: &[0.5, 3.0],
        })
        .unwrap();
        let found = all.metrics(0.3);
        assert_eq!((found.auroc, found.aupro, found.f1_max), (None, None, 0.0));
        let nan = PixelImage {
            width: 1,
            height: 1,
            mask: None,
            map: &[f32::NAN],
        };
        assert_eq!(all.add(&nan), Err(MetricError::NotFinite { index: 0 }));
    }
}
