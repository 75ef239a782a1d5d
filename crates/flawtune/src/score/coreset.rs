//! A small part of a memory bank that covers all of it: greedy k-centre, as in `PatchCore`.
//!
//! The next centre is always the patch farthest from all centres so far (Gonzalez 1985; at most twice the
//! best possible radius), with distances taken in a sparse random projection (Li, Hastie, Church 2006).
//!
//! A plain loop measures every patch against every new centre. Here each patch carries an upper bound, its
//! distance to the centres it has met so far, and meets the later ones only when that bound brings it to the
//! top of a heap: distances only shrink, so a patch below the top cannot be the farthest. The choice is that
//! of the plain loop, to the last bit, on any number of threads.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Stale patches brought up to date at once; the choice does not depend on it.
const BATCH: usize = 256;

/// Patches projected at once by one thread.
const PROJECTED_ROWS: usize = 512;

/// In how many dimensions distances are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Projection {
    /// As many as the Johnson–Lindenstrauss lemma asks for at a distortion of 0.9, `4 ln n / (ε²/2 − ε³/3)`,
    /// as scikit-learn's and anomalib's sparse projections; none where that is not less than the tokens' own.
    #[default]
    Auto,
    /// This many; none where that is not less than the tokens' own. The original `PatchCore` uses 128.
    To(usize),
    /// No projection: distances between the tokens themselves.
    None,
}

impl Projection {
    /// The number of dimensions of the projection for `rows` patches of `dim` numbers, `dim` if none.
    pub fn dimensions(self, rows: usize, dim: usize) -> usize {
        let wanted = match self {
            Self::Auto => (4.0 * (rows.max(2) as f64).ln() / (0.81 / 2.0 - 0.729 / 3.0)) as usize,
            Self::To(wanted) => wanted,
            Self::None => dim,
        };
        wanted.clamp(1, dim.max(1)).min(dim)
    }
}

/// What was chosen, and how well it covers the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Coreset {
    /// Rows chosen, in the order of choice; the first k of them are the coreset of size k.
    pub rows: Vec<usize>,
    /// Largest distance of any patch to its nearest chosen one, in the projection.
    pub radius: f32,
}

/// Why no coreset could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoresetError {
    /// The bank is not a whole number of tokens, or has none.
    #[error("a bank of {found} numbers is not a list of tokens of {dim} numbers each")]
    Shape {
        /// Numbers given.
        found: usize,
        /// Numbers per token.
        dim: usize,
    },
    /// More patches wanted than there are, or none.
    #[error(
        "a coreset of {wanted} patches cannot come from a bank of {rows}\nhint: ask for 1 to {rows}"
    )]
    Size {
        /// Patches wanted.
        wanted: usize,
        /// Patches in the bank.
        rows: usize,
    },
    /// A token that is not finite.
    #[error(
        "token {row} of the bank holds a number that is not finite; score or drop that image first"
    )]
    NotFinite {
        /// Which token.
        row: usize,
    },
    /// The work would need more memory than allowed.
    #[error(
        "choosing {wanted} of {rows} patches needs {needed} bytes beside the bank, {allowed} are allowed; \
         project to fewer dimensions, take fewer support images, or allow more memory"
    )]
    Memory {
        /// Patches wanted.
        wanted: usize,
        /// Patches in the bank.
        rows: usize,
        /// Bytes needed.
        needed: usize,
        /// Bytes allowed.
        allowed: usize,
    },
}

/// Bytes that [`greedy_coreset`] takes beside the bank itself: the projected patches (none without a
/// projection), the chosen ones, and a bound and a count for each patch. Stated before it is taken.
pub fn coreset_memory(rows: usize, dim: usize, wanted: usize, projection: Projection) -> usize {
    let to = projection.dimensions(rows, dim);
    let projected = if to < dim { rows.saturating_mul(to) } else { 0 };
    let bookkeeping = size_of::<Bound>() + size_of::<usize>();
    (projected
        .saturating_add(wanted.saturating_mul(to))
        .saturating_mul(size_of::<f32>()))
    .saturating_add(rows.saturating_mul(bookkeeping))
}

