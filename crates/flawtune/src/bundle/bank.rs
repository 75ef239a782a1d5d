//! The patches of the support as a bundle keeps them.

use std::path::Path;
use std::sync::Arc;

use flawtune_kernels::mapped::MappedFile;
use flawtune_kernels::matching::PackedPatches;
use half::f16;
use half::slice::HalfFloatSliceExt as _;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::error::BundleError;
use crate::little_endian::f32s;

/// Element type of a stored bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Precision {
    /// Half the size; cosines move by 1e-5 on average
    ///
    /// That is of 384 numbers. Everything is scored against the rounded ones.
    #[default]
    F16,
    /// Every digit
    F32,
}

impl Precision {
    /// Bytes per number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

#[derive(Debug, Clone)]
enum Bytes {
    Owned {
        bytes: Arc<Vec<u8>>,
        offset: usize,
    },
    Mapped {
        file: Arc<MappedFile>,
        offset: usize,
    },
}

/// Rows that are checked at a time.
const CHECKED: usize = 256;

/// Patch tokens of unit length, `[rows, dim]`, rounded to their precision.
#[derive(Debug, Clone)]
pub struct Bank {
    rows: usize,
    dim: usize,
    precision: Precision,
    bytes: Bytes,
}

/// A bank that grows by some rows at a time, so that they are never all there in f32 beside it.
#[derive(Debug)]
pub struct BankBuilder {
    dim: usize,
    precision: Precision,
    bytes: Vec<u8>,
    halves: Vec<f16>,
}

impl BankBuilder {
    /// An empty bank with room for `rows` rows; more can be pushed, at the cost of a move.
    ///
    /// # Panics
    /// If `dim` is 0.
    pub fn new(rows: usize, dim: usize, precision: Precision) -> Self {
        assert!(dim > 0, "a row holds at least one number");
        let bytes = Vec::with_capacity(rows * dim * precision.bytes());
        Self {
            dim,
            precision,
            bytes,
            halves: Vec::new(),
        }
    }

    /// Rounds and appends row-major `rows` (`[rows, dim]`).
    ///
    /// # Panics
    /// If `rows` is not a whole number of rows.
    pub fn push(&mut self, rows: &[f32]) {
        assert!(
            rows.len().is_multiple_of(self.dim),
            "rows must be [rows, dim]"
        );
        for row in rows.chunks_exact(self.dim) {
            match self.precision {
                Precision::F32 => self.bytes.extend(row.iter().flat_map(|v| v.to_le_bytes())),
                Precision::F16 => {
                    self.halves.resize(self.dim, f16::ZERO);
                    self.halves.convert_from_f32_slice(row);
                    self.bytes
                        .extend(self.halves.iter().flat_map(|v| v.to_le_bytes()));
                }
            }
        }
    }

    /// The bank.
    pub fn finish(self) -> Bank {
        let rows = self.bytes.len() / (self.dim * self.precision.bytes());
        Bank {
            rows,
            dim: self.dim,
            precision: self.precision,
            bytes: Bytes::Owned {
                bytes: Arc::new(self.bytes),
                offset: 0,
            },
        }
    }
}

impl Bank {
    /// Rounds row-major `rows` (`[rows, dim]`).
    ///
    /// # Panics
    /// If `dim` is 0 or `rows` is not a whole number of rows.
    pub fn of(rows: &[f32], dim: usize, precision: Precision) -> Self {
        assert!(dim > 0, "rows must be [rows, dim]");
        let mut builder = BankBuilder::new(rows.len() / dim, dim, precision);
        builder.push(rows);
        builder.finish()
    }

    /// Rows in a mapped file from byte `offset`; the caller has checked that they are there.
    pub(super) fn mapped(
        file: Arc<MappedFile>,
        offset: usize,
        (rows, dim): (usize, usize),
        precision: Precision,
    ) -> Self {
        Self {
            rows,
            dim,
            precision,
            bytes: Bytes::Mapped { file, offset },
        }
    }

    /// Number of patches.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers per patch.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Element type.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The stored bytes, little-endian.
    pub(crate) fn bytes(&self) -> &[u8] {
        let len = self.rows * self.dim * self.precision.bytes();
        match &self.bytes {
            Bytes::Owned { bytes, offset } => &bytes[*offset..][..len],
            Bytes::Mapped { file, offset } => &file.bytes()[*offset..][..len],
        }
    }

    /// Some rows of it, without a copy.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn part(&self, first: usize, rows: usize) -> Self {
        assert!(first + rows <= self.rows, "rows of the bank");
        let from = first * self.dim * self.precision.bytes();
        let bytes = match &self.bytes {
            Bytes::Owned { bytes, offset } => Bytes::Owned {
                bytes: Arc::clone(bytes),
                offset: offset + from,
            },
            Bytes::Mapped { file, offset } => Bytes::Mapped {
                file: Arc::clone(file),
                offset: offset + from,
            },
        };
        Self {
            rows,
            dim: self.dim,
            precision: self.precision,
            bytes,
        }
    }

