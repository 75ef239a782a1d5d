//! A stack of pre-norm transformer blocks, from pixels or tokens to tokens.
//!
//! All activations are panels of lanes (see `lanes`): tokens of all images of a batch lie side by side, whatever
//! image they belong to, and only attention looks at where an image begins and ends. A block is seven
//! phases — norm, qkv, attention, projection, norm, first and second feed-forward layer — whose tasks are
//! claimed by the threads of the pool (see `team`). A task computes whole output elements, so
//! neither the threads nor the other images of the batch change a bit.

mod attention;
mod block;
mod linear;
mod norm;
mod pointer;
mod read;
mod workspace;

pub(crate) use attention::{Attention, attention};
pub use block::{Affine, Block, Dense, FeedForward, PackedBlock};
pub(crate) use linear::{Linear, linear};
pub(crate) use norm::{Norm, norm};
pub(crate) use read::{Columns, read_columns};
pub use workspace::Workspace;

use std::ops::Range;

use linear::{Epilogue, Heads, PackedLinear, Rows, Source};
use pointer::Pointer;

use crate::dispatch;
use crate::kernels::Kernels;
use crate::profile::{Operator, time};

/// The sizes that all blocks of an encoder share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Numbers per token.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden width of the feed-forward part.
    pub hidden: usize,
    /// Whether the feed-forward part is gated.
    pub gated: bool,
    /// Whether queries and keys are rotated.
    pub rotary: bool,
    /// Epsilon of the layer norms.
    pub eps: f32,
}

impl Shape {
    /// Numbers per head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    /// Width of a head of q and k with padding.
    fn rotary_dim(&self, rows: usize) -> usize {
        if self.rotary {
            2 * (self.head_dim() / 2).next_multiple_of(rows / 2)
        } else {
            self.head_dim().next_multiple_of(rows)
        }
    }

    /// Width of a head of v with padding.
    fn value_dim(&self, rows: usize) -> usize {
        self.head_dim().next_multiple_of(rows)
    }

    /// Which feature of a head lies in packed row `i` of q and k: tiles hold the first and the second halves
    /// of `rows / 2` rotated pairs. `None` for padding.
    fn rotary_source(&self, rows: usize, i: usize) -> Option<usize> {
        if !self.rotary {
            return (i < self.head_dim()).then_some(i);
        }
        let half = self.head_dim() / 2;
        let pair = i / rows * (rows / 2) + i % (rows / 2);
        (pair < half).then_some(if i % rows < rows / 2 { pair } else { half + pair })
    }
}

/// The patch embedding: a linear layer on the pixels of a patch.
#[derive(Debug)]
struct Patches {
    layer: PackedLinear,
    channels: usize,
    side: usize,
}

/// A stack of blocks with its patch embedding.
#[derive(Debug)]
pub struct Encoder {
    shape: Shape,
    kernels: &'static Kernels,
    patches: Patches,
    blocks: Vec<PackedBlock>,
}

/// Pixels to embed, and what to add to them.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    /// Normalised, `[images, channels, height, width]`.
    pub data: &'a [f32],
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

/// Tasks a thread should find in a phase, so that a thread that is held up does not hold up the others.
const TASKS_PER_WORKER: usize = 8;
/// Tokens read out by one task.
const READ_TOGETHER: usize = 16;

impl Encoder {
    /// An encoder of `blocks`; `patch` is the patch embedding's weight `[dim, channels · side²]` (its bias belongs into
    /// [`Pixels::start`]).
    ///
    /// # Panics
    /// If the sizes do not fit, or `heads` does not divide `dim`.
    pub fn new(shape: Shape, patch: &[f32], channels: usize, side: usize, blocks: Vec<PackedBlock>) -> Self {
        Self::new_with(dispatch::active(), shape, patch, channels, side, blocks)
    }

    pub(crate) fn new_with(
        kernels: &'static Kernels,
        shape: Shape,
        patch: &[f32],
        channels: usize,
        side: usize,
        blocks: Vec<PackedBlock>,
    ) -> Self {
        assert!(shape.heads > 0 && shape.dim.is_multiple_of(shape.heads), "heads must divide dim");
        assert!(!shape.rotary || shape.head_dim().is_multiple_of(2), "rotation needs an even head width");
        let inputs = channels * side * side;
        assert_eq!(patch.len(), shape.dim * inputs, "the patch embedding is [dim, channels·side²]");
        let bias = vec![0.0; shape.dim];
        let source = Source { weight: patch, bias: &bias, norm: None };
        let layer = PackedLinear::pack(kernels, inputs, shape.dim.div_ceil(kernels.rows), |i| {
            (i < shape.dim).then_some((source, i, 1.0))
        });
        Self { shape, kernels, patches: Patches { layer, channels, side }, blocks }
    }