/// Chooses `wanted` rows of `bank` (`[rows, dim]`, row-major) that cover the rest: greedy k-centre, starting
/// from a row drawn with `seed`, among equally far ones the lowest row. Rows that equal a chosen one are only
/// chosen once nothing else is left. The same on any number of threads.
///
/// # Errors
/// [`CoresetError`] if the bank has no tokens or one that is not finite, if `wanted` is 0 or more than there
/// are, or if the work needs more than `max_memory` bytes ([`coreset_memory`]).
pub fn greedy_coreset(
    bank: &[f32],
    dim: usize,
    wanted: usize,
    projection: Projection,
    seed: u64,
    max_memory: Option<usize>,
) -> Result<Coreset, CoresetError> {
    if dim == 0 || bank.is_empty() || !bank.len().is_multiple_of(dim) {
        return Err(CoresetError::Shape {
            found: bank.len(),
            dim,
        });
    }
    let rows = bank.len() / dim;
    if wanted == 0 || wanted > rows {
        return Err(CoresetError::Size { wanted, rows });
    }
    let needed = coreset_memory(rows, dim, wanted, projection);
    if let Some(allowed) = max_memory.filter(|allowed| *allowed < needed) {
        return Err(CoresetError::Memory {
            wanted,
            rows,
            needed,
            allowed,
        });
    }
    if let Some(row) = bank
        .par_chunks_exact(dim)
        .position_first(|token| !token.iter().all(|v| v.is_finite()))
    {
        return Err(CoresetError::NotFinite { row });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // 64 random bits against at most 2^40 rows: the bias of this reduction is below 2^-24
    let first = ((u128::from(rng.next_u64()) * rows as u128) >> 64) as usize;
    let to = projection.dimensions(rows, dim);
    let projected = (to < dim).then(|| project(bank, dim, &sparse_projection(dim, to, &mut rng)));
    Ok(choose(
        projected.as_deref().unwrap_or(bank),
        to,
        wanted,
        first,
    ))
}

/// `[to]` output dimensions, each the inputs that enter it and with which factor.
type Sparse = Vec<Vec<(u32, f32)>>;

/// A sparse random matrix of density `1/√dim` with factors ±√(√dim / to): squared lengths are kept in the
/// mean.
fn sparse_projection(dim: usize, to: usize, rng: &mut ChaCha8Rng) -> Sparse {
    let density = 1.0 / (dim as f64).sqrt();
    let factor = (1.0 / (density * to as f64)).sqrt() as f32;
    let limit = (density * (1u64 << 53) as f64) as u64;
    let mut draw = |input: usize| {
        let bits = rng.next_u64();
        (bits >> 11 < limit).then_some((input as u32, if bits & 1 == 0 { factor } else { -factor }))
    };
    (0..to)
        .map(|_| (0..dim).filter_map(&mut draw).collect())
        .collect()
}

fn project(bank: &[f32], dim: usize, matrix: &Sparse) -> Vec<f32> {
    let to = matrix.len();
    let mut out = vec![0.0f32; bank.len() / dim * to];
    let blocks = bank
        .par_chunks(PROJECTED_ROWS * dim)
        .zip(out.par_chunks_mut(PROJECTED_ROWS * to));
    blocks.for_each(|(from, into)| {
        for (token, out) in from.chunks_exact(dim).zip(into.chunks_exact_mut(to)) {
            for (o, inputs) in out.iter_mut().zip(matrix) {
                *o = inputs
                    .iter()
                    .map(|(input, factor)| token[*input as usize] * factor)
                    .sum();
            }
        }
    });
    out
}

/// An upper bound of a patch's squared distance to the nearest centre, exact for the first `met` centres.
#[derive(Debug, Clone, Copy)]
struct Bound {
    distance: f32,
    row: Reverse<u32>,
    met: u32,
}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance
            .total_cmp(&other.distance)
            .then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Bound {}

/// Squared Euclidean distance in eight running sums, in a fixed order.
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8
        .remainder()
        .iter()
        .zip(b8.remainder())
        .map(|(x, y)| (x - y) * (x - y))
        .sum();
    for (x, y) in a8.zip(b8) {
        for ((s, x), y) in sums.iter_mut().zip(x).zip(y) {
            *s += (x - y) * (x - y);
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn choose(tokens: &[f32], dim: usize, wanted: usize, first: usize) -> Coreset {
    let rows = tokens.len() / dim;
    let token = |row: usize| &tokens[row * dim..][..dim];
    let mut chosen = vec![first];
    // chosen tokens side by side: a stale patch meets them in one sweep
    let mut centres = Vec::with_capacity(wanted * dim);
    centres.extend_from_slice(token(first));
    let start: Vec<Bound> = (0..rows)
        .into_par_iter()
        .filter(|row| *row != first)
        .map(|row| Bound {
            distance: squared_distance(token(row), &centres),
            row: Reverse(row as u32),
            met: 1,
        })
        .collect();
    let mut heap = BinaryHeap::from(start);
    let mut stale: Vec<Bound> = Vec::with_capacity(BATCH);
    loop {
        let Some(top) = heap.peek().copied() else {
            return Coreset {
                rows: chosen,
                radius: 0.0,
            };
        };
        if top.met as usize == chosen.len() {
            if chosen.len() == wanted {
                return Coreset {
                    rows: chosen,
                    radius: top.distance.sqrt(),
                };
            }
            heap.pop();
            chosen.push(top.row.0 as usize);
            centres.extend_from_slice(token(top.row.0 as usize));
            continue;
        }
        while stale.len() < BATCH && heap.peek().is_some_and(|b| (b.met as usize) < chosen.len()) {
            stale.extend(heap.pop());
        }
        stale.par_iter_mut().with_min_len(8).for_each(|bound| {
            let own = token(bound.row.0 as usize);
            for centre in centres[bound.met as usize * dim..].chunks_exact(dim) {
                bound.distance = bound.distance.min(squared_distance(own, centre));
            }
            bound.met = chosen.len() as u32;
        });
        heap.extend(stale.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cloud(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..rows * dim)
            .map(|_| (rng.next_u32() >> 8) as f32 / (1 << 24) as f32 - 0.5)
            .collect()
    }

    /// The plain loop over all patches for every centre.
    fn plain(tokens: &[f32], dim: usize, wanted: usize, first: usize) -> Coreset {
        let rows: Vec<&[f32]> = tokens.chunks_exact(dim).collect();
        let mut nearest = vec![f32::INFINITY; rows.len()];
        let mut chosen = vec![first];
        loop {
            let centre = rows[chosen[chosen.len() - 1]];
            let mut far = None;
            for (i, row) in rows.iter().enumerate() {
                nearest[i] = nearest[i].min(squared_distance(row, centre));
                if !chosen.contains(&i) && far.is_none_or(|f: usize| nearest[i] > nearest[f]) {
                    far = Some(i);
                }
            }
            match far {
                Some(far) if chosen.len() < wanted => chosen.push(far),
                _ => {
                    return Coreset {
                        rows: chosen,
                        radius: far.map_or(0.0, |f| nearest[f].sqrt()),
                    };
                }
            }
        }
    }

    #[test]
    fn a_line_is_covered_from_its_ends() {
        let line: Vec<f32> = (0..9u8).map(f32::from).collect();
        let found = choose(&line, 1, 5, 0);
        assert_eq!(
            found,
            Coreset {
                rows: vec![0, 8, 4, 2, 6],
                radius: 1.0
            }
        );
    }

    #[test]
    fn any_number_of_threads_chooses_the_same() {
        let bank = cloud(700, 48, 5);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| greedy_coreset(&bank, 48, 70, Projection::To(16), 9, None).unwrap())
        };
        let one = run(1);
        assert_eq!(one.rows.len(), 70);
        for threads in [2, 3, 7] {
            let more = run(threads);
            assert_eq!(
                (&more.rows, more.radius.to_bits()),
                (&one.rows, one.radius.to_bits())
            );
        }
        let other = greedy_coreset(&bank, 48, 70, Projection::To(16), 10, None).unwrap();
        assert_ne!(other.rows, one.rows, "another seed starts elsewhere");
    }

    #[test]
    fn the_projection_keeps_squared_lengths() {
        let (dim, to) = (384, 128);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let matrix = sparse_projection(dim, to, &mut rng);
        let filled = matrix.iter().map(Vec::len).sum::<usize>() as f64 / (dim * to) as f64;
        assert!((filled * 384f64.sqrt() - 1.0).abs() < 0.05, "{filled}");
        let bank = cloud(400, dim, 3);
        let length = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let ratio = length(&project(&bank, dim, &matrix)) / length(&bank);
        // 49,152 draws: the ratio's spread is about 0.02
        assert!((ratio - 1.0).abs() < 0.08, "{ratio}");
    }

    #[test]
    fn dimensions_are_scikit_learns() {
        // sklearn.random_projection.johnson_lindenstrauss_min_dim(62720, eps=0.9) = 272
        assert_eq!(Projection::Auto.dimensions(62_720, 384), 272);
        assert_eq!(Projection::Auto.dimensions(62_720, 128), 128);
        assert_eq!(Projection::To(128).dimensions(62_720, 384), 128);
        assert_eq!(Projection::None.dimensions(62_720, 384), 384);
    }

    #[test]
    fn impossible_wishes_are_refused() {
        let bank = cloud(10, 4, 1);
        let ask =
            |wanted, dim, memory| greedy_coreset(&bank, dim, wanted, Projection::None, 0, memory);
        assert_eq!(
            ask(11, 4, None),
            Err(CoresetError::Size {
                wanted: 11,
                rows: 10
            })
        );
        assert_eq!(
            ask(0, 4, None),
            Err(CoresetError::Size {
                wanted: 0,
                rows: 10
            })
        );
        assert_eq!(
            ask(1, 3, None),
            Err(CoresetError::Shape { found: 40, dim: 3 })
        );
        assert_eq!(
            ask(1, 0, None),
            Err(CoresetError::Shape { found: 40, dim: 0 })
        );
        assert!(matches!(
            ask(5, 4, Some(100)),
            Err(CoresetError::Memory { allowed: 100, .. })
        ));
        let mut broken = bank.clone();
        broken[21] = f32::NAN;
        let found = greedy_coreset(&broken, 4, 2, Projection::None, 0, None);
        assert_eq!(found, Err(CoresetError::NotFinite { row: 5 }));
    }

    proptest! {
        #[test]
        fn the_choice_is_that_of_the_plain_loop(
            points in prop::collection::vec((0u8..6, 0u8..6, 0u8..6), 1..90), share in 1usize..=100, first in 0usize..90,
        ) {
            // a coarse lattice: many ties and many equal points
            let tokens: Vec<f32> = points.iter().flat_map(|p| [p.0, p.1, p.2]).map(f32::from).collect();
            let wanted = (points.len() * share).div_ceil(100);
            let first = first % points.len();
            prop_assert_eq!(choose(&tokens, 3, wanted, first), plain(&tokens, 3, wanted, first));
        }
    }
}
