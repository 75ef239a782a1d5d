//! A frozen backbone with trainable tensors put into it: forward pass and vector-Jacobian product.
//!
//! [`Insertions`] holds the trainable tensors: prompts before the first block (VPT-shallow) or before every block
//! (VPT-deep), bottleneck adapters after the blocks, learned factors on both. [`FrozenVit`] runs images through the
//! backbone with them inside, and brings the gradient of a loss with respect to the output tokens back to them. The
//! backbone's own weights get no gradient, so the backward pass needs only products with the transposed weights.
//!
//! To look inside: [`FrozenVit::attentions`] shows what the tokens of an image attend to, block by block, and
//! [`FrozenVit::at_block`] what enters a block and how a loss depends on it.
//!
//! Memory. The forward pass keeps one tensor per block and image (the block's output before its adapter); the
//! backward pass recomputes the inside of a block from it, one block of one image per thread at a time.
//!
//! Order. Tokens are `[CLS, registers, prompts, patches]` inside, `[CLS, registers, patches]` at the input and
//! `[CLS, patches]` at the output. Images run in parallel, each on one thread; gradients are summed over images in
//! f64 in the order of the images. So results have the same bits for any number of threads.
//!
//! Formulas: VPT, Jia et al. 2022; adapters, Houlsby et al. 2019, placed after whole blocks.

mod attention;
mod block;
mod dense;
mod error;
mod image;
mod inserted;
mod insertions;
mod normalise;
mod rope;

use rayon::prelude::*;

use crate::config::VitConfig;
use crate::vit::pack::{check_config, check_weights};
use crate::weights::{Norm, VitWeights};

use block::Block;
use image::{Pass, Room};
use rope::Rotation;

pub use error::VjpError;
pub use insertions::{
    DEFAULT_ADAPTER_DIM, InsertedTensor, InsertionSpec, Insertions, PromptDepth, Scaling,
};

/// The blocks and the final norm of a backbone, laid out for the forward and the backward pass.
#[derive(Debug)]
pub struct FrozenVit {
    config: VitConfig,
    blocks: Vec<Block>,
    norm: Norm,
}

/// A batch of images that already went through the patch embedding. It depends on no trainable tensor, so it can be
/// computed once and kept.
#[derive(Debug, Clone, Copy)]
pub struct Embedded<'a> {
    /// `[B, 1 + R + P, D]`: class token, registers, patches; learned positions, where there are any, added.
    pub tokens: &'a [f32],
    /// Rows and columns of the patch grid, rows · columns = P.
    pub grid: (usize, usize),
}

/// Tokens after the final norm, `[B, 1 + P, D]` for each layer asked for.
type Features = Vec<Vec<f32>>;

/// What the forward pass keeps for the backward pass.
#[derive(Debug)]
pub struct Tape {
    insertions: Insertions,
    keep: Option<Vec<f32>>,
    layers: Vec<usize>,
    grid: (usize, usize),
    /// For each image: `tokens_in` with the first prompts, then each block's output before its adapter, `[T, D]` each.
    kept: Vec<Vec<f32>>,
}

impl Tape {
    /// Images of the forward pass.
    pub fn images(&self) -> usize {
        self.kept.len()
    }

    /// What entered block `block` for an image, `[T, D]` with T = class token, registers, prompts, patches. Adapters are
    /// not applied: between blocks it is the output of the block before, with the prompts that it had.
    ///
    /// # Panics
    /// If there is no such image or block.
    pub fn block_input(&self, image: usize, block: usize) -> &[f32] {
        let kept = &self.kept[image];
        let spec = self.insertions.spec();
        let tensors = 1 + self.layers.last().map_or(0, |last| last + 1);
        let size = kept.len() / tensors;
        assert!(
            block < spec.depth && (block + 1) * size <= kept.len(),
            "no block {block} on the tape"
        );
        &kept[block * size..(block + 1) * size]
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.kept.iter().map(|k| size_of_val(&k[..])).sum()
    }
}

/// Result of the backward pass.
#[derive(Debug, Clone)]
pub struct Gradients {
    /// Gradient of every inserted tensor, summed over the images.
    pub insertions: Insertions,
    /// Gradient with respect to [`Embedded::tokens`], `[B, 1 + R + P, D]`, where it was asked for.
    pub tokens_in: Option<Vec<f32>>,
}

/// Work on one image of a tape: what was kept of it, its prompt dropout, and its gradients of each layer's features.
type OfImage<'a, T> = dyn Fn(&Pass<'_>, &[f32], Option<&[f32]>, &[&[f32]], &mut Room) -> Result<T, VjpError>
    + Sync
    + 'a;

/// What entered a block in a recorded forward pass, and how a loss depends on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Activations {
    /// The tokens, `[B, T, D]` with T = class token, registers, prompts, patches; adapters of the blocks before are applied.
    pub tokens: Vec<f32>,
    /// The gradient of the loss with respect to them, `[B, T, D]`.
    pub gradient: Vec<f32>,
}

