//! The activations of a batch, and all memory that a run needs.

use super::{Encoder, Precision, Shape};
use crate::buffer::{Buffer, LINE, size_together};
use crate::kernels::Kernels;
use crate::lanes::{Lanes, PANEL_VECTORS};
use crate::team::Team;

/// Activations and scratch memory; reused by every run, and grown only by a larger batch than ever before.
#[derive(Debug)]
pub struct Workspace {
    pub(super) images: usize,
    pub(super) tokens: usize,
    pub(super) lanes: Lanes,
    /// Keys with padding to whole tiles.
    pub(super) keys: usize,
    shape: Option<(Shape, &'static Kernels, Precision)>,
    pub(super) x: Buffer,
    pub(super) normed: Buffer,
    pub(super) q: Buffer,
    pub(super) k: Buffer,
    pub(super) v: Buffer,
    pub(super) hidden: Buffer,
    pub(super) cos: Buffer,
    pub(super) sin: Buffer,
    /// Tokens as bytes, for encoders that multiply those.
    pub(super) words: Buffer<u32>,
    /// Scale and offset of every token's bytes.
    pub(super) scale: Buffer,
    pub(super) offset: Buffer,
    /// Widened tiles of weights, one a worker, for encoders that keep 16-bit weights.
    pub(super) widened: Buffer,
    /// Numbers of one widened tile: whole cache lines.
    pub(super) widened_tile: usize,
    /// Scratch of attention, one strip a worker.
    pub(super) strips: Buffer,
    /// Numbers of one strip: whole cache lines.
    pub(super) strip: usize,
    /// Threads that there are strips for.
    workers: usize,
    pub(super) pieces: Vec<Piece>,
    pub(super) phases: Vec<usize>,
    pub(super) team: Team,
}

/// Queries of one image that lie in one panel.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) image: usize,
    pub(super) panel: usize,
    /// First vector inside the panel.
    pub(super) offset: usize,
    pub(super) vectors: usize,
    /// Which lanes of these vectors belong to the image.
    pub(super) lanes: std::ops::Range<usize>,
}

impl Default for Workspace {
    fn default() -> Self {
        Self {
            images: 0,
            tokens: 0,
            lanes: Lanes::panels_of(0, 1),
            keys: 0,
            shape: None,
            x: Buffer::default(),
            normed: Buffer::default(),
            q: Buffer::default(),
            k: Buffer::default(),
            v: Buffer::default(),
            hidden: Buffer::default(),
            cos: Buffer::default(),
            sin: Buffer::default(),
            words: Buffer::default(),
            scale: Buffer::default(),
            offset: Buffer::default(),
            widened: Buffer::default(),
            widened_tile: 0,
            strips: Buffer::default(),
            strip: 0,
            workers: 0,
            pieces: Vec::new(),
            phases: Vec::new(),
            team: Team::default(),
        }
    }
}

impl Workspace {
    /// Prepares for `images` images of `tokens` tokens each. `rotation` holds the cosines and sines by which the pairs of
    /// each token are rotated, `[tokens, head_dim/2]` each; it must be given exactly when the shape is rotary.
    ///
    /// # Panics
    /// If the rotation is missing, not wanted, or of another size.
    pub fn configure(
        &mut self,
        encoder: &Encoder,
        images: usize,
        tokens: usize,
        rotation: Option<(&[f32], &[f32])>,
    ) {
        let (shape, kernels) = (encoder.shape, encoder.kernels);
        assert_eq!(
            shape.rotary,
            rotation.is_some(),
            "a rotation is given exactly when the shape is rotary"
        );
        let same = self.images == images
            && self.tokens == tokens
            && self
                .shape
                .is_some_and(|(s, k, _)| s == shape && std::ptr::eq(k, kernels));
        let lanes = Lanes::panels_of(images * tokens, kernels.lanes);
        let (rows, padded) = (kernels.rows, lanes.padded());
        (self.images, self.tokens, self.lanes) = (images, tokens, lanes);
        self.shape = Some((shape, kernels, encoder.precision));
        self.keys = padded.next_multiple_of(rows);
        let (rotary_dim, value_dim) = (shape.rotary_dim(rows), shape.value_dim(rows));
        let features = if shape.rotary { rotary_dim / 2 } else { 0 };
        self.workers = rayon::current_num_threads();
        self.strip = ((tokens + 2 * rows) * PANEL_VECTORS * kernels.lanes).next_multiple_of(LINE);
        let widest = shape.dim.max(shape.hidden);
        let (mut bytes, mut widened) = (0, 0);
        match encoder.precision {
            Precision::F32 => {}
            Precision::F16 | Precision::Bf16 => widened = (widest * rows).next_multiple_of(LINE),
            Precision::Int8 => bytes = padded,
        }
        self.widened_tile = widened;
        size_together(&mut [
            self.x.part(padded * shape.dim),
            self.normed.part(padded * shape.dim),
            self.q.part(padded * shape.heads * rotary_dim),
            self.k.part(self.keys * shape.heads * rotary_dim),
            self.v.part(self.keys * shape.heads * value_dim),
            self.hidden
                .part(padded * shape.hidden.max(encoder.patches.layer.inputs)),
            self.cos.part(padded * features),
            self.sin.part(padded * features),
            self.words
                .part(bytes * widest.div_ceil(kernels.bytes().group)),
            self.scale.part(bytes),
            self.offset.part(bytes),
            self.widened.part(self.workers * widened),
            self.strips.part(self.workers * self.strip),
        ]);
        if let Some((cos, sin)) = rotation {
            let half = shape.head_dim() / 2;
            assert!(
                cos.len() == tokens * half && sin.len() == tokens * half,
                "rotations are [tokens, head_dim/2]"
            );
            for column in 0..lanes.columns {
                let (start, step) = lanes.column(features, column);
                for pair in 0..half {
                    self.cos[start + pair * step] = cos[column % tokens * half + pair];
                    self.sin[start + pair * step] = sin[column % tokens * half + pair];
                }
            }
        }
        if !same {
            self.cut_pieces();
        }
    }

    /// Cuts the queries of every image at the borders of panels and of vectors.
    fn cut_pieces(&mut self) {
        self.pieces.clear();
        let width = self.lanes.width;
        for image in 0..self.images {
            let (start, end) = (image * self.tokens, (image + 1) * self.tokens);
            let mut vector = start / width;
            while vector * width < end {
                let p = self.lanes.panel_of(vector);
                let panel = self.lanes.panel(p);
                let stop = (panel.first + panel.vectors).min(end.div_ceil(width));
                let first = vector * width;
                self.pieces.push(Piece {
                    image,
                    panel: p,
                    offset: vector - panel.first,
                    vectors: stop - vector,
                    lanes: start.max(first) - first..end.min(stop * width) - first,
                });
                vector = stop;
            }
        }
    }

    /// Threads that a run uses.
    pub(super) fn workers(&self) -> usize {
        rayon::current_num_threads().min(self.workers).max(1)
    }

    pub(super) fn check(&self, encoder: &Encoder) {
        let fits = self.shape.is_some_and(|(shape, kernels, precision)| {
            shape == encoder.shape
                && std::ptr::eq(kernels, encoder.kernels)
                && precision == encoder.precision
        });
        assert!(fits, "the workspace must be configured for this encoder");
    }
}
