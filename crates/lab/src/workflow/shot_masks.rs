//! Where the flaws of the shots are, from their ground-truth masks.

use super::{Category, Engine, WorkflowError};
use flawtune::features::patch_mask;

/// The patches of a `grid` under the masks of each of these images of the category; `None` where an image has none.
///
/// # Errors
/// A mask that cannot be read.
pub(super) fn shot_masks(
    category: &Category,
    engine: &Engine,
    grid: (usize, usize),
    shots: &[usize],
) -> Result<Vec<Option<Vec<bool>>>, WorkflowError> {
    let of = |&position: &usize| {
        let sample = &category.dataset.samples[position];
        let files = &sample.masks;
        if files.is_empty() {
            return Ok(None);
        }
        let mask = patch_mask(
            &sample.path,
            files,
            &engine.preprocess(),
            grid,
            engine.config().patch_size,
        );
        mask.map(Some).map_err(|e| {
            WorkflowError::Input(format!(
                "{e}\nhint: or leave masks out with `shot_masks` off"
            ))
        })
    };
    shots.iter().map(of).collect()
}
