//! The backbone as a job uses it: weights found and packed, preprocessing and layers chosen.

mod options;

use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use flawtune_backbone::config::{Normalization, Position, VitConfig};
use flawtune_backbone::hub;
use flawtune_backbone::models;
use flawtune_backbone::preprocess::Preprocess;
use flawtune_backbone::vit::{Backbone, Combine, LayerSelection, Precision, Tokens};
use flawtune_backbone::vjp::FrozenVit;
use flawtune_backbone::weights::{BlockWeights, FeedForwardWeights, Linear, Norm, VitWeights};

use self::options::DEFAULT_MODEL;
pub use self::options::{BackboneOptions, BackboneOverrides, ResizeChoice, default_layers};
use super::location::Location;
use super::tiles::{TileOptions, Tiled};
use super::{Event, OnEvent, WorkflowError, part};
use crate::features::{Forward, ForwardError};
use crate::image_size::ImageSize;
use options::check_sizes;

/// A frozen backbone that extracts features.
///
/// Its weight file is checked when it is opened, but the weights are packed only when the first image needs them:
/// a run whose features are all cached holds no weights.
#[derive(Debug)]
pub struct Engine {
    backbone: OnceLock<Backbone>,
    /// The weights that were checked, still mapped, until they are packed.
    opened: Mutex<Option<VitWeights>>,
    location: Location,
    config: VitConfig,
    options: BackboneOptions,
    layers: LayerSelection,
    weights_hash: String,
    parameters: usize,
}

impl Engine {
    /// Finds (or fetches) and checks the weights.
    ///
    /// # Errors
    /// An unknown name, weights that cannot be found, fetched or read, layers the backbone does not have; images whose aspect is to be
    /// kept before it was chosen.
    pub fn open(options: BackboneOptions, on_event: OnEvent<'_>) -> Result<Self, WorkflowError> {
        if options.resize == ResizeChoice::Keep && options.aspect.is_none() {
            return Err(WorkflowError::Input(
                "`resize` keep: only a fit without a checkpoint, and `features`, choose a size of the images' shape\nhint: name such \
                 a size with `image_size`, such as 336x224"
                    .into(),
            ));
        }
        Self::open_unshaped(options, on_event)
    }

    /// As [`Self::open`], also where the aspect that is to be kept is not known yet: see [`super::shape`].
    pub(super) fn open_unshaped(
        options: BackboneOptions,
        on_event: OnEvent<'_>,
    ) -> Result<Self, WorkflowError> {
        let engine = part("weights", on_event, |on_event| {
            Self::find(options, on_event)
        })?;
        on_event(Event::Backbone(&engine));
        Ok(engine)
    }

    fn find(options: BackboneOptions, on_event: OnEvent<'_>) -> Result<Self, WorkflowError> {
        let mut options = options;
        let named = match (&options.model_name, &options.weights) {
            (Some(name), None) => Some(models::find(name)?),
            (None, None) => Some(models::find(DEFAULT_MODEL)?),
            // a file may hold a model that has no name here: its own configuration then decides
            (Some(name), Some(_)) => models::find(name).ok(),
            (None, Some(_)) => None,
        };
        let location = match (&options.weights, named) {
            (Some(path), _) => Location::File(path.clone()),
            (None, Some(variant)) => {
                let name = options.model_name.as_deref().unwrap_or(variant.name);
                Location::find(variant, name, on_event)?
            }
            (None, None) => {
                return Err(WorkflowError::Input(
                    "name a backbone or a weight file".into(),
                ));
            }
        };
        let mut expected = named.map(models::Variant::config);
        if let Some(config) = &mut expected {
            round(config, options.round_rope_periods);
        }
        let loaded = location.load(expected.as_ref())?;
        for note in &loaded.notes {
            on_event(Event::Note(note.clone()));
        }
        let mut config = loaded.config;
        round(&mut config, options.round_rope_periods);
        let layers = LayerSelection {
            layers: select(&options.layers, &config)?,
            combine: options.combine_layers,
        };
        check_sizes(&options, &config)?;
        let rest = options.image_size.height % config.patch_size;
        if rest > 0 {
            on_event(Event::Note(format!(
                "{} pixels are not a multiple of the patch size {}: the last {rest} columns and {rest} rows are not seen",
                options.image_size, config.patch_size
            )));
        }
        if !(options.resize == ResizeChoice::Keep && options.aspect.is_none()) {
            tell_tiles(&options, &config, on_event)?;
        }
        options.model_name = Some(config.name.clone());
        Ok(Self {
            parameters: parameters(&loaded.weights),
            weights_hash: loaded.weights.content_hash.clone(),
            backbone: OnceLock::new(),
            opened: Mutex::new(Some(loaded.weights)),
            location,
            config,
            options,
            layers,
        })
    }

