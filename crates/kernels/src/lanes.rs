//! The one layout that activations, patches and right-hand matrices share: panels of lanes.
//!
//! A matrix of `features × columns` (columns are tokens, patches, or columns of a product) is cut into panels
//! of up to three vectors of columns. A panel is stored feature by feature: `[feature][lane]`. So a panel is
//! the vector operand of the register tile, what a tile writes is again a piece of a panel, and nothing is
//! ever transposed between two products.

use std::ops::Range;

/// Vectors in a full panel: the width of the register tile.
pub(crate) const PANEL_VECTORS: usize = 3;

/// How `columns` columns are cut into panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lanes {
    /// Columns that mean something; the rest of the last vector is padding.
    pub(crate) columns: usize,
    /// Lanes of a vector.
    pub(crate) width: usize,
}

/// One panel: where it starts and how wide it is, in vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panel {
    /// Vectors before it.
    pub(crate) first: usize,
    /// Vectors in it, 1 to 3.
    pub(crate) vectors: usize,
}

impl Lanes {
    /// Vectors in all.
    pub(crate) fn vectors(self) -> usize {
        self.columns.div_ceil(self.width)
    }

    /// Columns with padding.
    pub(crate) fn padded(self) -> usize {
        self.vectors() * self.width
    }

    /// `columns` columns in vectors of `width` lanes, three to a panel.
    pub(crate) fn panels_of(columns: usize, width: usize) -> Self {
        Self { columns, width }
    }

    /// Full panels. What is left over of threes is one panel of two, two of two, or (of one vector alone) one.
    fn full(self) -> usize {
        let v = self.vectors();
        match v % PANEL_VECTORS {
            1 if v > 1 => v / PANEL_VECTORS - 1,
            _ => v / PANEL_VECTORS,
        }
    }

    /// Number of panels.
    pub(crate) fn panels(self) -> usize {
        self.vectors().div_ceil(PANEL_VECTORS)
    }

    /// Panel `p`.
    pub(crate) fn panel(self, p: usize) -> Panel {
        let full = self.full();
        if p < full {
            return Panel {
                first: p * PANEL_VECTORS,
                vectors: PANEL_VECTORS,
            };
        }
        let first = full * PANEL_VECTORS + (p - full) * 2;
        Panel {
            first,
            vectors: (self.vectors() - first).min(2),
        }
    }

    /// The panel that holds vector `v`.
    pub(crate) fn panel_of(self, v: usize) -> usize {
        let full = self.full();
        if v < full * PANEL_VECTORS {
            v / PANEL_VECTORS
        } else {
            full + (v - full * PANEL_VECTORS) / 2
        }
    }

    /// The columns of a panel, padding left out.
    pub(crate) fn columns_of(self, panel: Panel) -> Range<usize> {
        let start = panel.first * self.width;
        start..(start + panel.vectors * self.width).min(self.columns)
    }

    /// Where feature 0 of a panel lies in a buffer of `features` features.
    pub(crate) fn offset(self, panel: Panel, features: usize) -> usize {
        panel.first * self.width * features
    }

    /// Packs row-major `rows` (`[columns, features]`, one row a column of ours) into `out`
    /// (`padded · features` long), padding with zeros.
    pub(crate) fn pack_rows(self, rows: &[f32], features: usize, out: &mut [f32]) {
        assert_eq!(
            rows.len(),
            self.columns * features,
            "rows are [columns, features]"
        );
        assert_eq!(
            out.len(),
            self.padded() * features,
            "the buffer is [padded columns, features]"
        );
        for p in 0..self.panels() {
            let panel = self.panel(p);
            let columns = self.columns_of(panel);
            let width = panel.vectors * self.width;
            let block = &mut out[self.offset(panel, features)..][..width * features];
            // sixteen features of one row are one cache line; their sixteen targets stay hot for the next row
            for f0 in (0..features).step_by(16) {
                let f1 = (f0 + 16).min(features);
                let mut lane = 0;
                while lane < width {
                    if f1 == f0 + 16 && lane + SQUARE <= columns.len() {
                        for f in (f0..f1).step_by(SQUARE) {
                            let from = &rows[(columns.start + lane) * features + f..];
                            transpose(from, features, &mut block[f * width + lane..], width);
                        }
                        lane += SQUARE;
                        continue;
                    }
                    for f in f0..f1 {
                        let valid = lane < columns.len();
                        let x = if valid {
                            rows[(columns.start + lane) * features + f]
                        } else {
                            0.0
                        };
                        block[f * width + lane] = x;
                    }
                    lane += 1;
                }
            }
        }
    }

