//! From pixels to tokens: patches are unfolded into panels, then one product embeds them.

use super::linear::{Epilogue, Linear, Rows};
use super::pointer::Pointer;
use super::split::Split;
use super::weight::PackedLinear;
use super::{Encoder, Workspace};
use crate::lanes::PANEL_VECTORS;
use crate::profile::{Operator, time};

/// The patch embedding: a linear layer on the pixels of a patch.
#[derive(Debug)]
pub(super) struct Patches {
    pub(super) layer: PackedLinear,
    pub(super) channels: usize,
    pub(super) side: usize,
}

/// Pixel values, as they are or as bytes that a table turns into what they would be.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Normalised, `[images, channels, height, width]`.
    Normalised(&'a [f32]),
    /// Bytes of interleaved channels, `[images, height, width, channels]`, as decoders and resizers give them.
    Bytes {
        /// The bytes.
        data: &'a [u8],
        /// What each byte of each channel means.
        tables: &'a [[f32; 256]],
    },
}

impl Values<'_> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Normalised(data) => data.len(),
            Self::Bytes { data, .. } => data.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Pixels to embed, and what to add to them.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    /// The values themselves.
    pub data: Values<'a>,
    /// Pixel rows.
    pub height: usize,
    /// Pixel columns.
    pub width: usize,
    /// Patch rows; `rows · side ≤ height`.
    pub rows: usize,
    /// Patch columns; `columns · side ≤ width`.
    pub columns: usize,
    /// What each token starts from, `[prefix + rows·columns, dim]`: the prefix tokens whole, and position plus the
    /// embedding's bias for the patches.
    pub start: &'a [f32],
}

impl Encoder {
    /// Fills the workspace with the embedded patches of all its images.
    ///
    /// # Panics
    /// If `pixels` does not fit the workspace's images and tokens.
    pub fn embed(&self, work: &mut Workspace, pixels: &Pixels<'_>) {
        let side = self.patches.side;
        let patches = pixels.rows * pixels.columns;
        let prefix = work
            .tokens
            .checked_sub(patches)
            .expect("the workspace has a lane for every patch");
        assert!(pixels.rows * side <= pixels.height && pixels.columns * side <= pixels.width);
        assert_eq!(
            pixels.start.len(),
            work.tokens * self.shape.dim,
            "start is [tokens, dim]"
        );
        let image = self.patches.channels * pixels.height * pixels.width;
        assert_eq!(
            pixels.data.len(),
            work.images * image,
            "pixels are images · channels · height · width"
        );
        if let Values::Bytes { tables, .. } = pixels.data {
            assert_eq!(
                tables.len(),
                self.patches.channels,
                "there is a table for every channel"
            );
        }
        work.check(self);
        let inputs = self.patches.layer.inputs;
        let (lanes, workers) = (work.lanes, work.workers());
        let panels = lanes.panels();
        let widest = PANEL_VECTORS * lanes.width;
        let split = Split::new(&self.patches.layer, panels, widest, workers);
        let (x, hidden) = (Pointer::new(&mut work.x), Pointer::new(&mut work.hidden));
        let tokens = work.tokens;
        work.team
            .run(workers, &[panels, split.tasks()], |_, phase, task| {
                if phase == 1 {
                    let epilogue = Epilogue::Residual(Rows {
                        out: x,
                        features: self.shape.dim,
                    });
                    let (tiles, panels) = split.part(task);
                    let layer = &self.patches.layer;
                    let input = hidden.get();
                    let widened = std::ptr::null_mut();
                    let linear = Linear {
                        layer,
                        tiles,
                        lanes,
                        panels,
                        input,
                        widened,
                        epilogue,
                    };
                    // SAFETY: as in `product`; weights of f32 need no scratch.
                    time(Operator::Embed, || unsafe { (self.kernels.linear)(linear) });
                    return;
                }
                let panel = lanes.panel(task);
                let width = panel.vectors * lanes.width;
                // SAFETY: this task is the only one that touches this panel of `x` and of `hidden`, and `Workspace`
                // sized both for all panels.
                let (x, unfolded) = unsafe {
                    (
                        std::slice::from_raw_parts_mut(
                            x.get().add(lanes.offset(panel, self.shape.dim)),
                            width * self.shape.dim,
                        ),
                        std::slice::from_raw_parts_mut(
                            hidden.get().add(lanes.offset(panel, inputs)),
                            width * inputs,
                        ),
                    )
                };
                let columns = panel.first * lanes.width..panel.first * lanes.width + width;
                time(Operator::Unfold, || {
                    // sixteen features of all lanes at a time: what they are written to stays in the first-level cache
                    for (f0, block) in (0..).step_by(16).zip(x.chunks_mut(16 * width)) {
                        for (lane, column) in columns.clone().enumerate() {
                            let start = &pixels.start[column % tokens * self.shape.dim + f0..];
                            let inside = column < lanes.columns;
                            for (row, &value) in block.chunks_exact_mut(width).zip(start) {
                                row[lane] = if inside { value } else { 0.0 };
                            }
                        }
                    }
                    for (line, block) in unfolded.chunks_exact_mut(side * width).enumerate() {
                        let (channel, y) = (line / side, line % side);
                        for (lane, column) in columns.clone().enumerate() {
                            let token = column % tokens;
                            if column >= lanes.columns || token < prefix {
                                block
                                    .chunks_exact_mut(width)
                                    .for_each(|row| row[lane] = 0.0);
                                continue;
                            }
                            let patch = token - prefix;
                            let (row, col) = (
                                patch / pixels.columns * side + y,
                                patch % pixels.columns * side,
                            );
                            let from = column / tokens * image;
                            let rows = block.chunks_exact_mut(width);
                            match pixels.data {
                                Values::Normalised(data) => {
                                    let at =
                                        from + (channel * pixels.height + row) * pixels.width + col;
                                    for (row, &value) in rows.zip(&data[at..][..side]) {
                                        row[lane] = value;
                                    }
                                }
                                Values::Bytes { data, tables } => {
                                    let channels = self.patches.channels;
                                    let at = from + (row * pixels.width + col) * channels + channel;
                                    let table = &tables[channel];
                                    for (row, &byte) in
                                        rows.zip(data[at..].iter().step_by(channels))
                                    {
                                        row[lane] = table[usize::from(byte)];
                                    }
                                }
                            }
                        }
                    }
                });
            });
    }
}
