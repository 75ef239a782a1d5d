//! Splitting a category by protocol and seed.

use std::collections::{BTreeSet, HashSet};

use super::manifest::{ImageRef, SplitManifest};
use super::{Protocol, ProtocolError};
use crate::random::draws::{generator, shuffle};

/// What the protocol needs to know of one image.
#[derive(Debug, Clone, Copy)]
pub struct SampleInfo<'a> {
    /// Path relative to the category, `/`-separated, such as `test/crack/003.png`.
    pub id: &'a str,
    /// From train rather than from test.
    pub is_train: bool,
    /// Folder name of the defect; `None` for a normal image.
    pub defect_type: Option<&'a str>,
    /// Hash of the file's bytes.
    pub content: blake3::Hash,
}

/// How to split.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitOptions {
    /// The rule.
    pub protocol: Protocol,
    /// Seed of the pool and of the hold-out.
    pub seed: u64,
    /// Defect images to learn from (M); 0 is zero-shot.
    pub shots: usize,
    /// Defects that leave the test set; `None`: 20, or 10 where there are fewer than 40, or half of 10 and fewer. Where train holds defects the
    /// pool is drawn from them instead, `None` being all, and the test set is left whole.
    pub pool: Option<usize>,
    /// Share of train/good kept back for choosing epoch, threshold and method; in [0, 1).
    pub holdout_fraction: f64,
}

impl SplitOptions {
    /// The default protocol: 20 % of train/good held out, the pool's size by the rule.
    pub fn held_out(seed: u64, shots: usize) -> Self {
        Self {
            protocol: Protocol::HeldOut,
            seed,
            shots,
            pool: None,
            holdout_fraction: 0.2,
        }
    }
}

const POOL: usize = 20;
const SMALL_POOL: usize = 10;
/// Below this many defects the small pool is used.
const SMALL_CATEGORY: usize = 40;
/// Separability needs two normals to compare.
const MINIMUM_TRAIN: usize = 2;

// independent bit streams of one seed: changing the number of defects must not move the hold-out
const STREAM_POOL: u64 = 0;
const STREAM_HOLDOUT: u64 = 1;

/// A category, split. All lists are positions in the samples given, sorted by id unless said otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// The rule.
    pub protocol: Protocol,
    /// The seed.
    pub seed: u64,
    /// Defects that may be learned from or chosen on, in the seed's order (leaky: the shots, by path).
    pub pool: Vec<usize>,
    /// Defects that are learned from: the first M of the pool.
    pub shots: Vec<usize>,
    /// Normal images that are learned from.
    pub train_normals: Vec<usize>,
    /// Normal train images kept back for choosing.
    pub holdout_normals: Vec<usize>,
    /// The test set, normal and defective; under the hard protocol the defects are of unseen types.
    pub test: Vec<usize>,
    /// Hard protocol only: defects of the learned type outside the pool. With the normal images of `test` they give
    /// the AUROC on the seen type.
    pub seen_type_test: Vec<usize>,
    /// Test images dropped because a file of the same content is among train/good or the pool.
    pub duplicates: Vec<usize>,
    /// The images learned from and chosen on, hashed, for the checkpoint.
    pub manifest: SplitManifest,
}

impl Split {
    /// The good images that are learned from or chosen on, ascending.
    pub fn normals(&self) -> Vec<usize> {
        let all = self.train_normals.iter().chain(&self.holdout_normals);
        let mut all: Vec<usize> = all.copied().collect();
        all.sort_unstable();
        all
    }

