//! The forward pass: normalised pixels in, class and patch tokens out.

mod error;
pub(crate) mod pack;
pub(crate) mod positions;

pub use error::VitError;

use std::sync::{Arc, Mutex, PoisonError};

use flawtune_kernels::dispatch;
use flawtune_kernels::encoder::{Affine, Encoder, Pixels, Values, Workspace};
pub use flawtune_kernels::encoder::{Precision, UnknownPrecision};

use serde::{Deserialize, Serialize};

use crate::config::{Position, VitConfig};
use crate::weights::{Norm, VitWeights};
use pack::CHANNELS;
use positions::{Bicubic, resize, rotation};

/// How the tokens of several blocks become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Combine {
    /// Their mean
    ///
    /// `dim` numbers a token.
    #[default]
    Mean,
    /// One after the other, in the order they are named
    ///
    /// `dim · layers` numbers a token.
    Concat,
}

/// The blocks whose output, through the final norm, becomes the features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSelection {
    /// Block indices from 0, each at most once.
    pub layers: Vec<usize>,
    /// What to do with more than one.
    pub combine: Combine,
}

impl LayerSelection {
    /// The last block of a network of `depth` blocks.
    pub fn last(depth: usize) -> Self {
        Self {
            layers: vec![depth.saturating_sub(1)],
            combine: Combine::Mean,
        }
    }

    /// The first selected block from block `from` on, with its place in the selection.
    fn next(&self, from: usize) -> Option<(usize, usize)> {
        self.layers
            .iter()
            .copied()
            .enumerate()
            .filter(|&(_, block)| block >= from)
            .min_by_key(|&(_, block)| block)
    }
}

/// Class and patch tokens of a batch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tokens {
    /// Images.
    pub batch: usize,
    /// Patch rows and columns.
    pub grid: (usize, usize),
    /// Numbers per token.
    pub dim: usize,
    /// `[batch, 1 + rows·columns, dim]`: of each image the class token, then its patches row-major.
    pub data: Vec<f32>,
}

impl Tokens {
    /// Tokens of one image, `[1 + rows·columns, dim]`.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn image(&self, index: usize) -> &[f32] {
        let len = (1 + self.grid.0 * self.grid.1) * self.dim;
        &self.data[index * len..][..len]
    }
}

/// Everything a forward pass computes on the way, all tokens `[CLS, registers, patches]` included; `T` tokens an image.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Patch rows and columns.
    pub grid: (usize, usize),
    /// Tokens that enter block 0, `[batch, T, dim]`.
    pub embed: Vec<f32>,
    /// Output of every block, `[batch, T, dim]` each.
    pub blocks: Vec<Vec<f32>>,
    /// Output of the final norm, `[batch, T, dim]`.
    pub normed: Vec<f32>,
    /// Attention probabilities of the last block, `[batch, heads, T, T]`.
    pub attention: Vec<f32>,
}

/// Lanes that one run handles at most, so that memory stays bounded whatever the batch; one image always runs.
const TOKENS_PER_RUN: usize = 4096;

/// A frozen vision transformer, its weights packed for this machine.
#[derive(Debug)]
pub struct Backbone {
    config: VitConfig,
    encoder: Encoder,
    /// Class and register tokens, `[prefix, dim]`.
    prefix: Vec<f32>,
    /// What each byte of each channel is once normalised.
    tables: Vec<[f32; 256]>,
    patch_bias: Vec<f32>,
    positions: Option<Vec<f32>>,
    norm: Norm,
    idle: Mutex<Vec<Room>>,
    /// What the last grid of patches needed.
    place: Mutex<Option<Arc<Place>>>,
}

/// The memory of a forward pass, kept for the next one.
#[derive(Debug, Default)]
struct Room {
    work: Workspace,
    /// Tokens of one of several selected layers.
    single: Vec<f32>,
}

/// What depends on the grid of patches alone.
#[derive(Debug)]
struct Place {
    grid: (usize, usize),
    /// What every token of an image starts from, `[tokens, dim]`.
    start: Vec<f32>,
    /// Cosines and sines, `[tokens, head_dim/2]` each.
    rotation: Option<(Vec<f32>, Vec<f32>)>,
}

