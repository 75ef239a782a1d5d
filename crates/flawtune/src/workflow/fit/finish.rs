//! What is the same for every scorer: threshold, calibration, scale of the maps, and the file.

use std::sync::Arc;

use flawtune_backbone::preprocess::Preprocess;
use rayon::prelude::*;

use super::images::Images;
use super::{FitRequest, Job, Scored, ThresholdChoice};
use crate::bundle::{
    Bank, BankInfo, Bundle, CheckpointRef, Finding, Header, Keeping, MapScale, ScorerKind, SizeInfo,
};
use crate::evaluate::protocol::ImageRef;
use crate::features::Forward as _;
use crate::image_size::ImageSize;
use crate::score::map::DEFAULT_SIGMA;
use crate::score::threshold::{self, Calibration, Method, Threshold};
use crate::workflow::place::Drawing;
use crate::workflow::source::Learned;
use crate::workflow::{Event, OnEvent, WorkflowError};

/// Chooses threshold and scales and puts everything together; `applied` is what changes the tokens, if anything does.
pub(super) fn bundle(
    job: &Job<'_>,
    scored: Scored,
    applied: Option<&Learned>,
    on_event: OnEvent<'_>,
) -> Result<Bundle, WorkflowError> {
    let Job {
        request,
        given,
        grid,
        ..
    } = *job;
    let Images {
        category, engine, ..
    } = job.images;
    let Scored {
        ref good,
        ref defects,
        ..
    } = scored;
    let residual = matches!(scored.kind, ScorerKind::Residual { .. });
    let good_scores: Vec<f64> = good.iter().map(|f| f.score).collect();
    let mut threshold = choose_threshold(request, &good_scores, defects)?;
    if residual {
        threshold.defects.clone_from(defects);
        threshold.defects.sort_by(f64::total_cmp);
    }
    let rate = request.options.max_false_alarm;
    let untaught_threshold = match request.options.threshold {
        ThresholdChoice::Good => untaught_threshold(good, rate)?,
        ThresholdChoice::F1Max | ThresholdChoice::Recall => None,
    };
    let calibration = calibrated(&good_scores, defects, &threshold, rate, residual, on_event)?;
    let sizes: Vec<(usize, usize)> = scored
        .good_at
        .par_iter()
        .map(|&position| job.images.size(position))
        .collect::<Result<_, _>>()?;
    let map = MapsOf {
        preprocess: engine.preprocess(),
        patch: engine.config().patch_size,
        grid,
    }
    .scale(&sizes, good, rate)?;

    let infos = category.infos();
    let header = Header {
        flawtune_version: env!("CARGO_PKG_VERSION").to_owned(),
        category: category.dataset.category.clone(),
        model_name: engine.config().name.clone(),
        backbone: serde_json::to_value(engine.options()).map_err(|e| {
            WorkflowError::Input(format!(
                "the backbone options cannot be written as JSON: {e}"
            ))
        })?,
        weights_hash: engine.weights_hash().to_owned(),
        preprocessing: engine.preprocess().id(),
        variant: engine.variant(),
        grid,
        more_sizes: more_sizes(&scored, &engine.options().more_sizes),
        dim: engine.dim(),
        scorer: scored.kind,
        patches: scored.patches,
        bank: BankInfo {
            rows: scored.rows(),
            precision: scored.bank.precision(),
            coreset: request.options.coreset,
            rotations: request.options.rotations,
            parts: scored.parts,
            index: scored.index,
        },
        threshold,
        untaught_threshold,
        calibration,
        map,
        checkpoint: given.map(|given| reference(given, applied.is_some())),
        search: None,
        support: job
            .support
            .iter()
            .map(|&i| ImageRef::new(infos[i].id, infos[i].content))
            .collect(),
        manifest: job.split.manifest.clone(),
        data_hash: String::new(),
    };
    let adaptation = applied
        .map(|g| g.tokens.to_bytes())
        .transpose()
        .map_err(|what| Bundle::unwritable_adaptation(&request.output, &what))?;
    let kept = scored.kept.map_or(Keeping::Nothing, |mut kept| {
        kept.images.judged_sizes = sizes;
        Keeping::Here(Arc::new(kept))
    });
    Ok(Bundle {
        kept,
        header,
        bank: scored.bank,
        cells: scored.cells,
        residual: scored.residual,
        more: scored
            .more
            .into_iter()
            .map(|(_, bank, model)| (bank, model))
            .collect(),
        ensemble: scored.ensemble,
        adaptation,
    })
}

/// What a file says of a checkpoint.
fn reference(given: &Learned, applied: bool) -> CheckpointRef {
    CheckpointRef {
        file: given
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        hash: given.hash.clone(),
        applied,
    }
}

