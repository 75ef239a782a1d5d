//! A step of training through the backbone.

use flawtune_backbone::vjp::{Embedded, FrozenVit, InsertionSpec, Insertions, Tape};

use crate::adapt::hold_out::HoldOutImages;
use crate::adapt::learner::{Batch, Learner, flaws_of};
use crate::adapt::{
    AdaptError, Adaptation, BatchLoss, BatchPass, Gradients, HoldOut, HoldOutMetric, Loss,
    Parameters, Tape as ModulationTape,
};
use flawtune::random::{Purpose, Stream};

use super::{EmbeddedImages, InsideOptions};

/// Images that go through the backbone at once where no gradient is needed.
const IMAGES_AT_ONCE: usize = 16;
/// 32-bit words of random numbers a prompt's fate takes.
const WORDS: u64 = 2;

/// Inserted tensors, and on top of them, if asked, an output modulation.
#[derive(Debug)]
pub(super) struct Inside<'a> {
    pub(super) backbone: &'a FrozenVit,
    pub(super) layer: usize,
    pub(super) options: &'a InsideOptions,
    pub(super) images: EmbeddedImages<'a>,
    /// Normals come first among the images: the number of them.
    pub(super) normals: usize,
    /// Which patches each defect's mask covers, as far as it is known.
    pub(super) masks: &'a [Option<Vec<bool>>],
    pub(super) hold_out: Option<&'a HoldOut>,
    pub(super) seed: u64,
    /// Everything trained: the inserted tensors, then those of the modulation.
    parameters: Parameters,
    insertions: Insertions,
    output: &'a mut Adaptation,
    pass: BatchPass,
    embedded: Vec<f32>,
    /// Output tokens of the last batch, `[images, 1 + patches, dim]`, and what its gradient needs.
    features: Vec<f32>,
    tape: Option<Tape>,
}