impl FrozenVit {
    /// Lays out the weights of a backbone: both norms' gains and biases, `LayerScale` and the softmax scale become part
    /// of the linear layers next to them.
    ///
    /// # Errors
    /// [`VjpError::Backbone`] if the weights do not fit the configuration.
    pub fn new(config: &VitConfig, weights: &VitWeights) -> Result<Self, VjpError> {
        check_config(config)?;
        check_weights(config, weights)?;
        Ok(Self {
            config: config.clone(),
            blocks: weights
                .blocks
                .par_iter()
                .map(|w| Block::new(config, w))
                .collect(),
            norm: weights.norm.clone(),
        })
    }

    /// The shape of the backbone.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Tokens after the final norm, `[B, 1 + P, D]` (class token, patches), one such tensor for each of `layers`: block
    /// numbers from 0, ascending. The last block is `depth − 1`. Keeps nothing.
    ///
    /// # Errors
    /// [`VjpError`] if shapes do not fit or a layer does not exist.
    pub fn forward(
        &self,
        images: Embedded<'_>,
        insertions: &Insertions,
        layers: &[usize],
    ) -> Result<Vec<Vec<f32>>, VjpError> {
        Ok(self.run(images, insertions, None, layers, false)?.0)
    }

    /// As [`Self::forward`], and keeps what [`Self::backward`] needs.
    ///
    /// `keep` `[B, S, K]` multiplies each prompt of each of the S sets as it enters image b: for prompt dropout with
    /// probability p, 0 or 1/(1 − p).
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_recorded(
        &self,
        images: Embedded<'_>,
        insertions: &Insertions,
        keep: Option<&[f32]>,
        layers: &[usize],
    ) -> Result<(Vec<Vec<f32>>, Tape), VjpError> {
        let (features, kept) = self.run(images, insertions, keep, layers, true)?;
        let tape = Tape {
            insertions: insertions.clone(),
            keep: keep.map(<[f32]>::to_vec),
            layers: layers.to_vec(),
            grid: images.grid,
            kept,
        };
        Ok((features, tape))
    }

    /// Gradients of a loss whose gradients with respect to the outputs of the recorded forward pass are `grad_features`:
    /// one `[B, 1 + P, D]` for each of its layers.
    ///
    /// The gradient with respect to the input is computed only where `wants_input` asks for it: adapters without
    /// prompts then need no backward pass through the first block.
    ///
    /// # Errors
    /// [`VjpError::Shape`] if `grad_features` does not fit the tape.
    pub fn backward(
        &self,
        tape: &Tape,
        grad_features: &[&[f32]],
        wants_input: bool,
    ) -> Result<Gradients, VjpError> {
        let results = self.back(tape, grad_features, &|pass, kept, keep, grads, room| {
            pass.backward(kept, keep, grads, wants_input, room)
        })?;
        let (parts, inputs): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        Ok(Gradients {
            insertions: Insertions::sum(*tape.insertions.spec(), &parts)?,
            tokens_in: wants_input.then(|| inputs.concat()),
        })
    }

    /// What entered block `block` of the recorded forward pass, and the gradient with respect to it of a loss whose
    /// gradients with respect to the outputs are `grad_features`, as for [`Self::backward`].
    ///
    /// # Errors
    /// [`VjpError::Shape`] if `grad_features` does not fit the tape, or if the block comes after the last layer of the
    /// forward pass, so that nothing depends on it.
    pub fn at_block(
        &self,
        tape: &Tape,
        grad_features: &[&[f32]],
        block: usize,
    ) -> Result<Activations, VjpError> {
        let last = tape.layers.last().copied().unwrap_or(0);
        if block > last {
            return Err(VjpError::Shape {
                tensor: "block".to_owned(),
                found: vec![block],
                wanted: vec![last],
                hint: "name a block from 0 up to the layer that the features come from",
            });
        }
        let results = self.back(tape, grad_features, &|pass, kept, keep, grads, room| {
            pass.at_block(kept, keep, grads, block, room)
        })?;
        let (tokens, gradient): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        Ok(Activations {
            tokens: tokens.concat(),
            gradient: gradient.concat(),
        })
    }

    /// Shows `on_block` the attention weights of blocks 0 to `last` for one image: the block's number and `[T, T]`, averaged
    /// over the heads, T = class token, registers, prompts, patches. Row i is what token i looks at; it sums to 1. One
    /// block is held at a time.
    ///
    /// # Errors
    /// [`VjpError`] if shapes do not fit, there is not exactly one image, or the block does not exist.
    pub fn attentions(
        &self,
        image: Embedded<'_>,
        insertions: &Insertions,
        last: usize,
        on_block: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), VjpError> {
        let layers = [last];
        let count = self.check(image, insertions, None, &layers)?;
        VjpError::check_len(
            "images",
            count,
            &[1],
            "pass one image: attention is shown image by image",
        )?;
        let rope = Rotation::new(&self.config, image.grid);
        self.pass(insertions, &layers, image.grid, rope.as_ref())
            .attentions(image.tokens, on_block, &mut Room::default());
        Ok(())
    }

