//! How strongly each type responds to an image.

use flawtune_kernels::matmul::{Op, matmul};

use super::levels::{Hierarchy, TypeLevel};
use flawtune::unit::normalise_rows;

impl TypeLevel {
    /// Cosines of unit residuals `[R, D]` to its scaled prompts, `[R, K]`.
    pub(super) fn cosines_of(&self, rows: &[f32], dim: usize) -> Vec<f32> {
        let (r, k) = (rows.len() / dim, self.count());
        let mut unit: Vec<f32> = self
            .prompts
            .chunks_exact(dim)
            .zip(&self.scales)
            .flat_map(|(row, scale)| row.iter().map(move |v| v * scale))
            .collect();
        normalise_rows(&mut unit, dim, &mut vec![0.0; k]);
        let mut out = vec![0.0; r * k];
        matmul(
            r,
            k,
            dim,
            rows,
            Op::None,
            &unit,
            Op::Transpose,
            &mut out,
            false,
        );
        out
    }

    /// The response before it is compared with that to good images: the mean over an image's residuals `[R, D]` of the best
    /// prompt's cosine, counted from its mean over the residuals of good images in its standard deviations there.
    pub(super) fn raw_response(&self, residuals: &[f32], dim: usize) -> f64 {
        let cosines = self.cosines_of(residuals, dim);
        let best = cosines.chunks_exact(self.count()).map(|of| {
            let standard = of
                .iter()
                .zip(&self.cosines)
                .map(|(c, (mean, sd))| f64::from(c - mean) / f64::from(*sd));
            standard.fold(f64::NEG_INFINITY, f64::max)
        });
        let (sum, count) = best.fold((0.0, 0), |(sum, count), v| (sum + v, count + 1));
        sum / f64::from(count.max(1))
    }
}

impl Hierarchy {
    /// The response of every type to an image of these residuals `[R, D]` ([`GoodPatches::residuals`] of frozen tokens): in
    /// standard deviations of its response to good images, counted from its mean there.
    ///
    /// [`GoodPatches::residuals`]: super::GoodPatches::residuals
    pub fn responses(&self, residuals: &[f32], dim: usize) -> Vec<f64> {
        self.levels
            .iter()
            .map(|l| (l.raw_response(residuals, dim) - l.response.0) / l.response.1)
            .collect()
    }

    /// The level that an image of these responses belongs to: that of the best response, if it is above what good images get
    /// and what shots of other types get. `None`: the shared one.
    pub fn assign(&self, responses: &[f64]) -> Option<usize> {
        let best = (0..responses.len())
            .max_by(|&a, &b| responses[a].total_cmp(&responses[b]).then(b.cmp(&a)))?;
        (responses[best] > self.bar.max(self.levels[best].bar)).then_some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One prompt along each axis; residuals of good images have cosine 0 ± 0.1 to it.
    fn level(axis: usize, response: (f64, f64)) -> TypeLevel {
        let mut prompts = vec![0.0; 4];
        prompts[axis] = 7.0;
        TypeLevel {
            name: format!("axis {axis}"),
            shots: 1,
            prompts,
            scales: vec![0.1],
            cosines: vec![(0.0, 0.1)],
            response,
            bar: 2.5,
        }
    }

    #[test]
    fn the_type_whose_prompts_point_there_responds_best_by_hand() {
        let made = Hierarchy {
            levels: vec![level(0, (1.0, 2.0)), level(1, (1.0, 2.0))],
            bar_share: 0.95,
            bar: 2.0,
        };
        let residuals = [[0.6, 0.8, 0.0, 0.0]; 3].concat();
        let found = made.responses(&residuals, 4);
        // cosines 0.6 and 0.8, so 6 and 8 deviations; (6 − 1) / 2 and (8 − 1) / 2
        assert!(
            (found[0] - 2.5).abs() < 1e-5 && (found[1] - 3.5).abs() < 1e-5,
            "{found:?}"
        );
        assert_eq!(made.assign(&found), Some(1));
        assert_eq!(
            made.assign(&[1.9, 0.3]),
            None,
            "good images respond as much"
        );
        assert_eq!(
            made.assign(&[2.4, 0.3]),
            None,
            "shots of other types get as much"
        );
        assert_eq!(made.assign(&[3.0, 3.0]), Some(0), "the first of equals");
    }
}
