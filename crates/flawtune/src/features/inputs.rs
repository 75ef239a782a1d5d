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
        let (mut inputs, results) =
            Self::load_at(items, forward, std::slice::from_ref(preprocess), load);
        (inputs.pop().unwrap_or_default(), results)
    }

    /// As [`Self::load`], of every image in several ways.
    pub fn load_at<I: Sync, R: Send, E: Send>(
        items: &[I],
        forward: &dyn Forward,
        ways: &[Preprocess],
        load: impl Fn(&I, &mut dyn FnMut(&RgbImage8)) -> Result<R, E> + Sync,
    ) -> (Vec<Self>, Vec<Result<R, E>>) {
        let loaded: Vec<(Vec<Self>, Result<R, E>)> = items
            .par_iter()
            .map(|item| {
                let mut own = Vec::new();
                let mut put = |image: &RgbImage8| {
                    own = ways
                        .iter()
                        .map(|way| Self::of(image, forward, way))
                        .collect();
                };
                let result = load(item, &mut put);
                (own, result)
            })
            .collect();
        let mut inputs: Vec<Self> = Vec::new();
        let mut results = Vec::with_capacity(loaded.len());
        for (own, result) in loaded {
            if result.is_ok() {
                if inputs.is_empty() {
                    inputs = own;
                } else {
                    let ways = inputs.iter_mut().zip(own);
                    ways.for_each(|(inputs, own)| inputs.append(own));
                }
            }
            results.push(result);
        }
        inputs.resize_with(ways.len(), Self::default);
        (inputs, results)
    }

    /// One image.
    fn of(image: &RgbImage8, forward: &dyn Forward, preprocess: &Preprocess) -> Self {
        // bytes need a recipe that ends in bytes, and a backbone that normalises them as the recipe would
        let bytes = preprocess.arithmetic != Arithmetic::Float
            && forward.normalization() == Some(preprocess.normalization);
        if bytes {
            return Self::Bytes(preprocess.resized(image).pixels().to_vec());
        }
        let mut pixels = vec![0.0; 3 * preprocess.size.0 * preprocess.size.1];
        preprocess.apply_into(image, &mut pixels);
        Self::Normalised(pixels)
    }

    /// Appends images that were prepared in the same way.
    fn append(&mut self, more: Self) {
        match (self, more) {
            (Self::Normalised(pixels), Self::Normalised(more)) => pixels.extend(more),
            (Self::Bytes(pixels), Self::Bytes(more)) => pixels.extend(more),
            (inputs, more) => *inputs = more,
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

#[cfg(test)]
mod tests {
    use flawtune_backbone::config::Normalization;

    use super::*;
    use crate::features::ForwardError;

    /// Takes normalised pixels.
    struct Network;

    impl Forward for Network {
        fn name(&self) -> &'static str {
            "network"
        }
        fn weights_hash(&self) -> &'static str {
            ""
        }
        fn variant(&self) -> String {
            String::new()
        }
        fn grid(&self, height: usize, width: usize) -> (usize, usize) {
            (height, width)
        }
        fn dim(&self) -> usize {
            1
        }
        fn forward(
            &self,
            _: &[f32],
            _: usize,
            _: usize,
            _: usize,
        ) -> Result<Vec<f32>, ForwardError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn items_that_fail_leave_no_gap_at_any_size() {
        let load = |i: &u8, put: &mut dyn FnMut(&RgbImage8)| {
            put(&RgbImage8::from_pixels(1, 1, vec![*i; 3]));
            if i.is_multiple_of(3) { Err(*i) } else { Ok(*i) }
        };
        let plain = Normalization {
            mean: [0.0; 3],
            std: [1.0 / 255.0; 3],
        };
        let ways = [1, 2].map(|side| Preprocess::squash(side, side, plain));
        let items = [0u8, 1, 2, 3, 4, 6];
        let (inputs, results) = Inputs::load_at(&items, &Network, &ways, load);
        assert_eq!(results, [Err(0), Ok(1), Ok(2), Err(3), Ok(4), Err(6)]);
        for (inputs, pixels) in inputs.iter().zip([3, 12]) {
            let Inputs::Normalised(values) = inputs else {
                panic!("the network takes normalised pixels")
            };
            let wanted: Vec<f32> = [1.0, 2.0, 4.0]
                .into_iter()
                .flat_map(|v| vec![v; pixels])
                .collect();
            assert_eq!(values.len(), wanted.len());
            assert!(
                values
                    .iter()
                    .zip(&wanted)
                    .all(|(v, w)| (v - w).abs() < 1e-3)
            );
        }
        let (none, _) = Inputs::load_at(&items[..1], &Network, &ways, load);
        assert_eq!(none.len(), 2);
    }
}