impl Backbone {
    /// Checks `weights` against `config` and packs them, in parallel on the current rayon pool.
    ///
    /// # Errors
    /// [`VitError::Config`] or [`VitError::Shape`] if they do not fit, [`VitError::Kernels`] if `FLAWTUNE_KERNELS` names
    /// an instruction set that this machine lacks.
    pub fn new(config: &VitConfig, weights: &VitWeights) -> Result<Self, VitError> {
        Self::with_precision(config, weights, Precision::F32)
    }

    /// As [`Backbone::new`], with the weights of the blocks kept and multiplied in `precision`.
    ///
    /// # Errors
    /// As [`Backbone::new`].
    pub fn with_precision(
        config: &VitConfig,
        weights: &VitWeights,
        precision: Precision,
    ) -> Result<Self, VitError> {
        dispatch::isa()?;
        pack::check_config(config)?;
        pack::check_weights(config, weights)?;
        let prefix = [weights.cls.as_slice(), &weights.registers].concat();
        Ok(Self {
            config: config.clone(),
            encoder: pack::pack(config, weights, precision),
            prefix,
            tables: (0..CHANNELS)
                .map(|channel| config.normalization.table(channel))
                .collect(),
            patch_bias: weights.patch.bias.clone(),
            positions: weights.positions.clone(),
            norm: weights.norm.clone(),
            idle: Mutex::default(),
            place: Mutex::default(),
        })
    }

    /// How its weights are kept.
    pub fn precision(&self) -> Precision {
        self.encoder.precision()
    }

    /// Bytes of memory that its packed weights take.
    pub fn weight_bytes(&self) -> usize {
        self.encoder.weight_bytes()
    }

