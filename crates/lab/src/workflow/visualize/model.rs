//! The untouched and the adapted model on one image: everything a pass forward and back says.

use flawtune_backbone::vjp::{Activations, Embedded, FrozenVit, InsertionSpec, Insertions};

use super::super::inside::{self, Through};
use super::super::{Engine, WorkflowError};
use crate::adapt::inside::Inserted;
use crate::adapt::{AdaptError, Adaptation, Gradients, Tape};
use crate::visualize::{PatchBank, PatchScore, Rollout, TokenLayout, grad_cam};
use flawtune::score::Aggregate;

/// What is asked about: the model as it came, or with what was trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Before,
    After,
}

/// A backbone that can be looked into, and what was trained.
pub(super) struct Model {
    pub(super) through: Through,
    pub(super) adaptation: Adaptation,
    pub(super) inserted: Option<Inserted>,
    nothing: Insertions,
    /// Block whose normed tokens are compared.
    pub(super) layer: usize,
    /// Block whose input Grad-CAM looks at.
    pub(super) block: usize,
}

/// An image as it enters the first block.
pub(super) struct Entering {
    pub(super) tokens: Vec<f32>,
    pub(super) grid: (usize, usize),
}

impl Entering {
    fn embedded(&self) -> Embedded<'_> {
        Embedded {
            tokens: &self.tokens,
            grid: self.grid,
        }
    }
}

/// What one pass says.
#[derive(Debug)]
pub(super) struct Seen {
    /// Patch tokens as they are compared, `[P, D]`.
    pub(super) patches: Vec<f32>,
    /// Patch tokens before the output modulation.
    pub(super) unmodulated: Vec<f32>,
    pub(super) score: PatchScore,
    pub(super) cam: Vec<f32>,
    pub(super) rollout: Rollout,
}

fn adapt(error: impl Into<AdaptError>) -> WorkflowError {
    error.into().into()
}

/// The share of an image's patches that makes its score: the patch bank's usual one.
pub(super) fn top_fraction() -> f64 {
    match Aggregate::default() {
        Aggregate::TopFraction(f) => f,
        Aggregate::Max | Aggregate::Mean => 0.01,
    }
}

impl Model {
    /// # Errors
    /// Tensors made for another backbone, several layers, a block that does not exist.
    pub(super) fn open(
        engine: &Engine,
        adaptation: Adaptation,
        inserted: Option<Inserted>,
        block: Option<i32>,
    ) -> Result<Self, WorkflowError> {
        if let Some(inserted) = &inserted {
            inside::check(engine, inserted)?;
        }
        let through = Through::open(engine)?;
        let layer = through.layer;
        let depth = engine.config().depth as i64;
        let asked = block.map_or(layer as i64, i64::from);
        let counted = if asked < 0 { depth + asked } else { asked };
        let block = usize::try_from(counted).ok().filter(|&b| b <= layer).ok_or_else(|| {
            WorkflowError::Input(format!(
                "`block` {asked}: features come from block {layer} of {}\nhint: name a block from 0 to {layer} (or from -1 \
                 back)",
                engine.config().name
            ))
        })?;
        let nothing = Insertions::zeros(InsertionSpec::none(engine.config())).map_err(adapt)?;
        Ok(Self {
            through,
            adaptation,
            inserted,
            nothing,
            layer,
            block,
        })
    }

    fn frozen(&self) -> &FrozenVit {
        &self.through.frozen
    }

    /// Whether an output modulation was trained.
    pub(super) fn modulates(&self) -> bool {
        self.inserted
            .as_ref()
            .is_none_or(|i| i.options.modulate_output)
    }

    fn insertions(&self, state: State) -> &Insertions {
        match &self.inserted {
            Some(inserted) if state == State::After => &inserted.tensors,
            _ => &self.nothing,
        }
    }

    /// Prompts inside the transformer, K.
    pub(super) fn prompts_inside(&self) -> usize {
        self.insertions(State::After).spec().prompt_tokens()
    }

    fn layout(&self, state: State, patches: usize) -> TokenLayout {
        let spec = self.insertions(state).spec();
        TokenLayout {
            prefix: self.frozen().config().prefix(),
            prompts: spec.prompt_tokens(),
            patches,
            depth: spec.prompt_depth,
        }
    }

