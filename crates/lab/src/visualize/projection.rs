//! Prompts among normal and odd patches, in two dimensions.

use serde::{Deserialize, Serialize};

use super::{Pca, VisualizeError, cosine};
use flawtune::unit::normalise_rows;

/// Points in the plane of the first two principal components of patches; everything is divided by its length first, since
/// cosines are what is compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Projection {
    /// Patches of normal images.
    pub normal: Vec<[f64; 2]>,
    /// The patches that make the scores of the images looked at.
    pub odd: Vec<[f64; 2]>,
    /// Prompts.
    pub prompts: Vec<[f64; 2]>,
    /// Share of the patches' variance along each axis, 0 to 1.
    pub explained: [f64; 2],
    /// Of each prompt, the share of its distance from the patches' mean that lies in the plane, 0 to 1. A prompt near 0 is
    /// far from every patch, wherever it is drawn.
    pub in_plane: Vec<f64>,
    /// Of each prompt, its largest cosine to a normal patch and to an odd patch.
    pub nearest: Vec<[f64; 2]>,
}

impl Projection {
    /// Of rows `[n, dim]` each; the plane is that of both kinds of patches together.
    ///
    /// # Errors
    /// [`VisualizeError`] without patches, or for rows that are not of `dim` numbers.
    pub fn new(
        normal: &[f32],
        odd: &[f32],
        prompts: &[f32],
        dim: usize,
    ) -> Result<Self, VisualizeError> {
        let unit = |rows: &[f32]| {
            let mut rows = rows.to_vec();
            let count = rows.len() / dim.max(1);
            normalise_rows(&mut rows, dim, &mut vec![0.0; count]);
            rows
        };
        for (what, rows) in [("normal patches", normal), ("odd patches", odd)] {
            VisualizeError::rows(what, rows.len(), dim)?;
        }
        VisualizeError::check("prompts", prompts.len(), prompts.len().div_ceil(dim) * dim)?;
        let (normal, odd, prompts) = (unit(normal), unit(odd), unit(prompts));
        let pca = Pca::fit(&[&[&normal[..], &odd].concat()], dim, 2)?;
        let flat = |rows: &[f32]| -> Result<Vec<[f64; 2]>, VisualizeError> {
            Ok(pca.project(rows, 0)?.iter().map(|c| [c[0], c[1]]).collect())
        };
        let points = flat(&prompts)?;
        let wide = |row: &[f32]| row.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let in_plane = prompts.chunks_exact(dim).zip(&points).map(|(row, at)| {
            let whole: f64 = wide(row)
                .iter()
                .zip(pca.mean(0))
                .map(|(v, m)| (v - m).powi(2))
                .sum();
            if whole > 0.0 {
                ((at[0] * at[0] + at[1] * at[1]) / whole).sqrt().min(1.0)
            } else {
                0.0
            }
        });
        let best = |row: &[f64], rows: &[f32]| {
            rows.chunks_exact(dim)
                .map(|r| cosine(row, &wide(r)))
                .fold(f64::NEG_INFINITY, f64::max)
        };
        let nearest = prompts.chunks_exact(dim).map(|row| {
            let row = wide(row);
            [best(&row, &normal), best(&row, &odd)]
        });
        Ok(Self {
            normal: flat(&normal)?,
            odd: flat(&odd)?,
            explained: [pca.explained[0], pca.explained[1]],
            in_plane: in_plane.collect(),
            nearest: nearest.collect(),
            prompts: points,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_keep_their_distances_in_the_plane() {
        // unit vectors on the first two axes and against them: the plane is exactly theirs
        let normal = [2.0, 0.0, 0.0, -1.0, 0.0, 0.0];
        let odd = [0.0, 0.5, 0.0, 0.0, -3.0, 0.0];
        let prompts = [0.0, 7.0, 0.0, 0.0, 0.0, 1.0];
        let found = Projection::new(&normal, &odd, &prompts, 3).unwrap();
        assert!((found.explained[0] - 0.5).abs() < 1e-9 && (found.explained[1] - 0.5).abs() < 1e-9);
        let apart =
            |a: [f64; 2], b: [f64; 2]| ((a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)).sqrt();
        assert!((apart(found.normal[0], found.normal[1]) - 2.0).abs() < 1e-6);
        assert!((apart(found.normal[0], found.odd[0]) - 2f64.sqrt()).abs() < 1e-6);
        // the first prompt is the first odd patch, the second stands upright on the plane
        assert!(apart(found.prompts[0], found.odd[0]) < 1e-6);
        assert!((found.in_plane[0] - 1.0).abs() < 1e-6 && found.in_plane[1] < 1e-6);
        assert_eq!(found.nearest, [[0.0, 1.0], [0.0, 0.0]]);
    }
}
