//! One self-contained HTML page about a run.
//!
//! The page asks for nothing: styles, drawings and images are inside it, and a content security
//! policy forbids every request. It follows the reader's light or dark scheme, prints in light, and
//! without JavaScript loses only the sorting of tables. [`RunReport`] is plain data and holds
//! finished numbers; this module formats them.

mod html;
mod numbers;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::plot::Plot;

/// Everything a page says about a run. Parts that are empty are left out of the page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunReport {
    /// Heading of the page.
    pub title: String,
    /// One paragraph in plain words: what was done and what came out.
    pub summary: String,
    /// What a reader must know before believing a number, shown in a box: a demonstration backbone,
    /// a leaky protocol, too few seeds.
    pub warnings: Vec<String>,
    /// A word beside every number, where they must not be read without it: `leaky`.
    pub mark: String,
    /// Metrics of the adapted run beside the zero-shot baseline, the most important first.
    pub headline: Vec<Comparison>,
    /// Right and wrong decisions at the thresholds.
    pub decisions: Table,
    /// The headline by defect type.
    pub per_type: Vec<TypeResult>,
    /// Further tables.
    pub tables: Vec<Table>,
    /// What was found and where: images with their maps.
    pub findings: Vec<Gallery>,
    /// ROC and precision-recall curves.
    pub curves: Vec<Plot>,
    /// Score histograms with the threshold.
    pub histograms: Vec<Plot>,
    /// Loss and other histories of the training.
    pub training: Vec<Plot>,
    /// What prompts look at and change: one panel an image, as wide as the page.
    pub looks: Vec<Gallery>,
    /// Prompts among patches.
    pub projections: Vec<Plot>,
    /// The most wrong images, each way.
    pub errors: Vec<Gallery>,
    /// Name of the evaluation protocol and what it means.
    pub protocol: String,
    /// Who was learnt from and who was tested.
    pub split: Vec<SplitPart>,
    /// The command line that repeats the run.
    pub command: String,
    /// Versions, machine, seeds, hashes: name and value.
    pub facts: Vec<(String, String)>,
    /// Remarks at the end of the page.
    pub notes: Vec<String>,
}

/// Several runs on one page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Page {
    /// Heading of the page.
    pub title: String,
    /// One paragraph in plain words.
    pub summary: String,
    /// What a reader must know before comparing numbers.
    pub warnings: Vec<String>,
    /// What the runs found and where.
    pub findings: Vec<Gallery>,
    /// One row a run and scorer.
    pub table: Table,
    /// Plots of all runs together.
    pub curves: Vec<Plot>,
    /// The runs, each with a section of its own.
    pub runs: Vec<RunReport>,
}

impl Page {
    /// The page as one HTML document; a single run has the page to itself.
    pub fn to_html(&self) -> String {
        match &self.runs[..] {
            [run] => html::page(run),
            _ => html::several(self),
        }
    }
}

/// A number with what is known about its uncertainty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The number; one that is not finite is shown as a dash.
    pub value: Option<f64>,
    /// Interval about it, lower and upper end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// Standard deviation over seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
}

impl Estimate {
    /// A number of unknown uncertainty.
    pub fn new(value: f64) -> Self {
        Self {
            value: Some(value),
            ..Self::default()
        }
    }

    /// A number with its interval.
    pub fn with_interval(value: f64, low: f64, high: f64) -> Self {
        Self {
            value: Some(value),
            interval: Some([low, high]),
            deviation: None,
        }
    }
}

/// One metric, before and after adaptation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Name of the metric; higher is better.
    pub metric: String,
    /// The baseline.
    pub zero_shot: Estimate,
    /// After adaptation.
    pub adapted: Estimate,
    /// Adapted minus zero-shot, with its paired interval.
    pub difference: Estimate,
    /// p-value of the difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// What the interval and the p-value are, for example "95 % paired bootstrap, `DeLong`".
    #[serde(default)]
    pub method: String,
}

/// Results of one defect type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TypeResult {
    /// Whose scores; shown where there are several.
    #[serde(default)]
    pub scorer: String,
    /// Name of the defect type.
    pub defect_type: String,
    /// Test images of this type.
    pub images: usize,
    /// Whether images of this type were learnt from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<bool>,
    /// AUROC of the baseline against all good test images.
    pub zero_shot: Estimate,
    /// AUROC after adaptation.
    pub adapted: Estimate,
    /// How many were found at the threshold, in words; may be left empty.
    #[serde(default)]
    pub found: String,
}

/// A table; a number sorts by its value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Heading.
    pub title: String,
    /// How to read it.
    #[serde(default)]
    pub note: String,
    /// Column names.
    pub columns: Vec<String>,
    /// Rows of as many cells as columns; missing cells stay empty.
    pub rows: Vec<Vec<Cell>>,
}

/// One cell of a [`Table`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// A number, shown with at most four decimals.
    Number(f64),
    /// A number with its uncertainty.
    Estimate(Estimate),
    /// Words.
    Text(String),
}

/// One part of the split manifest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SplitPart {
    /// What the images were used for.
    pub name: String,
    /// Number of images.
    pub images: usize,
    /// Hash of the part's manifest.
    #[serde(default)]
    pub hash: String,
    /// The images, shown when the reader opens the list; may be left empty.
    #[serde(default)]
    pub files: Vec<String>,
}

/// A row of examples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gallery {
    /// Heading.
    pub title: String,
    /// How to read it.
    #[serde(default)]
    pub note: String,
    /// The examples, the most telling first.
    pub examples: Vec<Example>,
}

/// One image with what was said about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Path of the image in the data set.
    pub path: String,
    /// What it is, and what it was taken for.
    pub verdict: String,
    /// Image score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// The image, its map, its mask: shown side by side. May be empty.
    #[serde(default)]
    pub pictures: Vec<Picture>,
}

/// A small image inside the page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// What it shows.
    pub caption: String,
    /// `data:image/png;base64,…` (or JPEG, WebP); anything else is not shown.
    pub data_uri: String,
}

impl Picture {
    /// An image from the bytes of a PNG file.
    pub fn png(caption: impl Into<String>, bytes: &[u8]) -> Self {
        Self {
            caption: caption.into(),
            data_uri: format!("data:image/png;base64,{}", STANDARD.encode(bytes)),
        }
    }

    /// An image from the bytes of a JPEG file.
    pub fn jpeg(caption: impl Into<String>, bytes: &[u8]) -> Self {
        Self {
            caption: caption.into(),
            data_uri: format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)),
        }
    }
}

impl RunReport {
    /// The page as one HTML document.
    pub fn to_html(&self) -> String {
        html::page(self)
    }

    /// Writes the page to a file, which appears whole or not at all.
    ///
    /// # Errors
    /// What the system says when the folder or file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        flawtune_backbone::atomic_file::write(path, self.to_html().as_bytes())
    }
}
