//! Class-balanced logistic regression with an L2 penalty, solved to convergence.
//!
//! loss(w, b) = ½ mean over defective rows of log(1 + e^−z) + ½ mean over normal rows of log(1 + e^z) + ½ λ‖w‖²,
//! z = w·x + b. Strictly convex in w, so there is one answer and no learning rate, epoch or seed to choose.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::HeadError;

/// Rows summed by one piece of work. Fixed, so that sums do not depend on the number of threads.
const ROWS_AT_ONCE: usize = 512;
/// Pairs of steps and gradient changes the solver remembers.
const MEMORY: usize = 10;

/// A weight per feature and a bias: `z = w·x + b`, positive where defective is likelier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinearHead {
    /// `[features]`.
    pub weight: Vec<f32>,
    /// One number.
    pub bias: f32,
}

impl LinearHead {
    /// The logit of one row of features.
    pub fn logit(&self, row: &[f32]) -> f32 {
        dot(&self.weight, row) + self.bias
    }

    /// Trained numbers: one a feature and the bias.
    pub fn trainable(&self) -> usize {
        self.weight.len() + 1
    }
}

/// How to fit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LogisticOptions {
    /// Weight λ of the penalty, on standardised features; positive. scikit-learn's `C` with balanced classes is
    /// 1 / (λ · rows).
    pub penalty: f64,
    /// Stop when no partial derivative is larger than this.
    pub tolerance: f64,
    /// Stop after this many steps in any case.
    pub max_steps: usize,
}

impl LogisticOptions {
    /// Penalty λ, solved to a gradient of 1e-6.
    pub fn with_penalty(penalty: f64) -> Self {
        Self {
            penalty,
            tolerance: 1e-6,
            max_steps: 500,
        }
    }
}

/// What the solver found.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// The head, for features as they were given.
    pub head: LinearHead,
    /// Loss with penalty at the end.
    pub loss: f64,
    /// Largest partial derivative at the end.
    pub gradient: f64,
    /// Steps taken.
    pub steps: usize,
}

/// Centre and spread of each feature, taken from normal rows so that one defect does not move the scale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Standardisation {
    mean: Vec<f64>,
    inverse: Vec<f64>,
}

impl Standardisation {
    pub(super) fn of(rows: &[f32], width: usize) -> Self {
        let count = (rows.len() / width).max(1) as f64;
        let (mut mean, mut square) = (vec![0.0; width], vec![0.0; width]);
        for row in rows.chunks_exact(width) {
            mean.iter_mut()
                .zip(row)
                .for_each(|(m, x)| *m += f64::from(*x));
        }
        for m in &mut mean {
            *m /= count;
        }
        for row in rows.chunks_exact(width) {
            for ((s, m), x) in square.iter_mut().zip(&mean).zip(row) {
                *s += (f64::from(*x) - m).powi(2);
            }
        }
        // a constant feature says nothing: it becomes 0 instead of 1/0
        let inverse = square
            .iter()
            .map(|s| {
                if *s > 0.0 {
                    (s / count).sqrt().recip()
                } else {
                    0.0
                }
            })
            .collect();
        Self { mean, inverse }
    }

    /// Features; 0 if the parts do not fit each other.
    pub(super) fn width(&self) -> usize {
        if self.mean.len() == self.inverse.len() {
            self.mean.len()
        } else {
            0
        }
    }

    pub(super) fn apply(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.mean.len()) {
            for ((x, m), i) in row.iter_mut().zip(&self.mean).zip(&self.inverse) {
                *x = ((f64::from(*x) - m) * i) as f32;
            }
        }
    }

    /// The head that gives on plain features what `head` gives on standardised ones.
    pub(super) fn fold(&self, head: &LinearHead) -> LinearHead {
        let weight: Vec<f64> = head
            .weight
            .iter()
            .zip(&self.inverse)
            .map(|(w, i)| f64::from(*w) * i)
            .collect();
        let shift: f64 = weight.iter().zip(&self.mean).map(|(w, m)| w * m).sum();
        LinearHead {
            weight: weight.iter().map(|w| *w as f32).collect(),
            bias: (f64::from(head.bias) - shift) as f32,
        }
    }
}

/// Dot product in 16 running sums: the compiler turns them into vector registers, and the order is always the same.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (a_blocks, b_blocks) = (a.chunks_exact(16), b.chunks_exact(16));
    let tail: f32 = a_blocks
        .remainder()
        .iter()
        .zip(b_blocks.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in a_blocks.zip(b_blocks) {
        for ((s, x), y) in sums.iter_mut().zip(x).zip(y) {
            *s += x * y;
        }
    }
    sums.iter().sum::<f32>() + tail
}

