//! Images at the backbone's size: decoded in parallel, sent through it together.

use flawtune_backbone::preprocess::{Arithmetic, Preprocess, RgbImage8};
use rayon::prelude::*;

use super::{FeatureError, Forward};

/// The pixels of a batch.
#[derive(Debug)]
pub enum Inputs {
    /// `[pictures, 3, height, width]`, normalised.
    Normalised(Vec<f32>),
    /// `[pictures, height, width, 3]`, for a backbone that normalises them on their way in.
    Bytes(Vec<u8>),
}

impl Default for Inputs {
    fn default() -> Self {
        Self::Bytes(Vec::new())
    }
}

impl Inputs {
    /// Calls `load` for every item, in parallel. It hands its image, once, to the function it is given, which prepares it;
    /// items that fail leave no gap. What `load` returns comes back in the order of the items.
    pub fn load<I: Sync, R: Send, E: Send>(
        items: &[I],
        forward: &dyn Forward,
        preprocess: &Preprocess,
        load: impl Fn(&I, &mut dyn FnMut(&RgbImage8)) -> Result<R, E> + Sync,
    ) -> (Self, Vec<Result<R, E>>) {
        let each = 3 * preprocess.size.0 * preprocess.size.1;
        // bytes need a recipe that ends in bytes, and a backbone that normalises them as the recipe would
        let bytes = preprocess.arithmetic != Arithmetic::Float
            && forward.normalization() == Some(preprocess.normalization);
        if bytes {
            let write = |image: &RgbImage8, out: &mut [u8]| {
                out.copy_from_slice(preprocess.resized(image).pixels());
            };
            let (pixels, results) = fill(items, each, load, write);
            (Self::Bytes(pixels), results)
        } else {
            let write = |image: &RgbImage8, out: &mut [f32]| preprocess.apply_into(image, out);
            let (pixels, results) = fill(items, each, load, write);
            (Self::Normalised(pixels), results)
        }
    }

    /// Tokens `[1 + patches, dim]` of each of the `batch` images of `height`×`width`.
    ///
    /// # Errors
    /// [`FeatureError::Forward`] and [`FeatureError::Shape`].
    pub fn tokens(
        &self,
        forward: &dyn Forward,
        batch: usize,
        (height, width): (usize, usize),
    ) -> Result<Vec<Vec<f32>>, FeatureError> {
        if batch == 0 {
            return Ok(Vec::new());
        }
        let (rows, columns) = forward.grid(height, width);
        let model = || forward.name().to_string();
        let tokens = match self {
            Self::Normalised(pixels) => forward.forward(pixels, batch, height, width),
            Self::Bytes(pictures) => forward.forward_bytes(pictures, batch, height, width),
        }
        .map_err(|source| FeatureError::Forward {
            model: model(),
            source,
        })?;
        let each = (1 + rows * columns) * forward.dim();
        if tokens.len() != batch * each {
            let (wanted, found) = (batch * each, tokens.len());
            return Err(FeatureError::Shape {
                model: model(),
                batch,
                wanted,
                found,
            });
        }
        Ok(tokens.chunks_exact(each).map(<[f32]>::to_vec).collect())
    }
}

/// `each` values of every image that can be loaded, as `write` makes them.
fn fill<I: Sync, R: Send, E: Send, T: Copy + Default + Send>(
    items: &[I],
    each: usize,
    load: impl Fn(&I, &mut dyn FnMut(&RgbImage8)) -> Result<R, E> + Sync,
    write: impl Fn(&RgbImage8, &mut [T]) + Sync,
) -> (Vec<T>, Vec<Result<R, E>>) {
    let mut pixels = vec![T::default(); items.len() * each];
    let results: Vec<Result<R, E>> = items
        .par_iter()
        .zip(pixels.par_chunks_exact_mut(each))
        .map(|(item, out)| load(item, &mut |picture| write(picture, out)))
        .collect();
    let mut to = 0;
    for (from, result) in results.iter().enumerate() {
        if result.is_ok() {
            if to < from {
                pixels.copy_within(from * each..(from + 1) * each, to * each);
            }
            to += 1;
        }
    }
    pixels.truncate(to * each);
    (pixels, results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_that_fail_leave_no_gap() {
        let load = |i: &u8, put: &mut dyn FnMut(&RgbImage8)| {
            put(&RgbImage8::from_pixels(1, 1, vec![*i; 3]));
            if i.is_multiple_of(3) { Err(*i) } else { Ok(*i) }
        };
        let (pixels, results) = fill(&[0u8, 1, 2, 3, 4, 6], 3, load, |p, out: &mut [u8]| {
            out.copy_from_slice(p.pixels());
        });
        assert_eq!(pixels, [1, 1, 1, 2, 2, 2, 4, 4, 4]);
        assert_eq!(results, [Err(0), Ok(1), Ok(2), Err(3), Ok(4), Err(6)]);
    }
}
