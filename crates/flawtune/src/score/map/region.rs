//! Regions of a map above a threshold, and the worst of them.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::AnomalyMap;

/// A connected region of pixels at or above a threshold, with the box round it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Columns of the box: it spans `left..left + width`.
    pub width: usize,
    /// Rows of the box: it spans `top..top + height`.
    pub height: usize,
    /// Pixels in the region (not in the box).
    pub area: usize,
    /// Largest number in the region.
    pub peak: f32,
    /// Row and column of the peak, the first in reading order among equals.
    pub peak_at: (usize, usize),
    /// Sum over the region of how far each pixel is above the threshold.
    pub mass: f64,
}

impl Region {
    fn absorb(&mut self, other: &Self) {
        let right = (self.left + self.width).max(other.left + other.width);
        let bottom = (self.top + self.height).max(other.top + other.height);
        self.left = self.left.min(other.left);
        self.top = self.top.min(other.top);
        self.width = right - self.left;
        self.height = bottom - self.top;
        self.area += other.area;
        self.mass += other.mass;
        if other.peak > self.peak || (other.peak == self.peak && other.peak_at < self.peak_at) {
            (self.peak, self.peak_at) = (other.peak, other.peak_at);
        }
    }

    /// The region in an image of size `to` (height, width), of which a map of size `from` was drawn. The box covers every pixel
    /// that it touches.
    #[must_use]
    pub fn scaled(&self, from: (usize, usize), to: (usize, usize)) -> Self {
        if from == to {
            return self.clone();
        }
        let floor = |v: usize, from: usize, to: usize| (v * to / from).min(to);
        let ceiling = |v: usize, from: usize, to: usize| (v * to).div_ceil(from).min(to);
        let (top, left) = (
            floor(self.top, from.0, to.0),
            floor(self.left, from.1, to.1),
        );
        let middle = |v: usize, from: usize, to: usize| ((2 * v + 1) * to / (2 * from)).min(to - 1);
        let share = (to.0 * to.1) as f64 / (from.0 * from.1) as f64;
        Self {
            left,
            top,
            width: ceiling(self.left + self.width, from.1, to.1) - left,
            height: ceiling(self.top + self.height, from.0, to.0) - top,
            area: (self.area as f64 * share).round() as usize,
            peak: self.peak,
            peak_at: (
                middle(self.peak_at.0, from.0, to.0),
                middle(self.peak_at.1, from.1, to.1),
            ),
            mass: self.mass * share,
        }
    }

    /// Worse first: higher peak, then larger mass, then earlier in reading order.
    fn compare(&self, other: &Self) -> Ordering {
        (other.peak.total_cmp(&self.peak))
            .then(other.mass.total_cmp(&self.mass))
            .then(self.peak_at.cmp(&other.peak_at))
    }
}

/// A stretch of pixels of one row at or above the threshold, columns `start..end`.
struct Run {
    row: usize,
    start: usize,
    end: usize,
}

fn root(parents: &mut [usize], mut at: usize) -> usize {
    while parents[at] != at {
        parents[at] = parents[parents[at]];
        at = parents[at];
    }
    at
}

fn runs(map: &AnomalyMap, threshold: f32) -> Vec<Run> {
    let mut found = Vec::new();
    for (row, values) in map.values().chunks_exact(map.width()).enumerate() {
        let mut x = 0;
        // NaN is not `>=` anything: it never belongs to a region
        while let Some(skip) = values[x..].iter().position(|v| *v >= threshold) {
            let start = x + skip;
            let end = start
                + values[start..]
                    .iter()
                    .take_while(|v| **v >= threshold)
                    .count();
            found.push(Run { row, start, end });
            x = end;
        }
    }
    found
}

/// All 8-connected regions of `map` at or above `threshold`, the worst first: by peak, then by mass, then in
/// reading order. Empty if no pixel reaches the threshold. Memory grows with the number of stretches of
/// pixels found, not with the image.
pub fn regions(map: &AnomalyMap, threshold: f32) -> Vec<Region> {
    let runs = runs(map, threshold);
    let mut parents: Vec<usize> = (0..runs.len()).collect();
    // runs touch (corners included) the runs of the row above: both are sorted, so two fingers walk along
    let mut above = 0;
    for here in 0..runs.len() {
        let run = &runs[here];
        while runs[above].row + 1 < run.row
            || (runs[above].row + 1 == run.row && runs[above].end < run.start)
        {
            above += 1;
        }
        let touching = runs[above..here]
            .iter()
            .take_while(|r| r.row + 1 == run.row && r.start <= run.end);
        for i in above..above + touching.count() {
            let (a, b) = (root(&mut parents, i), root(&mut parents, here));
            // the earliest run of a region is its root
            parents[a.max(b)] = a.min(b);
        }
    }
    let mut place = vec![usize::MAX; runs.len()];
    let mut found: Vec<Region> = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let values = &map.values()[run.row * map.width()..][run.start..run.end];
        let (mut peak, mut column, mut mass) = (values[0], run.start, 0.0f64);
        for (x, &v) in values.iter().enumerate() {
            mass += f64::from(v) - f64::from(threshold);
            if v > peak {
                (peak, column) = (v, run.start + x);
            }
        }
        let part = Region {
            left: run.start,
            top: run.row,
            width: run.end - run.start,
            height: 1,
            area: run.end - run.start,
            peak,
            peak_at: (run.row, column),
            mass,
        };
        let top = root(&mut parents, i);
        if place[top] == usize::MAX {
            place[top] = found.len();
            found.push(part);
        } else {
            found[place[top]].absorb(&part);
        }
    }
    found.sort_by(Region::compare);
    found
}