    /// The same rows in another order: row `i` is what row `order[i]` was. In place, but for a bank in a file.
    ///
    /// # Panics
    /// If `order` does not name every row once.
    pub(super) fn reordered(self, order: &[usize]) -> Self {
        assert_eq!(order.len(), self.rows, "one place a row");
        let size = self.dim * self.precision.bytes();
        let mut bytes = match self.bytes {
            Bytes::Owned { bytes, offset: 0 } if bytes.len() == self.rows * size => {
                Arc::unwrap_or_clone(bytes)
            }
            Bytes::Owned { ref bytes, offset } => bytes[offset..][..self.rows * size].to_vec(),
            Bytes::Mapped { ref file, offset } => {
                file.bytes()[offset..][..self.rows * size].to_vec()
            }
        };
        let (mut moved, mut held) = (vec![false; self.rows], vec![0; size]);
        for start in 0..self.rows {
            if moved[start] {
                continue;
            }
            // along the ring of places that hand their rows on to each other
            held.copy_from_slice(&bytes[start * size..][..size]);
            let mut at = start;
            loop {
                assert!(!moved[at], "every row once");
                moved[at] = true;
                let from = order[at];
                if from == start {
                    bytes[at * size..][..size].copy_from_slice(&held);
                    break;
                }
                bytes.copy_within(from * size..(from + 1) * size, at * size);
                at = from;
            }
        }
        Self {
            bytes: Bytes::Owned {
                bytes: Arc::new(bytes),
                offset: 0,
            },
            ..self
        }
    }

    /// Numbers of `rows` rows from `first` on.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn decode(&self, first: usize, rows: usize) -> Vec<f32> {
        self.read(first, rows, &mut Vec::new()).to_vec()
    }

    /// The same without a copy where they are stored so; otherwise widened in `room`.
    pub(super) fn read<'a>(
        &'a self,
        first: usize,
        rows: usize,
        room: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let size = self.dim * self.precision.bytes();
        let bytes = &self.bytes()[first * size..][..rows * size];
        let as_stored = cfg!(target_endian = "little");
        match self.precision {
            Precision::F32 => {
                if as_stored && let Ok(rows) = bytemuck::try_cast_slice(bytes) {
                    return rows;
                }
                room.clear();
                room.extend(f32s(bytes));
            }
            Precision::F16 => {
                room.resize(rows * self.dim, 0.0);
                if as_stored && let Ok(halves) = bytemuck::try_cast_slice::<u8, f16>(bytes) {
                    // by the machine's own instruction where it has one
                    halves.convert_to_f32_slice(room);
                } else {
                    for (o, c) in room.iter_mut().zip(bytes.chunks_exact(2)) {
                        *o = f16::from_le_bytes([c[0], c[1]]).to_f32();
                    }
                }
            }
        }
        room
    }

    /// Refuses a bank that holds other numbers than unit vectors do.
    ///
    /// # Errors
    /// [`BundleError::Header`], naming `path`.
    pub(crate) fn check(&self, path: &Path) -> Result<(), BundleError> {
        if self.is_plausible() {
            return Ok(());
        }
        Err(BundleError::Header {
            path: path.to_owned(),
            key: "bank".into(),
            what: "holds a number that no unit vector has".into(),
        })
    }

    /// Whether every number is one that a unit vector can hold.
    pub(super) fn is_plausible(&self) -> bool {
        let blocks = self.rows.div_ceil(CHECKED);
        let good = |room: &mut Vec<f32>, block: usize| {
            let first = block * CHECKED;
            let rows = self.read(first, CHECKED.min(self.rows - first), room);
            // also false for NaN
            rows.iter().all(|v| v.abs() <= 1.01)
        };
        (0..blocks)
            .into_par_iter()
            .map_init(Vec::new, good)
            .all(|good| good)
    }

    /// Packs the rows from `first` on for matching, in parts of these lengths, in parallel: a copy in f32.
    pub(super) fn pack(&self, first: usize, parts: &[usize]) -> Vec<PackedPatches> {
        let starts: Vec<(usize, usize)> = parts
            .iter()
            .scan(first, |next, &rows| {
                let first = *next;
                *next += rows;
                Some((first, rows))
            })
            .collect();
        let one = |&(first, rows): &(usize, usize)| {
            PackedPatches::pack(&self.decode(first, rows), self.dim)
        };
        starts.par_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_happens_once() {
        let rows: Vec<f32> = (0..60).map(|i| (i as f32 * 0.37).sin()).collect();
        let half = Bank::of(&rows, 6, Precision::F16);
        let decoded = half.decode(0, 10);
        let wanted: Vec<f32> = rows.iter().map(|v| f16::from_f32(*v).to_f32()).collect();
        assert_eq!(decoded, wanted);
        assert_eq!(half.decode(3, 2), wanted[18..30]);
        assert_eq!(Bank::of(&decoded, 6, Precision::F16).bytes(), half.bytes());
        assert_eq!(Bank::of(&rows, 6, Precision::F32).decode(0, 10), rows);
        assert_eq!(half.pack(0, &[4, 6])[1].rows(), wanted[24..]);
        assert!(half.is_plausible());
        assert!(!Bank::of(&[0.5, f32::NAN], 2, Precision::F32).is_plausible());
        assert!(!Bank::of(&[0.5, -1.02], 2, Precision::F16).is_plausible());
        let order = [3, 1, 0, 2, 9, 4, 5, 6, 8, 7];
        let moved = half.clone().reordered(&order);
        for (i, from) in order.into_iter().enumerate() {
            assert_eq!(moved.decode(i, 1), wanted[from * 6..][..6]);
        }
        assert_eq!(
            half.decode(0, 10),
            wanted,
            "another bank with the same bytes stays"
        );
        // the same where numbers do not lie on multiples of their size
        for (bank, wanted) in [
            (&half, &wanted),
            (&Bank::of(&rows, 6, Precision::F32), &rows),
        ] {
            let mut shifted = vec![0];
            shifted.extend(bank.bytes());
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &shifted).unwrap();
            let file = Arc::new(MappedFile::open(file.path()).unwrap());
            let odd = Bank::mapped(file, 1, (10, 6), bank.precision());
            assert_eq!(odd.decode(0, 10), *wanted);
            assert_eq!(odd.decode(3, 2), wanted[18..30]);
        }
    }
}