    /// The sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Number of blocks.
    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// Fills the workspace with the embedded patches of all its images.
    ///
    /// # Panics
    /// If `pixels` does not fit the workspace's images and tokens.
    pub fn embed(&self, work: &mut Workspace, pixels: &Pixels<'_>) {
        let side = self.patches.side;
        let patches = pixels.rows * pixels.columns;
        let prefix = work.tokens.checked_sub(patches).expect("the workspace has a lane for every patch");
        assert!(pixels.rows * side <= pixels.height && pixels.columns * side <= pixels.width);
        assert_eq!(pixels.start.len(), work.tokens * self.shape.dim, "start is [tokens, dim]");
        let image = self.patches.channels * pixels.height * pixels.width;
        assert_eq!(pixels.data.len(), work.images * image, "pixels are [images, channels, height, width]");
        work.check(self);
        let inputs = self.patches.layer.inputs;
        let (lanes, workers) = (work.lanes, work.workers());
        let panels = lanes.panels();
        let split = Split::new(&self.patches.layer, panels, workers);
        let (x, hidden) = (Pointer::new(&mut work.x), Pointer::new(&mut work.hidden));
        let tokens = work.tokens;
        work.team.run(workers, &[panels, split.tasks()], |_, phase, task| {
            if phase == 1 {
                let epilogue = Epilogue::Residual(Rows { out: x, features: self.shape.dim });
                self.product(Operator::Embed, &self.patches.layer, lanes, &split, task, hidden, epilogue);
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
                            block.chunks_exact_mut(width).for_each(|row| row[lane] = 0.0);
                            continue;
                        }
                        let patch = token - prefix;
                        let (row, col) = (patch / pixels.columns * side, patch % pixels.columns * side);
                        let at = column / tokens * image
                            + (channel * pixels.height + row + y) * pixels.width
                            + col;
                        for (row, &value) in block.chunks_exact_mut(width).zip(&pixels.data[at..][..side]) {
                            row[lane] = value;
                        }
                    }
                }
            });
        });
    }

    /// Runs blocks `range` on the tokens of the workspace.
    ///
    /// # Panics
    /// If a block does not exist or the workspace was configured for another encoder.
    pub fn run(&self, work: &mut Workspace, range: Range<usize>) {
        work.check(self);
        let blocks = &self.blocks[range];
        if blocks.is_empty() || work.lanes.columns == 0 {
            return;
        }
        let (shape, lanes, workers) = (&self.shape, work.lanes, work.workers());
        let (panels, rows) = (lanes.panels(), self.kernels.rows);
        let (rotary_dim, value_dim) = (shape.rotary_dim(rows), shape.value_dim(rows));
        let keys = work.keys;
        let [qkv, proj, fc1, fc2] = {
            let b = &blocks[0];
            [&b.qkv, &b.proj, &b.fc1, &b.fc2].map(|layer| Split::new(layer, panels, workers))
        };
        let phases = [
            panels,
            qkv.tasks(),
            work.pieces.len() * shape.heads,
            proj.tasks(),
            panels,
            fc1.tasks(),
            fc2.tasks(),
        ];
        work.phases.clear();
        for _ in blocks {
            work.phases.extend_from_slice(&phases);
        }
        let x = Pointer::new(&mut work.x);
        let normed = Pointer::new(&mut work.normed);
        let hidden = Pointer::new(&mut work.hidden);
        let (q, k, v) = (Pointer::new(&mut work.q), Pointer::new(&mut work.k), Pointer::new(&mut work.v));
        let table = |buffer: &mut [f32]| if shape.rotary { Pointer::new(buffer) } else { Pointer::null() };
        let (cos, sin) = (table(&mut work.cos), table(&mut work.sin));
        let strips: Vec<Pointer> = work.strips.iter_mut().map(|s| Pointer::new(s)).collect();
        let (tokens, pieces) = (work.tokens, &work.pieces);
        let heads = Heads { q, k, v, cos, sin, heads: shape.heads, rotary_dim, keys };
        let residual = Epilogue::Residual(Rows { out: x, features: shape.dim });
        let to_hidden = Rows { out: hidden, features: shape.hidden };
        let activation = if shape.gated { Epilogue::Gated(to_hidden) } else { Epilogue::Gelu(to_hidden) };
        work.team.run(workers, &work.phases, |worker, phase, task| {
            let block = &blocks[phase / phases.len()];
            match phase % phases.len() {
                0 | 4 => time(Operator::Norm, || {
                    let panel = lanes.panel(task);
                    let at = lanes.offset(panel, shape.dim);
                    // SAFETY: the buffers hold `dim` features of all panels, and this task alone writes this
                    // panel of `normed`; kernels of `dispatch` are available.
                    unsafe {
                        (self.kernels.norm)(Norm {
                            x: x.get().add(at),
                            out: normed.get().add(at),
                            features: shape.dim,
                            vectors: panel.vectors,
                            eps: shape.eps,
                        });
                    }
                }),
                1 => {
                    self.product(
                        Operator::Qkv,
                        &block.qkv,
                        lanes,
                        &qkv,
                        task,
                        normed,
                        Epilogue::Heads(heads),
                    );
                }
                2 => time(Operator::Attention, || {
                    let (piece, head) = (&pieces[task / shape.heads], task % shape.heads);
                    let panel = lanes.panel(piece.panel);
                    let stride = panel.vectors * lanes.width;
                    let lane = piece.offset * lanes.width;
                    let q_at =
                        lanes.offset(panel, shape.heads * rotary_dim) + head * rotary_dim * stride + lane;
                    let out_at = lanes.offset(panel, shape.dim) + head * shape.head_dim() * stride + lane;
                    // SAFETY: `Workspace` sized all buffers for these layouts; the strip belongs to this worker,
                    // and no other task writes these lanes of this head of `normed`.
                    unsafe {
                        (self.kernels.attention)(Attention {
                            q: q.get().add(q_at),
                            stride,
                            vectors: piece.vectors,
                            k: k.get().add(head * keys * rotary_dim),
                            v: v.get().add(head * keys * value_dim),
                            keys,
                            first: piece.image * tokens,
                            count: tokens,
                            rotary_dim,
                            head_dim: shape.head_dim(),
                            strip: strips[worker].get(),
                            out: normed.get().add(out_at),
                            lanes: piece.lanes.clone(),
                        });
                    }
                }),
                3 => self.product(Operator::Projection, &block.proj, lanes, &proj, task, normed, residual),
                5 => self.product(Operator::Expand, &block.fc1, lanes, &fc1, task, normed, activation),
                _ => self.product(Operator::Contract, &block.fc2, lanes, &fc2, task, hidden, residual),
            }
        });
    }

    fn product(
        &self,
        operator: Operator,
        layer: &PackedLinear,
        lanes: crate::lanes::Lanes,
        split: &Split,
        task: usize,
        input: Pointer,
        epilogue: Epilogue,
    ) {
        let (tiles, panels) = split.part(task);
        let linear = Linear { layer, tiles, lanes, panels, input: input.get(), epilogue };
        // SAFETY: `Workspace` sized input and outputs for all panels of this layer; the input is not written in
        // this phase, and the tiles of different tasks are different output rows.
        time(operator, || unsafe { (self.kernels.linear)(linear) });
    }

    /// Writes tokens of the workspace, layer-normed with `norm` if given, row-major to `out` (`[images, kept, dim]`):
    /// of each image the tokens in `keep`, in that order.
    ///
    /// # Panics
    /// If `out` or the norm has another size, or a kept token does not exist.
    pub fn read(
        &self,
        work: &mut Workspace,
        norm: Option<Affine<'_>>,
        keep: &[Range<usize>],
        out: &mut [f32],
    ) {
        work.check(self);
        let dim = self.shape.dim;
        let kept: usize = keep.iter().map(Range::len).sum();
        assert_eq!(out.len(), work.images * kept * dim, "out is [images, kept, dim]");
        assert!(keep.iter().all(|r| r.end <= work.tokens), "only existing tokens can be kept");
        let lanes = work.lanes;
        if norm.is_some() {
            let workers = work.workers();
            let (x, normed) = (Pointer::new(&mut work.x), Pointer::new(&mut work.normed));
            work.team.run(workers, &[lanes.panels()], |_, _, task| {
                let panel = lanes.panel(task);
                let at = lanes.offset(panel, dim);
                // SAFETY: as in `run`.
                unsafe {
                    (self.kernels.norm)(Norm {
                        x: x.get().add(at),
                        out: normed.get().add(at),
                        features: dim,
                        vectors: panel.vectors,
                        eps: self.shape.eps,
                    });
                }
            });
        }
        let tasks_per_image = kept.div_ceil(READ_TOGETHER);
        let (workers, tokens, images) = (work.workers(), work.tokens, work.images);
        let from: &[f32] = if norm.is_some() { &work.normed } else { &work.x };
        let out = Pointer::new(out);
        work.team.run(workers, &[images * tasks_per_image], |_, _, task| {
            let (image, first) = (task / tasks_per_image, task % tasks_per_image * READ_TOGETHER);
            let mut columns = [(0, 1); READ_TOGETHER];
            let mut count = 0;
            for token in keep.iter().cloned().flatten().skip(first).take(READ_TOGETHER) {
                columns[count] = lanes.column(dim, image * tokens + token);
                count += 1;
            }
            let columns = Columns {
                from,
                columns: &columns[..count],
                features: dim,
                affine: norm.map(|norm| (norm.weight, norm.bias)),
                out: Pointer::new_at(out, (image * kept + first) * dim),
            };
            // SAFETY: `out` is `[images, kept, dim]`, and these rows are this task's alone.
            time(Operator::Read, || unsafe { (self.kernels.read_columns)(columns) });
        });
    }

    /// The attention probabilities of the last block that ran, `[images, heads, tokens, tokens]` (query, key): for
    /// inspection, computed plainly from the queries and keys that the workspace still holds.
    pub fn attention_probabilities(&self, work: &Workspace) -> Vec<f32> {
        work.check(self);
        let (shape, rows) = (&self.shape, self.kernels.rows);
        let (rotary_dim, tokens) = (shape.rotary_dim(rows), work.tokens);
        let mut out = Vec::with_capacity(work.images * shape.heads * tokens * tokens);
        for image in 0..work.images {
            for head in 0..shape.heads {
                for query in image * tokens..(image + 1) * tokens {
                    let (start, step) = work.lanes.column(shape.heads * rotary_dim, query);
                    let q = &work.q[start + head * rotary_dim * step..];
                    let from = out.len();
                    for key in image * tokens..(image + 1) * tokens {
                        let k = &work.k
                            [head * work.keys * rotary_dim + key / rows * rotary_dim * rows + key % rows..];
                        let score: f32 = (0..rotary_dim).map(|d| q[d * step] * k[d * rows]).sum();
                        out.push(score);
                    }
                    let row = &mut out[from..];
                    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    for x in row.iter_mut() {
                        *x = (*x - top).exp2();
                    }
                    let total: f32 = row.iter().sum();
                    for x in row.iter_mut() {
                        *x /= total;
                    }
                }
            }
        }
        out
    }
}