    /// The same backbone with tokens of other blocks.
    ///
    /// # Errors
    /// Layers the backbone does not have.
    pub(super) fn with_layers(mut self, layers: &[i32]) -> Result<Self, WorkflowError> {
        self.layers.layers = select(layers, &self.config)?;
        self.options.layers = layers.to_vec();
        Ok(self)
    }

    /// The same backbone with tokens of other blocks, side by side.
    ///
    /// # Errors
    /// Layers the backbone does not have.
    pub(super) fn with_layers_apart(self, layers: &[i32]) -> Result<Self, WorkflowError> {
        let mut engine = self.with_layers(layers)?;
        engine.layers.combine = Combine::Concat;
        engine.options.combine_layers = Combine::Concat;
        Ok(engine)
    }

    /// The same backbone with images of other sizes, the largest first.
    ///
    /// # Errors
    /// A size smaller than a patch.
    pub(super) fn with_sizes(mut self, sizes: &[ImageSize]) -> Result<Self, WorkflowError> {
        if let Some((first, more)) = sizes.split_first() {
            self.options.image_size = *first;
            self.options.more_sizes = more.to_vec();
        }
        check_sizes(&self.options, &self.config)?;
        Ok(self)
    }

    /// The same backbone with images of these sizes, which are of the `aspect` (width to height) that is kept.
    ///
    /// # Errors
    /// A size that is not in whole patches.
    pub(super) fn with_aspect(
        mut self,
        aspect: f64,
        sizes: &[ImageSize],
        on_event: OnEvent<'_>,
    ) -> Result<Self, WorkflowError> {
        self.options.aspect = Some(aspect);
        let engine = self.with_sizes(sizes)?;
        tell_tiles(&engine.options, &engine.config, on_event)?;
        Ok(engine)
    }

    /// The same backbone with images squashed to its sizes.
    ///
    /// # Errors
    /// Tiles that do not fit.
    pub(super) fn squashing(mut self, on_event: OnEvent<'_>) -> Result<Self, WorkflowError> {
        self.options.resize = ResizeChoice::Squash;
        tell_tiles(&self.options, &self.config, on_event)?;
        Ok(self)
    }

    /// Rows and columns of the patches of images that are prepared in this way.
    pub(super) fn grid_of(&self, preprocess: &Preprocess) -> (usize, usize) {
        let (height, width) = preprocess.size;
        self.grid(height, width)
    }

    /// Patches of an image of `size`.
    pub(super) fn patches_at(&self, size: ImageSize) -> usize {
        let (rows, columns) = self.grid_of(&self.preprocess_at(size));
        rows * columns
    }

    /// Packs the weights now rather than with the first image.
    ///
    /// # Errors
    /// Weights that cannot be read any more.
    pub(super) fn warm(&self) -> Result<(), WorkflowError> {
        self.backbone().map(|_| ())
    }

    /// The options, with the model's name filled in.
    pub fn options(&self) -> &BackboneOptions {
        &self.options
    }

    /// The file or folder of its weights; `None` where they are part of the program.
    pub fn path(&self) -> Option<&Path> {
        self.location.path()
    }

    /// Sizes.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Numbers in the frozen backbone.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// Which blocks the tokens are taken from, as text.
    pub fn layers_text(&self) -> String {
        format!("{:?} {:?}", self.layers.layers, self.layers.combine)
    }

    /// Sizes that a detector looks at, the largest first.
    pub fn sizes(&self) -> Vec<ImageSize> {
        let more = self.options.more_sizes.iter().copied();
        std::iter::once(self.options.image_size)
            .chain(more)
            .collect()
    }

    /// The same as text: `448 and 224`.
    pub(in crate::workflow) fn sizes_text(&self, between: &str) -> String {
        ImageSize::join(&self.sizes(), between)
    }

    /// How an image becomes pixels; the largest, where a detector looks at several sizes.
    pub fn preprocess(&self) -> Preprocess {
        self.preprocess_at(self.options.image_size)
    }

    /// How an image becomes one of `size`.
    pub fn preprocess_at(&self, size: ImageSize) -> Preprocess {
        let mut p = Preprocess::squash(size.height, size.width, self.config.normalization);
        p.resize = self.options.resize.fitting();
        p.roi = self.options.roi;
        p.filter = self.options.filter;
        p.apply_exif_orientation = self.options.exif_orientation;
        p.bit_depth = self.options.bit_depth;
        p
    }

