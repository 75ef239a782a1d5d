//! The bank of a bundle: which images, how much memory, which patches.

use rayon::prelude::*;

use super::{FitRequest, MaskChoice, ScorerChoice, index};
use crate::bundle::{Bank, BankBuilder, Cells, PatchOptions, chosen};
use crate::features::TokenSet;
use crate::random::draws::{generator, shuffle};
use crate::score::coreset::{Projection, coreset_memory, greedy_coreset};
use crate::score::foreground::{Cut, foreground};
use crate::workflow::{Event, OnEvent, WorkflowError};

/// Stream of the seed that the support is drawn with; the split has 0 and 1.
const STREAM_SUPPORT: u64 = 2;
/// Images whose patches are in f32 beside their tokens at once.
const IMAGES_AT_ONCE: usize = 32;
/// `--mask auto` cuts the background away if the object is found on this share of the support.
const MASK_AGREES: f64 = 0.9;

/// The good images that form the bank, sorted; fewer are the first of more.
pub(super) fn draw_support(
    normals: &[usize],
    request: &FitRequest,
) -> Result<Vec<usize>, WorkflowError> {
    let Some(shots) = request.options.support_shots else {
        return Ok(normals.to_vec());
    };
    if shots == 0 || shots > normals.len() {
        return Err(WorkflowError::Input(format!(
            "`support_shots` {shots}: train/good holds {0} images\nhint: ask for 1 to {0}, or for all",
            normals.len()
        )));
    }
    let mut order = normals.to_vec();
    shuffle(
        &mut generator(request.options.seed, STREAM_SUPPORT),
        &mut order,
    );
    order.truncate(shots);
    order.sort_unstable();
    Ok(order)
}

/// Says how large the bank will be, before it is made.
pub(super) fn state_memory(
    request: &FitRequest,
    choice: ScorerChoice,
    rows: usize,
    dim: usize,
    on_event: OnEvent<'_>,
) -> Result<(), WorkflowError> {
    let size = |rows: usize, bytes: usize| rows.saturating_mul(dim).saturating_mul(bytes);
    let kept = request
        .options
        .coreset
        .map_or(rows, |share| coreset_size(rows, share));
    // image pairs are compared in f32 beside the stored bank; a patch bank is searched as it is stored
    let stored = size(kept, request.options.precision.bytes());
    let packed = if choice == ScorerChoice::ImagePair {
        size(kept, 4)
    } else {
        0
    };
    let indexed = index::wanted(request, choice, kept);
    let (of_index, sorting) = if indexed {
        Cells::memory(kept, dim)
    } else {
        (0, 0)
    };
    let in_file = stored.saturating_add(if indexed {
        Cells::file_size(kept, dim)
    } else {
        0
    });
    let compared = stored.saturating_add(packed).saturating_add(of_index);
    let mut needed = compared.max(stored.saturating_add(sorting));
    if request.options.coreset.is_some() {
        // all patches are there while some are chosen
        let choosing =
            size(rows, 4).saturating_add(coreset_memory(rows, dim, kept, Projection::Auto));
        needed = needed.max(choosing.saturating_add(stored));
    }
    let while_choosing = if request.options.coreset.is_some() {
        format!(", {} while they are chosen", memory_text(needed))
    } else {
        String::new()
    };
    let by_index = if indexed {
        format!(
            ", sorted into {} cells, which takes {}",
            Cells::count(kept),
            memory_text(stored.saturating_add(sorting))
        )
    } else {
        String::new()
    };
    on_event(Event::Note(format!(
        "bank: {kept} patches of {dim} numbers, {} in memory, {} in the file{by_index}{while_choosing}",
        memory_text(compared),
        memory_text(in_file)
    )));
    match request.options.max_memory {
        Some(most) if needed > most => Err(WorkflowError::Input(format!(
            "the bank needs {}, `max_memory` allows {}\nhint: take fewer good images with `support_shots`{}, smaller images \
             with `image_size`, or allow more",
            memory_text(needed),
            memory_text(most),
            if request.options.coreset.is_none() && choice != ScorerChoice::ImagePair {
                ", a part of their patches with `coreset` (choosing it needs the memory of all)"
            } else {
                ""
            }
        ))),
        _ => Ok(()),
    }
}

