//! From the tokens of an image to its score and patch distances, by what a bundle holds.

use std::path::Path;

use flawtune_kernels::matching::{Nearest, NearestImages, PackedPatches, max_similarity};
use rayon::prelude::*;

use super::bank::Bank;
use super::cells::{CellBank, Cells};
use super::error::BundleError;
use super::header::{Recall, ScorerKind};
use super::patches::PatchOptions;
use super::rows::RowBank;
use crate::features::{ImageTokens, TokenSet};
use crate::score::heads::{BANK_SHARE, Ensemble, Evidence};
use crate::score::{Finding, Scorer};

/// An image before its score is known.
struct Measured {
    /// Mean similarity to the nearest support images, for image pairs.
    similarity: Option<f64>,
    /// Over the grid.
    distances: Vec<f32>,
}

#[derive(Debug)]
enum Search {
    Rows(RowBank),
    Cells(CellBank),
    Images(NearestImages),
}

/// Scores tokens against a bank. A score depends on neither the other images nor the number of threads.
#[derive(Debug)]
pub struct TokenScorer {
    scorer: ScorerKind,
    patches: PatchOptions,
    grid: (usize, usize),
    dim: usize,
    search: Search,
    ensemble: Option<Ensemble>,
}

/// Images whose patches are packed at once; bounds memory, changes no result.
const IMAGES_AT_ONCE: usize = 32;

/// Patches that the recall of an index is measured on, about; and the fewest images.
const RECALL_PATCHES: usize = 4096;
const RECALL_IMAGES: usize = 4;
/// Distances below it are those of patches that lie in the bank: no share of them says anything.
const NO_DISTANCE: f64 = 1e-6;

/// The mean share by which numbers are too large.
#[derive(Default)]
struct Mean {
    sum: f64,
    count: usize,
}

impl Mean {
    fn add(&mut self, found: f64, right: f64) {
        if right > NO_DISTANCE {
            self.sum += (found - right) / right;
            self.count += 1;
        }
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
}

/// The unit patches of images that are compared, and which of the grid they are.
struct Queries {
    rows: Vec<PackedPatches>,
    /// `None`: all.
    kept: Vec<Option<Vec<bool>>>,
}

impl TokenScorer {
    /// Searches a bank; `parts` says which rows belong to one image (empty: it does not matter).
    ///
    /// # Errors
    /// [`BundleError::Header`], naming `path`, for a bank that holds other numbers than unit vectors do;
    /// [`BundleError::Head`] for an ensemble of another width.
    pub fn new(
        path: &Path,
        scorer: ScorerKind,
        patches: PatchOptions,
        grid: (usize, usize),
        bank: &Bank,
        parts: &[usize],
        ensemble: Option<Ensemble>,
    ) -> Result<Self, BundleError> {
        bank.check(path)?;
        if let ScorerKind::Residual { .. } = scorer {
            return Err(BundleError::Header {
                path: path.to_owned(),
                key: "scorer.kind".into(),
                what: "looks at several blocks, each with a bank of its own".into(),
            });
        }
        let parts = if parts.is_empty() {
            vec![bank.rows()]
        } else {
            parts.to_vec()
        };
        let search = match scorer {
            ScorerKind::ImagePair { .. } => {
                Search::Images(NearestImages::new(bank.pack(0, &parts)))
            }
            ScorerKind::PatchBank { .. } | ScorerKind::Ensemble | ScorerKind::Residual { .. } => {
                Search::Rows(RowBank::new(bank.clone(), parts))
            }
        };
        if let Some(ensemble) = &ensemble {
            ensemble.score(&Evidence {
                features: vec![0.0; 2 * bank.dim()],
                bank: Some(0.0),
            })?;
        }
        Ok(Self {
            scorer,
            patches,
            grid,
            dim: bank.dim(),
            search,
            ensemble,
        })
    }

    /// Searches the `probes` cells whose centres are nearest to a patch, in place of all of the bank, which must be sorted into
    /// them; `owners` says which image each row is of (empty: none is ever left out). Changes nothing for image pairs.
    #[must_use]
    pub fn with_cells(self, cells: Cells, probes: usize, owners: Vec<u32>) -> Self {
        let search = match self.search {
            Search::Rows(rows) => {
                let (bank, frame) = rows.into_bank();
                Search::Cells(CellBank::new(bank, frame, cells, probes, owners))
            }
            other => other,
        };
        Self { search, ..self }
    }

