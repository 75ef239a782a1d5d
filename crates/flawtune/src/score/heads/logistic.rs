//! Class-balanced logistic regression with an L2 penalty, solved to convergence.
//!
//! loss(w, b) = ½ mean over defective rows of log(1 + e^−z) + ½ mean over normal rows of log(1 + e^z) + ½ λ‖w‖²,
//! z = w·x + b. Strictly convex in w, so there is one answer and no learning rate, epoch or seed to choose.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::HeadError;
use super::descent::{Solver, Sums};

/// Rows summed by one piece of work. Fixed, so that sums do not depend on the number of threads.
const ROWS_AT_ONCE: usize = 512;

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

/// Rows that heads are fitted to together, and which part of a cross-validation each belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// `[rows, width]`.
    pub rows: &'a [f32],
    /// The part of each row; none where it belongs to none, or where there are no more of them.
    pub parts: &'a [Option<usize>],
}

/// One of the heads that are fitted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// Of each segment whether its rows are defective; `None`: it is not fitted to.
    pub defective: Vec<Option<bool>>,
    /// The part whose rows it is not fitted to.
    pub without: Option<usize>,
}

/// Rows of one segment that one piece of work sums.
struct Chunk<'a> {
    segment: usize,
    rows: &'a [f32],
    parts: &'a [Option<usize>],
}

/// A point that is asked about, as the rows need it.
struct Point {
    fit: usize,
    weight: Vec<f32>,
    bias: f64,
}

/// Rows whose dot products are taken before their gradient is added: they stay in the nearest cache.
const ROWS_IN_CACHE: usize = 8;

struct Problems<'a> {
    chunks: Vec<Chunk<'a>>,
    fits: &'a [Fit],
    /// Of each fit what a normal and a defective row weigh.
    shares: Vec<[f64; 2]>,
    width: usize,
    penalty: f64,
}