    /// Splits `samples` of `category`.
    ///
    /// Defects of train are never among the normal images. If there are any, the held-out and hard protocols draw the
    /// pool from them alone; the leaky protocol, as the recipe has it, learns from the first of the test set.
    ///
    /// # Errors
    /// No defects or normals enough for what is asked (with the numbers), a type that does not exist, a fraction out
    /// of range.
    pub fn new(
        category: &str,
        samples: &[SampleInfo<'_>],
        options: &SplitOptions,
    ) -> Result<Self, ProtocolError> {
        Self::of(category, samples, options, true)
    }

    /// As [`Self::new`], for learning: where there are too few images to test, or no defects beyond the pool, the pool is empty
    /// instead of that being an error, as long as no shots are asked for; and where train holds defects, nothing has to be tested.
    ///
    /// # Errors
    /// As [`Self::new`]; one normal image is enough.
    pub fn without_test(
        category: &str,
        samples: &[SampleInfo<'_>],
        options: &SplitOptions,
    ) -> Result<Self, ProtocolError> {
        Self::of(category, samples, options, false)
    }

    fn of(
        category: &str,
        samples: &[SampleInfo<'_>],
        options: &SplitOptions,
        needs_test: bool,
    ) -> Result<Self, ProtocolError> {
        if !(0.0..1.0).contains(&options.holdout_fraction) {
            return Err(ProtocolError::Option {
                name: "the hold-out fraction",
                value: options.holdout_fraction.to_string(),
                wanted: "a share of at least 0 and less than 1 is needed",
            });
        }
        let category = || category.to_owned();
        let mut by_id: Vec<usize> = (0..samples.len()).collect();
        by_id.sort_by_key(|&i| samples[i].id);
        let select = |keep: &dyn Fn(&SampleInfo<'_>) -> bool| -> Vec<usize> {
            let all = by_id.iter().copied();
            all.filter(|&i| keep(&samples[i])).collect()
        };
        let normals = select(&|s| s.is_train && s.defect_type.is_none());
        let test_normals = select(&|s| !s.is_train && s.defect_type.is_none());
        let defects = select(&|s| !s.is_train && s.defect_type.is_some());
        let train_defects = select(&|s| s.is_train && s.defect_type.is_some());
        let learns_good_only = !needs_test && options.shots == 0 && options.pool.unwrap_or(0) == 0;
        // who learns from defects that are set apart needs none to test
        let learns_apart = !needs_test && !train_defects.is_empty();
        if !learns_good_only && !learns_apart {
            let category = category();
            if defects.is_empty() {
                return Err(ProtocolError::NoDefects { category });
            }
            if test_normals.is_empty() {
                return Err(ProtocolError::NoTestNormals { category });
            }
        }
        // where the layout says which defects are to be learned from, no others are
        let candidates = if train_defects.is_empty() {
            &defects
        } else {
            &train_defects
        };

        let (pool, learnable) = match &options.protocol {
            Protocol::HeldOut
                if learns_good_only && (test_normals.is_empty() || defects.len() <= SMALL_POOL) =>
            {
                (Vec::new(), Vec::new())
            }
            Protocol::Leaky => (first(category(), &defects, options.shots)?, defects.clone()),
            Protocol::HeldOut => (
                draw_pool(category(), candidates, train_defects.is_empty(), options)?,
                candidates.clone(),
            ),
            Protocol::Hard { defect_type } => of_type(
                category(),
                samples,
                defect_type,
                (candidates, &defects, train_defects.is_empty()),
                options,
            )?,
        };
        let shots = pool[..options.shots].to_vec();
        let (train_normals, holdout_normals) = hold_out(category(), normals, options, needs_test)?;

        let unavailable: HashSet<usize> = match &options.protocol {
            Protocol::Leaky => HashSet::new(),
            Protocol::HeldOut => pool.iter().copied().collect(),
            Protocol::Hard { .. } => learnable.iter().copied().collect(),
        };
        let known_content: HashSet<blake3::Hash> = train_normals
            .iter()
            .chain(&holdout_normals)
            .chain(&pool)
            .map(|&i| samples[i].content)
            .collect();
        let leaky = options.protocol == Protocol::Leaky;
        let mut all = select(&|s| !s.is_train);
        all.retain(|i| !unavailable.contains(i));
        let (duplicates, test): (Vec<usize>, Vec<usize>) =
            (all.into_iter()).partition(|&i| !leaky && known_content.contains(&samples[i].content));
        let seen_type_test = if let Protocol::Hard { .. } = options.protocol {
            let in_pool: HashSet<usize> = pool.iter().copied().collect();
            let unseen =
                |i: &usize| !in_pool.contains(i) && !known_content.contains(&samples[*i].content);
            learnable.into_iter().filter(unseen).collect()
        } else {
            Vec::new()
        };
        let manifest = SplitManifest::new(
            category(),
            options,
            refs(samples, &pool),
            shots.len(),
            refs(samples, &train_normals),
            refs(samples, &holdout_normals),
        );
        Ok(Self {
            protocol: options.protocol.clone(),
            seed: options.seed,
            pool,
            shots,
            train_normals,
            holdout_normals,
            test,
            seen_type_test,
            duplicates,
            manifest,
        })
    }

    /// The images that are tested, those of the learned type (hard protocol) included: none of them may have been learned from.
    pub fn tested(&self, samples: &[SampleInfo<'_>]) -> Vec<ImageRef> {
        [
            refs(samples, &self.test),
            refs(samples, &self.seen_type_test),
        ]
        .concat()
    }

    /// A hash of the test set, the same exactly when the same images (by id and content) are tested.
    pub fn test_set_hash(&self, samples: &[SampleInfo<'_>]) -> String {
        ImageRef::digest(&refs(samples, &self.test))
    }
}

/// The first defects, which the leaky protocol learns from.
fn first(category: String, defects: &[usize], shots: usize) -> Result<Vec<usize>, ProtocolError> {
    let too_few = || ProtocolError::MoreShotsThanDefects {
        category,
        shots,
        defects: defects.len(),
    };
    defects.get(..shots).map(<[_]>::to_vec).ok_or_else(too_few)
}

/// The pool of one type among the `candidates`, and all `defects` of that type, none of which is tested.
fn of_type(
    category: String,
    samples: &[SampleInfo<'_>],
    defect_type: &str,
    (candidates, defects, tested): (&[usize], &[usize], bool),
    options: &SplitOptions,
) -> Result<(Vec<usize>, Vec<usize>), ProtocolError> {
    let is_of_type = |i: &usize| samples[*i].defect_type == Some(defect_type);
    let of_type: Vec<usize> = candidates.iter().copied().filter(is_of_type).collect();
    if of_type.is_empty() {
        let known: BTreeSet<String> = candidates
            .iter()
            .filter_map(|&i| samples[i].defect_type.map(str::to_owned))
            .collect();
        return Err(ProtocolError::UnknownType {
            category,
            defect_type: defect_type.to_owned(),
            known: known.into_iter().collect(),
        });
    }
    let learnable: Vec<usize> = defects.iter().copied().filter(is_of_type).collect();
    if learnable.len() == defects.len() {
        return Err(ProtocolError::NoOtherTypes {
            category,
            defect_type: defect_type.to_owned(),
        });
    }
    Ok((draw_pool(category, &of_type, tested, options)?, learnable))
}

fn refs(samples: &[SampleInfo<'_>], which: &[usize]) -> Vec<ImageRef> {
    which
        .iter()
        .map(|&i| ImageRef::new(samples[i].id, samples[i].content))
        .collect()
}

/// Draws the pool from `defects`, of which some must remain under the held-out protocol if they are `tested`.
fn draw_pool(
    category: String,
    defects: &[usize],
    tested: bool,
    options: &SplitOptions,
) -> Result<Vec<usize>, ProtocolError> {
    let rule = match defects.len() {
        all if !tested => all,
        // never more than half, so that as many are tested
        very_few if very_few <= SMALL_POOL => (very_few / 2).max(1),
        few if few < SMALL_CATEGORY => SMALL_POOL,
        _ => POOL,
    };
    let size = options.pool.unwrap_or(rule);
    let must_remain = usize::from(tested && options.protocol == Protocol::HeldOut);
    if size.saturating_add(must_remain) > defects.len() {
        return Err(ProtocolError::PoolTakesAll {
            category,
            pool: size,
            defects: defects.len(),
        });
    }
    if options.shots > size {
        return Err(ProtocolError::MoreShotsThanPool {
            category,
            shots: options.shots,
            pool: size,
            defects: defects.len(),
        });
    }
    let mut pool = defects.to_vec();
    shuffle(&mut generator(options.seed, STREAM_POOL), &mut pool);
    pool.truncate(size);
    Ok(pool)
}

/// (train, hold-out), each sorted by id; something that `trains` needs some.
fn hold_out(
    category: String,
    normals: Vec<usize>,
    options: &SplitOptions,
    trains: bool,
) -> Result<(Vec<usize>, Vec<usize>), ProtocolError> {
    let least = if trains { MINIMUM_TRAIN } else { 1 };
    let keeps = options.holdout_fraction > 0.0;
    let wanted = least + usize::from(keeps);
    if normals.len() < wanted {
        return Err(ProtocolError::TooFewNormals {
            category,
            found: normals.len(),
            wanted,
        });
    }
    if !keeps {
        return Ok((normals, Vec::new()));
    }
    let size = ((normals.len() as f64 * options.holdout_fraction).round() as usize)
        .clamp(1, normals.len() - least);
    let mut order: Vec<usize> = (0..normals.len()).collect();
    shuffle(&mut generator(options.seed, STREAM_HOLDOUT), &mut order);
    let held: HashSet<usize> = order[..size].iter().copied().collect();
    let side = |wanted: bool| {
        normals
            .iter()
            .enumerate()
            .filter(|(i, _)| held.contains(i) == wanted)
            .map(|(_, n)| *n)
            .collect()
    };
    Ok((side(false), side(true)))
}