/// A size for people: `112.5 MiB`.
fn memory_text(bytes: usize) -> String {
    let (mut size, mut unit) = (bytes as f64 / 1024.0, "KiB");
    for larger in ["MiB", "GiB"] {
        if size >= 1024.0 {
            (size, unit) = (size / 1024.0, larger);
        }
    }
    format!("{size:.1} {unit}")
}

fn coreset_size(rows: usize, share: f64) -> usize {
    ((rows as f64 * share).round() as usize).clamp(1, rows.max(1))
}

/// The support in one direction.
pub(super) struct View {
    pub(super) tokens: TokenSet,
    /// For each image, which of its patches show it; `None`: all.
    pub(super) shown: Vec<Option<Vec<bool>>>,
}

/// Whether and how the background is cut away.
pub(super) fn mask(choice: MaskChoice, tokens: &TokenSet) -> Result<Option<Cut>, WorkflowError> {
    let cut = Cut::default();
    match choice {
        MaskChoice::Off => Ok(None),
        MaskChoice::On => Ok(Some(cut)),
        MaskChoice::Auto => {
            let found: Vec<bool> = tokens
                .images
                .par_iter()
                .map(|i| {
                    foreground(i.patches(), tokens.grid, tokens.dim, cut).map(|f| f.check.passed())
                })
                .collect::<Result<_, _>>()
                .map_err(crate::bundle::BundleError::from)?;
            let share = found.iter().filter(|f| **f).count() as f64 / found.len().max(1) as f64;
            Ok((share >= MASK_AGREES).then_some(cut))
        }
    }
}

/// The bank, and how many of its rows each support image gave, in all its views.
pub(super) fn bank(
    request: &FitRequest,
    tokens: &TokenSet,
    views: &[View],
    options: PatchOptions,
) -> Result<(Bank, Vec<usize>), WorkflowError> {
    let dim = tokens.dim;
    let most = tokens.images.len() * tokens.grid.0 * tokens.grid.1 * (1 + views.len());
    let of_image = |i: usize| -> Result<Vec<f32>, WorkflowError> {
        let mut rows = options.rows(&tokens.images[i], tokens.grid, dim)?.0;
        for view in views {
            let (turned, kept) = options.rows(&view.tokens.images[i], tokens.grid, dim)?;
            match (&view.shown[i], kept) {
                (None, _) => rows.extend(turned),
                (Some(shown), None) => rows.extend(chosen(&turned, dim, shown)),
                (Some(shown), Some(kept)) => {
                    // of the patches that the mask kept, those that show the image
                    let of_kept: Vec<bool> = shown
                        .iter()
                        .zip(&kept)
                        .filter(|(_, kept)| **kept)
                        .map(|(shown, _)| *shown)
                        .collect();
                    rows.extend(chosen(&turned, dim, &of_kept));
                }
            }
        }
        Ok(rows)
    };
    let mut parts = Vec::with_capacity(tokens.images.len());
    let mut each_image = |take: &mut dyn FnMut(&[f32])| -> Result<(), WorkflowError> {
        let images: Vec<usize> = (0..tokens.images.len()).collect();
        for images in images.chunks(IMAGES_AT_ONCE) {
            let each: Vec<Vec<f32>> = images
                .par_iter()
                .map(|&i| of_image(i))
                .collect::<Result<_, WorkflowError>>()?;
            for rows in each {
                parts.push(rows.len() / dim);
                take(&rows);
            }
        }
        Ok(())
    };
    let Some(share) = request.options.coreset else {
        let mut bank = BankBuilder::new(most, dim, request.options.precision);
        each_image(&mut |rows| bank.push(rows))?;
        return Ok((bank.finish(), parts));
    };
    let mut rows = Vec::with_capacity(most * dim);
    each_image(&mut |image| rows.extend_from_slice(image))?;
    let wanted = coreset_size(rows.len() / dim, share);
    let mut chosen = greedy_coreset(
        &rows,
        dim,
        wanted,
        Projection::Auto,
        request.options.seed,
        None,
    )?
    .rows;
    chosen.sort_unstable();
    let mut first = 0;
    for part in &mut parts {
        let end = first + *part;
        *part = chosen.partition_point(|r| *r < end) - chosen.partition_point(|r| *r < first);
        first = end;
    }
    let mut bank = BankBuilder::new(chosen.len(), dim, request.options.precision);
    for row in &chosen {
        bank.push(&rows[row * dim..][..dim]);
    }
    Ok((bank.finish(), parts))
}
