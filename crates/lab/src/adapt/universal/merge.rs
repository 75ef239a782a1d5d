//! One set of parameters from several that were trained apart.
//!
//! Prompts are a set: training numbers them as it likes, so the first prompts of two checkpoints need not stand for the
//! same thing, and their mean stands for neither. [`Merge::Aligned`] first matches the prompts of each to those of the
//! first one, by the assignment with the largest sum of cosines, and takes the mean of what was matched.

use flawtune::unit::NORM_EPSILON;
use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;
use serde::{Deserialize, Serialize};

use crate::adapt::{AdaptError, PROMPT_SCALES, PROMPTS, Parameters};
use flawtune::unit::{dot, norm};

/// Cosines are compared in millionths of millionths: the assignment wants whole numbers.
const COSINE_UNIT: f64 = 1e12;

/// How the mean is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Merge {
    /// All the same, prompt by prompt in the order they have
    #[default]
    Mean,
    /// With --weights, or by the number of shots each was trained on
    ///
    /// The weights need not sum to 1.
    Weighted,
    /// As mean, after matching the prompts of each to the first one's (largest sum of cosines)
    Aligned,
}

impl Merge {
    /// Name on the command line and in checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Weighted => "weighted",
            Self::Aligned => "aligned",
        }
    }
}

/// How one of the merged sets of prompts lies to the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Its share of the mean.
    pub weight: f64,
    /// Which of its prompts went into each prompt of the result.
    pub prompts: Vec<usize>,
    /// Mean cosine of those scaled prompts to the result's.
    pub cosine: f64,
}

/// What merging gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// Names and shapes as before.
    pub parameters: Parameters,
    /// One entry for each that was merged, in their order.
    pub agreement: Vec<Agreement>,
    /// Mean length of the result's scaled prompts over that of the merged ones: far under 1, prompts that pointed apart
    /// have cancelled each other out.
    pub length_kept: f64,
}

/// Merges sets of parameters of the same names and shapes; `weights` are those of [`Merge::Weighted`].
///
/// Only prompts and their scales are matched. The rows of an MLP are not: those trained from the same seed correspond
/// already.
///
/// # Errors
/// [`AdaptError::TooFewImages`] for fewer than two, [`AdaptError::Shape`] and [`AdaptError::Missing`] for sets that differ
/// in layout, [`AdaptError::Option`] for weights that are negative, all 0, not finite or not as many as sets.
pub fn merge(sets: &[&Parameters], how: Merge, weights: &[f64]) -> Result<Merged, AdaptError> {
    let [first, others @ ..] = sets else {
        return Err(too_few(0));
    };
    if others.is_empty() {
        return Err(too_few(1));
    }
    for other in others {
        first.same_layout(other)?;
    }
    let missing = |name: &str| AdaptError::Missing {
        name: name.to_owned(),
        hint: "give checkpoints of prompts",
    };
    let prompts = first.get(PROMPTS).ok_or_else(|| missing(PROMPTS))?;
    first
        .get(PROMPT_SCALES)
        .ok_or_else(|| missing(PROMPT_SCALES))?;
    let &[count, dim] = &prompts.shape[..] else {
        return Err(missing(PROMPTS));
    };
    let weights = shares(how, weights, sets.len())?;
    let scaled: Vec<Vec<f32>> = sets.iter().map(|set| scaled(set, dim)).collect();
    let orders: Vec<Vec<usize>> = scaled
        .iter()
        .enumerate()
        .map(|(i, own)| match how {
            Merge::Aligned if i > 0 => assignment(&cosines(&scaled[0], own, dim), count),
            _ => (0..count).collect(),
        })
        .collect();
    let mut parameters = first.zeros_like();
    for (place, to) in parameters.iter_mut().enumerate() {
        let rows = if to.name == PROMPTS || to.name == PROMPT_SCALES {
            count
        } else {
            1
        };
        let width = to.data.len() / rows.max(1);
        let mut sum = vec![0.0f64; to.data.len()];
        for ((set, order), weight) in sets.iter().zip(&orders).zip(&weights) {
            let from = set.at(place);
            for (row, to) in sum.chunks_exact_mut(width.max(1)).enumerate() {
                let row = if rows == count { order[row] } else { row };
                let from = &from[row * width..(row + 1) * width];
                to.iter_mut()
                    .zip(from)
                    .for_each(|(to, v)| *to += weight * f64::from(*v));
            }
        }
        to.data
            .iter_mut()
            .zip(&sum)
            .for_each(|(to, sum)| *to = *sum as f32);
    }
    let result = self::scaled(&parameters, dim);
    let length = |rows: &[f32]| rows.chunks_exact(dim).map(norm).sum::<f64>() / count as f64;
    let before = scaled
        .iter()
        .zip(&weights)
        .map(|(s, w)| w * length(s))
        .sum::<f64>();
    let agreement = scaled
        .iter()
        .zip(orders)
        .zip(&weights)
        .map(|((own, prompts), &weight)| {
            let of = cosines(&result, own, dim);
            let cosine = prompts
                .iter()
                .enumerate()
                .map(|(to, from)| of[to * count + from])
                .sum::<f64>();
            Agreement {
                weight,
                prompts,
                cosine: cosine / count as f64,
            }
        });
    Ok(Merged {
        agreement: agreement.collect(),
        parameters,
        length_kept: length(&result) / before.max(NORM_EPSILON),
    })
}

fn too_few(found: usize) -> AdaptError {
    AdaptError::TooFewImages {
        what: "checkpoints to merge",
        found,
        wanted: 2,
        why: "",
    }
}

