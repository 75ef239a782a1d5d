//! Which image sizes tell defects from good images best: by the shots, each by heads that had not seen it, and by synthetic defects on
//! good images, each compared with all but its own. Nothing that is tested later is looked at.

use std::time::{Duration, Instant};

use flawtune_backbone::preprocess::{ImageError, Preprocess, RgbImage8, decode, read_file};
use flawtune_synth::{PasteKind, paste_defects};
use image::RgbImage;

use super::Job;
use super::residual::AtSize;
use crate::bundle::{Candidate, SearchRecord};
use crate::evaluate::statistics::delong_test;
use crate::features::{ImageTokens, Inputs, TokenSet};
use crate::image_size::ImageSize;
use crate::score::residual::BlockBanks;
use crate::workflow::source;
use crate::workflow::{Event, OnEvent, WorkflowError};

/// Synthetic defects that are judged, at most.
const SYNTHETIC: usize = 40;
/// Those that are looked at before the time is asked for again.
const AT_ONCE: usize = 5;
/// Standard errors by which another choice has to be better than all sizes together.
const CERTAIN: f64 = 2.0;

/// A synthetic defect on an image of the bank.
struct Synthetic {
    /// Place of its image in the bank.
    own: usize,
    /// Position of its image in the data set.
    position: usize,
    kind: PasteKind,
    seed: u64,
}

/// How long synthetic defects may be looked at, over all sizes.
#[derive(Debug)]
pub(super) struct Search {
    asked: Vec<usize>,
    start: Instant,
    time: Duration,
    /// How many were looked at, at each size so far.
    done: Vec<usize>,
}

impl Search {
    /// Over the images of the bank at `judged`.
    pub(super) fn new(judged: &[usize], time: Duration) -> Self {
        let count = SYNTHETIC.min(judged.len());
        let asked = (0..count).map(|i| judged[i * judged.len() / count]);
        Self {
            asked: asked.collect(),
            start: Instant::now(),
            time,
            done: Vec::new(),
        }
    }

    /// Scores of synthetic defects at one size, as many as there is time for.
    pub(super) fn scores(
        &mut self,
        job: &Job<'_>,
        preprocess: &Preprocess,
        banks: &BlockBanks,
        model: &crate::score::residual::ResidualModel,
    ) -> Result<Vec<f64>, WorkflowError> {
        let defects = self.asked.iter().enumerate().map(|(i, &own)| Synthetic {
            own,
            position: job.support[own],
            kind: PasteKind::ALL[i % PasteKind::ALL.len()],
            seed: job.request.options.seed.wrapping_add(i as u64),
        });
        let defects: Vec<Synthetic> = defects.collect();
        // a size gets no more than those before it had time for
        let most = self.done.iter().copied().min().unwrap_or(defects.len());
        let mut scores = Vec::new();
        for some in defects[..most].chunks(AT_ONCE) {
            if !scores.is_empty() && self.start.elapsed() >= self.time {
                break;
            }
            let tokens = tokens(job, preprocess, some)?;
            let asked: Vec<(&ImageTokens, usize)> = tokens
                .images
                .iter()
                .zip(some.iter().map(|s| s.own))
                .collect();
            let judged = model.judge_changed(banks, &asked);
            scores.extend(judged.iter().map(|j| j.score));
        }
        self.done.push(scores.len());
        Ok(scores)
    }

    /// How well every set of sizes tells, all of them together first.
    pub(super) fn record(
        &self,
        sizes: &[(ImageSize, &AtSize)],
    ) -> Result<SearchRecord, WorkflowError> {
        let synthetic = self.done.iter().copied().min().unwrap_or(0);
        let of_size = |(size, at): &(ImageSize, &AtSize)| {
            let known = at.fitted.good.iter().chain(&at.fitted.shots);
            let known = known.map(|judged| judged.score);
            let scores = known.chain(at.synthetic[..synthetic].iter().copied());
            (*size, scores.collect())
        };
        let scores: Vec<(ImageSize, Vec<f64>)> = sizes.iter().map(of_size).collect();
        let shots = sizes.first().map_or(0, |(_, s)| s.fitted.shots.len());
        compared(&scores, shots, synthetic)
    }
}

/// Compares all sets of sizes by what each size says, alone, of the same images: good ones, then shots, then synthetic defects.
fn compared(
    scores: &[(ImageSize, Vec<f64>)],
    shots: usize,
    synthetic: usize,
) -> Result<SearchRecord, WorkflowError> {
    let images = scores.first().map_or(0, |(_, scores)| scores.len());
    let good = images - shots - synthetic;
    let labels: Vec<bool> = (0..images).map(|i| i >= good).collect();
    let together = |set: &[usize]| -> Vec<f64> {
        let mean = |i: usize| set.iter().map(|&s| scores[s].1[i]).sum::<f64>() / set.len() as f64;
        (0..images).map(mean).collect()
    };
    let all: Vec<usize> = (0..scores.len()).collect();
    let of_all = together(&all);
    let mut candidates = Vec::new();
    for set in subsets(scores.len()) {
        let test = delong_test(&labels, &together(&set), &of_all)?;
        let variance = test.variance_first + test.variance_second - 2.0 * test.covariance;
        candidates.push(Candidate {
            sizes: set.iter().map(|&s| scores[s].0).collect(),
            auroc: test.first,
            gain: test.first - test.second,
            error: variance.max(0.0).sqrt(),
        });
    }
    let better = |c: &&Candidate| c.gain > CERTAIN * c.error;
    let chosen = candidates
        .iter()
        .filter(better)
        .max_by(|a, b| a.auroc.total_cmp(&b.auroc))
        .unwrap_or(&candidates[0]);
    Ok(SearchRecord {
        good,
        shots,
        synthetic,
        chosen: chosen.sizes.clone(),
        candidates,
    })
}

