//! The images that are most similar to a test, found without comparing it with all.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use super::bounds::{Outline, Subspace, mean};
use super::{Frame, PackedPatches, max_similarity};

/// Numbers per patch in bounds, first and refined: what was fastest on DINOv2 features of three categories.
const LEVELS: [usize; 2] = [16, 64];
/// Fewer patches or images than this are compared as they are.
const WORTHWHILE: usize = 8;

/// Images that tests are compared with by `sim(test → image) = mean_p max_q test_p · image_q`.
///
/// The search looks at cheap upper bounds first and leaves out images that can't be among the k most similar. What
/// it finds is the same to the last bit as after comparing with all.
#[derive(Debug)]
pub struct NearestImages {
    images: Vec<PackedPatches>,
    levels: Vec<usize>,
    bounds: OnceLock<Option<Bounds>>,
    frame: Option<Arc<Frame>>,
}

#[derive(Debug)]
struct Bounds {
    subspace: Subspace,
    outlines: Vec<Outline>,
}

/// The images nearest to one test.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Nearest {
    /// Index and similarity, most similar first, the lower index first among equals.
    pub images: Vec<(usize, f64)>,
    /// Number of images that were compared in full.
    pub compared: usize,
}

impl NearestImages {
    /// Over packed images of one width.
    ///
    /// # Panics
    /// If their dims differ.
    pub fn new(images: Vec<PackedPatches>) -> Self {
        for image in &images {
            super::check(&images[0], image);
        }
        let dim = images.first().map_or(0, PackedPatches::dim);
        let mut levels = LEVELS.to_vec();
        levels.retain(|l| 2 * l <= dim);
        let patches = images.iter().map(PackedPatches::patches).max().unwrap_or(0);
        if images.len() < WORTHWHILE || patches < WORTHWHILE {
            levels.clear();
        }
        Self::with_levels(images, levels)
    }

    pub(super) fn with_levels(mut images: Vec<PackedPatches>, levels: Vec<usize>) -> Self {
        let frame = Frame::around_images(&images);
        if let Some(frame) = &frame {
            images.par_iter_mut().for_each(|image| image.sketch(frame));
        }
        Self {
            images,
            levels,
            bounds: OnceLock::new(),
            frame,
        }
    }

    /// Lays tests out as the images are, so that they are matched faster; what is found is the same.
    ///
    /// # Panics
    /// If the dims differ.
    pub fn prepare(&self, tests: &mut [PackedPatches]) {
        if let Some(frame) = &self.frame {
            tests.par_iter_mut().for_each(|test| test.sketch(frame));
        }
    }

    /// The images.
    pub fn images(&self) -> &[PackedPatches] {
        &self.images
    }

    /// For each test its `k` nearest images (all, if there are fewer). Tests are spread over the current rayon pool.
    ///
    /// # Panics
    /// If the dims differ.
    pub fn nearest(&self, tests: &[PackedPatches], k: usize) -> Vec<Nearest> {
        for (test, image) in tests.iter().zip(self.images.iter().cycle()) {
            super::check(test, image);
        }
        let mut tests = Cow::Borrowed(tests);
        if self
            .frame
            .as_ref()
            .is_some_and(|frame| tests.iter().any(|test| !test.is_in(frame)))
        {
            self.prepare(tests.to_mut());
        }
        // bounds cost about as much to prepare as a single test to compare with all
        let worth = k < self.images.len() && (tests.len() > 1 || self.bounds.get().is_some());
        if let Some(bounds) = worth.then(|| self.bounds()).flatten() {
            return tests
                .par_iter()
                .map(|test| self.bounded(bounds, test, k))
                .collect();
        }
        let count = self.images.len();
        let similarities: Vec<f64> = (0..tests.len() * count)
            .into_par_iter()
            .map_init(Vec::new, |room, i| {
                similarity(&tests[i / count], &self.images[i % count], room)
            })
            .collect();
        let row = |t: usize| {
            let mut images: Vec<_> = similarities[t * count..][..count]
                .iter()
                .copied()
                .enumerate()
                .collect();
            images.sort_by(nearer);
            images.truncate(k);
            Nearest {
                images,
                compared: count,
            }
        };
        (0..tests.len()).map(row).collect()
    }

    fn bounds(&self) -> Option<&Bounds> {
        let build = || {
            let subspace = Subspace::fit(&self.images, self.levels.last()? - 1)?;
            let outlines = self
                .images
                .par_iter()
                .map(|i| subspace.outline(i, &self.levels))
                .collect();
            Some(Bounds { subspace, outlines })
        };
        self.bounds.get_or_init(build).as_ref()
    }

    /// Always takes the image with the largest bound: refines it, or compares it if there is no finer bound. Once that bound
    /// lies below the k-th similarity, nothing that is left can change the result.
    fn bounded(&self, bounds: &Bounds, test: &PackedPatches, k: usize) -> Nearest {
        let query = bounds.subspace.outline(test, &self.levels);
        let mut room = Vec::new();
        let mut bound = |image: usize, level: usize| {
            bounds.subspace.bound(
                &query,
                &bounds.outlines[image],
                &self.levels,
                level,
                &mut room,
            )
        };
        let mut queue: BinaryHeap<Candidate> = (0..self.images.len())
            .map(|image| Candidate {
                bound: bound(image, 0),
                image,
                level: 0,
            })
            .collect();
        let (mut found, mut best) = (Nearest::default(), Vec::new());
        while let Some(mut next) = queue.pop() {
            if found.images.len() == k && found.images.last().is_none_or(|kth| next.bound < kth.1) {
                break;
            }
            next.level += 1;
            if next.level < self.levels.len() {
                next.bound = next.bound.min(bound(next.image, next.level));
                queue.push(next);
                continue;
            }
            found.compared += 1;
            let here = (
                next.image,
                similarity(test, &self.images[next.image], &mut best),
            );
            let at = found
                .images
                .partition_point(|other| nearer(other, &here) == Ordering::Less);
            found.images.insert(at, here);
            found.images.truncate(k);
        }
        found
    }
}

/// `mean_p max_q test_p · image_q`.
fn similarity(test: &PackedPatches, image: &PackedPatches, best: &mut Vec<f32>) -> f64 {
    best.resize(test.patches(), 0.0);
    max_similarity(test, image, best);
    mean(best)
}

fn nearer(a: &(usize, f64), b: &(usize, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// An image whose similarity is not known yet; the one with the largest bound comes first.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    bound: f64,
    image: usize,
    level: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bound
            .total_cmp(&other.bound)
            .then(other.image.cmp(&self.image))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

#[cfg(test)]
mod tests;
