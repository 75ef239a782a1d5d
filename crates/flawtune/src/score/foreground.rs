//! Which patches show the object and which the background, from the first principal component.
//!
//! `AnomalyDINO` (Damm et al., WACV 2025) thresholds the first principal component of an image's patch tokens,
//! checks that the object is in the middle, turns the sign if it is not, and then dilates and closes the mask
//! by 3×3 patches. Differences here, on purpose: the mask is dilated over the grid in both directions (the
//! published code dilates the flat list, so only along rows); the threshold can follow the image instead of
//! being the number 10, which fits unnormalised `DINOv2` tokens only; and a mask that fails the check even with
//! its sign turned is not used.

use serde::{Deserialize, Serialize};

/// The middle of the image is what remains after this share is cut from every side.
const MARGIN: f64 = 0.2;

/// The object must cover more than this share of the middle.
const LEAST_IN_MIDDLE: f64 = 0.35;

/// A mask that keeps more than this share of all patches separates nothing.
const MOST_OF_ALL: f64 = 0.95;

/// Power iteration ends here at the latest; the gap between the first two components sets how many it needs.
const MOST_ITERATIONS: usize = 200;

/// Power iteration ends when the direction moves by less than this (1 − |cosine|).
const SETTLED: f64 = 1e-12;

/// Where the first principal component is cut.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// Where the two sides differ most (Otsu 1979): needs no number that fits a backbone.
    #[default]
    Otsu,
    /// At this value of the centred component; `AnomalyDINO` uses 10 with `DINOv2`.
    At(f64),
}

/// How the mask passed the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The object covers the middle.
    Passed,
    /// It does after turning the sign of the component, which is arbitrary.
    PassedTurned,
    /// Neither side covers the middle: the object is not there, or there is no object. Every patch is kept.
    MissesMiddle,
    /// The mask keeps nearly everything: a texture, or an image full of object. Every patch is kept.
    CoversAll,
    /// The tokens do not differ at all. Every patch is kept.
    Flat,
}

impl Check {
    /// Whether the mask separates object and background.
    pub fn passed(self) -> bool {
        matches!(self, Self::Passed | Self::PassedTurned)
    }
}

/// The patches of one image that show the object.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreground {
    /// `[grid_h · grid_w]`, row-major: whether the patch is kept. All true if the check failed.
    pub mask: Vec<bool>,
    /// The outcome of the check.
    pub check: Check,
    /// Share of the middle that the mask covered when it was checked, before dilation and closing.
    pub in_middle: f64,
    /// Share of all patches that the finished mask keeps.
    pub kept: f64,
}

/// Why no mask could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForegroundError {
    /// The tokens do not fit the grid.
    #[error("a grid of {}×{} patches of {dim} numbers needs {wanted} numbers, found {found}", grid.0, grid.1)]
    Shape {
        /// Rows and columns.
        grid: (usize, usize),
        /// Numbers per token.
        dim: usize,
        /// Numbers needed.
        wanted: usize,
        /// Numbers given.
        found: usize,
    },
    /// A number that is not finite.
    #[error("patch token {patch} holds a number that is not finite")]
    NotFinite {
        /// Which patch.
        patch: usize,
    },
}

