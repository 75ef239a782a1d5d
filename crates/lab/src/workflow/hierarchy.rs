//! Hierarchical prompts of a category: trained beside the shared ones, and tested against them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use flawtune_backbone::atomic_file;
use flawtune_backbone::preprocess::Resize;
use serde::{Deserialize, Serialize};

use super::adapted::modulate;
use super::prepared::Prepared;
use super::{Category, Engine, Event, OnEvent, WorkflowError};
use crate::adapt::hierarchy::{
    GoodPatches, Hierarchy, HierarchyData, Trained, spread, train_levels,
};
use crate::adapt::{Adaptation, Checkpoint, TrainOptions};
use flawtune::dataset::read_mask;
use flawtune::evaluate::comparison::{Comparison, Scored, TestSet};
use flawtune::evaluate::metrics::{PixelHistogram, PixelImage};
use flawtune::evaluate::rows::PixelMetrics;
use flawtune::evaluate::statistics::{BootstrapOptions, Rate};
use flawtune::features::{ImageTokens, TokenSet};
use flawtune::score::Aggregate;
use flawtune::score::heads::{BANK_SHARE, PatchBank};
use flawtune::score::map::{DEFAULT_SIGMA, Renderer};

/// Bound of the false positive rate of the per-region overlap.
const AUPRO_LIMIT: f64 = 0.3;
/// How an image that stays at the shared level is called in tables.
const SHARED: &str = "shared";
/// How good images are called in tables.
const GOOD: &str = "good";

/// Trains the levels on everything that trained the shared prompts, the shots that chose the epoch included: nothing is
/// chosen here. `None` if it was interrupted.
///
/// # Errors
/// As [`train_levels`].
pub(super) fn train(
    category: &Category,
    prepared: &Prepared,
    shared: &Adaptation,
    prompts: usize,
    options: &TrainOptions,
    cancel: &AtomicBool,
    on_event: OnEvent<'_>,
) -> Result<Option<Hierarchy>, WorkflowError> {
    let bank = PatchBank::new(&prepared.normal_tokens.images, prepared.normal_tokens.dim);
    let types: Vec<&str> = prepared
        .shots
        .iter()
        .map(|&i| {
            category.dataset.samples[i]
                .defect_type
                .as_deref()
                .unwrap_or("defect")
        })
        .collect();
    let data = HierarchyData {
        normals: &prepared.normal_tokens,
        normal_indices: &prepared.train_normals,
        normal_distances: &bank.left_out_distances(),
        shots: &prepared.shot_tokens,
        shot_distances: &bank.distances(&prepared.shot_tokens.images),
        types: &types,
    };
    let mut on_level = |name: &str, shots: usize| {
        on_event(Event::Note(format!(
            "prompts of {name}: {shots} {}",
            if shots == 1 { "shot" } else { "shots" }
        )));
    };
    Ok(
        match train_levels(shared, &data, prompts, options, cancel, &mut on_level)? {
            Trained::Finished(found) => Some(found),
            Trained::Interrupted => None,
        },
    )
}

/// The levels of a checkpoint, where it has any.
///
/// # Errors
/// A key that is missing or wrong.
pub(super) fn of(path: &Path, checkpoint: &Checkpoint) -> Result<Option<Hierarchy>, WorkflowError> {
    let value = checkpoint.other(Hierarchy::KEY);
    value
        .map(|value| Hierarchy::from_value(value, checkpoint.dim()))
        .transpose()
        .map_err(|key| {
            WorkflowError::Input(format!(
                "{}: '{}.{key}' is missing or wrong\nhint: train it again",
                path.display(),
                Hierarchy::KEY
            ))
        })
}

/// Pixel metrics of the three scorers on the same maps' pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LevelPixels {
    /// Frozen tokens.
    pub zero_shot: PixelMetrics,
    /// Shared prompts.
    pub flat: PixelMetrics,
    /// Each image at its own level.
    pub hierarchical: PixelMetrics,
}

