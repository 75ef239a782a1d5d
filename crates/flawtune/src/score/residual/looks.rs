//! What good images said of their banks, as bytes for a cache.
//!
//! Little-endian: the number of images; the patches of each; of each image, block by block, the nearest rows and the distances; then,
//! where spacings are known, of each block the nearest distances, their images, and the second distances.

use super::fit::LookedAt;
use super::look::Look;
use super::spacing::Spacing;

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
        for spacing in &self.spacings {
            floats(&mut bytes, &spacing.nearest);
            whole(&mut bytes, &spacing.image);
            floats(&mut bytes, &spacing.second);
        }
        bytes
    }

    /// From bytes, of banks of so many blocks and of `rows` in each; `None` if they are not of those.
    pub fn of_bytes(bytes: &[u8], blocks: usize, rows: usize) -> Option<Self> {
        let mut rest = bytes;
        let images = number(&mut rest)?;
        let mut looks = Vec::new();
        for _ in 0..images {
            let patches = number(&mut rest)?;
            let mut look = Look::default();
            for _ in 0..blocks {
                let nearest: Vec<u32> =
                    fours(&mut rest, patches)?.map(u32::from_le_bytes).collect();
                // none, or one that is there
                if nearest
                    .iter()
                    .any(|&row| row as usize >= rows && row != u32::MAX)
                {
                    return None;
                }
                look.nearest.push(nearest);
                look.distances
                    .push(fours(&mut rest, patches)?.map(f32::from_le_bytes).collect());
            }
            looks.push(look);
        }
        let mut spacings = Vec::new();
        while !rest.is_empty() && spacings.len() < blocks {
            let spacing = Spacing {
                nearest: fours(&mut rest, rows)?.map(f32::from_le_bytes).collect(),
                image: fours(&mut rest, rows)?.map(u32::from_le_bytes).collect(),
                second: fours(&mut rest, rows)?.map(f32::from_le_bytes).collect(),
            };
            spacings.push(spacing);
        }
        let whole = rest.is_empty() && [0, blocks].contains(&spacings.len());
        whole.then_some(Self { looks, spacings })
    }
}

fn number(rest: &mut &[u8]) -> Option<usize> {
    let (bytes, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    usize::try_from(u64::from_le_bytes(*bytes)).ok()
}

fn fours<'a>(rest: &mut &'a [u8], count: usize) -> Option<impl Iterator<Item = [u8; 4]> + 'a> {
    let (bytes, after) = rest.split_at_checked(count.checked_mul(4)?)?;
    *rest = after;
    Some(bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

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
