//! Images at one size, looked at once, and what a head that learned from shots says of them.

use flawtune::bundle::Precision;
use flawtune::features::{TokenSet, patch_cover};
use flawtune::score::Finding;
use flawtune::score::residual::{
    BlockBanks, Good, Look, LookedAt, Shot, block_bank, default_blocks, default_top,
    learn_residual, look_at_good,
};
use flawtune::workflow::{BackboneOptions, Category, Engine};
use flawtune_backbone::preprocess::Preprocess;
use flawtune_backbone::vit::Combine;

use super::{Failure, Options};

/// Everything that is seen at one size, once.
pub(crate) struct AtSize {
    pub(crate) preprocess: Preprocess,
    pub(crate) tokens: TokenSet,
    banks: BlockBanks,
    good: Vec<Good<'static>>,
    looked_at: LookedAt,
    looks: Vec<Look>,
    patch: usize,
}

impl AtSize {
    pub(crate) fn look(
        options: &Options,
        category: &Category,
        size: usize,
        (good, others): (&[usize], &[usize]),
    ) -> Result<Self, Failure> {
        let silent = &mut |_: flawtune::workflow::Event<'_>| {};
        let base = BackboneOptions {
            weights: Some(options.weights.clone()),
            image_size: size.into(),
            combine_layers: Combine::Concat,
            ..BackboneOptions::default()
        };
        let depth = Engine::open(base.clone(), silent)?.config().depth;
        let layers = options.blocks.clone().unwrap_or_else(|| {
            let blocks = default_blocks(depth).into_iter();
            blocks.map(|b| b as i32).collect()
        });
        let blocks = layers.len();
        let engine = Engine::open(BackboneOptions { layers, ..base }, silent)?;
        let all: Vec<usize> = (0..category.dataset.samples.len()).collect();
        let (_, tokens) = category.tokens(&engine, &all, silent)?;
        let (dim, patches) = (tokens.dim / blocks, tokens.patches());
        let images = |of: &[usize]| of.iter().map(|&i| &tokens.images[i]).collect::<Vec<_>>();
        let bank = block_bank(images(good), blocks, dim, Precision::F16);
        let banks = BlockBanks::new(&bank, blocks, &vec![patches; good.len()]);
        let start = std::time::Instant::now();
        // of several sizes a part of the good images is judged, as fit does
        let judged = if options.image_sizes.len() > 1 {
            options.judged.min(good.len())
        } else {
            good.len()
        };
        let own: Vec<usize> = (0..judged).map(|i| i * good.len() / judged).collect();
        let good: Vec<Good<'static>> = own.into_iter().map(Good::Own).collect();
        let looked_at = look_at_good(&banks, &good, &mut |_| {});
        let looks = banks.look(&images(others));
        eprintln!(
            "{} of {size} px looked at in {:.1} s",
            judged + others.len(),
            start.elapsed().as_secs_f64()
        );
        Ok(Self {
            preprocess: engine.preprocess(),
            patch: engine.config().patch_size,
            good,
            tokens,
            banks,
            looked_at,
            looks,
        })
    }

    /// What a head that learned from `shots` says of the good images and of `test`.
    pub(crate) fn judge(
        &self,
        options: &Options,
        category: &Category,
        others: &[usize],
        (seed, shots, test): (u64, &[usize], &[usize]),
    ) -> Result<[Vec<Finding>; 2], Failure> {
        let look_of = |i: usize| &self.looks[others.binary_search(&i).unwrap_or(0)];
        let mut given = Vec::new();
        for &i in shots {
            let sample = &category.dataset.samples[i];
            let masks = &sample.masks;
            let covered = if masks.is_empty() || !options.masks {
                None
            } else {
                let grid = self.tokens.grid;
                let path = &sample.path;
                Some(patch_cover(
                    path,
                    masks,
                    &self.preprocess,
                    grid,
                    self.patch,
                )?)
            };
            given.push(Shot {
                image: &self.tokens.images[i],
                covered,
                kind: "",
            });
        }
        let of_shots: Vec<Look> = shots.iter().map(|&i| look_of(i).clone()).collect();
        let mut learning = options.learning.clone();
        learning.seed = seed;
        let top = options
            .top
            .unwrap_or_else(|| default_top(self.tokens.patches()));
        let fit = learn_residual(
            &self.banks,
            (&self.good, &self.looked_at),
            (&given, &of_shots),
            top,
            &learning,
        )?;
        let model = &fit.model;
        let tested = test.iter().map(|&i| {
            let judged = model.judge_looked(&self.banks, &self.tokens.images[i], look_of(i));
            model.finding(judged)
        });
        Ok([
            fit.good.iter().cloned().map(|j| model.finding(j)).collect(),
            tested.collect(),
        ])
    }
}