/// Weights that sum to 1.
fn shares(how: Merge, given: &[f64], count: usize) -> Result<Vec<f64>, AdaptError> {
    if how != Merge::Weighted {
        return Ok(vec![1.0 / count as f64; count]);
    }
    let sum: f64 = given.iter().sum();
    let usable = given.iter().all(|w| w.is_finite() && *w >= 0.0) && sum > 0.0;
    if given.len() != count || !usable {
        return Err(AdaptError::Option {
            option: "weights",
            found: format!("{given:?}"),
            wanted: format!(
                "one number from 0 for each of the {count} checkpoints is needed, not all of them 0"
            ),
        });
    }
    Ok(given.iter().map(|w| w / sum).collect())
}

/// `prompts · scales`, `[K, D]`.
fn scaled(set: &Parameters, dim: usize) -> Vec<f32> {
    let of = |name| set.get(name).map_or(&[][..], |t| &t.data[..]);
    let rows = of(PROMPTS).chunks_exact(dim).zip(of(PROMPT_SCALES));
    rows.flat_map(|(row, scale)| row.iter().map(move |v| v * scale))
        .collect()
}

/// Cosine of every row of `a` to every row of `b`, `[rows of a, rows of b]`.
fn cosines(a: &[f32], b: &[f32], dim: usize) -> Vec<f64> {
    let cosine =
        |a: &[f32], b: &[f32]| dot(a, b) / ((norm(a) + NORM_EPSILON) * (norm(b) + NORM_EPSILON));
    a.chunks_exact(dim)
        .flat_map(|a| b.chunks_exact(dim).map(move |b| cosine(a, b)))
        .collect()
}

/// For every row the column that the assignment with the largest sum gives it.
fn assignment(cosines: &[f64], count: usize) -> Vec<usize> {
    let whole = Matrix::from_fn(count, count, |(r, c)| {
        (cosines[r * count + c] * COSINE_UNIT) as i64
    });
    kuhn_munkres(&whole).1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(prompts: &[[f32; 2]], scales: &[f32], mlp: f32) -> Parameters {
        let mut p = Parameters::new();
        p.push(PROMPTS, &[prompts.len(), 2], prompts.concat())
            .unwrap();
        p.push(PROMPT_SCALES, &[scales.len()], scales.to_vec())
            .unwrap();
        p.push("mlp.0.bias", &[1], vec![mlp]).unwrap();
        p
    }

    fn values(p: &Parameters, name: &str) -> Vec<f32> {
        p.get(name).unwrap().data.clone()
    }

    #[test]
    fn means_by_hand() {
        let a = set(&[[1.0, 0.0], [0.0, 2.0]], &[0.1, 0.3], 1.0);
        let b = set(&[[0.0, 4.0], [3.0, 0.0]], &[0.5, 0.1], 3.0);
        let plain = merge(&[&a, &b], Merge::Mean, &[]).unwrap();
        assert_eq!(values(&plain.parameters, PROMPTS), [0.5, 2.0, 1.5, 1.0]);
        assert_eq!(values(&plain.parameters, "mlp.0.bias"), [2.0]);
        let weighted = merge(&[&a, &b], Merge::Weighted, &[3.0, 1.0]).unwrap();
        assert_eq!(
            values(&weighted.parameters, PROMPTS),
            [0.75, 1.0, 0.75, 1.5]
        );
        assert_eq!(values(&weighted.parameters, "mlp.0.bias"), [1.5]);
        // the second's prompts are the first's in the other order: scales travel with them
        let aligned = merge(&[&a, &b], Merge::Aligned, &[]).unwrap();
        assert_eq!(values(&aligned.parameters, PROMPTS), [2.0, 0.0, 0.0, 3.0]);
        let scales = values(&aligned.parameters, PROMPT_SCALES);
        assert!(
            (scales[0] - 0.1).abs() < 1e-7 && (scales[1] - 0.4).abs() < 1e-7,
            "{scales:?}"
        );
        assert_eq!(aligned.agreement[1].prompts, [1, 0]);
        assert!((aligned.agreement[1].cosine - 1.0).abs() < 1e-6);
        assert!(plain.agreement[0].cosine < 0.9 && plain.length_kept < aligned.length_kept);
    }

    #[test]
    fn the_assignment_has_the_largest_sum_not_the_largest_first() {
        // greedy takes 0.9 and is left with 0.1; the best pairs sum to 1.6
        assert_eq!(assignment(&[0.9, 0.8, 0.8, 0.1], 2), [1, 0]);
        assert_eq!(assignment(&[-0.9, -0.2, -0.1, -0.9], 2), [1, 0]);
    }

    #[test]
    fn opposite_prompts_cancel_and_it_shows() {
        let a = set(&[[1.0, 0.0]], &[0.1], 0.0);
        let b = set(&[[-1.0, 0.0]], &[0.1], 0.0);
        assert!(merge(&[&a, &b], Merge::Aligned, &[]).unwrap().length_kept < 1e-6);
        assert!((merge(&[&a, &a], Merge::Mean, &[]).unwrap().length_kept - 1.0).abs() < 1e-6);
    }

    #[test]
    fn refuses_what_has_no_mean() {
        let a = set(&[[1.0, 0.0]], &[0.1], 0.0);
        let other = set(&[[1.0, 0.0], [0.0, 1.0]], &[0.1, 0.1], 0.0);
        let refuse = |sets: &[&Parameters], how, weights: &[f64]| {
            merge(sets, how, weights).unwrap_err().to_string()
        };
        assert!(refuse(&[&a], Merge::Mean, &[]).contains("at least 2"));
        assert!(refuse(&[&a, &other], Merge::Mean, &[]).contains("shape"));
        for weights in [
            vec![1.0],
            vec![1.0, -1.0],
            vec![0.0, 0.0],
            vec![f64::NAN, 1.0],
        ] {
            assert!(refuse(&[&a, &a], Merge::Weighted, &weights).contains("one number from 0"));
        }
    }
}