fn more_sizes(scored: &Scored, sizes: &[ImageSize]) -> Vec<SizeInfo> {
    let info =
        |(&image_size, (grid, bank, _)): (&ImageSize, &((usize, usize), Bank, _))| SizeInfo {
            image_size,
            grid: *grid,
            rows: bank.rows() / scored.kind.blocks(),
        };
    sizes.iter().zip(&scored.more).map(info).collect()
}

impl Scored {
    /// Patches of the bank, in each block.
    fn rows(&self) -> usize {
        self.bank.rows() / self.kind.blocks()
    }
}

fn choose_threshold(
    request: &FitRequest,
    good: &[f64],
    defects: &[f64],
) -> Result<Threshold, WorkflowError> {
    let rate = request.options.max_false_alarm;
    if request.options.threshold != ThresholdChoice::Good && defects.is_empty() {
        return Err(WorkflowError::Input(
            "`threshold` f1 and recall need defects that training has not seen: a checkpoint whose pool is larger than \
             its shots, or with an ensemble of two shots or more\nhint: omit `threshold` to choose from good images"
                .into(),
        ));
    }
    Ok(match request.options.threshold {
        ThresholdChoice::Good => threshold::from_good(good, rate, Method::Auto)?,
        ThresholdChoice::F1Max => threshold::f1_max(good, defects)?,
        ThresholdChoice::Recall => threshold::recall_at(good, defects, rate)?,
    })
}

/// The threshold for a false-alarm rate that good images give without what defects taught; `None` where nothing was taught.
pub(in crate::workflow) fn untaught_threshold(
    good: &[Finding],
    rate: f64,
) -> Result<Option<f64>, WorkflowError> {
    let scores = good.iter().map(|f| f.untaught.as_ref().map(|u| u.score));
    let Some(scores) = scores.collect::<Option<Vec<f64>>>() else {
        return Ok(None);
    };
    Ok(Some(
        threshold::from_good(&scores, rate, Method::Auto)?.value,
    ))
}

/// From score to probability; through the threshold with `residual`.
pub(in crate::workflow) fn calibrated(
    good: &[f64],
    defects: &[f64],
    threshold: &Threshold,
    rate: f64,
    residual: bool,
    on_event: OnEvent<'_>,
) -> Result<Calibration, WorkflowError> {
    let of_good = || Calibration::of_threshold(good, threshold.value, rate);
    let mut calibration = if defects.is_empty() {
        of_good()?
    } else {
        Calibration::fit(good, defects)?
    };
    if calibration.slope < 0.0 {
        on_event(Event::Warning(
            "the known defects score lower than good images, so probabilities come from good images alone\nhint: look whether good \
             and defective images were mixed up"
                .into(),
        ));
        calibration = of_good()?;
    }
    Ok(if residual {
        calibration.through(threshold.value)
    } else {
        calibration
    })
}

/// How maps of images are drawn.
pub(in crate::workflow) struct MapsOf {
    pub(in crate::workflow) preprocess: Preprocess,
    pub(in crate::workflow) patch: usize,
    pub(in crate::workflow) grid: (usize, usize),
}

impl MapsOf {
    /// Threshold and colours of maps, from those of good images of these sizes (height, width).
    pub(in crate::workflow) fn scale(
        &self,
        sizes: &[(usize, usize)],
        good: &[Finding],
        rate: f64,
    ) -> Result<MapScale, WorkflowError> {
        let one = |(&size, found): (&(usize, usize), &Finding)| {
            let drawing = Drawing::new(
                &self.preprocess,
                self.grid,
                self.patch,
                (size, size),
                DEFAULT_SIGMA,
            )?;
            let map = drawing.draw(&found.distances)?;
            let (low, high) = map.range().unwrap_or((f32::NAN, f32::NAN));
            Ok((low.into(), high.into()))
        };
        let ranges: Vec<(f64, f64)> = sizes
            .par_iter()
            .zip(good)
            .map(one)
            .collect::<Result<_, WorkflowError>>()?;
        let (mut lows, peaks): (Vec<f64>, Vec<f64>) = ranges.into_iter().unzip();
        let chosen = threshold::from_good(&peaks, rate, Method::Auto)?;
        lows.sort_by(f64::total_cmp);
        let threshold = chosen.value as f32;
        let low = (lows[lows.len() / 2] as f32).min(threshold - f32::EPSILON);
        Ok(MapScale {
            sigma: DEFAULT_SIGMA,
            threshold,
            low,
            high: threshold + (threshold - low),
            good_peaks: chosen.good,
        })
    }
}