/// Separates object and background of one image from its patch tokens (`[grid_h · grid_w, dim]`).
///
/// The check: the kept side covers more than 35 % of the middle (what remains after cutting a fifth from
/// every side), with the sign of the component turned if need be, and the finished mask keeps at most 95 %
/// of all patches. One thread, and the same result on every machine with the same f64 arithmetic.
///
/// # Errors
/// [`ForegroundError`] if the tokens do not fit the grid or are not finite.
pub fn foreground(
    tokens: &[f32],
    grid: (usize, usize),
    dim: usize,
    cut: Cut,
) -> Result<Foreground, ForegroundError> {
    let component = first_component(tokens, grid, dim)?;
    let patches = component.len();
    let everything = |check, in_middle| Foreground {
        mask: vec![true; patches],
        check,
        in_middle,
        kept: 1.0,
    };
    if component.iter().all(|c| *c == 0.0) {
        return Ok(everything(Check::Flat, 1.0));
    }
    let at = match cut {
        Cut::Otsu => otsu(&component),
        Cut::At(value) => value,
    };
    let straight: Vec<bool> = component.iter().map(|c| *c > at).collect();
    let mut in_middle = share_in_middle(&straight, grid);
    let (mut mask, mut check) = (straight, Check::Passed);
    if in_middle <= LEAST_IN_MIDDLE {
        // a fixed cut is turned with the component, as published; Otsu's lies between the two sides
        mask = match cut {
            Cut::Otsu => component.iter().map(|c| *c <= at).collect(),
            Cut::At(value) => component.iter().map(|c| -*c > value).collect(),
        };
        check = Check::PassedTurned;
        in_middle = share_in_middle(&mask, grid);
    }
    if in_middle <= LEAST_IN_MIDDLE {
        return Ok(everything(Check::MissesMiddle, in_middle));
    }
    let mask = close(&dilate(&mask, grid), grid);
    let kept = mask.iter().filter(|m| **m).count() as f64 / patches as f64;
    if kept > MOST_OF_ALL {
        return Ok(everything(Check::CoversAll, in_middle));
    }
    Ok(Foreground {
        mask,
        check,
        in_middle,
        kept,
    })
}