    /// What the index finds beside all of the bank, for some images spread evenly over these; with `own`, image i is the bank's
    /// image i, whose patches are left out of both. None without an index.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub fn recall(&self, tokens: &TokenSet, own: bool) -> Result<Option<Recall>, BundleError> {
        let Search::Cells(bank) = &self.search else {
            return Ok(None);
        };
        self.check(tokens)?;
        let all = tokens.images.len();
        let images = (RECALL_PATCHES / (self.grid.0 * self.grid.1))
            .max(RECALL_IMAGES)
            .min(all);
        let (mut patches, mut found) = (0, 0);
        let mut distance_errors = Mean::default();
        let mut score_errors = Mean::default();
        for i in (0..images).map(|i| i * all / images) {
            let image = &tokens.images[i..=i];
            let queries = self.queries(image, |rows| PackedPatches::pack(rows, self.dim))?;
            let measured = |probes: usize| {
                let found = bank.distances_without(&queries.rows, probes, |_| own.then_some(i));
                over_grid(queries.kept.iter().cloned().zip(found))
            };
            let (near, exact) = (measured(bank.probes()), measured(usize::MAX));
            let kept = queries.kept.first().and_then(Option::as_deref);
            for (patch, (near, exact)) in near[0]
                .distances
                .iter()
                .zip(&exact[0].distances)
                .enumerate()
            {
                if kept.is_none_or(|kept| kept[patch]) {
                    patches += 1;
                    found += usize::from(near == exact);
                    distance_errors.add((*near).into(), (*exact).into());
                }
            }
            // the ensemble's evidence is the patch bank's score
            let score = |m: &[Measured]| match self.scorer {
                ScorerKind::PatchBank { aggregate } => aggregate.score(&m[0].distances),
                _ => crate::score::Aggregate::TopFraction(BANK_SHARE).score(&m[0].distances),
            };
            score_errors.add(score(&near), score(&exact));
        }
        Ok(Some(Recall {
            images,
            patches,
            at_1: if patches == 0 {
                1.0
            } else {
                found as f64 / patches as f64
            },
            distance_error: distance_errors.mean(),
            score_error: score_errors.mean(),
        }))
    }

    /// Puts a fitted ensemble in.
    pub(crate) fn set_ensemble(&mut self, ensemble: Ensemble) {
        self.ensemble = Some(ensemble);
    }

