//! A run of training through the backbone.

use std::sync::atomic::AtomicBool;

use flawtune_backbone::vjp::{FrozenVit, Insertions};

use crate::adapt::train::{Choice, check, run};
use crate::adapt::{AdaptError, Adaptation, EpochReport, Outcome, TrainOptions, TrainState};

use super::learner::Inside;
use super::{Embed, EmbeddedImages, Inserted, InsideOptions, initial};

/// The backbone that is trained through, and the block whose normed output is compared.
#[derive(Debug, Clone, Copy)]
pub struct InsideModel<'a> {
    /// The frozen backbone.
    pub backbone: &'a FrozenVit,
    /// Number of the block, from 0.
    pub layer: usize,
}

/// The images to train on. In `images` the normals come first: defect `i` of the lists is image `normals + i` there.
#[derive(Clone, Copy)]
pub struct InsideData<'a> {
    /// All images.
    pub images: &'a dyn Embed,
    /// Number of normal images.
    pub normals: usize,
    /// Indices of the normals to train on.
    pub normal_indices: &'a [usize],
    /// Number of defect images.
    pub defects: usize,
    /// Indices of the defects to train on (the shots), from 0.
    pub defect_indices: &'a [usize],
    /// As [`TrainData::masks`](crate::adapt::TrainData::masks).
    pub masks: &'a [Option<Vec<bool>>],
    /// Bytes of embedded images that may be kept.
    pub memory: usize,
}

/// Trains tensors inside the backbone, and with `modulate_output` those of `output` together with them; the adaptation
/// also says which tokens are compared and seeds the first values. Returns how training ended and the tensors worth
/// keeping; `output` then holds its own.
///
/// With the same seed, data and options the result is the same to the last bit, for any number of threads and whether
/// or not training was interrupted and resumed (`cancel` and `resume` as in [`crate::adapt::train`]).
///
/// # Errors
/// Any of [`AdaptError`]: settings, data or state that do not fit, images that cannot be read, or numbers that are no
/// longer finite.
pub fn train_inside(
    model: InsideModel<'_>,
    inside: &InsideOptions,
    output: &mut Adaptation,
    data: InsideData<'_>,
    options: &TrainOptions,
    resume: Option<TrainState>,
    cancel: &AtomicBool,
    on_epoch: &mut dyn FnMut(&EpochReport),
) -> Result<(Outcome, Inserted), AdaptError> {
    inside.check()?;
    let choice = Choice {
        normals: data.normals,
        normal_indices: data.normal_indices,
        defects: data.defects,
        defect_indices: data.defect_indices,
    };
    check(choice, options)?;
    let config = model.backbone.config();
    if output.dim() != config.dim {
        return Err(AdaptError::Shape {
            name: "output modulation".to_owned(),
            found: vec![output.dim()],
            wanted: vec![config.dim],
            hint: "; the prompts were made for another backbone or another choice of layers",
        });
    }
    let grid = data.images.grid();
    let each = (config.prefix() + grid.0 * grid.1) * config.dim;
    let mut images =
        EmbeddedImages::new(data.images, data.normals + data.defects, each, data.memory);
    let seed = output.options().seed;
    let start = match &resume {
        // the values come from the state
        Some(_) => Insertions::zeros(inside.spec(config))?,
        None => initial(
            inside,
            model.backbone,
            &mut images,
            data.normal_indices,
            seed,
        )?,
    };
    let mut learner = Inside::new(
        (model.backbone, model.layer),
        inside,
        (images, data.normals, data.masks),
        options.hold_out.as_ref(),
        seed,
        start,
        output,
    )?;
    let outcome = run(&mut learner, choice, options, resume, cancel, on_epoch)?;
    Ok((
        outcome,
        Inserted {
            options: inside.clone(),
            tensors: learner.finish(),
        },
    ))
}