/// Each patch's coordinate along the first principal component of the tokens, centred: f64, `[patches]`.
///
/// By power iteration from the token farthest from the mean (the lowest among equals), so that it starts
/// with a share of the component; the sign is that which gives this token a positive coordinate. All zeros
/// if the tokens are all equal.
///
/// # Errors
/// [`ForegroundError`] if the tokens do not fit the grid or are not finite.
pub fn first_component(
    tokens: &[f32],
    grid: (usize, usize),
    dim: usize,
) -> Result<Vec<f64>, ForegroundError> {
    let patches = grid.0.saturating_mul(grid.1);
    let wanted = patches.saturating_mul(dim);
    if wanted == 0 || tokens.len() != wanted {
        return Err(ForegroundError::Shape {
            grid,
            dim,
            wanted,
            found: tokens.len(),
        });
    }
    if let Some(at) = tokens.iter().position(|v| !v.is_finite()) {
        return Err(ForegroundError::NotFinite { patch: at / dim });
    }
    let mut mean = vec![0.0f64; dim];
    for token in tokens.chunks_exact(dim) {
        for (m, v) in mean.iter_mut().zip(token) {
            *m += f64::from(*v);
        }
    }
    for m in &mut mean {
        *m /= patches as f64;
    }
    let centred: Vec<f64> = tokens
        .chunks_exact(dim)
        .flat_map(|t| t.iter().zip(&mean).map(|(v, m)| f64::from(*v) - m))
        .collect();
    let rows = || centred.chunks_exact(dim);
    let mut start = (0.0, 0);
    for (i, row) in rows().enumerate() {
        let length = dot(row, row);
        if length > start.0 {
            start = (length, i);
        }
    }
    // equal tokens leave only what rounding of the mean left over
    let largest = tokens.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    if start.0.sqrt() <= 1e-12 * largest * (dim as f64).sqrt() {
        return Ok(vec![0.0; patches]);
    }
    let mut direction = unit(&centred[start.1 * dim..][..dim]);
    let mut coordinates: Vec<f64> = Vec::with_capacity(patches);
    for _ in 0..MOST_ITERATIONS {
        coordinates.clear();
        coordinates.extend(rows().map(|row| dot(row, &direction)));
        let mut next = vec![0.0f64; dim];
        for (row, c) in rows().zip(&coordinates) {
            for (n, v) in next.iter_mut().zip(row) {
                *n += c * v;
            }
        }
        let next = unit(&next);
        let settled = 1.0 - dot(&next, &direction).abs() < SETTLED;
        direction = next;
        if settled {
            break;
        }
    }
    let sign = if dot(&centred[start.1 * dim..][..dim], &direction) < 0.0 {
        -1.0
    } else {
        1.0
    };
    Ok(rows().map(|row| sign * dot(row, &direction)).collect())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0f64; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest: f64 = a4
        .remainder()
        .iter()
        .zip(b4.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in a4.zip(b4) {
        for ((s, x), y) in sums.iter_mut().zip(x).zip(y) {
            *s += x * y;
        }
    }
    sums.iter().sum::<f64>() + rest
}

fn unit(v: &[f64]) -> Vec<f64> {
    // products of two f32 numbers stay below 1e77, their sums over patches square to far less than f64::MAX
    let length = dot(v, v).sqrt();
    if length > 0.0 {
        v.iter().map(|x| x / length).collect()
    } else {
        v.to_vec()
    }
}

/// The cut between two values that makes the variance between the two sides largest.
fn otsu(values: &[f64]) -> f64 {
    let mut ascending = values.to_vec();
    ascending.sort_by(f64::total_cmp);
    let n = ascending.len() as f64;
    let total: f64 = ascending.iter().sum();
    let (mut below, mut best, mut cut) = (0.0, f64::NEG_INFINITY, 0.0);
    for (i, pair) in ascending.windows(2).enumerate() {
        below += pair[0];
        if pair[0] == pair[1] {
            continue;
        }
        let count = (i + 1) as f64;
        let gap = below / count - (total - below) / (n - count);
        let between = count * (n - count) * gap * gap;
        if between > best {
            (best, cut) = (between, f64::midpoint(pair[0], pair[1]));
        }
    }
    cut
}

fn share_in_middle(mask: &[bool], (rows, columns): (usize, usize)) -> f64 {
    let span = |n: usize| {
        let (from, to) = (
            (n as f64 * MARGIN) as usize,
            (n as f64 * (1.0 - MARGIN)) as usize,
        );
        from..to.max(from + 1)
    };
    let (down, across) = (span(rows), span(columns));
    let kept: usize = down
        .clone()
        .map(|y| {
            mask[y * columns..][across.clone()]
                .iter()
                .filter(|m| **m)
                .count()
        })
        .sum();
    kept as f64 / (down.len() * across.len()) as f64
}

/// 3×3 dilation; outside the grid is background.
fn dilate(mask: &[bool], grid: (usize, usize)) -> Vec<bool> {
    spread(mask, grid, true)
}

/// Dilation, then erosion: fills holes and gaps of one patch. Outside the grid never erodes.
fn close(mask: &[bool], grid: (usize, usize)) -> Vec<bool> {
    spread(&dilate(mask, grid), grid, false)
}

/// Sets a patch to `value` if any patch of its 3×3 neighbourhood inside the grid is `value`.
fn spread(mask: &[bool], (rows, columns): (usize, usize), value: bool) -> Vec<bool> {
    let near = |at: usize, n: usize| at.saturating_sub(1)..(at + 2).min(n);
    let mut out = mask.to_vec();
    for y in 0..rows {
        for x in 0..columns {
            if near(y, rows).any(|v| near(x, columns).any(|u| mask[v * columns + u] == value)) {
                out[y * columns + x] = value;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(i: usize) -> f32 {
        ((i * 37 + 11) % 101) as f32 / 101.0
    }

    /// Tokens of an image with an object: `inside` patches lean to one direction, the rest to another.
    fn picture(grid: (usize, usize), inside: impl Fn(usize, usize) -> bool) -> Vec<f32> {
        let dim = 12;
        (0..grid.0 * grid.1 * dim)
            .map(|i| {
                let (patch, d) = (i / dim, i % dim);
                let lean = if inside(patch / grid.1, patch % grid.1) {
                    3.0
                } else {
                    -2.0
                };
                pattern(i) + lean * if d % 3 == 0 { 1.0 } else { -0.5 }
            })
            .collect()
    }

    const COMPONENT: [f64; 6] = [
        0.463_801, -0.475_002, 0.512_095, -0.426_708, 0.304_227, -0.378_414,
    ];

    #[test]
    fn the_component_is_scikit_learns() {
        // sklearn 1.9 PCA(1, svd_solver="full").fit_transform of pattern[6, 4], the sign that of row 4
        let tokens: Vec<f32> = (0..24).map(pattern).collect();
        let found = first_component(&tokens, (2, 3), 4).unwrap();
        for (f, w) in found.iter().zip(COMPONENT) {
            assert!((f - w).abs() < 1e-5, "{found:?}");
        }
    }

    #[test]
    fn the_object_in_the_middle_is_found_whatever_the_sign() {
        let grid = (14, 14);
        let inside = |y: usize, x: usize| (4..10).contains(&y) && (3..11).contains(&x);
        let found = foreground(&picture(grid, inside), grid, 12, Cut::Otsu).unwrap();
        let negated: Vec<f32> = picture(grid, inside).iter().map(|v| -v).collect();
        let turned = foreground(&negated, grid, 12, Cut::Otsu).unwrap();
        assert!(found.check.passed() && turned.check.passed());
        assert_eq!(found.mask, turned.mask);
        // the box grows by one patch on every side: 8 × 10
        assert_eq!(found.mask.iter().filter(|m| **m).count(), 80);
        assert!(found.mask[3 * 14 + 2] && !found.mask[2 * 14 + 2]);
        assert_eq!(found.in_middle, 48.0 / 81.0);
    }

    #[test]
    fn a_mask_that_says_nothing_keeps_every_patch() {
        let grid = (10, 10);
        let flat = foreground(&[0.1; 300], grid, 3, Cut::Otsu).unwrap();
        assert_eq!((flat.check, flat.kept), (Check::Flat, 1.0));
        // one stripe in three: closing fills the gaps
        let stripes = foreground(&picture(grid, |_, x| x % 3 == 0), grid, 12, Cut::Otsu).unwrap();
        assert_eq!(stripes.check, Check::CoversAll);
        let far = foreground(&picture(grid, |y, _| y == 0), grid, 12, Cut::At(1e6)).unwrap();
        assert_eq!((far.check, far.in_middle), (Check::MissesMiddle, 0.0));
        assert!(far.mask.iter().all(|m| *m));
    }

    #[test]
    fn closing_fills_a_hole_and_keeps_the_outline() {
        let grid = (7, 8);
        let object = |y: usize, x: usize| (2..5).contains(&y) && (3..6).contains(&x);
        let ring: Vec<bool> = (0..56)
            .map(|i| object(i / 8, i % 8) && (i / 8, i % 8) != (3, 4))
            .collect();
        let filled: Vec<bool> = (0..56).map(|i| object(i / 8, i % 8)).collect();
        assert_eq!(close(&ring, grid), filled);
        // outside the grid never erodes: an object one patch from the edge closes to the edge, as in OpenCV
        let near: Vec<bool> = (0..56).map(|i| i == 8 + 4).collect();
        assert_eq!(close(&near, grid).iter().filter(|m| **m).count(), 2);
    }

    #[test]
    fn hostile_tokens_are_refused() {
        assert!(matches!(
            foreground(&[], (0, 3), 2, Cut::Otsu),
            Err(ForegroundError::Shape { .. })
        ));
        assert!(matches!(
            foreground(&[0.0; 5], (2, 3), 1, Cut::Otsu),
            Err(ForegroundError::Shape {
                wanted: 6,
                found: 5,
                ..
            })
        ));
        let error = foreground(&[0.0, 1.0, f32::INFINITY, 0.0], (2, 1), 2, Cut::Otsu);
        assert_eq!(error, Err(ForegroundError::NotFinite { patch: 1 }));
        let huge = foreground(&[f32::MAX, -f32::MAX, f32::MAX, 0.0], (2, 2), 1, Cut::Otsu).unwrap();
        assert!(huge.in_middle.is_finite());
    }
}
