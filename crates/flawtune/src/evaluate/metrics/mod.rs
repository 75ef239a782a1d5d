//! AUROC, average precision, curves and thresholds; pixel metrics and AUPRO.
//!
//! All in f64, all exact with respect to ties: images (or pixels) with equal scores enter a curve together. Results
//! equal scikit-learn's, degenerate inputs included, except where the reference returns NaN: there the answer is
//! `None`, which a report writes as `null`.

mod histogram;
mod pixels;
mod ranking;

pub use histogram::{HistogramMetrics, PixelHistogram};
pub use pixels::{PixelImage, PixelMetrics, ProCurve, aupro, pixel_metrics, pro_curve};
pub use ranking::{
    Confusion, OperatingPoint, PrCurve, RocCurve, auroc, average_precision, confusion_at, f1_max,
    pr_curve, roc_curve, roc_curve_corners,
};
pub(crate) use ranking::{Tally, dense_ranks};

/// Why labels and scores could not be turned into a metric.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// Nothing to measure.
    #[error("no scores to evaluate")]
    Empty,
    /// One label a score is needed.
    #[error("{scores} scores for {labels} labels: one label per score is needed")]
    Length {
        /// Labels given.
        labels: usize,
        /// Scores given.
        scores: usize,
    },
    /// A score is NaN or infinite.
    #[error(
        "score {index} is not a finite number: the features or the checkpoint hold NaN or infinite values"
    )]
    NotFinite {
        /// Position of the first such score.
        index: usize,
    },
    /// A mask or a map does not have `width * height` pixels.
    #[error("image {image}: {what} has {found} pixels, {width} × {height} = {wanted} wanted")]
    Shape {
        /// Position of the image.
        image: usize,
        /// Mask or anomaly map.
        what: &'static str,
        /// Width stated.
        width: usize,
        /// Height stated.
        height: usize,
        /// Pixels wanted.
        wanted: usize,
        /// Pixels found.
        found: usize,
    },
}
