//! An adaptation: which modulation, of what size, with which values; what is trained, saved and applied.

use flawtune_backbone::vjp::Scaling;

use flawtune::features::{ForwardError, ImageTokens, TokenSet};
use flawtune::score::{ChangeRows, TokenChange, TokenKind};

use super::global::Global;
use super::learned_transform::LearnedTransform;
use super::per_patch::PerPatch;
use super::self_scaled::{self, INITIAL_RESIDUAL_SCALE, RESIDUAL_SCALE, SelfScaled};
use super::{AdaptError, Modulation, ModulationType, PROMPT_SCALES, PROMPTS, Parameters, Tape};
use flawtune::random::{Purpose, Stream};

/// First value of every prompt scale.
pub const INITIAL_PROMPT_SCALE: f32 = 0.1;
/// Gain of the MLP's first weights: the transform starts near nothing.
const MLP_GAIN: f64 = 0.1;

/// The four tensors of the MLP of `learned_transform`, with their shapes for width `d`.
pub(super) fn mlp_shapes(d: usize) -> [(&'static str, Vec<usize>); 4] {
    [
        ("mlp.0.weight", vec![d, 2 * d]),
        ("mlp.0.bias", vec![d]),
        ("mlp.2.weight", vec![d, d]),
        ("mlp.2.bias", vec![d]),
    ]
}

/// What an adaptation is made of; the original recipe's values are the default but for the modulation.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptationOptions {
    /// Which formula.
    pub modulation: ModulationType,
    /// Number of prompts, K.
    pub num_prompts: usize,
    /// α, the factor of what is added to the tokens.
    pub scaling_factor: f32,
    /// Adapt and compare class tokens in place of patch tokens. The class token's own formula is used whatever the
    /// modulation type.
    pub use_cls: bool,
    /// Whether a factor on what is added is learned, one for all channels or one for each ([`RESIDUAL_SCALE`]).
    pub residual_scaling: Scaling,
    /// Seed of the first values.
    pub seed: u64,
}

impl Default for AdaptationOptions {
    fn default() -> Self {
        Self {
            modulation: ModulationType::PerPatch,
            num_prompts: 10,
            scaling_factor: 0.01,
            use_cls: false,
            residual_scaling: Scaling::Fixed,
            seed: 0,
        }
    }
}

/// A modulation with its parameters, applied to patch tokens or to class tokens.
#[derive(Debug, Clone)]
pub struct Adaptation {
    options: AdaptationOptions,
    dim: usize,
    modulation: Box<dyn Modulation>,
}

impl Adaptation {
    /// Fresh, for tokens of `dim` numbers: prompts and MLP Xavier-uniform (the MLP with gain 0.1), scales 0.1,
    /// biases 0.
    ///
    /// # Errors
    /// [`AdaptError::Option`] for no prompts, a width of 0, or a scaling factor that is not finite.
    pub fn new(options: AdaptationOptions, dim: usize) -> Result<Self, AdaptError> {
        let mut stream = Stream::new(options.seed, Purpose::Init);
        let k = options.num_prompts;
        if k == 0 || dim == 0 {
            return Err(AdaptError::Option {
                option: "number of prompts",
                found: format!("{k} for tokens of {dim} numbers"),
                wanted: "at least 1 of each is needed".to_owned(),
            });
        }
        let mut p = Parameters::new();
        p.push(PROMPTS, &[k, dim], stream.xavier(k, dim, 1.0))?;
        p.push(PROMPT_SCALES, &[k], vec![INITIAL_PROMPT_SCALE; k])?;
        if options.modulation == ModulationType::LearnedTransform && !options.use_cls {
            for (name, shape) in mlp_shapes(dim) {
                let values = match shape[..] {
                    [fan_out, fan_in] => stream.xavier(fan_out, fan_in, MLP_GAIN),
                    _ => vec![0.0; dim],
                };
                p.push(name, &shape, values)?;
            }
        }
        if let Some(count) = self_scaled::shape(options.residual_scaling, dim) {
            p.push(
                RESIDUAL_SCALE,
                &[count],
                vec![INITIAL_RESIDUAL_SCALE; count],
            )?;
        }
        Self::from_parameters(options, &p)
    }

