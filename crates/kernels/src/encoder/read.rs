//! Tokens out of the panels, row-major.

use crate::encoder::pointer::Pointer;

/// Some columns of a packed buffer, to be written as rows.
pub(crate) struct Columns<'a> {
    /// The packed buffer.
    pub(crate) from: &'a [f32],
    /// Where feature 0 of each column lies, and how far it is to the next feature.
    pub(crate) columns: &'a [(usize, usize)],
    /// Features of a column.
    pub(crate) features: usize,
    /// Gain and bias to apply, `[features]` each.
    pub(crate) affine: Option<(&'a [f32], &'a [f32])>,
    /// `[columns, features]`
    pub(crate) out: Pointer,
}

/// Features copied from every column in turn: their lines stay in the first-level cache for the neighbouring columns.
const BLOCK: usize = 16;

/// Runs a [`Columns`].
///
/// # Safety
/// `out` must hold all rows, and nobody else may touch them.
#[inline(always)]
pub(crate) unsafe fn read_columns(c: Columns<'_>) {
    // SAFETY: the caller gave `columns · features` numbers that are ours alone.
    let out = unsafe { std::slice::from_raw_parts_mut(c.out.get(), c.columns.len() * c.features) };
    for start in (0..c.features).step_by(BLOCK) {
        let block = start..(start + BLOCK).min(c.features);
        for (row, &(at, step)) in out.chunks_exact_mut(c.features).zip(c.columns) {
            let row = &mut row[block.clone()];
            let values = c.from[at + start * step..].iter().step_by(step);
            for (o, &x) in row.iter_mut().zip(values) {
                *o = x;
            }
            if let Some((gain, bias)) = c.affine {
                for ((o, &gain), &bias) in row
                    .iter_mut()
                    .zip(&gain[block.clone()])
                    .zip(&bias[block.clone()])
                {
                    *o = o.mul_add(gain, bias);
                }
            }
        }
    }
}
