//! Tasks, and what is drawn from them.

use crate::adapt::AdaptError;
use flawtune::features::TokenSet;
use flawtune::random::{Purpose, Stream};

/// A category with a seed and a number of shots. Only images that may train belong here: good images of train/good, and
/// the pool of defects of that seed; never a test image.
#[derive(Debug, Clone)]
pub struct MetaTask<'a> {
    /// How it is called in messages, such as `screw, seed 3, 5 shots`.
    pub name: String,
    /// Tokens of good images.
    pub normals: &'a TokenSet,
    /// Tokens of the pool's defects, in the order of the seed.
    pub defects: &'a TokenSet,
    /// Defects in the support of an episode.
    pub shots: usize,
}

/// What is drawn from a task: positions among its good images and its defects. Support and query have no image in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Episode {
    pub(super) support: (Vec<usize>, Vec<usize>),
    pub(super) query: (Vec<usize>, Vec<usize>),
}

impl MetaTask<'_> {
    /// Checks that an episode can be drawn.
    ///
    /// # Errors
    /// [`AdaptError::TooFewImages`] with fewer than two good images for support and query each, or no defect for the query;
    /// [`AdaptError::Shape`] for tokens that do not fit together.
    pub(super) fn check(&self, dim: usize) -> Result<(), AdaptError> {
        let few = |what, found, wanted| {
            Err(AdaptError::TooFewImages {
                what,
                found,
                wanted,
                why: " to draw an episode from",
            })
        };
        if self.normals.images.len() < 4 {
            return few("good images", self.normals.images.len(), 4);
        }
        if self.shots == 0 {
            return few("shots in the support", 0, 1);
        }
        if self.defects.images.len() <= self.shots {
            return few(
                "defects in the pool",
                self.defects.images.len(),
                self.shots + 1,
            );
        }
        for set in [self.normals, self.defects] {
            if set.dim != dim || set.patches() != self.normals.patches() {
                return Err(AdaptError::Shape {
                    name: format!("tokens of {}", self.name),
                    found: vec![set.images.len(), set.patches(), set.dim],
                    wanted: vec![set.images.len(), self.normals.patches(), dim],
                    hint: "",
                });
            }
        }
        Ok(())
    }

    /// An episode with at most `batch` images of each kind in support and query.
    pub(super) fn draw(&self, stream: &mut Stream, batch: usize) -> Episode {
        let mut normals: Vec<usize> = (0..self.normals.images.len()).collect();
        let mut defects: Vec<usize> = (0..self.defects.images.len()).collect();
        stream.shuffle(&mut normals);
        stream.shuffle(&mut defects);
        let half = (normals.len() / 2).min(batch);
        let query_defects = (defects.len() - self.shots).min(batch);
        Episode {
            support: (
                normals[..half].to_vec(),
                defects[..self.shots.min(batch)].to_vec(),
            ),
            query: (
                normals[half..2 * half].to_vec(),
                defects[self.shots..self.shots + query_defects].to_vec(),
            ),
        }
    }
}

/// The random numbers of the episodes of a run.
pub(super) fn stream(seed: u64) -> Stream {
    Stream::new(seed, Purpose::Episodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flawtune::features::ImageTokens;

    fn set(count: usize) -> TokenSet {
        let images = (0..count)
            .map(|_| ImageTokens::owned(vec![1.0; 4], 1, 2))
            .collect();
        TokenSet {
            images,
            grid: (1, 1),
            dim: 2,
        }
    }

    #[test]
    fn support_and_query_share_no_image() {
        let (normals, defects) = (set(11), set(7));
        let task = MetaTask {
            name: "t".into(),
            normals: &normals,
            defects: &defects,
            shots: 3,
        };
        task.check(2).unwrap();
        let mut random = stream(5);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..20 {
            let e = task.draw(&mut random, 4);
            assert_eq!(
                [
                    e.support.0.len(),
                    e.support.1.len(),
                    e.query.0.len(),
                    e.query.1.len()
                ],
                [4, 3, 4, 4]
            );
            assert!(e.support.0.iter().all(|i| !e.query.0.contains(i)));
            assert!(e.support.1.iter().all(|i| !e.query.1.contains(i)));
            seen.insert(e.support.1.clone());
        }
        assert!(seen.len() > 5, "episodes differ");
    }

    #[test]
    fn too_little_to_draw_from_is_said() {
        let (normals, defects) = (set(4), set(3));
        let task = |n, shots| MetaTask {
            name: "t".into(),
            normals: n,
            defects: &defects,
            shots,
        };
        assert!(task(&normals, 2).check(2).is_ok());
        for wrong in [task(&normals, 3), task(&normals, 0), task(&defects, 1)] {
            assert!(
                matches!(wrong.check(2), Err(AdaptError::TooFewImages { .. })),
                "{wrong:?}"
            );
        }
        assert!(matches!(
            task(&normals, 1).check(3),
            Err(AdaptError::Shape { .. })
        ));
    }
}