/// The sets of the first `count` numbers, that of all first.
fn subsets(count: usize) -> impl Iterator<Item = Vec<usize>> {
    let all = (1usize << count) - 1;
    (1..=all)
        .rev()
        .map(move |bits| (0..count).filter(|i| bits >> i & 1 == 1).collect())
}

/// Tokens of images with synthetic defects.
fn tokens(
    job: &Job<'_>,
    preprocess: &Preprocess,
    defects: &[Synthetic],
) -> Result<TokenSet, WorkflowError> {
    let images = &job.images;
    let samples = &images.category.dataset.samples;
    let decoding = preprocess.decode_options();
    let load = |defect: &Synthetic, put: &mut dyn FnMut(&RgbImage8)| -> Result<(), ImageError> {
        let path = &samples[defect.position].path;
        let image = decode(&read_file(path, &decoding)?, path, &decoding)?;
        put(&pasted(image, preprocess, defect));
        Ok(())
    };
    let (inputs, results) = source::network(images.adapted, images.engine, |network| {
        Inputs::load(defects, network, preprocess, load)
    });
    if let Some(error) = results.into_iter().find_map(Result::err) {
        return Err(error.into());
    }
    let inputs = (&inputs, defects.len());
    source::tokens(images.adapted, images.engine, preprocess, inputs)
}

/// The image with the defect inside of what is looked at.
fn pasted(image: RgbImage8, preprocess: &Preprocess, defect: &Synthetic) -> RgbImage8 {
    let (height, width) = (image.height(), image.width());
    let part = preprocess.part(height, width);
    let pixels = image.pixels().to_vec();
    let Some(mut image) = RgbImage::from_raw(width as u32, height as u32, pixels) else {
        return image;
    };
    let (left, top) = (part.left as u32, part.top as u32);
    let (across, down) = (part.width as u32, part.height as u32);
    let seen = image::imageops::crop_imm(&image, left, top, across, down).to_image();
    let (flawed, _) = paste_defects(&seen, defect.kind, defect.seed);
    image::imageops::replace(&mut image, &flawed, left.into(), top.into());
    RgbImage8::from_pixels(height, width, image.into_raw())
}

/// Says what was found, in three lines.
pub(super) fn tell(record: &SearchRecord, on_event: OnEvent<'_>) {
    let name = |sizes: &[ImageSize]| format!("{} px", ImageSize::join(sizes, " and "));
    let mut others: Vec<&Candidate> = record
        .candidates
        .iter()
        .filter(|c| c.sizes != record.chosen)
        .collect();
    others.sort_by(|a, b| b.auroc.total_cmp(&a.auroc));
    let chosen = record.candidates.iter().find(|c| c.sizes == record.chosen);
    let (Some(chosen), Some(next)) = (chosen, others.first()) else {
        return;
    };
    let is_all = record.candidates[0].sizes == record.chosen;
    let why = if is_all {
        "no smaller set is better beyond chance"
    } else {
        "better than all sizes together beyond chance"
    };
    on_event(Event::Note(format!(
        "searched: {}, AUROC {:.3}: {why}\n  by {} defects, each left out, and {} synthetic ones, against {} good images\n  next best: \
         {}, AUROC {:.3}",
        name(&chosen.sizes),
        chosen.auroc,
        record.shots,
        record.synthetic,
        record.good,
        name(&next.sizes),
        next.auroc
    )));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sizes_come_first() {
        let sets: Vec<Vec<usize>> = subsets(2).collect();
        assert_eq!(sets, [vec![0, 1], vec![1], vec![0]]);
        assert_eq!(subsets(3).count(), 7);
    }

    #[test]
    fn a_part_of_the_sizes_is_taken_only_if_it_is_better_beyond_chance() {
        // 20 good images, 4 shots, 6 synthetic defects; what the second size says is noise, or much like the first
        let tells: Vec<f64> = (0..30)
            .map(|i| f64::from(i / 20) * 5.0 + f64::from(i % 7))
            .collect();
        let noise: Vec<f64> = (0..30).map(|i| f64::from(i * 17 % 29) * 2.0).collect();
        let like = tells
            .iter()
            .enumerate()
            .map(|(i, t)| t + 0.3 * (i % 3) as f64);
        let (large, small) = (ImageSize::square(64), ImageSize::square(32));
        let of = |second: Vec<f64>| {
            let scores = [(large, tells.clone()), (small, second)];
            compared(&scores, 4, 6).unwrap()
        };
        let found = of(noise);
        assert_eq!((found.good, found.shots, found.synthetic), (20, 4, 6));
        assert_eq!(found.chosen, [large]);
        assert_eq!(found.candidates[0].sizes, [large, small]);
        assert!(found.candidates[2].auroc > found.candidates[0].auroc + 0.1);
        assert_eq!(of(like.collect()).chosen, [large, small]);
    }
}