/// The region with the highest peak at or above `threshold`; `None` if no pixel reaches it.
pub fn worst_region(map: &AnomalyMap, threshold: f32) -> Option<Region> {
    regions(map, threshold).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_of_a_smaller_map_covers_its_pixels_of_the_image() {
        let region = Region {
            left: 3,
            top: 0,
            width: 2,
            height: 4,
            area: 6,
            peak: 0.5,
            peak_at: (3, 4),
            mass: 1.5,
        };
        assert_eq!(region.scaled((4, 5), (4, 5)), region);
        let scaled = region.scaled((4, 5), (12, 14));
        assert_eq!((scaled.left, scaled.width), (8, 6));
        assert_eq!((scaled.top, scaled.height), (0, 12));
        assert_eq!((scaled.area, scaled.peak_at), (50, (10, 12)));
    }
    use proptest::prelude::*;

    fn map(width: usize, values: &[f32]) -> AnomalyMap {
        AnomalyMap::new(values.len() / width, width, values.to_vec()).unwrap()
    }

    #[test]
    fn corners_connect_and_the_higher_peak_wins_over_the_larger_area() {
        #[rustfmt::skip]
        let m = map(6, &[
            5.0, 0.0, 0.0, 0.0, 3.0, 3.0,
            0.0, 6.0, 0.0, 0.0, 3.0, 3.0,
            0.0, 0.0, 0.0, 0.0, 3.0, 3.0,
        ]);
        let found = regions(&m, 2.0);
        let first = Region {
            left: 0,
            top: 0,
            width: 2,
            height: 2,
            area: 2,
            peak: 6.0,
            peak_at: (1, 1),
            mass: 7.0,
        };
        assert_eq!(found[0], first);
        assert_eq!(
            (found[1].area, found[1].left, found[1].height, found.len()),
            (6, 4, 3, 2)
        );
        assert_eq!(worst_region(&m, 6.5), None);
        assert_eq!(
            worst_region(&m, 6.0).map(|r| (r.area, r.mass)),
            Some((1, 0.0))
        );
    }

    #[test]
    fn equal_peaks_go_to_the_larger_mass() {
        let m = map(5, &[4.0, 0.0, 4.0, 4.0, 0.0]);
        assert_eq!(
            worst_region(&m, 1.0).map(|r| (r.left, r.width)),
            Some((2, 2))
        );
    }

    #[test]
    fn nan_belongs_to_no_region() {
        let m = map(3, &[1.0, f32::NAN, 1.0]);
        assert_eq!(regions(&m, 0.5).len(), 2);
    }

    /// Flood fill, pixel by pixel: slow and plain.
    fn flood(m: &AnomalyMap, threshold: f32) -> Vec<(usize, f32, usize, usize)> {
        let (h, w) = (m.height(), m.width());
        let mut left: Vec<bool> = m.values().iter().map(|v| *v >= threshold).collect();
        let mut found = Vec::new();
        for start in 0..h * w {
            if !left[start] {
                continue;
            }
            left[start] = false;
            let (mut stack, mut pixels) = (vec![start], vec![]);
            while let Some(p) = stack.pop() {
                pixels.push(p);
                for (q, waiting) in left.iter_mut().enumerate() {
                    if *waiting && (p / w).abs_diff(q / w) <= 1 && (p % w).abs_diff(q % w) <= 1 {
                        *waiting = false;
                        stack.push(q);
                    }
                }
            }
            let peak = pixels
                .iter()
                .map(|p| m.values()[*p])
                .fold(f32::MIN, f32::max);
            let columns = pixels.iter().map(|p| p % w);
            let (min, max) = (columns.clone().min().unwrap(), columns.max().unwrap());
            found.push((pixels.len(), peak, min, max - min + 1));
        }
        found
    }

    proptest! {
        #[test]
        fn regions_are_those_of_a_flood_fill(width in 1usize..12, values in prop::collection::vec(0u8..4, 1..120)) {
            let height = values.len() / width;
            prop_assume!(height > 0);
            let m = map(width, &values[..height * width].iter().map(|v| f32::from(*v)).collect::<Vec<_>>());
            let mut ours: Vec<_> = regions(&m, 2.0).iter().map(|r| (r.area, r.peak, r.left, r.width)).collect();
            let mut plain = flood(&m, 2.0);
            ours.sort_by(|a, b| a.partial_cmp(b).unwrap());
            plain.sort_by(|a, b| a.partial_cmp(b).unwrap());
            prop_assert_eq!(ours, plain);
        }
    }
}
