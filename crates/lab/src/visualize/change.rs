//! How far and in which direction tokens were moved.

use super::VisualizeError;

/// What became of the patches of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchChange {
    /// `‖after − before‖ / ‖before‖` of each patch, `[P]`; 0 for a patch without length.
    pub size: Vec<f32>,
    /// Cosine of each patch after with itself before, `[P]`.
    pub cosine: Vec<f32>,
}

impl PatchChange {
    /// Of tokens `[P, D]` before and after.
    ///
    /// # Errors
    /// [`VisualizeError`] if they do not fit together.
    pub fn new(before: &[f32], after: &[f32], dim: usize) -> Result<Self, VisualizeError> {
        VisualizeError::rows("patches before", before.len(), dim)?;
        VisualizeError::check("patches after", after.len(), before.len())?;
        let pairs = || before.chunks_exact(dim).zip(after.chunks_exact(dim));
        let size = |(b, a): (&[f32], &[f32])| {
            let moved: f64 = b
                .iter()
                .zip(a)
                .map(|(&b, &a)| (f64::from(a) - f64::from(b)).powi(2))
                .sum();
            let length: f64 = b.iter().map(|&b| f64::from(b).powi(2)).sum();
            if length > 0.0 {
                (moved / length).sqrt() as f32
            } else {
                0.0
            }
        };
        let wide = |row: &[f32]| row.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        Ok(Self {
            size: pairs().map(size).collect(),
            cosine: pairs()
                .map(|(b, a)| cosine(&wide(b), &wide(a)) as f32)
                .collect(),
        })
    }
}

/// Cosine of two vectors; 0 if one has no length.
pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let lengths = (super::dot(a, a) * super::dot(b, b)).sqrt();
    if lengths > 0.0 {
        super::dot(a, b) / lengths
    } else {
        0.0
    }
}

/// Mean of rows of `dim` numbers, in f64; zeros if there are none.
pub fn mean_row<'a>(rows: impl IntoIterator<Item = &'a [f32]>, dim: usize) -> Vec<f64> {
    let (mut sum, mut count) = (vec![0.0f64; dim], 0usize);
    for row in rows {
        sum.iter_mut()
            .zip(row)
            .for_each(|(s, &v)| *s += f64::from(v));
        count += 1;
    }
    for s in &mut sum {
        *s /= count.max(1) as f64;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_relative_and_cosine_is_of_the_token_with_itself() {
        let found = PatchChange::new(
            &[3.0, 4.0, 1.0, 0.0, 0.0, 0.0],
            &[3.0, 9.0, 0.0, 1.0, 1.0, 0.0],
            2,
        )
        .unwrap();
        assert!((found.size[0] - 1.0).abs() < 1e-6 && (found.size[1] - 2f32.sqrt()).abs() < 1e-6);
        assert!((found.cosine[0] - 45.0 / (5.0 * 90f32.sqrt())).abs() < 1e-6);
        assert_eq!(
            (found.cosine[1], found.size[2], found.cosine[2]),
            (0.0, 0.0, 0.0)
        );
        assert!(matches!(
            PatchChange::new(&[0.0; 4], &[0.0; 2], 2),
            Err(VisualizeError::Length { .. })
        ));
    }

    #[test]
    fn the_mean_of_rows() {
        assert_eq!(mean_row([&[1.0, 2.0][..], &[3.0, 6.0]], 2), [2.0, 4.0]);
        assert_eq!(mean_row(std::iter::empty(), 2), [0.0, 0.0]);
        assert!((cosine(&[1.0, 0.0], &[-2.0, 0.0]) + 1.0).abs() < 1e-12);
    }
}