/// Hierarchical prompts on a test set, all by the patch bank (mean of the top 1 % of patch distances), as trained whatever
/// the guard says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HierarchyEvaluation {
    /// Known types and the shots of each.
    pub types: BTreeMap<String, usize>,
    /// For every type of the tested images (and `good`): how many were assigned to which type; `shared` where no type
    /// responded enough.
    pub confusion: BTreeMap<String, BTreeMap<String, usize>>,
    /// Of the tested defects of known types, those assigned to their type.
    pub named: Option<Rate>,
    /// Of those that were assigned to any type, the same.
    pub named_of_assigned: Option<Rate>,
    /// Of the tested defects of types that are not known, those left to the shared level.
    pub unseen_left: Option<Rate>,
    /// Of the tested good images, those left to the shared level.
    pub good_left: Option<Rate>,
    /// Each image at its own level (`prompt_tuned`) against the shared prompts for all (`zero_shot`).
    pub against_flat: Comparison,
    /// Each image at its own level against frozen tokens.
    pub against_zero_shot: Comparison,
    /// Pixel metrics, where masks exist and images were not cropped.
    pub pixels: Option<LevelPixels>,
}

/// What an evaluation has at hand.
pub(super) struct Job<'a> {
    pub(super) category: &'a Category,
    pub(super) engine: &'a Engine,
    pub(super) normals: &'a TokenSet,
    /// Positions of the tested images, and their tokens.
    pub(super) tested: (&'a [usize], &'a TokenSet),
    pub(super) test: &'a TestSet<'a>,
    pub(super) bootstrap: BootstrapOptions,
    /// Where `<category>_types.csv` goes.
    pub(super) output_dir: &'a Path,
}

/// A spread under this counts as this.
const LEAST_SPREAD: f64 = 1e-12;
/// Good images whose distances to each other say what is usual at a level, at most.
const USUAL_IMAGES: usize = 100;

/// Distances and image scores of some images at one level, both in standard deviations of good images there, so that levels
/// can be compared.
struct Level {
    distances: Vec<Vec<f32>>,
    scores: Vec<f64>,
}

impl Level {
    /// With an adaptation.
    fn adapted(normals: &TokenSet, tested: &TokenSet, adaptation: &Adaptation) -> Self {
        let (mut normals, mut tested) = (normals.clone(), tested.clone());
        modulate(&mut normals, adaptation);
        modulate(&mut tested, adaptation);
        Self::standardised(
            &normals,
            PatchBank::new(&normals.images, normals.dim).distances(&tested.images),
        )
    }

    /// Of patch distances to the good images' patches.
    fn standardised(normals: &TokenSet, mut distances: Vec<Vec<f32>>) -> Self {
        let take = normals.images.len().min(USUAL_IMAGES);
        let some: Vec<ImageTokens> = (0..take)
            .map(|i| normals.images[i * normals.images.len() / take].clone())
            .collect();
        let good = PatchBank::new(&some, normals.dim).left_out_distances();
        let top = Aggregate::TopFraction(BANK_SHARE);
        let of_good: Vec<f64> = good.iter().map(|d| top.score(d)).collect();
        let (mean, sd) = spread(of_good.iter().copied(), LEAST_SPREAD);
        let scores = distances
            .iter()
            .map(|d| (top.score(d) - mean) / sd)
            .collect();
        let (mean, sd) = spread(good.iter().flatten().map(|d| f64::from(*d)), LEAST_SPREAD);
        for d in distances.iter_mut().flatten() {
            *d = ((f64::from(*d) - mean) / sd) as f32;
        }
        Self { distances, scores }
    }
}

