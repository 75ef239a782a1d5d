//! Loss and gradient of one batch, written once for plain numbers and for numbers that carry a derivative: the derivative
//! of the gradient along a direction is the product of the Hessian with it, exact to rounding and without a step size.
//!
//! Which patch matches which is taken from the values and held: the loss is a maximum over matches, differentiable
//! wherever no two are equal, and there the matches do not move.

use flawtune::unit::{NORM_EPSILON, normalise_rows};
use flawtune_kernels::matching::{Matches, PackedPatches, match_patches};
use rayon::prelude::*;

use super::real::{Dual, Real};
use crate::adapt::{AdaptError, Adaptation, Loss, ModulationType, Parameters};

/// Added to the spread of similarities, as in the loss.
const SPREAD_EPSILON: f64 = 1e-8;

/// What is differentiated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Formula {
    learned_transform: bool,
    alpha: f64,
    loss: Loss,
}

/// A loss and its gradient with respect to each tensor.
type Slopes<T> = (T, Vec<Vec<T>>);

/// The rows of a batch's images, normals first, and which of them match.
#[derive(Debug)]
pub(super) struct FixedBatch {
    rows: Vec<Vec<f64>>,
    normals: usize,
    dim: usize,
    /// For each compared pair `(i, j)`, the row of j that each row of i is most like.
    pairs: Vec<(usize, usize, Vec<u32>)>,
}

impl Formula {
    /// Of an adaptation under a loss.
    ///
    /// # Errors
    /// [`AdaptError::Option`] for the formulas and losses that have no second derivative here.
    pub(super) fn of(adaptation: &Adaptation, loss: Loss) -> Result<Self, AdaptError> {
        let o = adaptation.options();
        let refuse = |found: String| {
            Err(AdaptError::Option {
                option: "method",
                found: format!("maml with {found}"),
                wanted: "its second derivative is there for per_patch and learned_transform (or class tokens) under \
                         separability and contrastive, without learned factors\nhint: use one of them, or fomaml or reptile"
                    .to_owned(),
            })
        };
        if matches!(loss, Loss::Scores(_)) {
            return refuse(loss.to_string());
        }
        if o.residual_scaling != flawtune_backbone::vjp::Scaling::Fixed {
            return refuse("a learned factor on what is added".to_owned());
        }
        if !o.use_cls && o.modulation == ModulationType::Global {
            return refuse(o.modulation.to_string());
        }
        Ok(Self {
            learned_transform: !o.use_cls && o.modulation == ModulationType::LearnedTransform,
            alpha: f64::from(o.scaling_factor),
            loss,
        })
    }
}

impl FixedBatch {
    /// Of images `[rows, dim]`, normals first, matched as the adaptation makes them now.
    pub(super) fn new(adaptation: &Adaptation, images: &[&[f32]], normals: usize) -> Self {
        let dim = adaptation.dim();
        let size = images[0].len();
        let mut out = vec![0.0; images.len() * size];
        adaptation.apply(images, &mut out, &mut crate::adapt::Tape::default());
        let packs: Vec<PackedPatches> = out
            .par_chunks_exact_mut(size)
            .map(|rows| {
                normalise_rows(rows, dim, &mut vec![0.0; size / dim]);
                PackedPatches::pack(rows, dim)
            })
            .collect();
        let all = (0..normals).flat_map(|i| {
            (0..images.len())
                .filter(move |&j| i != j)
                .map(move |j| (i, j))
        });
        let pairs = all.collect::<Vec<_>>().into_par_iter().map(|(i, j)| {
            let mut found = Matches::default();
            match_patches(&packs[i], &packs[j], &mut found);
            (i, j, found.index[..size / dim].to_vec())
        });
        Self {
            pairs: pairs.collect(),
            rows: images
                .iter()
                .map(|i| i.iter().map(|&v| f64::from(v)).collect())
                .collect(),
            normals,
            dim,
        }
    }
}

/// Every tensor's numbers, in f64.
pub(super) fn values(of: &Parameters) -> Vec<Vec<f64>> {
    of.iter()
        .map(|t| t.data.iter().map(|&v| f64::from(v)).collect())
        .collect()
}

/// The product of the Hessian of the loss at `at` with `direction`.
pub(super) fn hessian_product(
    formula: Formula,
    batch: &FixedBatch,
    at: &Parameters,
    direction: &[Vec<f64>],
) -> Vec<Vec<f64>> {
    let tensors: Vec<Vec<Dual>> = at
        .iter()
        .zip(direction)
        .map(|(t, d)| {
            t.data
                .iter()
                .zip(d)
                .map(|(&v, &slope)| Dual {
                    value: f64::from(v),
                    slope,
                })
                .collect()
        })
        .collect();
    let (_, gradient) = slopes(formula, batch, &tensors);
    gradient
        .into_iter()
        .map(|t| t.into_iter().map(|v| v.slope).collect())
        .collect()
}

fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    a.iter()
        .zip(b)
        .fold(T::from_f64(0.0), |sum, (&a, &b)| sum + a * b)
}

/// `Σ a b` of constants and numbers.
fn dot_constant<T: Real>(a: &[f64], b: &[T]) -> T {
    a.iter()
        .zip(b)
        .fold(T::from_f64(0.0), |sum, (&a, &b)| sum + T::from_f64(a) * b)
}

fn add_scaled<T: Real>(to: &mut [T], w: T, from: &[T]) {
    to.iter_mut()
        .zip(from)
        .for_each(|(to, &from)| *to += w * from);
}

/// `x / (‖x‖ + ε)` and `‖x‖`.
fn unit<T: Real>(x: &[T]) -> (Vec<T>, T) {
    let norm = dot(x, x).sqrt();
    let inverse = T::from_f64(1.0) / (norm + T::from_f64(NORM_EPSILON));
    (x.iter().map(|&v| v * inverse).collect(), norm)
}

/// Gradient with respect to x of what has the gradient g with respect to `unit(x)`.
fn unit_backward<T: Real>(u: &[T], norm: T, g: &[T]) -> Vec<T> {
    let length = norm + T::from_f64(NORM_EPSILON);
    let inverse = T::from_f64(1.0) / length;
    // d‖x‖ = x/‖x‖ = u (‖x‖ + ε)/‖x‖
    let along = if norm.value() > 0.0 {
        dot(u, g) * length / norm
    } else {
        T::from_f64(0.0)
    };
    u.iter()
        .zip(g)
        .map(|(&u, &g)| (g - u * along) * inverse)
        .collect()
}

/// `½ (1 + erf(x / √2))`.
fn below<T: Real>(x: T) -> T {
    T::from_f64(0.5) * (T::from_f64(1.0) + (x * T::from_f64(std::f64::consts::FRAC_1_SQRT_2)).erf())
}

/// Derivative of GELU.
fn gelu_slope<T: Real>(x: T) -> T {
    let density =
        T::from_f64(1.0 / (2.0 * std::f64::consts::PI).sqrt()) * (T::from_f64(-0.5) * x * x).exp();
    below(x) + x * density
}

/// What a row's forward pass leaves for the way back.
struct Row<T> {
    attention: Vec<T>,
    /// `[x, w·s]`, before the MLP.
    mix: Vec<T>,
    /// Before and behind GELU; empty without an MLP.
    pre: Vec<T>,
    hidden: Vec<T>,
    unit: Vec<T>,
    norm: T,
}

/// Scaled prompts and what is made of them.
struct Prompts<T> {
    scaled: Vec<Vec<T>>,
    units: Vec<(Vec<T>, T)>,
}

/// Loss and gradient.
pub(super) fn slopes<T: Real>(
    formula: Formula,
    batch: &FixedBatch,
    tensors: &[Vec<T>],
) -> Slopes<T> {
    let dim = batch.dim;
    let scaled: Vec<Vec<T>> = tensors[0]
        .chunks_exact(dim)
        .zip(&tensors[1])
        .map(|(row, &scale)| row.iter().map(|&v| v * scale).collect())
        .collect();
    let prompts = Prompts {
        units: scaled.iter().map(|s| unit(s)).collect(),
        scaled,
    };
    let rows: Vec<Vec<Row<T>>> = batch
        .rows
        .par_iter()
        .map(|image| {
            image
                .chunks_exact(dim)
                .map(|x| forward(formula, &prompts, tensors, x))
                .collect()
        })
        .collect();
    // similarities, loss, and the gradient with respect to each unit row
    let count = rows[0].len();
    let share = T::from_f64(1.0 / count as f64);
    let similarities: Vec<T> = batch
        .pairs
        .par_iter()
        .map(|(i, j, of)| {
            let sum = of
                .iter()
                .enumerate()
                .fold(T::from_f64(0.0), |sum, (p, &q)| {
                    sum + dot(&rows[*i][p].unit, &rows[*j][q as usize].unit)
                });
            sum * share
        })
        .collect();
    let (loss, weights) = of_similarities(formula.loss, batch, &similarities);
    let found: Vec<Vec<Vec<T>>> = (0..rows.len())
        .into_par_iter()
        .map(|image| {
            let mut grad = vec![vec![T::from_f64(0.0); dim]; count];
            for ((i, j, of), &weight) in batch.pairs.iter().zip(&weights) {
                let weight = weight * share;
                for (p, &q) in of.iter().enumerate() {
                    if *i == image {
                        add_scaled(&mut grad[p], weight, &rows[*j][q as usize].unit);
                    }
                    if *j == image {
                        add_scaled(&mut grad[q as usize], weight, &rows[*i][p].unit);
                    }
                }
            }
            let mut own = Backward::new(tensors, &prompts, dim);
            for ((row, grad), x) in rows[image]
                .iter()
                .zip(&grad)
                .zip(batch.rows[image].chunks_exact(dim))
            {
                own.add(formula, &prompts, tensors, row, grad, x);
            }
            own.finish(&prompts, tensors, dim)
        })
        .collect();
    // in the order of the images, for the same bits on any number of threads
    let mut gradient: Vec<Vec<T>> = tensors
        .iter()
        .map(|t| vec![T::from_f64(0.0); t.len()])
        .collect();
    for image in &found {
        for (to, from) in gradient.iter_mut().zip(image) {
            to.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
        }
    }
    (loss, gradient)
}

