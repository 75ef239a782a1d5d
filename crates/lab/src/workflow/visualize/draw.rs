//! Panels and projections as files.

use std::path::{Path, PathBuf};

use image::RgbImage;

use super::super::WorkflowError;
use super::model::Model;
use super::record::{ImageRecord, ProjectionRecord, PromptRecord};
use super::{Looked, Support};
use crate::visualize::{Pca, colours};
use flawtune::report::panel::{Panel, Tile};
use flawtune::report::plot::{PlotError, Theme};

/// Support patches that the principal components are fitted to, at most.
const FITTED: usize = 2000;
/// Tiles in a row, at most; rows are made equally long.
const COLUMNS: usize = 6;
/// Share of a map's patches that its scale reaches: single tokens that a transformer uses as a store outshine all others.
const SHOWN: f64 = 0.98;

/// What all panels of a run share.
pub(super) struct Drawing {
    grid: (usize, usize),
    /// What is usual for normal patches, before and after: distances are shown as multiples of it.
    usual: (f32, f32),
    /// Colours of each image's patches before and after.
    mosaics: Vec<[Vec<[u8; 3]>; 2]>,
}

impl Drawing {
    pub(super) fn new(
        support: &Support,
        looked: &[Looked<'_>],
        dim: usize,
    ) -> Result<Self, WorkflowError> {
        let mut groups = Vec::new();
        for (set, after) in [(&support.before, false), (&support.after, true)] {
            let rows = set
                .images
                .iter()
                .flat_map(|i| i.patches().chunks_exact(dim));
            let mut group = super::prompts::spread(rows, FITTED);
            for one in looked {
                group.extend(if after {
                    &one.after.patches
                } else {
                    &one.before.patches
                });
            }
            groups.push(group);
        }
        let pca = Pca::fit(&[&groups[0], &groups[1]], dim, 3)?;
        let mut sets = Vec::new();
        for one in looked {
            sets.push(pca.project(&one.before.patches, 0)?);
            sets.push(pca.project(&one.after.patches, 1)?);
        }
        let mut painted = colours(&sets).into_iter();
        let mosaics = looked
            .iter()
            .map(|_| {
                [
                    painted.next().unwrap_or_default(),
                    painted.next().unwrap_or_default(),
                ]
            })
            .collect();
        let usual = (support.usual.0 as f32, support.usual.1 as f32);
        Ok(Self {
            grid: support.before.grid,
            usual,
            mosaics,
        })
    }

    /// Colours of the patches of image `index`, before and after.
    fn components(&self, index: usize) -> [Tile; 2] {
        let [before, after] = &self.mosaics[index];
        [
            Tile::mosaic(
                "principal components, before",
                "like colours, like patches",
                before,
                self.grid,
            ),
            Tile::mosaic(
                "principal components, after",
                "same axes and scale",
                after,
                self.grid,
            ),
        ]
    }

    /// The panel of image `index`, with the `most` prompts of each kind that change it most.
    pub(super) fn panel(
        &self,
        index: usize,
        looked: &Looked<'_>,
        record: &ImageRecord,
        model: &Model,
        most: usize,
    ) -> Panel {
        let (picture, grid) = (&looked.shown.picture, self.grid);
        let (before, after) = (&record.before, &record.after);
        let maps = multiples(looked, self.usual);
        // one scale for before and after: they are to be compared
        let distances = ends(maps.before.iter().chain(&maps.after));
        let difference = maps
            .difference
            .iter()
            .fold(0.0f32, |most, d| most.max(d.abs()));
        let distance = |name: &str, note: String, values: &[f32]| {
            Tile::heat(name, note, picture, values, grid, distances, "× usual")
        };
        let heat = |name: String, note: String, values: &[f32], range: (f32, f32)| {
            Tile::heat(name, note, picture, values, grid, range, "")
        };
        let mean = |values: &[f32]| {
            values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len().max(1) as f64
        };
        let mut tiles = vec![
            Tile::plain("image", "as the backbone sees it", picture),
            distance(
                "distance to support, before",
                format!("score {:.4}", before.score),
                &maps.before,
            ),
            distance(
                "distance to support, after",
                format!("score {:.4}", after.score),
                &maps.after,
            ),
            Tile::signed(
                "after − before",
                "red: stands out more than before",
                picture,
                &maps.difference,
                grid,
                difference,
                "× usual",
            ),
            Tile::heat(
                "size of the change",
                format!(
                    "mean {:.3} · odd patches go {:+.2}",
                    mean(&record.change_size),
                    record.change_direction
                ),
                picture,
                &record.change_size,
                grid,
                (0.0, ends(&record.change_size).1),
                "of the patch's length",
            ),
        ];
        for (prompts, what, source) in [
            (&record.prompts, "prompt", "attention"),
            (&record.prompts_inside, "inside prompt", "rollout"),
        ] {
            let tile = |prompt| prompt_tile(picture, grid, prompt, what, source);
            tiles.extend(strongest(prompts, most).into_iter().map(tile));
        }
        let rollout = |name: &str, values: &[f32], from_prompts: f64| {
            let note = match from_prompts {
                0.0 => "what it has taken from each patch".to_owned(),
                share => format!("{:.1} % from prompts", 100.0 * share),
            };
            heat(name.to_owned(), note, values, without_outliers(values))
        };
        if model.inserted.is_some() {
            tiles.push(rollout(
                "class token: rollout, before",
                &before.rollout_class,
                0.0,
            ));
            tiles.push(rollout(
                "class token: rollout, after",
                &after.rollout_class,
                after.rollout_class_from_prompts,
            ));
        } else {
            tiles.push(rollout("class token: rollout", &before.rollout_class, 0.0));
        }
        let cam = |name: &str, values: &[f32]| {
            let note = format!("score by what enters block {}", model.block);
            heat(name.to_owned(), note, values, (0.0, ends(values).1))
        };
        tiles.push(cam("Grad-CAM, before", &before.grad_cam));
        tiles.push(cam("Grad-CAM, after", &after.grad_cam));
        tiles.extend(self.components(index));
        let title = title(&looked.shown.name(), record);
        let rows = tiles.len().div_ceil(COLUMNS);
        Panel {
            title,
            columns: tiles.len().div_ceil(rows),
            tiles,
        }
    }
}

/// Distances of an image's patches as multiples of what is usual in either model.
struct Multiples {
    before: Vec<f32>,
    after: Vec<f32>,
    /// After − before.
    difference: Vec<f32>,
}

fn multiples(looked: &Looked<'_>, usual: (f32, f32)) -> Multiples {
    let of =
        |distances: &[f32], usual: f32| distances.iter().map(|d| d / usual).collect::<Vec<_>>();
    let before = of(&looked.before.score.distances, usual.0);
    let after = of(&looked.after.score.distances, usual.1);
    Multiples {
        difference: after.iter().zip(&before).map(|(a, b)| a - b).collect(),
        before,
        after,
    }
}

/// A small number in few characters.
fn brief(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.001 {
        format!("{value:.0e}")
    } else {
        format!("{value:.3}")
    }
}

/// From the smallest value to the one that [`SHOWN`] of them do not exceed.
fn without_outliers(values: &[f32]) -> (f32, f32) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let at = (SHOWN * sorted.len().saturating_sub(1) as f64).floor() as usize;
    match (sorted.first(), sorted.get(at)) {
        (Some(&low), Some(&high)) => (low, high),
        _ => (0.0, 0.0),
    }
}

