//! The patches of the support as a bundle keeps them.

use std::sync::Arc;

use flawtune_kernels::mapped::MappedFile;
use flawtune_kernels::matching::PackedPatches;
use half::f16;
use half::slice::{HalfBitsSliceExt as _, HalfFloatSliceExt as _};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Element type of a stored bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE half: half the size; cosines of 384 numbers move by 1e-5 on average. Everything is scored against the rounded numbers.
    #[default]
    F16,
    /// 32-bit float.
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
    Owned(Arc<Vec<u8>>),
    Mapped { file: Arc<MappedFile>, offset: usize },
}

/// Patch tokens of unit length, `[rows, dim]`, rounded to their precision.
#[derive(Debug, Clone)]
pub struct Bank {
    rows: usize,
    dim: usize,
    precision: Precision,
    bytes: Bytes,
}

impl Bank {
    /// Rounds row-major `rows` (`[rows, dim]`).
    ///
    /// # Panics
    /// If `dim` is 0 or `rows` is no whole number of rows.
    pub fn of(rows: &[f32], dim: usize, precision: Precision) -> Self {
        assert!(dim > 0 && rows.len().is_multiple_of(dim), "rows must be [rows, dim]");
        let bytes = match precision {
            Precision::F32 => rows.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Precision::F16 => {
                let mut halves = vec![f16::ZERO; rows.len()];
                halves.convert_from_f32_slice(rows);
                halves.iter().flat_map(|v| v.to_le_bytes()).collect()
            }
        };
        Self { rows: rows.len() / dim, dim, precision, bytes: Bytes::Owned(Arc::new(bytes)) }
    }

    /// Rows in a mapped file from byte `offset`; the caller has checked that they are there.
    pub(super) fn mapped(
        file: Arc<MappedFile>,
        offset: usize,
        (rows, dim): (usize, usize),
        precision: Precision,
    ) -> Self {
        Self { rows, dim, precision, bytes: Bytes::Mapped { file, offset } }
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
    pub(super) fn bytes(&self) -> &[u8] {
        let len = self.rows * self.dim * self.precision.bytes();
        match &self.bytes {
            Bytes::Owned(bytes) => bytes,
            Bytes::Mapped { file, offset } => &file.bytes()[*offset..][..len],
        }
    }

    /// Numbers of `rows` rows from `first` on.
    pub fn decode(&self, first: usize, rows: usize) -> Vec<f32> {
        let size = self.dim * self.precision.bytes();
        let bytes = &self.bytes()[first * size..][..rows * size];
        let mut out = vec![0.0; rows * self.dim];
        match self.precision {
            Precision::F32 => {
                for (o, c) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                    *o = f32::from_le_bytes([c[0], c[1], c[2], c[3]]);
                }
            }
            Precision::F16 => {
                let bits: Vec<u16> =
                    bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
                bits.reinterpret_cast::<f16>().convert_to_f32_slice(&mut out);
            }
        }
        out
    }

    /// Packs the rows for matching in parts of these lengths, in parallel. `None` if a number is not one that a unit
    /// vector can hold.
    pub(super) fn pack(&self, parts: &[usize]) -> Option<Vec<PackedPatches>> {
        let starts: Vec<(usize, usize)> = parts
            .iter()
            .scan(0, |next, &rows| {
                let first = *next;
                *next += rows;
                Some((first, rows))
            })
            .collect();
        let one = |&(first, rows): &(usize, usize)| {
            let rows = self.decode(first, rows);
            // also false for NaN
            rows.iter().all(|v| v.abs() <= 1.01).then(|| PackedPatches::pack(&rows, self.dim))
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
        assert_eq!(half.pack(&[4, 6]).unwrap()[1].rows(), wanted[24..]);
        assert!(Bank::of(&[0.5, f32::NAN], 2, Precision::F32).pack(&[1]).is_none());
    }
}
