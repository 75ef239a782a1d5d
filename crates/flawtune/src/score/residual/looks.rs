//! What good images said of their banks, as bytes for a cache.
//!
//! Little-endian: the number of images; the patches of each; of each image, block by block, the nearest rows and the distances; then,
//! where spacings are known, these as a file has them.

use super::fit::LookedAt;
use super::look::Look;
use crate::bundle::spacings;
use crate::little_endian::{f32s, u32s};

impl LookedAt {
    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = (self.looks.len() as u64).to_le_bytes().to_vec();
        let floats = |bytes: &mut Vec<u8>, values: &[f32]| {
            bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        };
        let whole = |bytes: &mut Vec<u8>, values: &[u32]| {
            bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        };
        let patches = |look: &Look| look.nearest.first().map_or(0, Vec::len) as u64;
        for look in &self.looks {
            bytes.extend(patches(look).to_le_bytes());
            for (nearest, distances) in look.nearest.iter().zip(&look.distances) {
                whole(&mut bytes, nearest);
                floats(&mut bytes, distances);
            }
        }
        bytes.extend(spacings::bytes(&self.spacings).concat());
        bytes
    }

    /// From bytes, of banks of so many blocks and of `rows` in each; `None` if they are not of those.
    pub fn of_bytes(bytes: &[u8], blocks: usize, rows: usize) -> Option<Self> {
        let mut rest = bytes;
        let images = number(&mut rest)?;
        let mut looks = Vec::new();
        for _ in 0..images {
            let patches = number(&mut rest)?;
            let bytes = patches.checked_mul(4)?;
            let mut look = Look::default();
            for _ in 0..blocks {
                let nearest: Vec<u32> = u32s(take(&mut rest, bytes)?).collect();
                // none, or one that is there
                let there = |&row: &u32| (row as usize) < rows || row == u32::MAX;
                if !nearest.iter().all(there) {
                    return None;
                }
                look.nearest.push(nearest);
                look.distances.push(f32s(take(&mut rest, bytes)?).collect());
            }
            looks.push(look);
        }
        let spacings = if rest.is_empty() {
            Vec::new()
        } else {
            let far = take(&mut rest, blocks.checked_mul(rows)?.checked_mul(8)?)?;
            let images = take(&mut rest, 4 * blocks * rows)?;
            spacings::of_bytes([far, images], rows)?
        };
        rest.is_empty().then_some(Self { looks, spacings })
    }
}

fn number(rest: &mut &[u8]) -> Option<usize> {
    let (bytes, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    usize::try_from(u64::from_le_bytes(*bytes)).ok()
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (bytes, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::residual::Spacing;

    #[test]
    fn bytes_come_back_and_others_are_refused() {
        let look = |of: u32| Look {
            distances: vec![vec![0.5, 0.25 * of as f32]; 2],
            nearest: vec![vec![of, u32::MAX]; 2],
        };
        let spacing = Spacing {
            nearest: vec![0.5, 0.25, 0.125],
            image: vec![1, 0, 1],
            second: vec![0.75, 0.5, 2.0],
        };
        for spacings in [vec![spacing; 2], Vec::new()] {
            let found = LookedAt {
                looks: vec![look(0), look(2)],
                spacings,
            };
            let bytes = found.to_bytes();
            let again = LookedAt::of_bytes(&bytes, 2, 3).unwrap();
            assert_eq!(
                (&again.looks, &again.spacings),
                (&found.looks, &found.spacings)
            );
            assert!(LookedAt::of_bytes(&bytes[..bytes.len() - 1], 2, 3).is_none());
            assert!(LookedAt::of_bytes(&[&bytes[..], &[0]].concat(), 2, 3).is_none());
            // a row that is not there
            assert!(LookedAt::of_bytes(&bytes, 2, 2).is_none());
        }
        assert!(LookedAt::of_bytes(&u64::MAX.to_le_bytes(), 1, 1).is_none());
        assert!(LookedAt::of_bytes(&[], 1, 1).is_none());
    }
}