fn forward<T: Real>(
    formula: Formula,
    prompts: &Prompts<T>,
    tensors: &[Vec<T>],
    x: &[f64],
) -> Row<T> {
    let dim = x.len();
    let inverse = 1.0 / (x.iter().map(|v| v * v).sum::<f64>().sqrt() + NORM_EPSILON);
    let logits: Vec<T> = prompts
        .units
        .iter()
        .map(|(u, _)| dot_constant(x, u) * T::from_f64(inverse))
        .collect();
    let top = logits
        .iter()
        .map(|l| l.value())
        .fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<T> = logits
        .iter()
        .map(|&l| (l - T::from_f64(top)).exp())
        .collect();
    let sum = weights.iter().fold(T::from_f64(0.0), |sum, &w| sum + w);
    let attention: Vec<T> = weights.into_iter().map(|w| w / sum).collect();
    let mut mix = vec![T::from_f64(0.0); dim];
    for (&w, s) in attention.iter().zip(&prompts.scaled) {
        add_scaled(&mut mix, w, s);
    }
    let alpha = T::from_f64(formula.alpha);
    let (mut pre, mut hidden) = (Vec::new(), Vec::new());
    let added: Vec<T> = if formula.learned_transform {
        let [w0, b0, w2, b2] = [2, 3, 4, 5].map(|i| &tensors[i]);
        pre = w0
            .chunks_exact(2 * dim)
            .zip(b0)
            .map(|(w, &b)| dot_constant(x, &w[..dim]) + dot(&mix, &w[dim..]) + b)
            .collect();
        hidden = pre.iter().map(|&p| p * below(p)).collect();
        w2.chunks_exact(dim)
            .zip(b2)
            .map(|(w, &b)| dot(&hidden, w) + b)
            .collect()
    } else {
        mix.clone()
    };
    let out: Vec<T> = x
        .iter()
        .zip(added)
        .map(|(&x, a)| T::from_f64(x) + alpha * a)
        .collect();
    let (unit, norm) = unit(&out);
    Row {
        attention,
        mix,
        pre,
        hidden,
        unit,
        norm,
    }
}

/// The gradients of one image's rows.
struct Backward<T> {
    tensors: Vec<Vec<T>>,
    scaled: Vec<Vec<T>>,
    units: Vec<Vec<T>>,
}

impl<T: Real> Backward<T> {
    fn new(tensors: &[Vec<T>], prompts: &Prompts<T>, dim: usize) -> Self {
        let zero = |n: usize| vec![T::from_f64(0.0); n];
        Self {
            tensors: tensors.iter().map(|t| zero(t.len())).collect(),
            scaled: prompts.scaled.iter().map(|_| zero(dim)).collect(),
            units: prompts.scaled.iter().map(|_| zero(dim)).collect(),
        }
    }

    /// Adds what comes through a row whose unit vector has the gradient `grad`.
    fn add(
        &mut self,
        formula: Formula,
        prompts: &Prompts<T>,
        tensors: &[Vec<T>],
        row: &Row<T>,
        grad: &[T],
        x: &[f64],
    ) {
        let dim = x.len();
        let alpha = T::from_f64(formula.alpha);
        let mut added: Vec<T> = unit_backward(&row.unit, row.norm, grad);
        for v in &mut added {
            *v = *v * alpha;
        }
        let grad_mix = if formula.learned_transform {
            let (w0, w2) = (&tensors[2], &tensors[4]);
            let mut grad_hidden = vec![T::from_f64(0.0); dim];
            for (i, (&g, w)) in added.iter().zip(w2.chunks_exact(dim)).enumerate() {
                add_scaled(&mut grad_hidden, g, w);
                add_scaled(&mut self.tensors[4][i * dim..(i + 1) * dim], g, &row.hidden);
                self.tensors[5][i] += g;
            }
            let mut grad_mix = vec![T::from_f64(0.0); dim];
            for (i, ((&g, &p), w)) in grad_hidden
                .iter()
                .zip(&row.pre)
                .zip(w0.chunks_exact(2 * dim))
                .enumerate()
            {
                let g = g * gelu_slope(p);
                add_scaled(&mut grad_mix, g, &w[dim..]);
                let to = &mut self.tensors[2][i * 2 * dim..(i + 1) * 2 * dim];
                to[..dim]
                    .iter_mut()
                    .zip(x)
                    .for_each(|(to, &x)| *to += g * T::from_f64(x));
                add_scaled(&mut to[dim..], g, &row.mix);
                self.tensors[3][i] += g;
            }
            grad_mix
        } else {
            added
        };
        let grad_attention: Vec<T> = prompts.scaled.iter().map(|s| dot(&grad_mix, s)).collect();
        let along = dot(&row.attention, &grad_attention);
        let inverse = 1.0 / (x.iter().map(|v| v * v).sum::<f64>().sqrt() + NORM_EPSILON);
        for (k, (&w, &g)) in row.attention.iter().zip(&grad_attention).enumerate() {
            add_scaled(&mut self.scaled[k], w, &grad_mix);
            let logit = w * (g - along) * T::from_f64(inverse);
            self.units[k]
                .iter_mut()
                .zip(x)
                .for_each(|(to, &x)| *to += logit * T::from_f64(x));
        }
    }