impl<'a> Problems<'a> {
    fn new(
        segments: &[Segment<'a>],
        fits: &'a [Fit],
        width: usize,
        penalty: f64,
    ) -> Result<Self, HeadError> {
        let mut chunks = Vec::new();
        for (segment, of) in segments.iter().enumerate() {
            for (i, rows) in of.rows.chunks(ROWS_AT_ONCE * width).enumerate() {
                let from = (i * ROWS_AT_ONCE).min(of.parts.len());
                let to = (from + ROWS_AT_ONCE).min(of.parts.len());
                chunks.push(Chunk {
                    segment,
                    rows,
                    parts: &of.parts[from..to],
                });
            }
        }
        let mut problems = Self {
            chunks,
            fits,
            shares: Vec::new(),
            width,
            penalty,
        };
        for fit in fits {
            let mut counts = [0usize; 2];
            for chunk in &problems.chunks {
                if let Some(defective) = fit.defective[chunk.segment] {
                    let rows = chunk.rows.len() / width;
                    let kept = (0..rows).filter(|&row| fit.has(chunk, row)).count();
                    counts[usize::from(defective)] += kept;
                }
            }
            for (what, count) in [("normal rows", counts[0]), ("defective rows", counts[1])] {
                if count == 0 {
                    return Err(HeadError::TooFew {
                        what,
                        found: 0,
                        wanted: 1,
                    });
                }
            }
            problems.shares.push(counts.map(|n| 0.5 / n as f64));
        }
        Ok(problems)
    }

    /// Loss and gradient of every point, in one pass over the rows.
    fn evaluate(&self, asked: &[(usize, &[f64])]) -> Vec<Sums> {
        let width = self.width;
        let points: Vec<Point> = asked
            .iter()
            .map(|(fit, at)| Point {
                fit: *fit,
                weight: at[..width].iter().map(|w| *w as f32).collect(),
                bias: at[width],
            })
            .collect();
        let pieces: Vec<Vec<Sums>> = self
            .chunks
            .par_iter()
            .map(|chunk| self.chunk(chunk, &points))
            .collect();
        let mut all: Vec<Sums> = vec![(0.0, vec![0.0; width + 1]); points.len()];
        // the order of the chunks: defective rows first, where there is one segment of each
        for (chunk, pieces) in self.chunks.iter().zip(pieces) {
            let of = points.iter().zip(&mut all).zip(pieces);
            for ((point, (loss, gradient)), (part, piece)) in of {
                let Some(defective) = self.fits[point.fit].defective[chunk.segment] else {
                    continue;
                };
                let share = self.shares[point.fit][usize::from(defective)];
                *loss += share * part;
                gradient
                    .iter_mut()
                    .zip(piece)
                    .for_each(|(g, p)| *g += share * p);
            }
        }
        for ((loss, gradient), (_, at)) in all.iter_mut().zip(asked) {
            for (g, w) in gradient.iter_mut().zip(&at[..width]) {
                *g += self.penalty * w;
            }
            *loss += 0.5 * self.penalty * at[..width].iter().map(|w| w * w).sum::<f64>();
        }
        all
    }

    /// What the rows of one chunk add to each point.
    fn chunk(&self, chunk: &Chunk<'_>, points: &[Point]) -> Vec<Sums> {
        let width = self.width;
        let mut pieces = vec![vec![0.0f32; width]; points.len()];
        let mut sums = vec![(0.0, 0.0); points.len()];
        for (block, rows) in chunk.rows.chunks(ROWS_IN_CACHE * width).enumerate() {
            for ((point, piece), (loss, of_bias)) in points.iter().zip(&mut pieces).zip(&mut sums) {
                let fit = &self.fits[point.fit];
                let Some(defective) = fit.defective[chunk.segment] else {
                    continue;
                };
                let sign = if defective { 1.0 } else { -1.0 };
                for (i, row) in rows.chunks_exact(width).enumerate() {
                    if !fit.has(chunk, block * ROWS_IN_CACHE + i) {
                        continue;
                    }
                    let margin = sign * (f64::from(dot(&point.weight, row)) + point.bias);
                    // log(1 + e^-m) and its derivative without overflow
                    let e = (-margin.abs()).exp();
                    *loss += e.ln_1p() + (-margin).max(0.0);
                    let slope = if margin > 0.0 {
                        e / (1.0 + e)
                    } else {
                        1.0 / (1.0 + e)
                    };
                    let step = -sign * slope;
                    *of_bias += step;
                    let step = step as f32;
                    piece.iter_mut().zip(row).for_each(|(g, x)| *g += step * x);
                }
            }
        }
        pieces
            .into_iter()
            .zip(sums)
            .map(|(piece, (loss, of_bias))| {
                let mut piece: Vec<f64> = piece.into_iter().map(f64::from).collect();
                piece.push(of_bias);
                (loss, piece)
            })
            .collect()
    }
}

impl Fit {
    /// Whether it is fitted to a row of a chunk of one of its segments.
    fn has(&self, chunk: &Chunk<'_>, row: usize) -> bool {
        self.without.is_none() || chunk.parts.get(row).copied().flatten() != self.without
    }
}

/// Fits several heads to rows that they share, each class weighing one half of each. Every row is read once for all of them: heads
/// of a cross-validation cost little more than one.
///
/// # Errors
/// [`HeadError::TooFew`] for a head without rows of a class, [`HeadError::Option`] for a penalty that is not positive,
/// [`HeadError::NotFinite`] for features that are not finite.
///
/// # Panics
/// If a fit does not say of every segment what it is.
pub fn fit_together(
    segments: &[Segment<'_>],
    fits: &[Fit],
    width: usize,
    options: &LogisticOptions,
) -> Result<Vec<Solution>, HeadError> {
    if !(options.penalty > 0.0 && options.penalty.is_finite()) {
        return Err(HeadError::Option {
            option: "penalty",
            found: options.penalty.to_string(),
            wanted: "a positive number is needed",
        });
    }
    for fit in fits {
        assert_eq!(fit.defective.len(), segments.len(), "one a segment");
    }
    if width == 0 {
        return Err(HeadError::TooFew {
            what: "features",
            found: 0,
            wanted: 1,
        });
    }
    let problems = Problems::new(segments, fits, width, options.penalty)?;
    let mut solvers: Vec<Solver> = fits.iter().map(|_| Solver::new(width)).collect();
    loop {
        let asked: Vec<(usize, &[f64])> = solvers
            .iter()
            .enumerate()
            .filter_map(|(i, solver)| Some((i, solver.asks.as_deref()?)))
            .collect();
        if asked.is_empty() {
            break;
        }
        let which: Vec<usize> = asked.iter().map(|(i, _)| *i).collect();
        for (i, sums) in which.into_iter().zip(problems.evaluate(&asked)) {
            solvers[i].hear(sums, options)?;
        }
    }
    Ok(solvers.into_iter().map(Solver::solution).collect())
}

/// Fits a head to `defective` and `normal` rows, both `[rows, width]`, each class weighing one half.
///
/// # Errors
/// As [`fit_together`].
pub fn fit_logistic(
    defective: &[f32],
    normal: &[f32],
    width: usize,
    options: &LogisticOptions,
) -> Result<Solution, HeadError> {
    let segments = [defective, normal].map(|rows| Segment { rows, parts: &[] });
    let fit = Fit {
        defective: vec![Some(true), Some(false)],
        without: None,
    };
    let mut found = fit_together(&segments, &[fit], width, options)?;
    Ok(found.remove(0))
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
    fn heads_fitted_together_are_those_fitted_alone() {
        let (defective, normal) = rows();
        let options = LogisticOptions::with_penalty(0.01);
        // rows in turn to three parts; the last segment is a copy that only the third head is fitted to
        let parts: Vec<Option<usize>> = (0..32).map(|row| Some(row % 3)).collect();
        let segment = |rows| Segment {
            rows,
            parts: &parts,
        };
        let segments = [segment(&defective), segment(&normal), segment(&defective)];
        let fit = |defective: [Option<bool>; 3], without| Fit {
            defective: defective.to_vec(),
            without,
        };
        let fits = [
            fit([Some(true), Some(false), None], None),
            fit([Some(true), Some(false), None], Some(1)),
            fit([None, Some(false), Some(true)], None),
        ];
        let together = fit_together(&segments, &fits, 5, &options).unwrap();
        let alone = fit_logistic(&defective, &normal, 5, &options).unwrap();
        assert_eq!((&together[0], &together[2]), (&alone, &alone));
        let kept = |rows: &[f32]| -> Vec<f32> {
            let rows = rows.chunks_exact(5).enumerate();
            rows.filter(|(i, _)| i % 3 != 1)
                .flat_map(|(_, row)| row.to_vec())
                .collect()
        };
        let alone = fit_logistic(&kept(&defective), &kept(&normal), 5, &options).unwrap();
        assert_eq!(together[1], alone);
        let nothing = fit([None, Some(false), None], None);
        assert!(matches!(
            fit_together(&segments, &[nothing], 5, &options),
            Err(HeadError::TooFew { .. })
        ));
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
