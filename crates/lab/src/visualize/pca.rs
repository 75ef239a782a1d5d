//! Principal components of patch tokens, for colours and projections.

use super::{VisualizeError, dot};

/// Power iteration ends here at the latest.
const MOST_ITERATIONS: usize = 300;
/// It ends when the direction moves by less than this (1 − |cosine|).
const SETTLED: f64 = 1e-13;

/// The first principal components of one or more groups of rows, each group centred on its own mean.
///
/// With the patches before and after a change as two groups, the components are what patches differ by within either, and
/// not the shift that all of them share; both are then seen along the same axes.
///
/// By power iteration on the covariance with deflation, in f64. The sign of a component is that which makes its largest
/// coefficient positive, the first of equals, so that the same tokens give the same drawing.
#[derive(Debug, Clone, PartialEq)]
pub struct Pca {
    means: Vec<Vec<f64>>,
    axes: Vec<Vec<f64>>,
    /// Share of the variance along each component, 0 to 1.
    pub explained: Vec<f64>,
}

impl Pca {
    /// The first `components` of groups of rows `[n, dim]`. Where rows differ in fewer directions than that, the
    /// components left over are zero.
    ///
    /// # Errors
    /// [`VisualizeError`] without rows, or for rows that are not of `dim` numbers.
    pub fn fit(groups: &[&[f32]], dim: usize, components: usize) -> Result<Self, VisualizeError> {
        if groups.is_empty() {
            return Err(VisualizeError::Empty {
                what: "rows for principal components",
            });
        }
        let mut covariance = vec![0.0f64; dim * dim];
        let mut means = Vec::with_capacity(groups.len());
        for group in groups {
            VisualizeError::rows("rows for principal components", group.len(), dim)?;
            let mean = super::mean_row(group.chunks_exact(dim), dim);
            let mut centred = vec![0.0; dim];
            for row in group.chunks_exact(dim) {
                centred
                    .iter_mut()
                    .zip(row)
                    .zip(&mean)
                    .for_each(|((c, &v), m)| *c = f64::from(v) - m);
                for (i, line) in covariance.chunks_exact_mut(dim).enumerate() {
                    let c = centred[i];
                    line.iter_mut().zip(&centred).for_each(|(l, v)| *l += c * v);
                }
            }
            means.push(mean);
        }
        let total: f64 = (0..dim).map(|i| covariance[i * dim + i]).sum();
        let (mut axes, mut explained) = (Vec::new(), Vec::new());
        for _ in 0..components {
            let (axis, variance) = leading(&covariance, dim);
            // what is left of equal rows is rounding
            let real = variance > 1e-12 * total && total > 0.0;
            for (i, line) in covariance.chunks_exact_mut(dim).enumerate() {
                line.iter_mut()
                    .zip(&axis)
                    .for_each(|(l, a)| *l -= variance * axis[i] * a);
            }
            axes.push(if real { axis } else { vec![0.0; dim] });
            explained.push(if real { variance / total } else { 0.0 });
        }
        Ok(Self {
            means,
            axes,
            explained,
        })
    }

    /// Coordinates of rows `[n, dim]` along the components, `[n][components]`, from the mean of group `group`.
    ///
    /// # Errors
    /// [`VisualizeError`] for rows of another width.
    ///
    /// # Panics
    /// If there is no such group.
    pub fn project(&self, rows: &[f32], group: usize) -> Result<Vec<Vec<f64>>, VisualizeError> {
        let mean = &self.means[group];
        if !rows.is_empty() {
            VisualizeError::rows("rows to project", rows.len(), mean.len())?;
        }
        let one = |row: &[f32]| {
            let centred: Vec<f64> = row
                .iter()
                .zip(mean)
                .map(|(&v, m)| f64::from(v) - m)
                .collect();
            self.axes.iter().map(|axis| dot(axis, &centred)).collect()
        };
        Ok(rows.chunks_exact(mean.len()).map(one).collect())
    }

    /// Mean of a group.
    ///
    /// # Panics
    /// If there is no such group.
    pub fn mean(&self, group: usize) -> &[f64] {
        &self.means[group]
    }
}

/// The eigenvector of the largest eigenvalue of a symmetric matrix without negative ones, and the eigenvalue.
fn leading(matrix: &[f64], dim: usize) -> (Vec<f64>, f64) {
    let diagonal = |i: usize| matrix[i * dim + i];
    let first = (0..dim).fold(0, |best, i| {
        if diagonal(i) > diagonal(best) {
            i
        } else {
            best
        }
    });
    // the column of the largest variance holds a share of the component
    let mut axis: Vec<f64> = (0..dim).map(|i| matrix[i * dim + first]).collect();
    if !scale_to_unit(&mut axis) {
        return (vec![0.0; dim], 0.0);
    }
    for _ in 0..MOST_ITERATIONS {
        let mut next: Vec<f64> = matrix
            .chunks_exact(dim)
            .map(|line| dot(line, &axis))
            .collect();
        if !scale_to_unit(&mut next) {
            break;
        }
        let settled = 1.0 - dot(&next, &axis).abs() < SETTLED;
        axis = next;
        if settled {
            break;
        }
    }
    let largest = axis
        .iter()
        .fold(0.0f64, |m, v| if v.abs() > m.abs() { *v } else { m });
    if largest < 0.0 {
        for v in &mut axis {
            *v = -*v;
        }
    }
    let image: Vec<f64> = matrix
        .chunks_exact(dim)
        .map(|line| dot(line, &axis))
        .collect();
    let variance = dot(&image, &axis).max(0.0);
    (axis, variance)
}