/// How the tiles and panels of a product are dealt out to tasks.
struct Split {
    tiles: usize,
    panels: usize,
    per_task: usize,
    by_panel: bool,
}

/// Tiles of a task when it has all panels to itself: their weights stay in the second-level cache.
const TILES_PER_TASK: usize = 8;
/// Tasks that a panel is cut into when there are many panels.
const TASKS_PER_PANEL: usize = 4;

impl Split {
    fn new(layer: &PackedLinear, panels: usize, workers: usize) -> Self {
        let tiles = layer.tiles;
        // with many panels a task takes one of them, which then stays near for all its tiles
        let by_panel = panels >= TASKS_PER_WORKER * workers;
        let per_task = if by_panel {
            tiles.div_ceil(TASKS_PER_PANEL)
        } else {
            (tiles / (workers * TASKS_PER_WORKER)).clamp(1, TILES_PER_TASK)
        };
        Self { tiles, panels, per_task, by_panel }
    }

    fn tasks(&self) -> usize {
        self.tiles.div_ceil(self.per_task) * if self.by_panel { self.panels } else { 1 }
    }

    /// The tiles and panels of a task.
    fn part(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let blocks = self.tiles.div_ceil(self.per_task);
        let block = task % blocks;
        let tiles = block * self.per_task..((block + 1) * self.per_task).min(self.tiles);
        let panel = task / blocks;
        (tiles, if self.by_panel { panel..panel + 1 } else { 0..self.panels })
    }
}