    /// What multiplies its weights, for messages.
    pub fn kernels(&self) -> String {
        self.encoder.kernels()
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Class and patch tokens of `pixels` (`[batch, 3, height, width]`, normalised).
    ///
    /// What exceeds a multiple of the patch at the right and bottom is dropped. The bytes of the result depend
    /// neither on the number of threads nor on which other images share the batch.
    ///
    /// # Errors
    /// [`VitError::Pixels`], [`VitError::TooSmall`] or [`VitError::Layers`].
    pub fn forward(
        &self,
        pixels: &[f32],
        batch: usize,
        height: usize,
        width: usize,
        layers: &LayerSelection,
    ) -> Result<Tokens, VitError> {
        let mut out = Tokens::default();
        self.forward_into(pixels, batch, height, width, layers, &mut out)?;
        Ok(out)
    }

    /// [`Backbone::forward`] into tokens whose memory is reused: after a first call of the same size, made on a
    /// thread of the pool, nothing is allocated.
    ///
    /// # Errors
    /// As [`Backbone::forward`].
    pub fn forward_into(
        &self,
        pixels: &[f32],
        batch: usize,
        height: usize,
        width: usize,
        layers: &LayerSelection,
        out: &mut Tokens,
    ) -> Result<(), VitError> {
        self.forward_values(
            Values::Normalised(pixels),
            batch,
            height,
            width,
            layers,
            out,
        )
    }

    /// As [`Backbone::forward_into`], from the bytes of images (`[batch, height, width, 3]`, RGB) that are normalised on
    /// their way into the patch embedding: the same bits, without the pixels in f32.
    ///
    /// # Errors
    /// As [`Backbone::forward`].
    pub fn forward_bytes_into(
        &self,
        pictures: &[u8],
        batch: usize,
        height: usize,
        width: usize,
        layers: &LayerSelection,
        out: &mut Tokens,
    ) -> Result<(), VitError> {
        let values = Values::Bytes {
            data: pictures,
            tables: &self.tables,
        };
        self.forward_values(values, batch, height, width, layers, out)
    }

    fn forward_values(
        &self,
        values: Values<'_>,
        batch: usize,
        height: usize,
        width: usize,
        layers: &LayerSelection,
        out: &mut Tokens,
    ) -> Result<(), VitError> {
        let input = self.input(values.len(), batch, height, width)?;
        self.check_layers(layers)?;
        let (dim, patches) = (self.config.dim, input.grid.0 * input.grid.1);
        out.batch = batch;
        out.grid = input.grid;
        out.dim = if layers.combine == Combine::Concat {
            dim * layers.layers.len()
        } else {
            dim
        };
        out.data.clear();
        out.data.resize(batch * (1 + patches) * out.dim, 0.0);
        let several = layers.layers.len() > 1;
        let prefix = self.config.prefix();
        let keep = [0..1, prefix..prefix + patches];
        let image = (1 + patches) * out.dim;
        let mut room = self.room();
        let Room { work, single } = &mut room;
        for (run, out_data) in out.data.chunks_mut(input.per_run * image).enumerate() {
            self.embed(work, &input, part(values, run, input.per_run * input.image));
            let mut done = 0;
            while let Some((slot, block)) = layers.next(done) {
                self.encoder.run(work, done..block + 1);
                done = block + 1;
                if !several {
                    self.encoder
                        .read(work, Some(self.affine()), &keep, out_data);
                    continue;
                }
                single.resize(out_data.len() / out.dim * dim, 0.0);
                self.encoder.read(work, Some(self.affine()), &keep, single);
                for (to, from) in out_data
                    .chunks_exact_mut(out.dim)
                    .zip(single.chunks_exact(dim))
                {
                    match layers.combine {
                        Combine::Concat => to[slot * dim..][..dim].copy_from_slice(from),
                        Combine::Mean => to.iter_mut().zip(from).for_each(|(t, f)| *t += f),
                    }
                }
            }
            if several && layers.combine == Combine::Mean {
                let count = layers.layers.len() as f32;
                for x in out_data.iter_mut() {
                    *x /= count;
                }
            }
        }
        self.keep(room);
        Ok(())
    }

    /// The tokens that enter block 0, `[batch, 1 + registers + patches, dim]`, and the patch grid: what
    /// [`crate::vjp::Embedded`] starts from. They depend on no trainable tensor.
    ///
    /// # Errors
    /// As [`Backbone::forward`].
    pub fn embed_tokens(
        &self,
        pixels: &[f32],
        batch: usize,
        height: usize,
        width: usize,
    ) -> Result<(Vec<f32>, (usize, usize)), VitError> {
        let input = self.input(pixels.len(), batch, height, width)?;
        let mut out = vec![0.0; batch * input.tokens * self.config.dim];
        let mut room = self.room();
        let per_run = input.per_run * input.tokens * self.config.dim;
        let prefix = self.config.prefix();
        for (pixels, out) in pixels
            .chunks(input.per_run * input.image)
            .zip(out.chunks_mut(per_run))
        {
            self.embed(&mut room.work, &input, Values::Normalised(pixels));
            self.encoder.read(
                &mut room.work,
                None,
                &[0..prefix, prefix..input.tokens],
                out,
            );
        }
        self.keep(room);
        Ok((out, input.grid))
    }

    /// A forward pass that keeps everything, for tests and for looking inside; not fast, and not limited in memory.
    ///
    /// # Errors
    /// As [`Backbone::forward`].
    pub fn forward_trace(
        &self,
        pixels: &[f32],
        batch: usize,
        height: usize,
        width: usize,
    ) -> Result<Trace, VitError> {
        let mut input = self.input(pixels.len(), batch, height, width)?;
        input.per_run = batch.max(1);
        let tokens = input.tokens;
        let all = 0..tokens;
        let keep = std::slice::from_ref(&all);
        let mut work = self.room().work;
        let read = |work: &mut Workspace, norm| {
            let mut out = vec![0.0; batch * tokens * self.config.dim];
            self.encoder.read(work, norm, keep, &mut out);
            out
        };
        self.embed(&mut work, &input, Values::Normalised(pixels));
        let embed = read(&mut work, None);
        let blocks = (0..self.config.depth)
            .map(|block| {
                self.encoder.run(&mut work, block..block + 1);
                read(&mut work, None)
            })
            .collect();
        let attention = self.encoder.attention_probabilities(&work);
        let normed = read(&mut work, Some(self.affine()));
        Ok(Trace {
            grid: input.grid,
            embed,
            blocks,
            normed,
            attention,
        })
    }

    fn affine(&self) -> Affine<'_> {
        Affine {
            weight: &self.norm.weight,
            bias: &self.norm.bias,
        }
    }

    fn room(&self) -> Room {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default()
    }