    /// Checks the gradients and does `work` for every image of the tape.
    fn back<T: Send>(
        &self,
        tape: &Tape,
        grad_features: &[&[f32]],
        work: &OfImage<'_, T>,
    ) -> Result<Vec<T>, VjpError> {
        let spec = *tape.insertions.spec();
        let (images, dim) = (tape.images(), self.config.dim);
        let row = (1 + tape.grid.0 * tape.grid.1) * dim;
        let shape = [images, 1 + tape.grid.0 * tape.grid.1, dim];
        if grad_features.len() != tape.layers.len() {
            return Err(VjpError::Shape {
                tensor: "gradients of the features".to_owned(),
                found: vec![grad_features.len()],
                wanted: vec![tape.layers.len()],
                hint: "pass one tensor for each layer of the forward pass",
            });
        }
        for g in grad_features {
            VjpError::check_len(
                "gradient of the features",
                g.len(),
                &shape,
                "pass [images, 1 + patches, dim]",
            )?;
        }
        let rope = Rotation::new(&self.config, tape.grid);
        let pass = self.pass(&tape.insertions, &tape.layers, tape.grid, rope.as_ref());
        let keep_len = spec.prompt_sets() * spec.prompts;
        (0..images)
            .into_par_iter()
            .map_init(Room::default, |room, b| {
                let grads: Vec<&[f32]> = grad_features
                    .iter()
                    .map(|g| &g[b * row..(b + 1) * row])
                    .collect();
                let keep = tape
                    .keep
                    .as_ref()
                    .map(|k| &k[b * keep_len..(b + 1) * keep_len]);
                work(&pass, &tape.kept[b], keep, &grads, room)
            })
            .collect()
    }

    fn pass<'a>(
        &'a self,
        insertions: &'a Insertions,
        layers: &'a [usize],
        grid: (usize, usize),
        rope: Option<&'a Rotation>,
    ) -> Pass<'a> {
        Pass {
            config: &self.config,
            blocks: &self.blocks,
            norm: &self.norm,
            insertions,
            layers,
            grid,
            rope,
        }
    }

    /// Checks the inputs; returns the number of images.
    fn check(
        &self,
        images: Embedded<'_>,
        insertions: &Insertions,
        keep: Option<&[f32]>,
        layers: &[usize],
    ) -> Result<usize, VjpError> {
        let config = &self.config;
        let spec = insertions.spec();
        let patches = images.grid.0 * images.grid.1;
        let tokens = config.prefix() + patches;
        let count = images.tokens.len() / (tokens * config.dim);
        VjpError::check_len(
            "embedded images",
            images.tokens.len(),
            &[count, tokens, config.dim],
            "pass [images, 1 + registers + patches, dim] and the grid of these patches",
        )?;
        if (spec.dim, spec.depth) != (config.dim, config.depth) {
            return Err(VjpError::Shape {
                tensor: "inserted tensors (dim, depth)".to_owned(),
                found: vec![spec.dim, spec.depth],
                wanted: vec![config.dim, config.depth],
                hint: "they were made for another backbone",
            });
        }
        if let Some(keep) = keep {
            let wanted = [count, spec.prompt_sets(), spec.prompts];
            VjpError::check_len(
                "prompt dropout",
                keep.len(),
                &wanted,
                "pass one factor for each prompt of each image",
            )?;
        }
        if layers.is_empty()
            || layers.windows(2).any(|w| w[0] >= w[1])
            || layers.iter().any(|&l| l >= config.depth)
        {
            return Err(VjpError::Shape {
                tensor: "layers".to_owned(),
                found: layers.to_vec(),
                wanted: vec![config.depth - 1],
                hint: "name at least one block, ascending, counted from 0 up to the last shown",
            });
        }
        Ok(count)
    }

    /// Checks the inputs and runs every image; the second result holds an empty list for each image unless `record`.
    fn run(
        &self,
        images: Embedded<'_>,
        insertions: &Insertions,
        keep: Option<&[f32]>,
        layers: &[usize],
        record: bool,
    ) -> Result<(Features, Vec<Vec<f32>>), VjpError> {
        self.check(images, insertions, keep, layers)?;
        let config = &self.config;
        let tokens = config.prefix() + images.grid.0 * images.grid.1;
        let keep_len = insertions.spec().prompt_sets() * insertions.spec().prompts;
        let rope = Rotation::new(config, images.grid);
        let pass = self.pass(insertions, layers, images.grid, rope.as_ref());
        let results: Vec<(Vec<Vec<f32>>, Vec<f32>)> = images
            .tokens
            .par_chunks_exact(tokens * config.dim)
            .enumerate()
            .map_init(Room::default, |room, (b, image)| {
                let keep = keep.map(|k| &k[b * keep_len..(b + 1) * keep_len]);
                pass.forward(image, keep, record, room)
            })
            .collect();
        let (features, kept): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        let joined = (0..layers.len())
            .map(|l| features.iter().flat_map(|f| &f[l]).copied().collect())
            .collect();
        Ok((joined, kept))
    }
}
