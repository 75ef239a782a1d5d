//! What kind of flaw an image shows: the type of the shots whose flaws depart from normal in the same way.

use serde::{Deserialize, Serialize};

use super::look::{BlockBanks, Look};
use super::model::ResidualModel;

/// Shots of a type, by what their flaws have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kind {
    /// Name of the type.
    pub name: String,
    /// The mean residual of its shots' flaws, of unit length, `[blocks · dim]`.
    pub direction: Vec<f32>,
}

/// The types that a detector can name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kinds {
    /// The types, in the order of their names.
    pub kinds: Vec<Kind>,
    /// A flaw whose cosine to every type is below this is of none of them.
    pub least: f64,
}

/// What is named where no type is like the flaw.
pub const UNKNOWN: &str = "unknown";
/// Of the cosine that shots have to the others of their type, in the middle: so much is asked for.
const SHARE: f64 = 0.5;
/// Asked for where a type has one shot only, so that nothing says how alike they are.
const ALONE: f64 = 0.3;

/// The mean residual of the patches of an image that `values` finds largest, of unit length.
pub(super) fn direction(
    banks: &BlockBanks,
    rows: &[Vec<f32>],
    look: &Look,
    values: &[f32],
    top: usize,
) -> Vec<f32> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    order.truncate(top);
    let scale = ResidualModel::residual_scale(banks.blocks());
    let mut all = Vec::new();
    for patch in order {
        banks.residual(rows, look, patch, scale, &mut all);
    }
    let mut mean = vec![0.0; banks.width()];
    for residual in all.chunks_exact(banks.width()) {
        add(&mut mean, residual);
    }
    unit(mean)
}

fn add(sum: &mut [f32], more: &[f32]) {
    sum.iter_mut()
        .zip(more)
        .for_each(|(sum, more)| *sum += more);
}

fn unit(mut values: Vec<f32>) -> Vec<f32> {
    let square: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
    if square > 0.0 {
        let factor = (1.0 / square.sqrt()) as f32;
        for value in &mut values {
            *value *= factor;
        }
    }
    values
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    products.sum()
}

impl Kinds {
    /// Of the directions of shots and the names of their types; none without shots that have a type.
    pub(super) fn learn(shots: &[(&str, Vec<f32>)]) -> Option<Self> {
        let mut names: Vec<&str> = shots.iter().map(|(name, _)| *name).collect();
        names.retain(|name| !name.is_empty());
        names.sort_unstable();
        names.dedup();
        let of = |name: &str, without: Option<usize>| {
            let mut sum: Vec<f32> = Vec::new();
            let mut count = 0;
            for (i, (own, direction)) in shots.iter().enumerate() {
                if *own == name && without != Some(i) {
                    sum.resize(direction.len(), 0.0);
                    add(&mut sum, direction);
                    count += 1;
                }
            }
            (count > 0).then(|| unit(sum))
        };
        let alike = shots.iter().enumerate().filter_map(|(i, (name, own))| {
            let others = of(name, Some(i))?;
            Some(cosine(own, &others))
        });
        let mut alike: Vec<f64> = alike.collect();
        alike.sort_by(f64::total_cmp);
        let kinds: Vec<Kind> = names
            .into_iter()
            .filter_map(|name| {
                Some(Kind {
                    name: name.to_owned(),
                    direction: of(name, None)?,
                })
            })
            .collect();
        (!kinds.is_empty()).then(|| Self {
            least: alike.get(alike.len() / 2).map_or(ALONE, |m| SHARE * m),
            kinds,
        })
    }

    /// The type that a flaw is most like, or [`UNKNOWN`].
    pub(super) fn name(&self, direction: &[f32]) -> &str {
        let cosines = self
            .kinds
            .iter()
            .map(|kind| (cosine(&kind.direction, direction), &kind.name));
        match cosines.max_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((cosine, name)) if cosine >= self.least => name,
            _ => UNKNOWN,
        }
    }

    /// Whether all of it can be used for residuals of so many numbers.
    pub(super) fn is_usable(&self, width: usize) -> bool {
        let right = |kind: &Kind| {
            kind.direction.len() == width && kind.direction.iter().all(|v| v.is_finite())
        };
        self.least.is_finite() && self.kinds.iter().all(right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flaw_is_of_the_type_whose_shots_it_is_like() {
        let shots = [
            ("scratch", unit(vec![1.0, 0.1, 0.0])),
            ("scratch", unit(vec![1.0, -0.1, 0.0])),
            ("dent", unit(vec![0.0, 1.0, 0.1])),
            ("dent", unit(vec![0.1, 1.0, 0.0])),
        ];
        let kinds = Kinds::learn(&shots).unwrap();
        assert_eq!(kinds.kinds.len(), 2);
        assert_eq!(kinds.name(&[0.9, 0.1, 0.1]), "scratch");
        assert_eq!(kinds.name(&[0.1, 0.8, 0.2]), "dent");
        assert_eq!(kinds.name(&[0.0, 0.0, 1.0]), UNKNOWN);
        assert!(kinds.is_usable(3) && !kinds.is_usable(4));
        assert_eq!(Kinds::learn(&[("", vec![1.0])]), None);
        assert_eq!(Kinds::learn(&[]), None);
        let one = Kinds::learn(&shots[..1]).unwrap();
        assert_eq!(one.name(&[1.0, 0.0, 0.0]), "scratch");
        assert_eq!(one.name(&[0.0, 1.0, 0.0]), UNKNOWN);
    }
}