    /// Packs row-major `matrix` (`[features, columns]`) into `out`, padding with zeros.
    pub(crate) fn pack_columns(self, matrix: &[f32], features: usize, out: &mut [f32]) {
        assert_eq!(
            matrix.len(),
            self.columns * features,
            "the matrix is [features, columns]"
        );
        assert_eq!(
            out.len(),
            self.padded() * features,
            "the buffer is [padded columns, features]"
        );
        for p in 0..self.panels() {
            let panel = self.panel(p);
            let columns = self.columns_of(panel);
            let width = panel.vectors * self.width;
            let block = &mut out[self.offset(panel, features)..][..width * features];
            for (f, lanes) in block.chunks_exact_mut(width).enumerate() {
                let (valid, padding) = lanes.split_at_mut(columns.len());
                valid.copy_from_slice(&matrix[f * self.columns..][columns.clone()]);
                padding.fill(0.0);
            }
        }
    }

    /// Copies packed columns of `features` features into another packing of the same columns, from column `to` on.
    pub(crate) fn copy(
        self,
        data: &[f32],
        features: usize,
        other: Self,
        to: usize,
        out: &mut [f32],
    ) {
        for p in 0..self.panels() {
            let panel = self.panel(p);
            let step = panel.vectors * self.width;
            let from = self.offset(panel, features);
            for (lane, column) in self.columns_of(panel).enumerate() {
                let (at, out_step) = other.column(features, to + column);
                let values = data[from + lane..].iter().step_by(step);
                for (o, x) in out[at..]
                    .iter_mut()
                    .step_by(out_step)
                    .zip(values)
                    .take(features)
                {
                    *o = *x;
                }
            }
        }
    }

    /// Where `column` lies in a packed buffer: the place of its feature 0 and the distance to the next feature.
    pub(crate) fn column(self, features: usize, column: usize) -> (usize, usize) {
        let panel = self.panel(self.panel_of(column / self.width));
        let lane = column - panel.first * self.width;
        (
            self.offset(panel, features) + lane,
            panel.vectors * self.width,
        )
    }

    /// Element (`feature`, `column`) of a packed buffer.
    pub(crate) fn index(self, features: usize, feature: usize, column: usize) -> usize {
        let (start, step) = self.column(features, column);
        start + feature * step
    }
}

/// Rows and columns that are transposed in registers.
const SQUARE: usize = 4;

/// `out[j·to + i] = rows[i·from + j]` for a square.
#[inline(always)]
fn transpose(rows: &[f32], from: usize, out: &mut [f32], to: usize) {
    let row = |i: usize| -> [f32; SQUARE] {
        let r = &rows[i * from..][..SQUARE];
        [r[0], r[1], r[2], r[3]]
    };
    let x = [row(0), row(1), row(2), row(3)];
    for j in 0..SQUARE {
        out[j * to..][..SQUARE].copy_from_slice(&[x[0][j], x[1][j], x[2][j], x[3][j]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_every_vector_once() {
        for width in [4, 8, 16] {
            for columns in 1..if cfg!(miri) { 60 } else { 400 } {
                let lanes = Lanes::panels_of(columns, width);
                let mut next = 0;
                for p in 0..lanes.panels() {
                    let panel = lanes.panel(p);
                    assert_eq!(panel.first, next, "{lanes:?}");
                    assert!((1..=PANEL_VECTORS).contains(&panel.vectors), "{lanes:?}");
                    for v in panel.first..panel.first + panel.vectors {
                        assert_eq!(lanes.panel_of(v), p, "{lanes:?}");
                    }
                    next += panel.vectors;
                }
                assert_eq!(next, lanes.vectors(), "{lanes:?}");
            }
        }
    }

    #[test]
    fn packing_rows_and_columns_agree() {
        let (columns, features) = (57, 37);
        let lanes = Lanes::panels_of(columns, 8);
        let rows: Vec<f32> = (0..columns * features).map(|i| i as f32).collect();
        let mut transposed = vec![0.0; rows.len()];
        for c in 0..columns {
            for f in 0..features {
                transposed[f * columns + c] = rows[c * features + f];
            }
        }
        let mut a = vec![-1.0; lanes.padded() * features];
        let mut b = a.clone();
        lanes.pack_rows(&rows, features, &mut a);
        lanes.pack_columns(&transposed, features, &mut b);
        assert_eq!(a, b);
        assert_eq!(a[lanes.index(features, 3, 41)], rows[41 * features + 3]);
    }
}
