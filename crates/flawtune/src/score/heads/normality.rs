//! How far an image lies from the normal ones, measured in their own spread: the Mahalanobis distance of
//! `[class token ‖ mean patch token]`.
//!
//! There are fewer normal images than features, so the correlation matrix R of the standardised features is shrunk,
//! (1 − s) R + s I. Its inverse is never formed: with the n standardised normals as the rows of A,
//!
//! ```text
//! ⟨x, y⟩ = xᵀ ((1 − s)/n AᵀA + s I)⁻¹ y = (xᵀy − (Ax)ᵀ (n s/(1 − s) I + AAᵀ)⁻¹ (Ay)) / s        (Woodbury)
//! ```
//!
//! which costs n × n numbers whatever the width. This inner product also tells in which direction an image departs
//! from the normal: two images that depart alike have a large cosine, two with unrelated flaws one near 0.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::HeadError;
use super::logistic::Standardisation;

/// The normal images' centre, spread and correlation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Normality {
    scale: Standardisation,
    shrinkage: f64,
    width: usize,
    /// Standardised normal rows `[n, width]`.
    rows: Vec<f32>,
    /// Lower triangle of the Cholesky factor `[n, n]`, row-major.
    factor: Vec<f64>,
}

/// An image as a departure from the normal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Departure {
    /// Standardised features `[width]`.
    row: Vec<f32>,
    /// `L⁻¹ A row`, `[n]`.
    explained: Vec<f64>,
    /// Mahalanobis distance, per √width: about 1 for an image like the normal ones.
    pub distance: f64,
}

fn dot64(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    let (a_blocks, b_blocks) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f64 = a_blocks
        .remainder()
        .iter()
        .zip(b_blocks.remainder())
        .map(|(x, y)| f64::from(*x) * f64::from(*y))
        .sum();
    for (x, y) in a_blocks.zip(b_blocks) {
        for ((s, x), y) in sums.iter_mut().zip(x).zip(y) {
            *s += f64::from(*x) * f64::from(*y);
        }
    }
    sums.iter().sum::<f64>() + tail
}