fn scale_to_unit(v: &mut [f64]) -> bool {
    let length = dot(v, v).sqrt();
    if length <= f64::MIN_POSITIVE {
        return false;
    }
    for x in v.iter_mut() {
        *x /= length;
    }
    true
}

/// Three coordinates a patch as red, green and blue: each from its 1st to its 99th percentile over all `sets` together, so
/// that colours mean the same in each; beyond is clamped.
pub fn colours(sets: &[Vec<Vec<f64>>]) -> Vec<Vec<[u8; 3]>> {
    let ends: Vec<(f64, f64)> = (0..3)
        .map(|c| {
            let mut all: Vec<f64> = sets
                .iter()
                .flatten()
                .filter_map(|row| row.get(c).copied())
                .collect();
            all.sort_by(f64::total_cmp);
            let at = |share: f64| {
                all.get((share * all.len().saturating_sub(1) as f64).round() as usize)
                    .copied()
            };
            (at(0.01).unwrap_or(0.0), at(0.99).unwrap_or(0.0))
        })
        .collect();
    let level = |row: &[f64], c: usize| {
        let (low, high) = ends[c];
        let share = if high > low {
            (row.get(c).copied().unwrap_or(0.0) - low) / (high - low)
        } else {
            0.5
        };
        (share.clamp(0.0, 1.0) * 255.0).round() as u8
    };
    sets.iter()
        .map(|set| {
            set.iter()
                .map(|row| [level(row, 0), level(row, 1), level(row, 2)])
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on a line along (3, 4)/5 with a small spread across it.
    #[test]
    fn components_of_a_line() {
        let rows: Vec<f32> = [(-2.0, 0.1), (-1.0, -0.2), (1.0, 0.2), (2.0, -0.1)]
            .iter()
            .flat_map(|(t, e)| [7.0 + 0.6 * t - 0.8 * e, 1.0 + 0.8 * t + 0.6 * e])
            .collect();
        let pca = Pca::fit(&[&rows], 2, 2).unwrap();
        let found = pca.project(&rows, 0).unwrap();
        // Σt² = 10, Σe² = .1, Σte = 0: the first axis is the line
        let wanted_total = 10.1;
        let along: f64 = found.iter().map(|c| c[0] * c[0]).sum();
        let across: f64 = found.iter().map(|c| c[1] * c[1]).sum();
        assert!(
            (along + across - wanted_total).abs() < 1e-5,
            "{along} {across}"
        );
        assert!((along - 10.0).abs() < 1e-4, "{along}");
        assert!((pca.explained[0] - along / wanted_total).abs() < 1e-6);
        // both coefficients of the first are positive
        assert!(found[3][0] > 1.9 && found[0][0] < -1.9);
        assert!((pca.mean(0)[0] - 7.0).abs() < 1e-6);
    }

    #[test]
    fn a_shift_between_groups_is_no_component() {
        let before = [0.0, 0.0, 1.0, 0.0];
        let after = [100.0, 50.0, 101.0, 50.0];
        let pca = Pca::fit(&[&before, &after], 2, 3).unwrap();
        assert!((pca.explained[0] - 1.0).abs() < 1e-9);
        assert_eq!(pca.explained[1..], [0.0, 0.0]);
        let (b, a) = (
            pca.project(&before, 0).unwrap(),
            pca.project(&after, 1).unwrap(),
        );
        assert_eq!(b, a);
        assert!((b[1][0] - 0.5).abs() < 1e-9 && b[1][1] == 0.0);
    }

    #[test]
    fn colours_share_one_scale() {
        let set = |values: &[f64]| values.iter().map(|&v| vec![v, 0.0, -v]).collect::<Vec<_>>();
        let found = colours(&[set(&[0.0, 1.0]), set(&[2.0])]);
        assert_eq!(
            found,
            [vec![[0, 128, 255], [128, 128, 128]], vec![[255, 128, 0]]]
        );
    }

    #[test]
    fn nothing_to_look_at_is_refused() {
        assert!(matches!(
            Pca::fit(&[], 2, 1),
            Err(VisualizeError::Empty { .. })
        ));
        assert!(matches!(
            Pca::fit(&[&[1.0; 3]], 2, 1),
            Err(VisualizeError::Length { .. })
        ));
    }
}