    /// Scores the bank's own images, each without its own part of the bank. With an ensemble scorer `score` is the patch
    /// bank's part of the evidence: an ensemble has left-out scores of its own.
    ///
    /// Rows are compared as the bank holds them, rounded on both sides. `on_share` hears which share of the work is done.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub(crate) fn score_left_out(
        &self,
        tokens: &TokenSet,
        whole: bool,
        on_share: &mut dyn FnMut(f64),
    ) -> Result<Vec<Finding>, BundleError> {
        let measured = match &self.search {
            Search::Rows(bank) if whole => {
                self.check(tokens)?;
                let kept = |image: &ImageTokens| self.patches.kept(image, self.grid, self.dim);
                let kept: Vec<_> = tokens
                    .images
                    .par_iter()
                    .map(kept)
                    .collect::<Result<_, _>>()?;
                over_grid(kept.into_iter().zip(bank.left_out_distances(on_share)))
            }
            _ => self.measured(tokens, true, on_share)?,
        };
        self.findings(&tokens.images, measured)
    }

    /// Compares images with the bank; with `own`, image i is the bank's image i, whose part is left out.
    fn measured(
        &self,
        tokens: &TokenSet,
        own: bool,
        on_share: &mut dyn FnMut(f64),
    ) -> Result<Vec<Measured>, BundleError> {
        self.check(tokens)?;
        let plain = |rows: &[f32]| PackedPatches::pack(rows, self.dim);
        if let Search::Images(images) = &self.search {
            let queries = self.queries(&tokens.images, plain)?;
            return Ok(self.pairs(images, &queries, own));
        }
        let mut measured = Vec::with_capacity(tokens.images.len());
        for images in tokens.images.chunks(IMAGES_AT_ONCE) {
            let first = measured.len();
            let left_out = |i| own.then_some(first + i);
            let (queries, found) = match &self.search {
                Search::Rows(bank) => {
                    let queries = self.queries(images, |rows| bank.pack(rows))?;
                    let found = bank.distances_without(&queries.rows, left_out);
                    (queries, found)
                }
                Search::Cells(bank) => {
                    let queries = self.queries(images, plain)?;
                    let found = bank.distances_without(&queries.rows, bank.probes(), left_out);
                    (queries, found)
                }
                Search::Images(_) => break,
            };
            measured.extend(over_grid(queries.kept.into_iter().zip(found)));
            on_share(measured.len() as f64 / tokens.images.len() as f64);
        }
        Ok(measured)
    }

    fn check(&self, tokens: &TokenSet) -> Result<(), BundleError> {
        let (found, wanted) = (
            (tokens.grid.0, tokens.grid.1, tokens.dim),
            (self.grid.0, self.grid.1, self.dim),
        );
        if found == wanted {
            Ok(())
        } else {
            Err(BundleError::Tokens { found, wanted })
        }
    }

    fn queries(
        &self,
        images: &[ImageTokens],
        pack: impl Fn(&[f32]) -> PackedPatches + Sync,
    ) -> Result<Queries, BundleError> {
        let one = |image: &ImageTokens| {
            let (rows, kept) = self.patches.rows(image, self.grid, self.dim)?;
            Ok((pack(&rows), kept))
        };
        let queries: Vec<_> = images
            .par_iter()
            .map(one)
            .collect::<Result<_, BundleError>>()?;
        let (rows, kept) = queries.into_iter().unzip();
        Ok(Queries { rows, kept })
    }

    /// Compares with the k nearest images; with `own`, query i is image i of the bank and is left out.
    fn pairs(&self, images: &NearestImages, queries: &Queries, own: bool) -> Vec<Measured> {
        let ScorerKind::ImagePair { k } = self.scorer else {
            return Vec::new();
        };
        let nearest = images.nearest(&queries.rows, k + usize::from(own));
        let one = |(i, (rows, near)): (usize, (&PackedPatches, &Nearest))| {
            let (mut best, mut sums) = (vec![0.0f32; rows.patches()], vec![0.0f64; rows.patches()]);
            let others = || near.images.iter().filter(|n| !own || n.0 != i).take(k);
            let count = others().count().max(1) as f64;
            for &(image, _) in others() {
                max_similarity(rows, &images.images()[image], &mut best);
                sums.iter_mut()
                    .zip(&best)
                    .for_each(|(sum, &b)| *sum += f64::from(b));
            }
            Measured {
                similarity: Some(others().map(|n| n.1).sum::<f64>() / count),
                distances: spread(
                    queries.kept[i].as_deref(),
                    sums.iter().map(|sum| (1.0 - sum / count) as f32).collect(),
                ),
            }
        };
        queries
            .rows
            .par_iter()
            .zip(&nearest)
            .enumerate()
            .map(one)
            .collect()
    }

    fn findings(
        &self,
        images: &[ImageTokens],
        measured: Vec<Measured>,
    ) -> Result<Vec<Finding>, BundleError> {
        let score = |(image, m): (&ImageTokens, Measured)| -> Result<Finding, BundleError> {
            let score = match (self.scorer, &self.ensemble) {
                (ScorerKind::ImagePair { .. }, _) => 1.0 - m.similarity.unwrap_or(f64::NAN),
                (ScorerKind::PatchBank { aggregate }, _) => aggregate.score(&m.distances),
                (ScorerKind::Ensemble | ScorerKind::Residual { .. }, None) => {
                    crate::score::Aggregate::TopFraction(BANK_SHARE).score(&m.distances)
                }
                (ScorerKind::Ensemble | ScorerKind::Residual { .. }, Some(ensemble)) => {
                    let distances = std::slice::from_ref(&m.distances);
                    let evidence = Evidence::with_distances(
                        std::slice::from_ref(image),
                        distances,
                        BANK_SHARE,
                    )?;
                    ensemble
                        .scores(&evidence)?
                        .first()
                        .map_or(f64::NAN, |s| s.adapted)
                }
            };
            Ok(Finding {
                score,
                distances: m.distances,
                drift: 0.0,
                kind: None,
                untaught: None,
            })
        };
        images.par_iter().zip(measured).map(score).collect()
    }
}

impl Scorer for TokenScorer {
    fn score(&self, tokens: &TokenSet) -> Result<Vec<Finding>, BundleError> {
        let measured = self.measured(tokens, false, &mut |_| {})?;
        self.findings(&tokens.images, measured)
    }
}

fn over_grid(found: impl Iterator<Item = (Option<Vec<bool>>, Vec<f32>)>) -> Vec<Measured> {
    found
        .map(|(kept, found)| Measured {
            similarity: None,
            distances: spread(kept.as_deref(), found),
        })
        .collect()
}