    /// Class and patch tokens `[batch, 1 + patches, dim]`, without tiles, of normalised pixels `[batch, 3, height, width]`.
    ///
    /// # Errors
    /// Pixels that are not of that shape or smaller than a patch.
    pub fn tokens(
        &self,
        pixels: &[f32],
        batch: usize,
        height: usize,
        width: usize,
    ) -> Result<Vec<f32>, WorkflowError> {
        Ok(self
            .backbone()?
            .forward(pixels, batch, height, width, &self.layers)?
            .data)
    }

    /// The tokens that enter block 0, `[batch, 1 + registers + patches, dim]`, and the patch grid.
    ///
    /// # Errors
    /// As [`Self::tokens`].
    pub fn embed(
        &self,
        pixels: &[f32],
        batch: usize,
        height: usize,
        width: usize,
    ) -> Result<(Vec<f32>, (usize, usize)), WorkflowError> {
        Ok(self
            .backbone()?
            .embed_tokens(pixels, batch, height, width)?)
    }

    /// The blocks laid out for training through them; a copy of the weights beside the one that extracts.
    ///
    /// # Errors
    /// Weights that cannot be read any more or changed.
    pub fn frozen(&self) -> Result<FrozenVit, WorkflowError> {
        if self.options.precision != Precision::F32 {
            return Err(WorkflowError::Input(format!(
                "`precision` {}: tensors inside the transformer are trained and applied in f32 only\nhint: omit `precision`, or train with `prompt_depth` output and without `use_adapters`",
                self.options.precision
            )));
        }
        if self.options.tiles.is_some() {
            return Err(WorkflowError::Input(
                "`tile_size`: tensors inside the transformer are trained and applied on whole images\nhint: omit `tile_size`, or train with `prompt_depth` output and without `use_adapters`"
                    .into(),
            ));
        }
        FrozenVit::new(&self.config, &self.load()?).map_err(WorkflowError::from)
    }

    /// The one block that tokens are taken from.
    ///
    /// # Errors
    /// There are several.
    pub fn single_layer(&self) -> Result<usize, WorkflowError> {
        match self.layers.layers[..] {
            [layer] => Ok(layer),
            _ => Err(WorkflowError::Input(format!(
                "`layers` {:?}: with prompts or adapters inside the transformer the tokens of one block are compared\nhint: name one",
                self.options.layers
            ))),
        }
    }

    /// How an image of this size is cut; `None` if it is not.
    fn tiled(&self, height: usize, width: usize) -> Result<Option<Tiled>, WorkflowError> {
        let Some(options) = self.options.tiles else {
            return Ok(None);
        };
        let grid = self.config.grid(height, width);
        Ok(Some(Tiled::new(
            options,
            self.config.patch_size,
            (height, width),
            grid,
            self.dim(),
        )?))
    }

    fn backbone(&self) -> Result<&Backbone, WorkflowError> {
        if let Some(backbone) = self.backbone.get() {
            return Ok(backbone);
        }
        let backbone =
            Backbone::with_precision(&self.config, &self.load()?, self.options.precision)?;
        Ok(self.backbone.get_or_init(|| backbone))
    }

    /// The weights that were checked; asked for again, they are read again and must be the same.
    fn load(&self) -> Result<VitWeights, WorkflowError> {
        if let Some(weights) = self
            .opened
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            return Ok(weights);
        }
        let loaded = self.location.load(Some(&self.config))?;
        if loaded.weights.content_hash != self.weights_hash {
            return Err(WorkflowError::Input(format!(
                "{}: the weights changed while they were in use\nhint: run the command again",
                self.location
            )));
        }
        Ok(loaded.weights)
    }
}

impl Forward for Engine {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn weights_hash(&self) -> &str {
        &self.weights_hash
    }

    fn variant(&self) -> String {
        let periods = match self.config.position {
            Position::Rope {
                round_periods: true,
                ..
            } => " rounded-periods",
            _ => "",
        };
        let precision = match self.options.precision {
            Precision::F32 => String::new(),
            other => format!(" {other}"),
        };
        let tiles = self
            .options
            .tiles
            .map_or_else(String::new, TileOptions::variant);
        format!("layers {}{periods}{precision}{tiles}", self.layers_text())
    }

    fn grid(&self, height: usize, width: usize) -> (usize, usize) {
        self.config.grid(height, width)
    }

    fn dim(&self) -> usize {
        match self.layers.combine {
            Combine::Concat => self.config.dim * self.layers.layers.len(),
            Combine::Mean => self.config.dim,
        }
    }

    fn forward(
        &self,
        pixels: &[f32],
        batch: usize,
        height: usize,
        width: usize,
    ) -> Result<Vec<f32>, ForwardError> {
        let Some(tiled) = self.tiled(height, width)? else {
            return Ok(self.tokens(pixels, batch, height, width)?);
        };
        tiled.of_planes(pixels, batch, &mut |pixels, height, width| {
            Ok(self.tokens(pixels, batch, height, width)?)
        })
    }

