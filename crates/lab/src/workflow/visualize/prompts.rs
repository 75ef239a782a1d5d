//! What prompts contribute to each image, and where they lie among patches.

use std::path::PathBuf;

use super::super::WorkflowError;
use super::model::{Entering, Model, Seen, State};
use super::record::{ImageRecord, ProjectionRecord, PromptRecord, StateRecord};
use super::{Looked, Support};
use crate::adapt::{PROMPT_SCALES, PROMPTS};
use crate::visualize::{PatchChange, Projection, cosine, mean_row, prompt_shares};
use flawtune::features::TokenSet;
use flawtune::report::plot::{Axis, Chart, Cloud, Plot};

/// Normal patches in a projection, at most.
const NORMAL_POINTS: usize = 600;

/// From the mean normal patch to the mean patch of those that make the images' scores, `[D]`.
pub(super) struct Directions {
    /// Among tokens as the untouched model gives them: what a change is compared with.
    frozen: Vec<f64>,
    /// Among tokens as they enter the output modulation.
    entering: Vec<f64>,
}

impl Directions {
    pub(super) fn new(support: &Support, looked: &[Looked<'_>], dim: usize) -> Self {
        let towards = |normal: &TokenSet, seen: &dyn Fn(&Looked<'_>) -> Vec<f32>| {
            let normal = mean_row(
                normal
                    .images
                    .iter()
                    .flat_map(|i| i.patches().chunks_exact(dim)),
                dim,
            );
            let odd: Vec<f32> = looked.iter().flat_map(seen).collect();
            let odd = mean_row(odd.chunks_exact(dim), dim);
            odd.iter().zip(&normal).map(|(o, n)| o - n).collect()
        };
        Self {
            frozen: towards(&support.before, &|l| {
                rows_at(&l.before.patches, &l.before.score.top, dim)
            }),
            entering: towards(&support.through, &|l| {
                rows_at(&l.after.unmodulated, &l.before.score.top, dim)
            }),
        }
    }
}

/// The rows of some patches.
fn rows_at(rows: &[f32], patches: &[usize], dim: usize) -> Vec<f32> {
    patches
        .iter()
        .flat_map(|&p| &rows[p * dim..][..dim])
        .copied()
        .collect()
}

/// Everything about an image; its panel's name and whether it was learned from are the caller's.
pub(super) fn record(
    model: &Model,
    looked: &Looked<'_>,
    directions: &Directions,
    dim: usize,
) -> Result<ImageRecord, WorkflowError> {
    let (before, after) = (&looked.before, &looked.after);
    let change = PatchChange::new(&before.patches, &after.patches, dim)?;
    let moved: Vec<f32> = after
        .patches
        .iter()
        .zip(&before.patches)
        .map(|(a, b)| a - b)
        .collect();
    let odd = rows_at(&moved, &before.score.top, dim);
    let mut prompts = Vec::new();
    if model.modulates() {
        let shares = prompt_shares(
            model.adaptation.modulation(),
            &after.unmodulated,
            &directions.entering,
        );
        prompts.extend(
            shares
                .into_iter()
                .enumerate()
                .map(|(prompt, share)| PromptRecord {
                    prompt,
                    attended: share.attended,
                    change: share.mean_size,
                    direction: share.direction,
                    patches: share.attention,
                }),
        );
    }
    let attended = after.rollout.patches_from_prompts();
    let mut inside = Vec::new();
    // as many as there are prompts inside; before the adaptation there were none
    for (prompt, attended) in attended.into_iter().enumerate() {
        let without = model.without(&looked.shown.entering, prompt)?;
        let doing: Vec<f32> = after
            .patches
            .iter()
            .zip(&without)
            .map(|(a, w)| a - w)
            .collect();
        let sizes = PatchChange::new(&without, &after.patches, dim)?.size;
        inside.push(PromptRecord {
            prompt,
            attended: f64::from(attended),
            change: sizes.iter().map(|&s| f64::from(s)).sum::<f64>() / sizes.len() as f64,
            direction: cosine(&mean_row(doing.chunks_exact(dim), dim), &directions.frozen),
            patches: after.rollout.prompt_from_patches(prompt).to_vec(),
        });
    }
    Ok(ImageRecord {
        path: looked.shown.path.clone(),
        panel: PathBuf::new(),
        in_support: looked.left_out.is_some(),
        learned_from: false,
        before: state(before),
        after: state(after),
        change_size: change.size,
        change_cosine: change.cosine,
        change_direction: cosine(&mean_row(odd.chunks_exact(dim), dim), &directions.frozen),
        prompts,
        prompts_inside: inside,
    })
}

fn state(seen: &Seen) -> StateRecord {
    StateRecord {
        score: seen.score.score,
        top: seen.score.top.clone(),
        distances: seen.score.distances.clone(),
        grad_cam: seen.cam.clone(),
        rollout_class: seen.rollout.class_from_patches().to_vec(),
        rollout_class_from_prompts: seen
            .rollout
            .class_from_prompts()
            .iter()
            .map(|&v| f64::from(v))
            .sum(),
    }
}

/// Rows spread evenly over all, `most` at most.
pub(super) fn spread<'a>(rows: impl Iterator<Item = &'a [f32]> + Clone, most: usize) -> Vec<f32> {
    let step = rows.clone().count().div_ceil(most).max(1);
    rows.step_by(step).flatten().copied().collect()
}