/// Assigns and scores the test set, and writes `<category>_types.csv`. Returns also the image scores of frozen tokens,
/// of the shared level and of the hierarchy.
///
/// # Errors
/// Masks that cannot be read; a folder that cannot be written to.
pub(super) fn evaluate(
    hierarchy: &Hierarchy,
    shared: &Adaptation,
    job: &Job<'_>,
    on_event: OnEvent<'_>,
) -> Result<(HierarchyEvaluation, [Vec<f64>; 3]), WorkflowError> {
    on_event(Event::Scoring("levels of the hierarchy"));
    let (positions, tested) = job.tested;
    let bank = PatchBank::new(&job.normals.images, job.normals.dim);
    let distances = bank.distances(&tested.images);
    let residuals = GoodPatches::new(job.normals).residuals(&tested.images, &distances, false);
    let responses: Vec<Vec<f64>> = residuals
        .iter()
        .map(|of| hierarchy.responses(of, tested.dim))
        .collect();
    let assigned: Vec<Option<usize>> = responses.iter().map(|r| hierarchy.assign(r)).collect();
    let zero_shot = Level::standardised(job.normals, distances);
    let flat = Level::adapted(job.normals, tested, shared);
    let mut own = flat.distances.clone();
    let mut scores = flat.scores.clone();
    for (i, level) in hierarchy.levels.iter().enumerate() {
        let here: Vec<usize> = (0..positions.len())
            .filter(|&image| assigned[image] == Some(i))
            .collect();
        let images = here
            .iter()
            .map(|&image| tested.images[image].clone())
            .collect();
        let images = TokenSet {
            images,
            grid: tested.grid,
            dim: tested.dim,
        };
        if here.is_empty() {
            continue;
        }
        let found = Level::adapted(job.normals, &images, &level.adaptation(shared)?);
        for ((&image, distances), score) in here.iter().zip(found.distances).zip(found.scores) {
            own[image] = distances;
            scores[image] = score;
        }
    }
    let compare = |base: &[f64]| {
        let scored = |scores| Scored {
            scores,
            threshold: None,
        };
        Comparison::new(job.test, scored(&scores), scored(base), job.bootstrap)
    };
    let names: Vec<&str> = hierarchy.levels.iter().map(|l| l.name.as_str()).collect();
    let truth: Vec<Option<&str>> = job.test.defect_types.to_vec();
    let name_of = |i: usize| assigned[i].map_or(SHARED, |level| names[level]);
    let mut confusion: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for (i, truth) in truth.iter().enumerate() {
        let row = confusion
            .entry(truth.unwrap_or(GOOD).to_owned())
            .or_default();
        *row.entry(name_of(i).to_owned()).or_default() += 1;
    }
    let rate = |of: &dyn Fn(usize) -> bool, counts: &dyn Fn(usize) -> bool| {
        let all: Vec<usize> = (0..truth.len()).filter(|&i| of(i)).collect();
        Rate::new(all.iter().filter(|&&i| counts(i)).count(), all.len())
    };
    let known = |i: usize| truth[i].is_some_and(|t| names.contains(&t));
    let unseen = |i: usize| truth[i].is_some_and(|t| !names.contains(&t));
    let right = |i: usize| truth[i] == Some(name_of(i));
    let left = |i: usize| assigned[i].is_none();
    let maps = [&zero_shot.distances, &flat.distances, &own];
    let found = HierarchyEvaluation {
        types: hierarchy
            .levels
            .iter()
            .map(|l| (l.name.clone(), l.shots))
            .collect(),
        confusion,
        named: rate(&known, &right),
        named_of_assigned: rate(&|i| known(i) && !left(i), &right),
        unseen_left: rate(&unseen, &left),
        good_left: rate(&|i| truth[i].is_none(), &left),
        against_flat: compare(&flat.scores)?,
        against_zero_shot: compare(&zero_shot.scores)?,
        pixels: pixels(job, maps)?,
    };
    let path = job
        .output_dir
        .join(format!("{}_types.csv", job.test.category));
    write_types(
        &path,
        job.test,
        &names,
        &|i| name_of(i).to_owned(),
        &responses,
    )?;
    on_event(Event::Wrote(&path));
    Ok((found, [zero_shot.scores, flat.scores, scores]))
}

/// Pixel metrics of the maps of zero-shot, shared and own level.
fn pixels(job: &Job<'_>, maps: [&Vec<Vec<f32>>; 3]) -> Result<Option<LevelPixels>, WorkflowError> {
    let (positions, tokens) = job.tested;
    let preprocess = job.engine.preprocess();
    let samples = || positions.iter().map(|&i| &job.category.dataset.samples[i]);
    if preprocess.resize != Resize::Squash || samples().all(|s| s.masks.is_empty()) {
        return Ok(None);
    }
    let (height, width) = preprocess.size;
    let renderer = Renderer::new(tokens.grid, (height, width), DEFAULT_SIGMA)?;
    let options = preprocess.decode_options();
    let mut histograms = [
        PixelHistogram::default(),
        PixelHistogram::default(),
        PixelHistogram::default(),
    ];
    let (mut masked, mut unmasked) = (0, 0);
    for (i, sample) in samples().enumerate() {
        let mask = match (&sample.defect_type, sample.masks.is_empty()) {
            (None, _) => None,
            (Some(_), true) => {
                unmasked += 1;
                continue;
            }
            (Some(_), false) => {
                masked += 1;
                Some(read_mask(
                    &sample.path,
                    &sample.masks,
                    (height, width),
                    &options,
                )?)
            }
        };
        for (histogram, distances) in histograms.iter_mut().zip(maps.map(|m| &m[i])) {
            let map = renderer.render(distances)?;
            histogram.add(&PixelImage {
                width,
                height,
                mask: mask.as_deref(),
                map: map.values(),
            })?;
        }
    }
    let [zero_shot, flat, hierarchical] = histograms.map(|h| PixelMetrics {
        masked_images: masked,
        unmasked_images: unmasked,
        aupro_limit: AUPRO_LIMIT,
        metrics: h.metrics(AUPRO_LIMIT),
    });
    Ok(Some(LevelPixels {
        zero_shot,
        flat,
        hierarchical,
    }))
}