    fn normalization(&self) -> Option<Normalization> {
        Some(self.config.normalization)
    }

    fn forward_bytes(
        &self,
        pictures: &[u8],
        batch: usize,
        height: usize,
        width: usize,
    ) -> Result<Vec<f32>, ForwardError> {
        let mut tokens = Tokens::default();
        let backbone = self.backbone()?;
        let Some(tiled) = self.tiled(height, width)? else {
            backbone.forward_bytes_into(
                pictures,
                batch,
                height,
                width,
                &self.layers,
                &mut tokens,
            )?;
            return Ok(tokens.data);
        };
        tiled.of_pictures(pictures, batch, &mut |tiles, height, width| {
            backbone.forward_bytes_into(tiles, batch, height, width, &self.layers, &mut tokens)?;
            Ok(std::mem::take(&mut tokens.data))
        })
    }
}

/// Whether tiles fit, and what there is to say of them.
fn tell_tiles(
    options: &BackboneOptions,
    config: &VitConfig,
    on_event: OnEvent<'_>,
) -> Result<(), WorkflowError> {
    let Some(tiles) = &options.tiles else {
        return Ok(());
    };
    let size = options.image_size;
    for note in tiles.check(config, config.grid(size.height, size.width))? {
        on_event(Event::Note(note));
    }
    Ok(())
}

pub(super) fn download<'a>(progress: &hub::Progress<'a>) -> Event<'a> {
    match progress {
        hub::Progress::Bytes { file, done, total } => Event::Download {
            file,
            done: *done,
            total: *total,
        },
        hub::Progress::Waiting { file } => {
            Event::Note(format!("{file}: another process is fetching it"))
        }
        hub::Progress::Retrying { file, why, pause } => Event::Note(format!(
            "{file}: {why}; trying again in {:.0} s",
            pause.as_secs_f64()
        )),
    }
}

fn round(config: &mut VitConfig, wanted: bool) {
    if let Position::Rope { round_periods, .. } = &mut config.position {
        *round_periods |= wanted;
    }
}

/// Numbers that the forward pass uses.
fn parameters(w: &VitWeights) -> usize {
    let linear = |l: &Linear| l.inputs * l.outputs + l.bias.len();
    let norm = |n: &Norm| n.weight.len() + n.bias.len();
    let block = |b: &BlockWeights| {
        let feed_forward: usize = match &b.feed_forward {
            FeedForwardWeights::Mlp { fc1, fc2 } => [fc1, fc2].map(linear).iter().sum(),
            FeedForwardWeights::SwiGlu { gate, up, down } => {
                [gate, up, down].map(linear).iter().sum()
            }
        };
        norm(&b.norm1)
            + norm(&b.norm2)
            + linear(&b.qkv)
            + linear(&b.proj)
            + feed_forward
            + b.scale1.len()
            + b.scale2.len()
    };
    w.cls.len()
        + w.registers.len()
        + linear(&w.patch)
        + w.positions.as_ref().map_or(0, Vec::len)
        + w.blocks.iter().map(block).sum::<usize>()
        + norm(&w.norm)
}

/// Block indices of `layers` (negative from the end), in the order given.
fn select(layers: &[i32], config: &VitConfig) -> Result<Vec<usize>, WorkflowError> {
    let depth = config.depth as i64;
    let wrong = |l: i32| {
        WorkflowError::Input(format!(
            "`layers` {l}: {} has blocks 0 to {} (or -1 to -{depth} from the end)",
            config.name,
            depth - 1
        ))
    };
    if layers.is_empty() {
        return Err(WorkflowError::Input(
            "`layers` needs at least one block".into(),
        ));
    }
    let chosen: Vec<usize> = layers
        .iter()
        .map(|&l| {
            let at = if l < 0 {
                depth + i64::from(l)
            } else {
                i64::from(l)
            };
            usize::try_from(at)
                .ok()
                .filter(|&i| i < config.depth)
                .ok_or_else(|| wrong(l))
        })
        .collect::<Result<_, _>>()?;
    let mut once = chosen.clone();
    once.sort_unstable();
    once.dedup();
    if once.len() < chosen.len() {
        return Err(WorkflowError::Input(format!(
            "`layers` {layers:?} names a block twice"
        )));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_block_lies_at_three_quarters_of_the_depth() {
        assert_eq!(
            [12, 24, 40, 4, 2, 1].map(|depth| default_layers("dinov3_vits16", depth)),
            [[8], [17], [29], [2], [0], [0]].map(Vec::from)
        );
    }
}