fn inner64(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Cholesky factor of a symmetric positive definite `[n, n]` matrix, in place in its lower triangle.
fn cholesky(matrix: &mut [f64], n: usize) -> Result<(), HeadError> {
    for i in 0..n {
        for j in 0..=i {
            let (before, row) = matrix.split_at_mut(i * n);
            let left = inner64(&row[..j], if i == j { &[] } else { &before[j * n..][..j] });
            if i == j {
                let rest = row[i] - inner64(&row[..i], &row[..i]);
                // also refuses NaN
                if rest.is_nan() || rest <= 0.0 {
                    return Err(HeadError::NotFinite);
                }
                row[i] = rest.sqrt();
            } else {
                row[j] = (row[j] - left) / before[j * n + j];
            }
        }
    }
    Ok(())
}

impl Normality {
    /// Learns from the features of normal images; `shrinkage` s in (0, 1).
    ///
    /// # Errors
    /// [`HeadError::TooFew`] with fewer than two images, [`HeadError::Option`] for a shrinkage out of range,
    /// [`HeadError::NotFinite`] for features that are not finite.
    pub fn fit(normal: &[&[f32]], shrinkage: f64) -> Result<Self, HeadError> {
        let n = normal.len();
        if n < 2 {
            return Err(HeadError::TooFew {
                what: "normal images",
                found: n,
                wanted: 2,
            });
        }
        if !(shrinkage > 0.0 && shrinkage < 1.0) {
            return Err(HeadError::Option {
                option: "shrinkage",
                found: shrinkage.to_string(),
                wanted: "a number between 0 and 1 is needed",
            });
        }
        let width = normal[0].len();
        let mut rows = normal.concat();
        let scale = Standardisation::of(&rows, width);
        scale.apply(&mut rows);
        let ridge = n as f64 * shrinkage / (1.0 - shrinkage);
        let mut factor = vec![0.0; n * n];
        factor
            .par_chunks_exact_mut(n)
            .enumerate()
            .for_each(|(i, line)| {
                let own = &rows[i * width..][..width];
                for (other, cell) in rows.chunks_exact(width).zip(&mut line[..=i]) {
                    *cell = dot64(own, other);
                }
                line[i] += ridge;
            });
        cholesky(&mut factor, n)?;
        Ok(Self {
            scale,
            shrinkage,
            width,
            rows,
            factor,
        })
    }

    /// Whether the parts of a model and of departures that were read from a file fit each other.
    ///
    /// # Errors
    /// [`HeadError::Stored`].
    pub(super) fn check(&self, departures: &[Departure]) -> Result<(), HeadError> {
        let fits = |what, found: usize, wanted: usize| {
            if found == wanted {
                Ok(())
            } else {
                Err(HeadError::Stored {
                    what,
                    found,
                    wanted,
                })
            }
        };
        let n = self.rows.len() / self.width.max(1);
        fits("the width", self.width, self.scale.width())?;
        fits(
            "the list of normal images",
            self.rows.len(),
            n.max(1) * self.width.max(1),
        )?;
        fits("the factor", self.factor.len(), n * n)?;
        for departure in departures {
            fits("a defect", departure.row.len(), self.width)?;
            fits("a defect's explained part", departure.explained.len(), n)?;
        }
        Ok(())
    }

    /// Numbers per image.
    pub fn width(&self) -> usize {
        self.width
    }

    /// An image's features as a departure from the normal.
    pub fn departure(&self, features: &[f32]) -> Departure {
        let mut row = features.to_vec();
        self.scale.apply(&mut row);
        let n = self.rows.len() / self.width;
        let mut explained: Vec<f64> = self
            .rows
            .chunks_exact(self.width)
            .map(|a| dot64(a, &row))
            .collect();
        for i in 0..n {
            let line = &self.factor[i * n..][..=i];
            explained[i] = (explained[i] - inner64(&line[..i], &explained[..i])) / line[i];
        }
        let mut departure = Departure {
            row,
            explained,
            distance: 0.0,
        };
        departure.distance = self.inner(&departure, &departure).max(0.0).sqrt();
        departure
    }

    /// ⟨a, b⟩ / width.
    pub fn inner(&self, a: &Departure, b: &Departure) -> f64 {
        (dot64(&a.row, &b.row) - inner64(&a.explained, &b.explained))
            / (self.shrinkage * self.width as f64)
    }

    /// Cosine of the angle between two departures, in [−1, 1]; 0 if one of them is not a departure at all.
    pub fn cosine(&self, a: &Departure, b: &Departure) -> f64 {
        let length = a.distance * b.distance;
        if length > 0.0 {
            (self.inner(a, b) / length).clamp(-1.0, 1.0)
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_equal_the_explicit_inverse() {
        // numpy: z-scored columns, C = .75 Z'Z/4 + .25 I, sqrt(z' inv(C) z / 3) and the cosine under inv(C)
        let normal: [&[f32]; 4] = [
            &[1.0, 2.0, 0.5],
            &[2.0, 1.0, 0.0],
            &[3.0, 4.0, 1.0],
            &[0.0, 3.0, -1.0],
        ];
        let model = Normality::fit(&normal, 0.25).unwrap();
        let (a, b) = (
            model.departure(&[4.0, 0.0, 1.0]),
            model.departure(&[1.0, 5.0, -2.0]),
        );
        for (got, want) in [
            (a.distance, REFERENCE[0]),
            (b.distance, REFERENCE[1]),
            (model.cosine(&a, &b), REFERENCE[2]),
        ] {
            assert!((got - want).abs() < 1e-6, "{got} for {want}");
        }
    }

    const REFERENCE: [f64; 3] = [1.980_308_837_124, 2.473_383_461_422, -0.477_278_715_985];

    #[test]
    fn a_constant_feature_and_too_few_images_do_no_harm() {
        let model = Normality::fit(&[&[1.0, 7.0], &[2.0, 7.0], &[3.0, 7.0]], 0.1).unwrap();
        assert!(model.departure(&[2.0, 7.0]).distance < 1e-6);
        assert!(model.departure(&[2.5, 9.0]).distance.is_finite());
        assert!(matches!(
            Normality::fit(&[&[1.0]], 0.1),
            Err(HeadError::TooFew {
                found: 1,
                wanted: 2,
                ..
            })
        ));
        assert!(matches!(
            Normality::fit(&[&[1.0], &[f32::NAN]], 0.1),
            Err(HeadError::NotFinite)
        ));
    }
}