/// What stands over a panel.
fn title(name: &str, record: &ImageRecord) -> String {
    let learned = if record.learned_from {
        "  ·  learned from"
    } else {
        ""
    };
    format!(
        "{name}  ·  score {:.4} → {:.4}{learned}",
        record.before.score, record.after.score
    )
}

/// What a prompt looks at; `source` is how that is known.
fn prompt_tile(
    picture: &RgbImage,
    grid: (usize, usize),
    prompt: &PromptRecord,
    what: &str,
    source: &str,
) -> Tile {
    Tile::heat(
        format!("{what} {}: {source}", prompt.prompt + 1),
        format!(
            "{:.1} % · change {} · direction {:+.2}",
            100.0 * prompt.attended,
            brief(prompt.change),
            prompt.direction
        ),
        picture,
        &prompt.patches,
        grid,
        without_outliers(&prompt.patches),
        "",
    )
}

/// The prompts that change the image most, in that order.
fn strongest(prompts: &[PromptRecord], most: usize) -> Vec<&PromptRecord> {
    let mut sorted: Vec<&PromptRecord> = prompts.iter().collect();
    sorted.sort_by(|a, b| b.change.total_cmp(&a.change));
    sorted.truncate(most);
    sorted
}

/// Smallest and largest; 0 and 0 of nothing.
fn ends<'a>(values: impl IntoIterator<Item = &'a f32>) -> (f32, f32) {
    let pair = values
        .into_iter()
        .fold(None, |ends: Option<(f32, f32)>, &v| {
            Some(ends.map_or((v, v), |(low, high)| (low.min(v), high.max(v))))
        });
    pair.unwrap_or((0.0, 0.0))
}

/// Writes a projection as SVG and as PNG.
pub(super) fn save_projection(
    projection: &ProjectionRecord,
    folder: &Path,
) -> Result<Vec<PathBuf>, WorkflowError> {
    let path = |ending: &str| {
        let mut name = folder.join(&projection.file).into_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    let (svg, png) = (path(".svg"), path(".png"));
    projection
        .plot
        .save(&svg, Theme::Light)
        .map_err(PlotError::from)?;
    projection.plot.save_png(&png, Theme::Light)?;
    Ok(vec![svg, png])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_leaves_single_outliers_out() {
        let mut values: Vec<f32> = (0..100).map(|v| v as f32).collect();
        values[3] = 1e6;
        assert_eq!(without_outliers(&values), (0.0, 98.0));
        assert_eq!(without_outliers(&[2.0, 2.0]), (2.0, 2.0));
        assert_eq!(
            (ends(&[3.0, -1.0]), without_outliers(&[])),
            ((-1.0, 3.0), (0.0, 0.0))
        );
        assert_eq!(
            [brief(0.25), brief(0.000_31), brief(0.0)],
            ["0.250", "3e-4", "0.000"]
        );
    }
}