/// Prompts at the output among the tokens they attend to, and prompts inside among the tokens of the block they enter.
pub(super) fn projections(
    model: &Model,
    support: &Support,
    normals: &[Entering],
    looked: &[Looked<'_>],
    dim: usize,
    category: &str,
) -> Result<Vec<ProjectionRecord>, WorkflowError> {
    let mut found = Vec::new();
    let name = |what: &str| PathBuf::from(format!("{category}_projection{what}"));
    if model.modulates() {
        let parameters = model.adaptation.parameters();
        let data = |name: &str| {
            parameters
                .get(name)
                .map(|t| t.data.clone())
                .unwrap_or_default()
        };
        let (mut prompts, scales) = (data(PROMPTS), data(PROMPT_SCALES));
        // a learned scale may be negative: then the prompt acts the other way round
        for (row, scale) in prompts.chunks_exact_mut(dim).zip(&scales) {
            for v in row.iter_mut() {
                *v *= scale;
            }
        }
        let rows = support
            .through
            .images
            .iter()
            .flat_map(|i| i.patches().chunks_exact(dim));
        let normal = spread(rows, NORMAL_POINTS);
        let odd: Vec<f32> = looked
            .iter()
            .flat_map(|l| rows_at(&l.after.unmodulated, &l.before.score.top, dim))
            .collect();
        let points = Projection::new(&normal, &odd, &prompts, dim)?;
        found.push(drawn(
            "features".to_owned(),
            name(""),
            "Prompts among patches",
            points,
        ));
    }
    if model.prompts_inside() > 0 {
        let deep = model
            .inserted
            .as_ref()
            .is_some_and(|i| i.tensors.spec().prompt_sets() > 1);
        let block = if deep { model.block } else { 0 };
        let mut rows = Vec::new();
        for image in normals {
            rows.push(model.entering_block(State::After, image, block)?.1);
        }
        let normal = spread(rows.iter().flat_map(|r| r.chunks_exact(dim)), NORMAL_POINTS);
        let (mut odd, mut prompts) = (Vec::new(), Vec::new());
        for one in looked {
            let (of_block, patches) =
                model.entering_block(State::After, &one.shown.entering, block)?;
            odd.extend(rows_at(&patches, &one.before.score.top, dim));
            prompts = of_block;
        }
        let points = Projection::new(&normal, &odd, &prompts, dim)?;
        let title = format!("Prompts among the patches that enter block {block}");
        found.push(drawn(
            format!("block {block}"),
            name("_inside"),
            &title,
            points,
        ));
    }
    Ok(found)
}

fn drawn(space: String, file: PathBuf, title: &str, points: Projection) -> ProjectionRecord {
    let cloud = |name: &str, points: &[[f64; 2]]| Cloud {
        name: name.to_owned(),
        points: points.to_vec(),
        labels: Vec::new(),
    };
    let labels = (1..=points.prompts.len()).map(|k| k.to_string()).collect();
    let axis =
        |which: &str, share: f64| Axis::new(format!("{which} component, {:.0} %", 100.0 * share));
    let plot = Plot::new(
        title,
        axis("first", points.explained[0]),
        axis("second", points.explained[1]),
        Chart::Points {
            clouds: vec![
                cloud("normal patches", &points.normal),
                cloud("oddest patches of the images", &points.odd),
                Cloud {
                    labels,
                    ..cloud("prompts", &points.prompts)
                },
            ],
        },
    );
    ProjectionRecord {
        space,
        file,
        points,
        plot,
    }
}
