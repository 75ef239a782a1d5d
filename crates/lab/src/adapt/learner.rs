//! What the training loop trains: anything that has parameters, can say what a batch of images costs, and can bring
//! the gradient of that cost back to the parameters.

use flawtune::features::TokenSet;

use super::hold_out::HoldOutImages;
use super::train::TrainData;
use super::{
    AdaptError, Adaptation, BatchLoss, BatchPass, Gradients, HoldOut, HoldOutMetric, Loss,
    MatchMemory, Parameters, Tape, rows_of,
};

/// The images of one step.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    /// Indices into the caller's list of normals.
    pub(super) normals: Vec<usize>,
    /// Indices into the caller's list of defects.
    pub(super) defects: Vec<usize>,
    /// Steps taken before this one since the training began, over interruptions: what random numbers of a step depend on.
    pub(super) step: u64,
}

/// The masks of the defects of a batch.
pub(super) fn flaws_of(masks: &[Option<Vec<bool>>], defects: &[usize]) -> Vec<Option<Vec<bool>>> {
    if masks.is_empty() {
        return Vec::new();
    }
    defects
        .iter()
        .map(|&i| masks.get(i).cloned().flatten())
        .collect()
}

/// Something with parameters that a loss can be brought down by.
///
/// The result of every method depends on the parameters and its arguments only, not on the number of threads.
pub(super) trait Learner {
    /// The trainable tensors.
    fn parameters(&self) -> &Parameters;

    /// The trainable tensors, for the optimiser. Names and shapes must stay.
    fn parameters_mut(&mut self) -> &mut Parameters;

    /// The loss of a batch.
    ///
    /// # Errors
    /// Too few images for the loss; images that cannot be brought in.
    fn forward(&mut self, batch: &Batch, loss: Loss) -> Result<BatchLoss, AdaptError>;

    /// Adds to `gradients` those of the loss of the last [`Self::forward`].
    ///
    /// # Errors
    /// Tensors that do not fit together.
    fn backward(&mut self, gradients: &mut Gradients) -> Result<(), AdaptError>;

    /// The metric on the hold-out, with the present parameters or (`adapted` false) without any adaptation.
    ///
    /// # Errors
    /// As [`Self::forward`]; [`AdaptError::TooFewImages`] without a hold-out.
    fn measure(&mut self, metric: HoldOutMetric, adapted: bool) -> Result<f64, AdaptError>;
}

/// A modulation of tokens that were extracted once.
#[derive(Debug)]
pub(super) struct FrozenTokens<'a> {
    adaptation: &'a mut Adaptation,
    data: TrainData<'a>,
    held_out: HoldOutImages<'a>,
    pass: BatchPass,
    /// Rows of the images of the last batch.
    images: Vec<&'a [f32]>,
    tape: Tape,
}

impl<'a> FrozenTokens<'a> {
    /// All indices must be checked. With `keep_matches`, matches are kept between visits of a pair.
    pub(super) fn new(
        adaptation: &'a mut Adaptation,
        data: TrainData<'a>,
        hold_out: Option<&HoldOut>,
        keep_matches: bool,
    ) -> Self {
        let use_cls = adaptation.options().use_cls;
        let rows = |set: &'a TokenSet, list: &[usize]| -> Vec<&'a [f32]> {
            list.iter()
                .map(|&i| rows_of(&set.images[i], use_cls))
                .collect()
        };
        let held_out = HoldOutImages {
            normals: hold_out
                .map(|h| rows(data.normals, &h.normals))
                .unwrap_or_default(),
            defects: hold_out
                .map(|h| rows(data.defects, &h.defects))
                .unwrap_or_default(),
            support: hold_out
                .map(|h| rows(data.normals, &h.support))
                .unwrap_or_default(),
            dim: adaptation.dim(),
        };
        let mut pass = BatchPass::new();
        if keep_matches && !use_cls {
            let (normals, defects) = (data.normals.images.len(), data.defects.images.len());
            if let Some(memory) =
                MatchMemory::new(normals, defects, data.normals.patches(), adaptation.dim())
            {
                pass.matches_mut().remember(memory);
            }
        }
        Self {
            adaptation,
            data,
            held_out,
            pass,
            images: Vec::new(),
            tape: Tape::default(),
        }
    }
}

impl Learner for FrozenTokens<'_> {
    fn parameters(&self) -> &Parameters {
        self.adaptation.parameters()
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        self.adaptation.modulation_mut().parameters_mut()
    }

    fn forward(&mut self, batch: &Batch, loss: Loss) -> Result<BatchLoss, AdaptError> {
        let (data, use_cls) = (self.data, self.adaptation.options().use_cls);
        self.images.clear();
        self.images.extend(
            batch
                .normals
                .iter()
                .map(|&i| rows_of(&data.normals.images[i], use_cls)),
        );
        self.images.extend(
            batch
                .defects
                .iter()
                .map(|&i| rows_of(&data.defects.images[i], use_cls)),
        );
        self.pass
            .matches_mut()
            .announce(&batch.normals, &batch.defects);
        self.pass.set_flaws(flaws_of(data.masks, &batch.defects));
        let m = self.adaptation.modulation();
        self.pass.forward(
            Some(m),
            &self.images,
            batch.normals.len(),
            self.adaptation.dim(),
            loss,
        )
    }

    fn backward(&mut self, gradients: &mut Gradients) -> Result<(), AdaptError> {
        self.pass
            .backward(self.adaptation.modulation(), &self.images, gradients, None);
        Ok(())
    }

    fn measure(&mut self, metric: HoldOutMetric, adapted: bool) -> Result<f64, AdaptError> {
        self.held_out.measure(
            adapted.then(|| self.adaptation.modulation()),
            metric,
            &mut self.tape,
        )
    }
}