impl<'a> Inside<'a> {
    pub(super) fn new(
        (backbone, layer): (&'a FrozenVit, usize),
        options: &'a InsideOptions,
        (images, normals, masks): (EmbeddedImages<'a>, usize, &'a [Option<Vec<bool>>]),
        hold_out: Option<&'a HoldOut>,
        seed: u64,
        start: Insertions,
        output: &'a mut Adaptation,
    ) -> Result<Self, AdaptError> {
        let mut parameters = Parameters::new();
        for t in start.tensors() {
            parameters.push(t.name, &t.shape, t.data.clone())?;
        }
        if options.modulate_output {
            for t in output.parameters() {
                parameters.push(&t.name, &t.shape, t.data.clone())?;
            }
        }
        Ok(Self {
            backbone,
            layer,
            options,
            images,
            normals,
            masks,
            hold_out,
            seed,
            parameters,
            insertions: start,
            output,
            pass: BatchPass::new(),
            embedded: Vec::new(),
            features: Vec::new(),
            tape: None,
        })
    }

    /// Puts the parameters where the forward pass reads them.
    fn place(&mut self) {
        let mut from = self.parameters.iter();
        for ((_, to), from) in self.insertions.values_mut().zip(&mut from) {
            to.copy_from_slice(&from.data);
        }
        if self.options.modulate_output {
            for (to, from) in self
                .output
                .modulation_mut()
                .parameters_mut()
                .iter_mut()
                .zip(from)
            {
                to.data.copy_from_slice(&from.data);
            }
        }
    }

    /// The inserted tensors with the present parameters; those of the modulation go to the adaptation.
    pub(super) fn finish(mut self) -> Insertions {
        self.place();
        self.insertions
    }

    /// Factors `[images, sets, K]` of the prompts in a step: 0 with the probability of the dropout, 1/(1 − p)
    /// otherwise. They depend on the seed, the step and the image's place in the batch only.
    fn keep(&self, step: u64, images: usize) -> Option<Vec<f32>> {
        let (p, spec) = (
            f64::from(self.options.prompt_dropout),
            self.insertions.spec(),
        );
        if p == 0.0 {
            return None;
        }
        let count = images * spec.prompt_sets() * spec.prompts;
        let mut stream = Stream::new(self.seed, Purpose::PromptDropout);
        stream.seek(step * WORDS * count as u64);
        let kept = (1.0 / (1.0 - p)) as f32;
        Some(
            (0..count)
                .map(|_| if stream.uniform() < p { 0.0 } else { kept })
                .collect(),
        )
    }

    /// Numbers of an image's output tokens.
    fn size(&self) -> usize {
        let (rows, columns) = self.images.grid();
        (1 + rows * columns) * self.backbone.config().dim
    }

    /// Where the compared rows lie among an image's output tokens.
    fn range(&self) -> std::ops::Range<usize> {
        let dim = self.backbone.config().dim;
        if self.output.options().use_cls {
            0..dim
        } else {
            dim..self.size()
        }
    }

    /// The compared rows of some images, without a record for the gradient.
    fn rows(
        &mut self,
        images: &[usize],
        insertions: &Insertions,
    ) -> Result<Vec<Vec<f32>>, AdaptError> {
        let (range, size, grid) = (self.range(), self.size(), self.images.grid());
        let mut out = Vec::with_capacity(images.len());
        for chunk in images.chunks(IMAGES_AT_ONCE) {
            self.images.gather(chunk, &mut self.embedded)?;
            let embedded = Embedded {
                tokens: &self.embedded,
                grid,
            };
            for features in self.backbone.forward(embedded, insertions, &[self.layer])? {
                out.extend(
                    features
                        .chunks_exact(size)
                        .map(|f| f[range.clone()].to_vec()),
                );
            }
        }
        Ok(out)
    }
}

fn slices(rows: &[Vec<f32>]) -> Vec<&[f32]> {
    rows.iter().map(Vec::as_slice).collect()
}

impl Learner for Inside<'_> {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    fn forward(&mut self, batch: &Batch, loss: Loss) -> Result<BatchLoss, AdaptError> {
        self.place();
        let images: Vec<usize> = batch
            .normals
            .iter()
            .copied()
            .chain(batch.defects.iter().map(|d| d + self.normals))
            .collect();
        self.images.gather(&images, &mut self.embedded)?;
        let keep = self.keep(batch.step, images.len());
        let embedded = Embedded {
            tokens: &self.embedded,
            grid: self.images.grid(),
        };
        let (features, tape) = self.backbone.forward_recorded(
            embedded,
            &self.insertions,
            keep.as_deref(),
            &[self.layer],
        )?;
        self.features = features.into_iter().next().unwrap_or_default();
        self.tape = Some(tape);
        let (range, size, dim) = (self.range(), self.size(), self.backbone.config().dim);
        let rows: Vec<&[f32]> = self
            .features
            .chunks_exact(size)
            .map(|f| &f[range.clone()])
            .collect();
        let modulation = self
            .options
            .modulate_output
            .then(|| self.output.modulation());
        self.pass.set_flaws(flaws_of(self.masks, &batch.defects));
        self.pass
            .forward(modulation, &rows, batch.normals.len(), dim, loss)
    }

    fn backward(&mut self, gradients: &mut Gradients) -> Result<(), AdaptError> {
        let Some(tape) = self.tape.take() else {
            return Ok(());
        };
        let (range, size) = (self.range(), self.size());
        let rows: Vec<&[f32]> = self
            .features
            .chunks_exact(size)
            .map(|f| &f[range.clone()])
            .collect();
        let mut grad_rows = vec![0.0; rows.len() * range.len()];
        let inserted = self.insertions.tensors().len();
        if self.options.modulate_output {
            let modulation = self.output.modulation();
            let mut own = Gradients::zeros_for(modulation.parameters());
            self.pass
                .backward(modulation, &rows, &mut own, Some(&mut grad_rows));
            for (to, from) in gradients
                .parameters
                .iter_mut()
                .skip(inserted)
                .zip(&own.parameters)
            {
                to.data
                    .iter_mut()
                    .zip(&from.data)
                    .for_each(|(to, from)| *to += from);
            }
            gradients.scaling_factor += own.scaling_factor;
        } else {
            self.pass.token_gradient(&mut grad_rows);
        }
        // the rows that are not compared have no gradient
        let mut grad = vec![0.0; self.features.len()];
        for (to, from) in grad
            .chunks_exact_mut(size)
            .zip(grad_rows.chunks_exact(range.len()))
        {
            to[range.clone()].copy_from_slice(from);
        }
        let found = self.backbone.backward(&tape, &[&grad], false)?;
        for (to, from) in gradients
            .parameters
            .iter_mut()
            .zip(found.insertions.tensors())
        {
            to.data
                .iter_mut()
                .zip(&from.data)
                .for_each(|(to, from)| *to += from);
        }
        Ok(())
    }

    fn measure(&mut self, metric: HoldOutMetric, adapted: bool) -> Result<f64, AdaptError> {
        let empty = HoldOut::default();
        let lists = self.hold_out.unwrap_or(&empty);
        let insertions = if adapted {
            self.place();
            self.insertions.clone()
        } else {
            Insertions::zeros(InsertionSpec::none(self.backbone.config()))?
        };
        let of_defects: Vec<usize> = lists.defects.iter().map(|d| d + self.normals).collect();
        let normals = self.rows(&lists.normals, &insertions)?;
        let defects = self.rows(&of_defects, &insertions)?;
        let support = self.rows(&lists.support, &insertions)?;
        let images = HoldOutImages {
            normals: slices(&normals),
            defects: slices(&defects),
            support: slices(&support),
            dim: self.backbone.config().dim,
        };
        let modulation =
            (adapted && self.options.modulate_output).then(|| self.output.modulation());
        images.measure(modulation, metric, &mut ModulationTape::default())
    }
}
