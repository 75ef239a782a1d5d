//! Pixel metrics: AUROC and average precision over all pixels, and the per-region overlap (AUPRO).

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::MetricError;
use super::ranking::Tally;

/// The anomaly map of one test image and its ground truth, both row-major `[height, width]`.
#[derive(Debug, Clone, Copy)]
pub struct PixelImage<'a> {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Non-zero = defective; `None` for a normal image.
    pub mask: Option<&'a [u8]>,
    /// Anomaly score per pixel.
    pub map: &'a [f32],
}

/// AUROC and average precision over all pixels of all images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PixelMetrics {
    /// `None` when all pixels are of one class.
    pub auroc: Option<f64>,
    /// 0 when no pixel is defective.
    pub average_precision: f64,
}

/// Per-region overlap against the false positive rate, one point per distinct score, from (0, 0).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProCurve {
    /// False positive rate over all normal pixels.
    pub fpr: Vec<f64>,
    /// Mean share of each connected defect that is found.
    pub pro: Vec<f64>,
}

const NORMAL: u32 = u32::MAX;

/// An integer that orders like the float, descending: the highest score comes first.
fn descending_key(score: f32) -> u32 {
    // adding 0.0 turns -0.0 into 0.0: they are one score
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    };
    !ascending
}

pub(super) fn check(images: &[PixelImage<'_>]) -> Result<(), MetricError> {
    let mut offset = 0;
    for (index, image) in images.iter().enumerate() {
        let wanted = image.width * image.height;
        let shape = |what, found| MetricError::Shape {
            image: index,
            what,
            width: image.width,
            height: image.height,
            wanted,
            found,
        };
        if image.map.len() != wanted {
            return Err(shape("the anomaly map", image.map.len()));
        }
        if let Some(mask) = image.mask
            && mask.len() != wanted
        {
            return Err(shape("the mask", mask.len()));
        }
        if let Some(at) = image.map.iter().position(|s| !s.is_finite()) {
            return Err(MetricError::NotFinite { index: offset + at });
        }
        offset += wanted;
    }
    if offset == 0 {
        Err(MetricError::Empty)
    } else {
        Ok(())
    }
}

/// AUROC and average precision of the pixels of `images`.
///
/// # Errors
/// No pixels, a mask or map of the wrong size, a score that is not finite (its index counts all pixels before it).
pub fn pixel_metrics(images: &[PixelImage<'_>]) -> Result<PixelMetrics, MetricError> {
    check(images)?;
    let mut pixels: Vec<u64> = Vec::with_capacity(images.iter().map(|i| i.map.len()).sum());
    for image in images {
        let key = |(i, &score): (usize, &f32)| {
            let defective = image.mask.is_some_and(|m| m[i] != 0);
            u64::from(descending_key(score)) << 1 | u64::from(defective)
        };
        pixels.extend(image.map.iter().enumerate().map(key));
    }
    // equal entries cannot be told apart, so the order they end in does not matter
    pixels.par_sort_unstable();
    let groups = pixels.chunk_by(|a, b| a >> 1 == b >> 1).map(|group| {
        let defective = group.iter().filter(|p| **p & 1 == 1).count() as u64;
        (defective, group.len() as u64 - defective)
    });
    let tally = Tally {
        groups: groups.collect(),
    };
    Ok(PixelMetrics {
        auroc: tally.auroc(),
        average_precision: tally.average_precision(),
    })
}

/// Labels the 8-connected regions of a mask from `first` on; returns a label per pixel and the regions' sizes.
pub(super) fn regions(image: &PixelImage<'_>, first: u32) -> (Vec<u32>, Vec<u32>) {
    let (width, height) = (image.width, image.height);
    let mut labels = vec![NORMAL; width * height];
    let mut sizes = Vec::new();
    let Some(mask) = image.mask else {
        return (labels, sizes);
    };
    let mut open = Vec::new();
    for start in 0..mask.len() {
        if mask[start] == 0 || labels[start] != NORMAL {
            continue;
        }
        let label = first + sizes.len() as u32;
        let mut size = 0;
        labels[start] = label;
        open.push(start);
        while let Some(at) = open.pop() {
            size += 1;
            let (x, y) = (at % width, at / width);
            for ny in y.saturating_sub(1)..=(y + 1).min(height - 1) {
                for nx in x.saturating_sub(1)..=(x + 1).min(width - 1) {
                    let next = ny * width + nx;
                    if mask[next] != 0 && labels[next] == NORMAL {
                        labels[next] = label;
                        open.push(next);
                    }
                }
            }
        }
        sizes.push(size);
    }
    (labels, sizes)
}

/// Calls `visit(fpr, pro)` for every distinct score, highest first, until it returns false. False (without a call)
/// when there is no defect or no normal pixel: the curve is undefined.
fn walk_pro(
    images: &[PixelImage<'_>],
    mut visit: impl FnMut(f64, f64) -> bool,
) -> Result<bool, MetricError> {
    check(images)?;
    let mut sizes: Vec<u32> = Vec::new();
    let mut pixels: Vec<u64> = Vec::with_capacity(images.iter().map(|i| i.map.len()).sum());
    for image in images {
        let (labels, new) = regions(image, sizes.len() as u32);
        sizes.extend(new);
        let key = |(&score, label): (&f32, u32)| {
            u64::from(descending_key(score)) << 32 | u64::from(label)
        };
        pixels.extend(image.map.iter().zip(labels).map(key));
    }
    let normal = pixels.len() as u64 - sizes.iter().map(|s| u64::from(*s)).sum::<u64>();
    if sizes.is_empty() || normal == 0 {
        return Ok(false);
    }
    pixels.par_sort_unstable();
    let (mut false_positives, mut overlap, mut lost) = (0u64, 0.0f64, 0.0f64);
    for group in pixels.chunk_by(|a, b| a >> 32 == b >> 32) {
        for run in group.chunk_by(|a, b| a == b) {
            let label = run[0] as u32;
            if label == NORMAL {
                false_positives += run.len() as u64;
            } else {
                // compensated: tens of millions of small steps must still end at 1
                let step = run.len() as f64 / f64::from(sizes[label as usize]) - lost;
                let sum = overlap + step;
                lost = (sum - overlap) - step;
                overlap = sum;
            }
        }
        if !visit(
            false_positives as f64 / normal as f64,
            overlap / sizes.len() as f64,
        ) {
            break;
        }
    }
    Ok(true)
}

/// The whole per-region-overlap curve; `None` without any defect or any normal pixel.
///
/// Regions are 8-connected; every distinct score is a threshold; all regions weigh the same whatever their size.
///
/// # Errors
/// As [`pixel_metrics`].
pub fn pro_curve(images: &[PixelImage<'_>]) -> Result<Option<ProCurve>, MetricError> {
    let mut curve = ProCurve {
        fpr: vec![0.0],
        pro: vec![0.0],
    };
    let defined = walk_pro(images, |fpr, pro| {
        curve.fpr.push(fpr);
        curve.pro.push(pro);
        true
    })?;
    Ok(defined.then_some(curve))
}

/// Area under the per-region-overlap curve up to a false positive rate of `limit` (0 < limit ≤ 1), divided by `limit`:
/// 1 is perfect. `None` without any defect or any normal pixel.
///
/// The curve of [`pro_curve`], trapezoids, linear interpolation at the limit (Bergmann et al., IJCV 129, 2021,
/// but over all distinct scores: sampled thresholds mishandle ties).
///
/// # Errors
/// As [`pixel_metrics`].
pub fn aupro(images: &[PixelImage<'_>], limit: f64) -> Result<Option<f64>, MetricError> {
    let (mut x0, mut y0, mut area) = (0.0, 0.0, 0.0);
    let defined = walk_pro(images, |fpr, pro| {
        let (x1, y1) = if fpr > limit {
            (limit, y0 + (pro - y0) * (limit - x0) / (fpr - x0))
        } else {
            (fpr, pro)
        };
        area += 0.5 * (y0 + y1) * (x1 - x0);
        (x0, y0) = (x1, y1);
        fpr < limit
    })?;
    Ok(defined.then_some(area / limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_as_the_floats_do() {
        let scores = [-3.0f32, -1e-30, 0.0, 1e-30, 2.5, f32::MAX];
        assert!(
            scores
                .windows(2)
                .all(|w| descending_key(w[0]) > descending_key(w[1]))
        );
        assert_eq!(descending_key(-0.0), descending_key(0.0));
    }

    #[test]
    fn a_diagonal_is_one_region_and_a_gap_makes_two() {
        let image = |mask| PixelImage {
            width: 3,
            height: 3,
            mask: Some(mask),
            map: &[0.0; 9],
        };
        assert_eq!(regions(&image(&[1, 0, 0, 0, 1, 0, 0, 0, 1]), 0).1, vec![3]);
        assert_eq!(
            regions(&image(&[1, 0, 1, 1, 0, 1, 0, 0, 1]), 0).1,
            vec![2, 3]
        );
    }

    #[test]
    fn wrong_sizes_and_nan_are_refused() {
        let wrong = PixelImage {
            width: 2,
            height: 2,
            mask: Some(&[1, 0]),
            map: &[0.0; 4],
        };
        assert!(matches!(
            pixel_metrics(&[wrong]),
            Err(MetricError::Shape {
                what: "the mask",
                found: 2,
                ..
            })
        ));
        let nan = PixelImage {
            width: 2,
            height: 1,
            mask: None,
            map: &[0.0, f32::NAN],
        };
        assert_eq!(aupro(&[nan], 0.3), Err(MetricError::NotFinite { index: 1 }));
        assert_eq!(pixel_metrics(&[]), Err(MetricError::Empty));
    }
}