    /// With given values. The number of prompts is taken from them, tensors that the modulation does not use are
    /// left out.
    ///
    /// # Errors
    /// [`AdaptError::Missing`] or [`AdaptError::Shape`] if a tensor is not there or does not fit,
    /// [`AdaptError::Option`] for a scaling factor that is not finite.
    pub fn from_parameters(
        mut options: AdaptationOptions,
        given: &Parameters,
    ) -> Result<Self, AdaptError> {
        if !options.scaling_factor.is_finite() {
            return Err(AdaptError::Option {
                option: "scaling factor",
                found: options.scaling_factor.to_string(),
                wanted: "it is a finite number, such as 0.01".to_owned(),
            });
        }
        let take = |name: &str, wanted: Option<Vec<usize>>| {
            let tensor = given.get(name).ok_or_else(|| AdaptError::Missing {
                name: name.to_owned(),
                hint: "the file holds no such tensor, so this modulation cannot be built from it",
            })?;
            let wanted = wanted.unwrap_or_else(|| {
                vec![
                    tensor.shape[0].max(1),
                    tensor.shape.get(1).map_or(1, |&d| d.max(1)),
                ]
            });
            if tensor.shape == wanted {
                Ok(tensor.clone())
            } else {
                let (name, found) = (name.to_owned(), tensor.shape.clone());
                Err(AdaptError::Shape {
                    name,
                    found,
                    wanted,
                    hint: "",
                })
            }
        };
        if given.get(PROMPTS).is_some_and(|t| t.shape.len() != 2) {
            return Err(AdaptError::Shape {
                name: PROMPTS.to_owned(),
                found: given
                    .get(PROMPTS)
                    .map(|t| t.shape.clone())
                    .unwrap_or_default(),
                wanted: vec![options.num_prompts, 0],
                hint: "; prompts are [number, width]",
            });
        }
        let prompts = take(PROMPTS, None)?;
        let (k, dim) = (prompts.shape[0], prompts.shape[1]);
        options.num_prompts = k;
        let mut p = Parameters::new();
        p.push(PROMPTS, &[k, dim], prompts.data)?;
        p.push(
            PROMPT_SCALES,
            &[k],
            take(PROMPT_SCALES, Some(vec![k]))?.data,
        )?;
        let modulation = if options.use_cls {
            ModulationType::PerPatch
        } else {
            options.modulation
        };
        if modulation == ModulationType::LearnedTransform {
            for (name, shape) in mlp_shapes(dim) {
                p.push(name, &shape, take(name, Some(shape.clone()))?.data)?;
            }
        }
        let scaled = self_scaled::shape(options.residual_scaling, dim);
        if let Some(count) = scaled {
            p.push(
                RESIDUAL_SCALE,
                &[count],
                take(RESIDUAL_SCALE, Some(vec![count]))?.data,
            )?;
        }
        if let Some(bad) = p.iter().find(|t| t.data.iter().any(|v| !v.is_finite())) {
            return Err(AdaptError::Option {
                option: "parameter tensor",
                found: format!("{} with a value that is not finite", bad.name),
                wanted: "every value must be a finite number".to_owned(),
            });
        }
        let alpha = options.scaling_factor;
        let modulation: Box<dyn Modulation> = match modulation {
            ModulationType::Global => Box::new(Global::new(p, alpha)),
            ModulationType::PerPatch => Box::new(PerPatch::new(p, alpha)),
            ModulationType::LearnedTransform => Box::new(LearnedTransform::new(p, alpha)),
        };
        let modulation = if scaled.is_some() {
            Box::new(SelfScaled::new(modulation, dim))
        } else {
            modulation
        };
        Ok(Self {
            options,
            dim,
            modulation,
        })
    }

    /// What it is made of.
    pub fn options(&self) -> &AdaptationOptions {
        &self.options
    }

    /// Numbers per token.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The formula with its parameters.
    pub fn modulation(&self) -> &dyn Modulation {
        self.modulation.as_ref()
    }

    /// The formula with its parameters, for the optimiser.
    pub fn modulation_mut(&mut self) -> &mut dyn Modulation {
        self.modulation.as_mut()
    }

    /// The trainable tensors.
    pub fn parameters(&self) -> &Parameters {
        self.modulation.parameters()
    }

    /// How many numbers are trained, by tensor: name and count.
    pub fn trainable(&self) -> Vec<(String, usize)> {
        self.parameters()
            .iter()
            .map(|t| (t.name.clone(), t.data.len()))
            .collect()
    }

    /// The rows of an image that are adapted and compared: its patch tokens, or its class token alone.
    pub fn rows<'a>(&self, image: &'a ImageTokens) -> &'a [f32] {
        rows_of(image, self.options.use_cls)
    }

    /// Checks that tokens have the width of the prompts.
    ///
    /// # Errors
    /// [`AdaptError::Shape`] if not.
    pub fn check(&self, tokens: &TokenSet) -> Result<(), AdaptError> {
        if tokens.dim == self.dim {
            return Ok(());
        }
        Err(AdaptError::Shape {
            name: "tokens".to_owned(),
            found: vec![tokens.images.len(), tokens.patches(), tokens.dim],
            wanted: vec![tokens.images.len(), tokens.patches(), self.dim],
            hint: "; the prompts were made for another backbone or another choice of layers",
        })
    }

    /// Writes the adapted rows of some images to `out`, `[images, rows, dim]`.
    ///
    /// # Panics
    /// If the slices do not fit together; see [`Self::check`].
    pub fn apply(&self, images: &[&[f32]], out: &mut [f32], tape: &mut Tape) {
        self.modulation.forward(images, out, tape);
    }
}

impl TokenChange for Adaptation {
    fn kind(&self) -> TokenKind {
        if self.options.use_cls {
            TokenKind::Class
        } else {
            TokenKind::Patches
        }
    }

    fn check(&self, tokens: &TokenSet) -> Result<(), ForwardError> {
        Ok(Self::check(self, tokens)?)
    }

    fn rows(&self) -> Box<ChangeRows<'_>> {
        let mut tape = Tape::default();
        Box::new(move |images, out| self.apply(images, out, &mut tape))
    }
}

/// Patch tokens or class token of an image, row-major.
pub fn rows_of(image: &ImageTokens, use_cls: bool) -> &[f32] {
    if use_cls {
        image.cls()
    } else {
        image.patches()
    }
}