/// One row a test image: its type, the type it was assigned to, every type's response.
fn write_types(
    path: &Path,
    test: &TestSet<'_>,
    names: &[&str],
    assigned: &dyn Fn(usize) -> String,
    responses: &[Vec<f64>],
) -> Result<(), WorkflowError> {
    let failed = |source| WorkflowError::Io {
        path: path.to_owned(),
        source,
        hint: "choose another `output_dir` or make room",
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    let head = ["image", "defect_type", "assigned"]
        .into_iter()
        .map(str::to_owned);
    let head = head.chain(names.iter().map(|n| format!("response_{n}")));
    writer.write_record(head).map_err(|e| failed(e.into()))?;
    for (i, (id, truth)) in test.ids.iter().zip(test.defect_types).enumerate() {
        let row = [
            (*id).to_owned(),
            truth.unwrap_or(GOOD).to_owned(),
            assigned(i),
        ];
        let row = row
            .into_iter()
            .chain(responses[i].iter().map(f64::to_string));
        writer.write_record(row).map_err(|e| failed(e.into()))?;
    }
    let bytes = writer.into_inner().map_err(|e| failed(e.into_error()))?;
    atomic_file::write(path, &bytes).map_err(failed)
}

impl HierarchyEvaluation {
    /// The confusion table and what follows from it, for people.
    pub fn table(&self) -> String {
        let mut columns: Vec<&str> = self.types.keys().map(String::as_str).collect();
        columns.push(SHARED);
        let width = columns.iter().map(|c| c.len()).max().unwrap_or(0).max(6) + 2;
        let first = self
            .confusion
            .keys()
            .map(String::len)
            .max()
            .unwrap_or(0)
            .max(10)
            + 2;
        let mut lines = vec![format!("{:first$}", "assigned →")];
        lines[0].extend(columns.iter().map(|c| format!("{c:>width$}")));
        for (truth, row) in &self.confusion {
            let cells = columns
                .iter()
                .map(|c| format!("{:>width$}", row.get(*c).copied().unwrap_or(0)));
            lines.push(
                std::iter::once(format!("{truth:first$}"))
                    .chain(cells)
                    .collect(),
            );
        }
        for (what, rate) in [
            ("defects of known types named right", &self.named),
            ("of those named at all", &self.named_of_assigned),
            (
                "defects of unseen types left to the shared prompts",
                &self.unseen_left,
            ),
            ("good images left to the shared prompts", &self.good_left),
        ] {
            if let Some(r) = rate {
                let (share, low, high) = (100.0 * r.share, 100.0 * r.low, 100.0 * r.high);
                lines.push(format!(
                    "{what}: {} of {} ({share:.0} %, {low:.0}–{high:.0})",
                    r.count, r.of
                ));
            }
        }
        if let Some(p) = &self.pixels {
            for (name, of) in [
                ("zero-shot", &p.zero_shot),
                ("shared", &p.flat),
                ("hierarchical", &p.hierarchical),
            ] {
                let number = |v: Option<f64>| {
                    v.map_or_else(|| "undefined".to_owned(), |v| format!("{v:.4}"))
                };
                lines.push(format!(
                    "pixels, {name}: AUROC {}, AUPRO {}",
                    number(of.metrics.auroc),
                    number(of.metrics.aupro)
                ));
            }
        }
        lines.join("\n")
    }
}