    fn keep(&self, room: Room) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(room);
    }

    fn check_layers(&self, selection: &LayerSelection) -> Result<(), VitError> {
        let depth = self.config.depth;
        let layers = &selection.layers;
        let twice = layers
            .iter()
            .enumerate()
            .any(|(i, l)| layers[..i].contains(l));
        if layers.is_empty() || twice || layers.iter().any(|&l| l >= depth) {
            return Err(VitError::Layers {
                layers: layers.clone(),
                depth,
            });
        }
        Ok(())
    }

    /// Checks `found` values of `batch` images.
    fn input(
        &self,
        found: usize,
        batch: usize,
        height: usize,
        width: usize,
    ) -> Result<Input, VitError> {
        let image = CHANNELS * height * width;
        if found != batch * image {
            return Err(VitError::Pixels {
                batch,
                height,
                width,
                wanted: batch * image,
                found,
            });
        }
        let grid = self.config.grid(height, width);
        if grid.0 == 0 || grid.1 == 0 {
            return Err(VitError::TooSmall {
                height,
                width,
                patch: self.config.patch_size,
            });
        }
        let tokens = self.config.prefix() + grid.0 * grid.1;
        let per_run = (TOKENS_PER_RUN / tokens).clamp(1, batch.max(1));
        Ok(Input {
            height,
            width,
            image,
            grid,
            tokens,
            per_run,
            place: self.place(grid),
        })
    }

    /// Cosines and resized positions cost as much as a part of a block: images of one size share them.
    fn place(&self, grid: (usize, usize)) -> Arc<Place> {
        let mut last = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = last.as_ref().filter(|place| place.grid == grid) {
            return Arc::clone(place);
        }
        let place = Arc::new(Place {
            grid,
            start: self.start(grid),
            rotation: self.rotation(grid),
        });
        *last = Some(Arc::clone(&place));
        place
    }

    /// What every token of an image starts from, before the pixels are added.
    fn start(&self, grid: (usize, usize)) -> Vec<f32> {
        let dim = self.config.dim;
        let mut start = self.prefix.clone();
        for _ in 0..grid.0 * grid.1 {
            start.extend_from_slice(&self.patch_bias);
        }
        if let (Some(table), Position::Learned { grid: side }) =
            (&self.positions, self.config.position)
        {
            let (class, table) = table.split_at(dim);
            // the models with registers were made with an antialiased resize, those without with a plain one
            let filter = if self.config.registers > 0 {
                Bicubic::Antialias
            } else {
                Bicubic::Plain
            };
            let resized = resize(table, side, dim, grid, filter);
            let patches = self.config.prefix() * dim;
            start[..dim]
                .iter_mut()
                .zip(class)
                .for_each(|(s, p)| *s += p);
            start[patches..]
                .iter_mut()
                .zip(&resized)
                .for_each(|(s, p)| *s += p);
        }
        start
    }

    fn rotation(&self, grid: (usize, usize)) -> Option<(Vec<f32>, Vec<f32>)> {
        match self.config.position {
            Position::Rope {
                base,
                round_periods,
            } => Some(rotation(
                grid,
                self.config.prefix(),
                self.config.head_dim(),
                base,
                round_periods,
            )),
            Position::Learned { .. } => None,
        }
    }

    fn embed(&self, work: &mut Workspace, input: &Input, values: Values<'_>) {
        let images = values.len() / input.image;
        let rotation = input
            .place
            .rotation
            .as_ref()
            .map(|(cos, sin)| (cos.as_slice(), sin.as_slice()));
        work.configure(&self.encoder, images, input.tokens, rotation);
        let pixels = Pixels {
            data: values,
            height: input.height,
            width: input.width,
            rows: input.grid.0,
            columns: input.grid.1,
            start: &input.place.start,
        };
        self.encoder.embed(work, &pixels);
    }
}

/// The values of run `run`, `size` of them or what is left.
fn part(values: Values<'_>, run: usize, size: usize) -> Values<'_> {
    let range = run * size..((run + 1) * size).min(values.len());
    match values {
        Values::Normalised(data) => Values::Normalised(&data[range]),
        Values::Bytes { data, tables } => Values::Bytes {
            data: &data[range],
            tables,
        },
    }
}

/// A checked input and what depends on its size alone.
struct Input {
    height: usize,
    width: usize,
    /// Pixel values of one image.
    image: usize,
    grid: (usize, usize),
    /// Tokens of one image.
    tokens: usize,
    /// Images per run.
    per_run: usize,
    place: Arc<Place>,
}
