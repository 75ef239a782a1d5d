//! Loss and gradient of one batch: modulation, similarities, loss, and back.

use super::bank_matches::BankMatches;
use super::modulation::resize;
use super::{
    AdaptError, Gradients, Loss, Modulation, PairwiseMatches, Similarities, SimilarityStats, Tape,
};

/// What one batch showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchLoss {
    /// The loss.
    pub loss: f64,
    /// Means and deviations of the similarities.
    pub stats: SimilarityStats,
}

/// Buffers for batches, reused from step to step: about four times the tokens of a batch.
#[derive(Debug, Default)]
pub struct BatchPass {
    tape: Tape,
    matches: PairwiseMatches,
    similarities: Similarities,
    weights: Similarities,
    grad_tokens: Vec<f32>,
    bank: BankMatches,
    scores: Vec<f64>,
    /// Where the flaws of the next batch's defects are, as far as it is known.
    flaws: Vec<Option<Vec<bool>>>,
    /// Derivatives by distances to the bank, where the last loss was one of image scores.
    derivatives: Option<Vec<(usize, f64)>>,
}

impl BatchPass {
    /// Empty buffers; they grow with the first batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// The matches of the batch: to keep them between visits, and to say which images come next.
    pub fn matches_mut(&mut self) -> &mut PairwiseMatches {
        &mut self.matches
    }

    /// Says where the flaws of the defects of the next batches are: one mask of `rows` patches for each, `None` or no entry
    /// where it is not known. Only losses of image scores look at it; [`ScoreLoss`](super::ScoreLoss) says how.
    pub fn set_flaws(&mut self, flaws: Vec<Option<Vec<bool>>>) {
        self.flaws = flaws;
    }

    /// Modulates a batch, normals first (`[rows, dim]` each), and computes its loss. Without a modulation the tokens
    /// are compared as they are.
    ///
    /// # Errors
    /// [`AdaptError::TooFewImages`] with fewer than two normals or no defect; [`AdaptError::Shape`] for a mask of another
    /// number of patches.
    pub fn forward(
        &mut self,
        modulation: Option<&dyn Modulation>,
        images: &[&[f32]],
        normals: usize,
        dim: usize,
        loss: Loss,
    ) -> Result<BatchLoss, AdaptError> {
        let defects = images.len().saturating_sub(normals);
        super::loss::check_counts(normals, defects)?;
        let rows = images[0].len() / dim;
        let out = match loss {
            Loss::Scores(_) => self.bank.tokens_mut(normals, images.len(), rows, dim),
            _ => self.matches.tokens_mut(normals, defects, rows, dim),
        };
        match modulation {
            Some(m) => m.forward(images, out, &mut self.tape),
            None => out
                .chunks_exact_mut(rows * dim)
                .zip(images)
                .for_each(|(o, i)| o.copy_from_slice(i)),
        }
        if let Loss::Scores(loss) = loss {
            loss.check()?;
            if let Some(other) = self.flaws.iter().flatten().find(|flaw| flaw.len() != rows) {
                return Err(AdaptError::Shape {
                    name: "a defect's mask".to_owned(),
                    found: vec![other.len()],
                    wanted: vec![rows],
                    hint: "; a mask says something of each compared token",
                });
            }
            let derivatives = self.derivatives.get_or_insert_default();
            let distances = self.bank.forward();
            let known = (normals, self.flaws.as_slice());
            let loss = loss.evaluate(distances, rows, known, &mut self.scores, derivatives);
            return Ok(BatchLoss {
                loss,
                stats: SimilarityStats::of_scores(&self.scores, normals)?,
            });
        }
        self.derivatives = None;
        self.matches.forward(&mut self.similarities);
        let stats = SimilarityStats::of(&self.similarities)?;
        let loss = loss.evaluate(&self.similarities, &stats, &mut self.weights)?;
        Ok(BatchLoss { loss, stats })
    }

    /// Adds to `gradients` those of the loss of the last [`Self::forward`], given the same images and modulation.
    /// With `grad_in` the gradient with respect to the tokens, `[images, rows, dim]`, is written there.
    pub fn backward(
        &mut self,
        modulation: &dyn Modulation,
        images: &[&[f32]],
        gradients: &mut Gradients,
        grad_in: Option<&mut [f32]>,
    ) {
        let len = images.iter().map(|i| i.len()).sum();
        let mut grad = std::mem::take(&mut self.grad_tokens);
        self.token_gradient(resize(&mut grad, len));
        modulation.backward(images, &mut self.tape, &grad[..len], gradients, grad_in);
        self.grad_tokens = grad;
    }

    /// Writes the gradient of the last loss with respect to the modulated tokens, `[images, rows, dim]`.
    pub fn token_gradient(&self, grad_tokens: &mut [f32]) {
        match &self.derivatives {
            Some(derivatives) => self.bank.backward(derivatives, grad_tokens),
            None => self.matches.backward(&self.weights, grad_tokens),
        }
    }

    /// The similarities of the last batch that was compared pair by pair.
    pub fn similarities(&self) -> &Similarities {
        &self.similarities
    }
}
