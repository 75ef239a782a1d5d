//! What every way of changing tokens has in common.

use std::fmt;
use std::str::FromStr;

use super::{AdaptError, Gradients, Parameters};

/// Name of the prompt tensor, `[K, D]`.
pub const PROMPTS: &str = "prompts";
/// Name of the tensor of prompt scales, `[K]`.
pub const PROMPT_SCALES: &str = "prompt_scales";

/// Which formula changes the tokens (DESIGN terms: modulation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "clap",
    derive(clap::ValueEnum),
    value(rename_all = "snake_case")
)]
pub enum ModulationType {
    /// One vector per image, attended from its patches, is added to every patch
    Global,
    /// Every patch gets its own mixture of the prompts
    PerPatch,
    /// Every patch goes through an MLP that sees the patch and its mixture of the prompts
    LearnedTransform,
}

impl ModulationType {
    /// All of them, in the order they are listed to the user.
    pub const ALL: [Self; 3] = [Self::Global, Self::PerPatch, Self::LearnedTransform];

    /// Name on the command line and in checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::PerPatch => "per_patch",
            Self::LearnedTransform => "learned_transform",
        }
    }
}

impl fmt::Display for ModulationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ModulationType {
    type Err = AdaptError;

    fn from_str(s: &str) -> Result<Self, AdaptError> {
        Self::ALL
            .into_iter()
            .find(|m| m.name() == s)
            .ok_or_else(|| AdaptError::Option {
                option: "modulation type",
                found: format!("{s:?}"),
                wanted: "it is one of global, per_patch, learned_transform".to_owned(),
            })
    }
}

/// What a forward pass keeps for the backward pass, and room to work in. Reused from step to step, so that
/// training allocates nothing large after its first step. The contents belong to the modulation.
#[derive(Debug, Default)]
pub struct Tape {
    pub(super) buffers: [Vec<f32>; 6],
    /// Self-scaling: what the modulation added, before the factor.
    pub(super) change: Vec<f32>,
    /// Self-scaling: the gradient times the factor.
    pub(super) scaled: Vec<f32>,
}

/// Sets the length of a reused buffer without caring for its contents.
pub(super) fn resize(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}

/// A change of tokens with trainable parameters, its forward pass and its gradient.
///
/// A batch is a list of images, each row-major `[rows, dim]` with the same `rows`: all patch tokens of an image, or
/// its class token alone (`rows` = 1). Output tensors hold the images one after the other, `[images, rows, dim]`.
/// The result for one image depends on neither the other images nor the number of threads.
pub trait Modulation: fmt::Debug + Send + Sync {
    /// The trainable tensors.
    fn parameters(&self) -> &Parameters;

    /// The trainable tensors, for the optimiser. Names and shapes must stay.
    fn parameters_mut(&mut self) -> &mut Parameters;

    /// Writes the changed tokens of `images` to `out` and keeps in `tape` what the gradient needs.
    ///
    /// # Panics
    /// If the slices do not fit together; sizes are checked where tokens enter the crate.
    fn forward(&self, images: &[&[f32]], out: &mut [f32], tape: &mut Tape);

    /// What the rows of one image and the prompts have to do with each other: attention weights `[rows, K]`. They sum to 1
    /// over the prompts of a row, in `global` over the rows of a prompt.
    fn attend(&self, image: &[f32]) -> Vec<f32>;

    /// Writes the changed tokens of one image to `out`, with given attention weights `[rows, K]` in place of its own. With a
    /// prompt's weights at 0 it is the change without that prompt; with those of [`Self::attend`] it is
    /// [`Self::forward`], to the last bit.
    ///
    /// # Panics
    /// As [`Self::forward`].
    fn mix(&self, image: &[f32], attention: &[f32], out: &mut [f32]);

    /// Adds to `gradients` those of a loss whose gradient with respect to the output is `grad_out`. With
    /// `grad_in` the gradient with respect to the input tokens is written there.
    ///
    /// `tape` is the one of the forward pass on the same images with the same parameters.
    fn backward(
        &self,
        images: &[&[f32]],
        tape: &mut Tape,
        grad_out: &[f32],
        gradients: &mut Gradients,
        grad_in: Option<&mut [f32]>,
    );

    /// A copy behind a new box.
    fn boxed_clone(&self) -> Box<dyn Modulation>;
}

impl Clone for Box<dyn Modulation> {
    fn clone(&self) -> Self {
        self.boxed_clone()
    }
}
