//! Grad-CAM: which patches raise a score, by activations and gradients of one block.

use super::VisualizeError;

/// Grad-CAM (Selvaraju et al., ICCV 2017) with patches in place of pixels: `relu(Σ_d w_d a_pd)`, where `a` `[P, D]` are the
/// patches' activations where they enter a block and `w_d` is the mean over the patches of the score's gradient with
/// respect to channel d. One number a patch, not negative, in the score's unit per patch up to the factor P.
///
/// `centre` `[D]` is taken from the activations first. A transformer's channels have large offsets that all patches share,
/// also those of a flawless image; with the mean activation of normal images as the centre, a patch counts by how it differs
/// from them. All zeros is the original formula.
///
/// # Errors
/// [`VisualizeError`] if the lengths do not fit together.
pub fn grad_cam(
    activations: &[f32],
    gradient: &[f32],
    centre: &[f64],
) -> Result<Vec<f32>, VisualizeError> {
    let dim = centre.len();
    let patches = VisualizeError::rows("activations", activations.len(), dim)?;
    VisualizeError::check("gradients of the activations", gradient.len(), activations.len())?;
    let mut weights = vec![0.0f64; dim];
    for row in gradient.chunks_exact(dim) {
        weights.iter_mut().zip(row).for_each(|(w, &g)| *w += f64::from(g) / patches as f64);
    }
    let one = |row: &[f32]| -> f32 {
        let terms = row.iter().zip(centre).zip(&weights).map(|((&a, c), w)| w * (f64::from(a) - c));
        terms.sum::<f64>().max(0.0) as f32
    };
    Ok(activations.chunks_exact(dim).map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_weighted_by_their_mean_gradient() {
        // three patches of two channels; mean gradient (1, −2)
        let gradient = [3.0, 0.0, 0.0, -6.0, 0.0, 0.0];
        let activations = [2.0, 0.5, 1.0, 1.0, 5.0, -1.0];
        assert_eq!(grad_cam(&activations, &gradient, &[0.0; 2]).unwrap(), [1.0, 0.0, 7.0]);
        // from the centre (1, 1): (1, −.5), (0, 0), (4, −2)
        assert_eq!(grad_cam(&activations, &gradient, &[1.0, 1.0]).unwrap(), [2.0, 0.0, 8.0]);
    }

    #[test]
    fn lengths_must_fit() {
        assert!(matches!(
            grad_cam(&[0.0; 4], &[0.0; 6], &[0.0; 2]),
            Err(VisualizeError::Length { found: 6, wanted: 4, .. })
        ));
        assert!(matches!(grad_cam(&[0.0; 3], &[0.0; 3], &[0.0; 2]), Err(VisualizeError::Length { .. })));
        assert!(matches!(grad_cam(&[], &[], &[0.0; 2]), Err(VisualizeError::Empty { .. })));
    }
}