/// Puts the kept patches' numbers at their places; 0 elsewhere.
fn spread(kept: Option<&[bool]>, found: Vec<f32>) -> Vec<f32> {
    let Some(kept) = kept else { return found };
    let mut next = found.into_iter();
    kept.iter()
        .map(|kept| {
            if *kept {
                next.next().unwrap_or(0.0)
            } else {
                0.0
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Precision;
    use crate::score::heads::EnsembleOptions;
    use crate::score::{Aggregate, SupportSet, TokenKind};

    const GRID: (usize, usize) = (3, 4);
    const DIM: usize = 8;

    fn tokens(images: usize, seed: u32) -> TokenSet {
        let mut state = seed;
        let mut noise = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let image = |_| ImageTokens::owned((0..13 * DIM).map(|_| noise()).collect(), 12, DIM);
        TokenSet {
            grid: GRID,
            dim: DIM,
            images: (0..images).map(image).collect(),
        }
    }

    fn scorer(support: &TokenSet, scorer: ScorerKind) -> TokenScorer {
        let rows = support
            .images
            .iter()
            .flat_map(|i| PatchOptions::default().rows(i, GRID, DIM).unwrap().0);
        let bank = Bank::of(&rows.collect::<Vec<_>>(), DIM, Precision::F32);
        let parts = vec![12; support.images.len()];
        TokenScorer::new(
            Path::new("m"),
            scorer,
            PatchOptions::default(),
            GRID,
            &bank,
            &parts,
            None,
        )
        .unwrap()
    }

    #[test]
    fn scores_are_those_of_the_scorers_of_evaluate() {
        let (support, test) = (tokens(9, 1), tokens(5, 2));
        let plain = SupportSet::new(&support, TokenKind::Patches, None).unwrap();
        let aggregate = Aggregate::TopFraction(0.2);
        let wanted = plain.score_bank(&test, aggregate).unwrap();
        let found = scorer(&support, ScorerKind::PatchBank { aggregate })
            .score(&test)
            .unwrap();
        assert_eq!(
            found.iter().map(|f| f.score).collect::<Vec<_>>(),
            wanted.scores
        );
        assert_eq!(
            found
                .iter()
                .map(|f| f.distances.clone())
                .collect::<Vec<_>>(),
            wanted.maps.unwrap()
        );
        let wanted = plain.score_pairs(&test, 2, true).unwrap();
        let found = scorer(&support, ScorerKind::ImagePair { k: 2 })
            .score(&test)
            .unwrap();
        assert_eq!(
            found.iter().map(|f| f.score).collect::<Vec<_>>(),
            wanted.scores
        );
        assert_eq!(
            found
                .iter()
                .map(|f| f.distances.clone())
                .collect::<Vec<_>>(),
            wanted.maps.unwrap()
        );
    }

    #[test]
    fn left_out_scores_are_those_of_a_bank_without_the_image() {
        let support = tokens(9, 3);
        for kind in [
            ScorerKind::PatchBank {
                aggregate: Aggregate::Max,
            },
            ScorerKind::ImagePair { k: 2 },
        ] {
            let all = scorer(&support, kind);
            for whole in [true, false] {
                let found = all.score_left_out(&support, whole, &mut |_| {}).unwrap();
                for (i, found) in found.iter().enumerate() {
                    let mut others = support.clone();
                    let own = others.images.remove(i);
                    let own = TokenSet {
                        images: vec![own],
                        ..support.clone()
                    };
                    assert_eq!(
                        *found,
                        scorer(&others, kind).score(&own).unwrap()[0],
                        "{kind:?} image {i}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_ensemble_survives_its_file_to_the_last_bit() {
        let (support, shots, test) = (tokens(9, 4), tokens(3, 5), tokens(5, 6));
        let mut scorer = scorer(&support, ScorerKind::Ensemble);
        let evidence = |set: &TokenSet, found: &[Finding]| {
            let distances: Vec<Vec<f32>> = found.iter().map(|f| f.distances.clone()).collect();
            Evidence::with_distances(&set.images, &distances, BANK_SHARE).unwrap()
        };
        let normals = evidence(
            &support,
            &scorer.score_left_out(&support, true, &mut |_| {}).unwrap(),
        );
        let shots = evidence(&shots, &scorer.score(&shots).unwrap());
        let fitted = Ensemble::fit(&normals, &shots, &EnsembleOptions::default()).unwrap();
        scorer.set_ensemble(fitted.clone());
        let before = scorer.score(&test).unwrap();
        let read = serde_json::from_slice(&serde_json::to_vec(&fitted).unwrap()).unwrap();
        scorer.set_ensemble(read);
        assert_eq!(scorer.score(&test).unwrap(), before);
        assert!(before.iter().any(|f| f.score != before[0].score));
    }

    #[test]
    fn tokens_of_another_shape_are_refused() {
        let scorer = scorer(
            &tokens(2, 1),
            ScorerKind::PatchBank {
                aggregate: Aggregate::Mean,
            },
        );
        let other = TokenSet {
            grid: (4, 3),
            ..tokens(1, 1)
        };
        assert!(matches!(
            scorer.score(&other),
            Err(BundleError::Tokens {
                found: (4, 3, 8),
                ..
            })
        ));
    }
}