struct Problem<'a> {
    defective: &'a [f32],
    normal: &'a [f32],
    width: usize,
    penalty: f64,
}

impl Problem<'_> {
    /// Loss and its gradient `[width + 1]` (bias last) at `at`.
    fn evaluate(&self, at: &[f64]) -> (f64, Vec<f64>) {
        let width = self.width;
        let weight: Vec<f32> = at[..width].iter().map(|w| *w as f32).collect();
        let bias = at[width];
        let mut gradient = vec![0.0; width + 1];
        let mut loss = 0.0;
        for (rows, sign) in [(self.defective, 1.0), (self.normal, -1.0)] {
            let share = 0.5 / (rows.len() / width) as f64;
            let pieces: Vec<(f64, Vec<f64>)> = rows
                .par_chunks(ROWS_AT_ONCE * width)
                .map(|rows| {
                    let mut piece = vec![0.0f32; width];
                    let (mut loss, mut of_bias) = (0.0, 0.0);
                    for row in rows.chunks_exact(width) {
                        let margin = sign * (f64::from(dot(&weight, row)) + bias);
                        // log(1 + e^-m) and its derivative without overflow
                        let e = (-margin.abs()).exp();
                        loss += e.ln_1p() + (-margin).max(0.0);
                        let slope = if margin > 0.0 {
                            e / (1.0 + e)
                        } else {
                            1.0 / (1.0 + e)
                        };
                        let step = -sign * slope;
                        of_bias += step;
                        let step = step as f32;
                        piece.iter_mut().zip(row).for_each(|(g, x)| *g += step * x);
                    }
                    let mut piece: Vec<f64> = piece.into_iter().map(f64::from).collect();
                    piece.push(of_bias);
                    (loss, piece)
                })
                .collect();
            for (part, piece) in pieces {
                loss += share * part;
                gradient
                    .iter_mut()
                    .zip(piece)
                    .for_each(|(g, p)| *g += share * p);
            }
        }
        for (g, w) in gradient.iter_mut().zip(&at[..width]) {
            *g += self.penalty * w;
        }
        loss += 0.5 * self.penalty * at[..width].iter().map(|w| w * w).sum::<f64>();
        (loss, gradient)
    }
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn largest(v: &[f64]) -> f64 {
    v.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// One remembered step: change of position, change of gradient, and 1 / (their product).
type Step = (Vec<f64>, Vec<f64>, f64);

/// The limited-memory BFGS direction (Nocedal, Mathematics of Computation 35, 1980).
fn direction(gradient: &[f64], memory: &[Step]) -> Vec<f64> {
    let mut d: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(memory.len());
    for (s, y, rho) in memory.iter().rev() {
        let alpha = rho * inner(s, &d);
        d.iter_mut().zip(y).for_each(|(d, y)| *d -= alpha * y);
        alphas.push(alpha);
    }
    if let Some((s, y, _)) = memory.last() {
        let scale = inner(s, y) / inner(y, y);
        for v in &mut d {
            *v *= scale;
        }
    }
    for ((s, y, rho), alpha) in memory.iter().zip(alphas.into_iter().rev()) {
        let beta = rho * inner(y, &d);
        d.iter_mut()
            .zip(s)
            .for_each(|(d, s)| *d += (alpha - beta) * s);
    }
    d
}

/// Fits a head to `defective` and `normal` rows, both `[rows, width]`, each class weighing one half.
///
/// # Errors
/// [`HeadError::TooFew`] without rows of a class, [`HeadError::Option`] for a penalty that is not positive,
/// [`HeadError::NotFinite`] for features that are not finite.
pub fn fit_logistic(
    defective: &[f32],
    normal: &[f32],
    width: usize,
    options: &LogisticOptions,
) -> Result<Solution, HeadError> {
    for (what, rows) in [("defective rows", defective), ("normal rows", normal)] {
        if width == 0 || rows.len() < width {
            return Err(HeadError::TooFew {
                what,
                found: 0,
                wanted: 1,
            });
        }
    }
    if !(options.penalty > 0.0 && options.penalty.is_finite()) {
        return Err(HeadError::Option {
            option: "penalty",
            found: options.penalty.to_string(),
            wanted: "a positive number is needed",
        });
    }
    let problem = Problem {
        defective,
        normal,
        width,
        penalty: options.penalty,
    };
    let mut at = vec![0.0; width + 1];
    let (mut loss, mut gradient) = problem.evaluate(&at);
    if !loss.is_finite() || gradient.iter().any(|g| !g.is_finite()) {
        return Err(HeadError::NotFinite);
    }
    let mut memory: Vec<Step> = Vec::new();
    let mut steps = 0;
    while steps < options.max_steps && largest(&gradient) > options.tolerance {
        let d = direction(&gradient, &memory);
        let slope = inner(&d, &gradient);
        let mut length = if memory.is_empty() {
            (1.0 / largest(&gradient)).min(1.0)
        } else {
            1.0
        };
        let found = loop {
            let next: Vec<f64> = at.iter().zip(&d).map(|(x, d)| x + length * d).collect();
            let (next_loss, next_gradient) = problem.evaluate(&next);
            if next_loss <= loss + 1e-4 * length * slope {
                break Some((next, next_loss, next_gradient));
            }
            length *= 0.5;
            if length < 1e-10 {
                break None;
            }
        };
        // no lower point along a descent direction: the f32 rows allow no better answer
        let Some((next, next_loss, next_gradient)) = found else {
            break;
        };
        let s: Vec<f64> = next.iter().zip(&at).map(|(a, b)| a - b).collect();
        let y: Vec<f64> = next_gradient
            .iter()
            .zip(&gradient)
            .map(|(a, b)| a - b)
            .collect();
        let curvature = inner(&s, &y);
        if curvature > 1e-12 * inner(&y, &y) {
            if memory.len() == MEMORY {
                memory.remove(0);
            }
            memory.push((s, y, 1.0 / curvature));
        }
        (at, loss, gradient) = (next, next_loss, next_gradient);
        steps += 1;
    }
    let head = LinearHead {
        weight: at[..width].iter().map(|w| *w as f32).collect(),
        bias: at[width] as f32,
    };
    Ok(Solution {
        head,
        loss,
        gradient: largest(&gradient),
        steps,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flawtune_testing::Noise;

    /// The rows of `reference`: 8 defective and 32 normal ones of 5 features from a congruential generator.
    fn rows() -> (Vec<f32>, Vec<f32>) {
        let mut noise = Noise(11);
        let mut rows: Vec<f32> = (0..200).map(|_| noise.centred()).collect();
        for row in rows[..40].chunks_exact_mut(5) {
            row[0] += 0.4;
            row[2] -= 0.2;
        }
        let normal = rows.split_off(40);
        (rows, normal)
    }

    #[test]
    fn the_solution_is_scikit_learns() {
        // LogisticRegression(C=1/(penalty * 40), class_weight="balanced", tol=1e-12), scikit-learn 1.9.1
        let (defective, normal) = rows();
        for (penalty, weight, bias) in [
            (
                0.1,
                [
                    0.749_739_697_628_722_1,
                    0.113_959_656_831_059_82,
                    -0.401_192_662_921_331_04,
                    -0.000_827_434_027_377_577_9,
                    -0.104_029_919_229_544_94,
                ],
                -0.267_352_009_150_423_34,
            ),
            (
                0.001,
                [
                    3.773_821_274_199_152,
                    1.896_878_523_026_424_5,
                    -2.686_223_162_176_674_5,
                    -0.440_324_209_439_603_15,
                    -2.454_787_175_957_434_5,
                ],
                -1.567_333_559_033_921_5,
            ),
        ] {
            let solution = fit_logistic(
                &defective,
                &normal,
                5,
                &LogisticOptions::with_penalty(penalty),
            )
            .unwrap();
            assert!(solution.gradient <= 1e-6, "{solution:?}");
            let got = solution.head.weight.iter().chain([&solution.head.bias]);
            for (g, w) in got.zip(weight.iter().chain([&bias])) {
                // a gradient of 1e-6 leaves 1e-6 / penalty in the weights
                assert!(
                    (f64::from(*g) - w).abs() < 1e-3,
                    "penalty {penalty}: {g} for {w}"
                );
            }
        }
    }

    #[test]
    fn standardising_and_folding_back_change_no_logit() {
        let (defective, normal) = rows();
        let scale = Standardisation::of(&normal, 5);
        let head = LinearHead {
            weight: vec![1.0, -2.0, 0.5, 3.0, 0.0],
            bias: 0.25,
        };
        let folded = scale.fold(&head);
        for row in defective.chunks_exact(5) {
            let mut scaled = row.to_vec();
            scale.apply(&mut scaled);
            assert!((head.logit(&scaled) - folded.logit(row)).abs() < 1e-4);
        }
    }

    #[test]
    fn nothing_to_learn_from_and_bad_options_are_refused() {
        let options = LogisticOptions::with_penalty(0.1);
        assert!(matches!(
            fit_logistic(&[], &[1.0], 1, &options),
            Err(HeadError::TooFew { .. })
        ));
        assert!(matches!(
            fit_logistic(&[f32::NAN], &[1.0], 1, &options),
            Err(HeadError::NotFinite)
        ));
        let options = LogisticOptions::with_penalty(0.0);
        assert!(matches!(
            fit_logistic(&[2.0], &[1.0], 1, &options),
            Err(HeadError::Option { .. })
        ));
    }
}
