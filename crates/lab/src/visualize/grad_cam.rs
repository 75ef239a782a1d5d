//! Grad-CAM: which patches raise a score, by activations and gradients of one block.

use super::VisualizeError;

/// Grad-CAM (Selvaraju et al., ICCV 2017) with patches in place of pixels: `relu(Σ_d w_d (a_pd − r_pd))`, where `a` `[P, D]`
/// are the patches' activations where they enter a block and `w_d` is the mean over the patches of the score's gradient with
/// respect to channel d. One number a patch, not negative; only their proportions mean something.
///
/// `reference` `[P, D]` is taken from the activations first; zeros give the original formula. A transformer's channels have
/// large offsets that depend on the place more than on the image; with the mean activations of normal images as the
/// reference, a patch counts by how it differs from what is normal at its place.
///
/// # Errors
/// [`VisualizeError`] if the lengths do not fit together.
pub fn grad_cam(
    activations: &[f32],
    gradient: &[f32],
    reference: &[f64],
    dim: usize,
) -> Result<Vec<f32>, VisualizeError> {
    let patches = VisualizeError::rows("activations", activations.len(), dim)?;
    VisualizeError::check(
        "gradients of the activations",
        gradient.len(),
        activations.len(),
    )?;
    VisualizeError::check("reference activations", reference.len(), activations.len())?;
    let mut weights = vec![0.0f64; dim];
    for row in gradient.chunks_exact(dim) {
        weights
            .iter_mut()
            .zip(row)
            .for_each(|(w, &g)| *w += f64::from(g) / patches as f64);
    }
    let one = |(row, normal): (&[f32], &[f64])| -> f32 {
        let terms = row
            .iter()
            .zip(normal)
            .zip(&weights)
            .map(|((&a, n), w)| w * (f64::from(a) - n));
        terms.sum::<f64>().max(0.0) as f32
    };
    Ok(activations
        .chunks_exact(dim)
        .zip(reference.chunks_exact(dim))
        .map(one)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_weighted_by_their_mean_gradient() {
        // three patches of two channels; mean gradient (1, −2)
        let gradient = [3.0, 0.0, 0.0, -6.0, 0.0, 0.0];
        let activations = [2.0, 0.5, 1.0, 1.0, 5.0, -1.0];
        assert_eq!(
            grad_cam(&activations, &gradient, &[0.0; 6], 2).unwrap(),
            [1.0, 0.0, 7.0]
        );
        // what differs from the reference: (1, −.5), (0, 0), (0, −2)
        let reference = [1.0, 1.0, 1.0, 1.0, 5.0, 1.0];
        assert_eq!(
            grad_cam(&activations, &gradient, &reference, 2).unwrap(),
            [2.0, 0.0, 4.0]
        );
    }

    #[test]
    fn lengths_must_fit() {
        assert!(matches!(
            grad_cam(&[0.0; 4], &[0.0; 6], &[0.0; 4], 2),
            Err(VisualizeError::Length {
                found: 6,
                wanted: 4,
                ..
            })
        ));
        let wrong = |n: usize, reference: usize| {
            grad_cam(&vec![0.0; n], &vec![0.0; n], &vec![0.0; reference], 2)
        };
        assert!(matches!(
            wrong(3, 3),
            Err(VisualizeError::Length {
                found: 3,
                wanted: 4,
                ..
            })
        ));
        assert!(matches!(
            wrong(4, 2),
            Err(VisualizeError::Length {
                found: 2,
                wanted: 4,
                ..
            })
        ));
        assert!(matches!(wrong(0, 0), Err(VisualizeError::Empty { .. })));
    }
}