    /// The gradients of the tensors.
    fn finish(mut self, prompts: &Prompts<T>, tensors: &[Vec<T>], dim: usize) -> Vec<Vec<T>> {
        for k in 0..self.scaled.len() {
            let (u, norm) = &prompts.units[k];
            let through = unit_backward(u, *norm, &self.units[k]);
            let whole: Vec<T> = self.scaled[k]
                .iter()
                .zip(through)
                .map(|(&a, b)| a + b)
                .collect();
            let (prompt, scale) = (&tensors[0][k * dim..(k + 1) * dim], tensors[1][k]);
            add_scaled(&mut self.tensors[0][k * dim..(k + 1) * dim], scale, &whole);
            self.tensors[1][k] += dot(&whole, prompt);
        }
        self.tensors
    }
}

/// The loss, and its gradient with respect to the similarity of each pair.
fn of_similarities<T: Real>(loss: Loss, batch: &FixedBatch, similarities: &[T]) -> (T, Vec<T>) {
    let zero = T::from_f64(0.0);
    let is_nn: Vec<bool> = batch
        .pairs
        .iter()
        .map(|(_, j, _)| *j < batch.normals)
        .collect();
    let of = |nn: bool| -> Vec<T> {
        similarities
            .iter()
            .zip(&is_nn)
            .filter(|(_, is)| **is == nn)
            .map(|(&s, _)| s)
            .collect()
    };
    let (nn, nd) = (of(true), of(false));
    let number = |v: usize| T::from_f64(v as f64);
    if let Loss::Contrastive { margin } = loss {
        let margin = T::from_f64(margin);
        let near = number(nn.len() / 2);
        let (mut sum, mut weights) = (zero, Vec::with_capacity(similarities.len()));
        for ((&s, (i, j, _)), nn) in similarities.iter().zip(&batch.pairs).zip(&is_nn) {
            let far = s - margin;
            if *nn && i < j {
                sum += (T::from_f64(1.0) - s) / near;
                weights.push(T::from_f64(-1.0) / near);
            } else if !nn && far.value() > 0.0 {
                sum += far / number(nd.len());
                weights.push(T::from_f64(1.0) / number(nd.len()));
            } else {
                weights.push(zero);
            }
        }
        return (sum, weights);
    }
    let moments = |of: &[T]| {
        let mean = of.iter().fold(zero, |sum, &v| sum + v) / number(of.len());
        let squares = of
            .iter()
            .fold(zero, |sum, &v| sum + (v - mean) * (v - mean));
        let spread = if of.len() > 1 {
            (squares / number(of.len() - 1)).sqrt()
        } else {
            zero
        };
        (mean, spread)
    };
    let ((mu_nn, sd_nn), (mu_nd, sd_nd)) = (moments(&nn), moments(&nd));
    let spread = sd_nn + sd_nd + T::from_f64(SPREAD_EPSILON);
    let separability = (mu_nn - mu_nd) / spread;
    let slope = |v: T, mean: T, sd: T, count: usize| {
        if sd.value() <= SPREAD_EPSILON {
            zero
        } else {
            (v - mean) / (number(count - 1) * sd)
        }
    };
    let weights = similarities.iter().zip(&is_nn).map(|(&s, &is)| {
        if is {
            let one = T::from_f64(1.0) / number(nn.len());
            (separability * slope(s, mu_nn, sd_nn, nn.len()) - one) / spread
        } else {
            let one = T::from_f64(1.0) / number(nd.len());
            (separability * slope(s, mu_nd, sd_nd, nd.len()) + one) / spread
        }
    });
    (-separability, weights.collect())
}

#[cfg(test)]
mod tests;
