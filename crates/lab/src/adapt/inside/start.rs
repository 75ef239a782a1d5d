//! First values of the inserted tensors.

use flawtune_backbone::vjp::{Embedded, FrozenVit, InsertionSpec, Insertions};

use crate::adapt::AdaptError;
use flawtune::random::{Purpose, Stream};

use super::{EmbeddedImages, InsideOptions, PromptInit, centroids};

/// Normal images whose patches the k-means sees, at most.
pub const INIT_IMAGES: usize = 16;

/// First values: Xavier-uniform prompts and adapters near the identity, or, with [`PromptInit::Patches`], each set of
/// prompts at the k-means centroids of the patches of `normals` at the input of the block where it enters, in the
/// untouched backbone. At most [`INIT_IMAGES`] of `normals`, evenly spread, are looked at.
///
/// # Errors
/// [`AdaptError::Backbone`] and [`AdaptError::Images`]; [`AdaptError::TooFewImages`] without normals to look at.
pub fn initial(
    options: &InsideOptions,
    backbone: &FrozenVit,
    images: &mut EmbeddedImages<'_>,
    normals: &[usize],
    seed: u64,
) -> Result<Insertions, AdaptError> {
    let config = backbone.config();
    let spec = options.spec(config);
    let mut stream = Stream::new(seed, Purpose::Init);
    let mut start = Insertions::initial(spec, || (2.0 * stream.uniform() - 1.0) as f32)?;
    if options.prompt_init != PromptInit::Patches {
        return Ok(start);
    }
    let count = normals.len().min(INIT_IMAGES);
    if count == 0 {
        let why = " to start prompts from their patches";
        return Err(AdaptError::TooFewImages {
            what: "normal images",
            found: 0,
            wanted: 1,
            why,
        });
    }
    let chosen: Vec<usize> = (0..count)
        .map(|i| normals[i * normals.len() / count])
        .collect();
    let mut tokens = Vec::new();
    images.gather(&chosen, &mut tokens)?;
    let grid = images.grid();
    let none = Insertions::zeros(InsertionSpec::none(config))?;
    let last = [config.depth - 1];
    let (_, tape) = backbone.forward_recorded(
        Embedded {
            tokens: &tokens,
            grid,
        },
        &none,
        None,
        &last,
    )?;
    let (dim, prefix) = (config.dim, config.prefix());
    let mut stream = Stream::new(seed, Purpose::PromptCentroids);
    let mut sets = Vec::new();
    for block in 0..spec.prompt_sets() {
        let patches: Vec<f32> = (0..count)
            .flat_map(|image| {
                tape.block_input(image, block)[prefix * dim..]
                    .iter()
                    .copied()
            })
            .collect();
        sets.extend(centroids(&patches, dim, spec.prompts, &mut stream));
    }
    for (name, values) in start.values_mut() {
        if name == "vpt.prompts" {
            values.copy_from_slice(&sets);
        }
    }
    Ok(start)
}