    /// Patch tokens `[P, D]` as they are compared.
    fn patches(
        &self,
        image: &Entering,
        insertions: &Insertions,
        modulate: bool,
    ) -> Result<Vec<f32>, WorkflowError> {
        let features = self
            .frozen()
            .forward(image.embedded(), insertions, &[self.layer])
            .map_err(adapt)?;
        let found = &features[0][self.frozen().config().dim..];
        let mut out = found.to_vec();
        if modulate {
            self.adaptation
                .apply(&[found], &mut out, &mut Tape::default());
        }
        Ok(out)
    }

    /// The adapted patch tokens with prompt `prompt` taken out of the transformer.
    pub(super) fn without(
        &self,
        image: &Entering,
        prompt: usize,
    ) -> Result<Vec<f32>, WorkflowError> {
        let insertions = self
            .insertions(State::After)
            .without_prompt(prompt)
            .map_err(adapt)?;
        self.patches(image, &insertions, self.modulates())
    }

    /// What enters the block for an image: prompts `[K, D]` and patches `[P, D]`.
    pub(super) fn entering_block(
        &self,
        state: State,
        image: &Entering,
        block: usize,
    ) -> Result<(Vec<f32>, Vec<f32>), WorkflowError> {
        let insertions = self.insertions(state);
        let (features, tape) = self
            .frozen()
            .forward_recorded(image.embedded(), insertions, None, &[self.layer])
            .map_err(adapt)?;
        let none = vec![0.0; features[0].len()];
        let found = self
            .frozen()
            .at_block(&tape, &[&none], block)
            .map_err(adapt)?;
        let layout = self.layout(state, image.grid.0 * image.grid.1);
        let dim = self.frozen().config().dim;
        let (start, end) = (layout.prefix * dim, (layout.prefix + layout.prompts) * dim);
        Ok((
            found.tokens[start..end].to_vec(),
            found.tokens[end..].to_vec(),
        ))
    }

    /// Everything about one image; `normal` `[P, D]` are the mean activations of normal images where they enter the block.
    pub(super) fn look(
        &self,
        state: State,
        image: &Entering,
        bank: &PatchBank,
        left_out: Option<usize>,
        normal: &[f64],
    ) -> Result<Seen, WorkflowError> {
        let insertions = self.insertions(state);
        let dim = self.frozen().config().dim;
        let (features, tape) = self
            .frozen()
            .forward_recorded(image.embedded(), insertions, None, &[self.layer])
            .map_err(adapt)?;
        let unmodulated = features[0][dim..].to_vec();
        let mut patches = unmodulated.clone();
        let modulation =
            (state == State::After && self.modulates()).then(|| self.adaptation.modulation());
        let mut kept = Tape::default();
        if let Some(modulation) = modulation {
            modulation.forward(&[&unmodulated], &mut patches, &mut kept);
        }
        let score = bank.score(&patches, left_out, top_fraction())?;
        let mut gradient = vec![0.0; features[0].len()];
        gradient[dim..].copy_from_slice(&score.gradient);
        if let Some(modulation) = modulation {
            let mut unused = Gradients::zeros_for(modulation.parameters());
            let images = [&unmodulated[..]];
            modulation.backward(
                &images,
                &mut kept,
                &score.gradient,
                &mut unused,
                Some(&mut gradient[dim..]),
            );
        }
        let Activations { tokens, gradient } = self
            .frozen()
            .at_block(&tape, &[&gradient], self.block)
            .map_err(adapt)?;
        let layout = self.layout(state, image.grid.0 * image.grid.1);
        let from = (layout.prefix + layout.prompts) * dim;
        let cam = grad_cam(&tokens[from..], &gradient[from..], normal, dim)?;
        let mut rollout = Rollout::new(layout, self.layer + 1);
        let mut wrong = None;
        self.frozen()
            .attentions(
                image.embedded(),
                insertions,
                self.layer,
                &mut |_, attention| {
                    wrong = wrong.take().or(rollout.push(attention).err());
                },
            )
            .map_err(adapt)?;
        if let Some(error) = wrong {
            return Err(error.into());
        }
        Ok(Seen {
            patches,
            unmodulated,
            score,
            cam,
            rollout,
        })
    }
}
