//! A stack of pre-norm transformer blocks, from pixels or tokens to tokens.
//!
//! All activations are panels of lanes (see `lanes`): tokens of all images of a batch lie side by side, whatever
//! image they belong to, and only attention looks at where an image begins and ends. A block is seven
//! phases — norm, qkv, attention, projection, norm, first and second feed-forward layer — whose tasks are
//! claimed by the threads of the pool (see `team`); with weights of bytes the activations of every linear layer
//! become bytes first, two phases more. A task computes whole output elements, so
//! neither the threads nor the other images of the batch change a bit.

mod attention;
mod block;
mod embed;
mod linear;
mod norm;
mod pointer;
mod quantised;
mod read;
mod split;
mod weight;
mod workspace;

pub(crate) use attention::{Attention, attention};
pub use block::{Affine, Block, Dense, FeedForward, PackedBlock};
pub use embed::{Pixels, Values};
pub(crate) use linear::{Linear, linear};
pub(crate) use norm::{Norm, norm};
pub(crate) use read::{Columns, read_columns};
pub use weight::{Precision, UnknownPrecision};
pub use workspace::Workspace;

use std::ops::Range;

use embed::Patches;
use linear::{Epilogue, Heads, Rows};
use pointer::Pointer;
use quantised::{ByteLinear, Quantise};
use split::Split;
use weight::{PackedLinear, Source, Weight};

use crate::buffer::move_together;
use crate::dispatch;
use crate::kernels::Kernels;
use crate::lanes::{Lanes, PANEL_VECTORS};
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

    /// Which feature of a head lies in packed row `i` of q and k: the first halves of two rotated pairs, then their second
    /// halves, whatever the height of a tile, so that a product of q and k is summed in one order on every
    /// instruction set. `None` for padding.
    fn rotary_source(&self, i: usize) -> Option<usize> {
        if !self.rotary {
            return (i < self.head_dim()).then_some(i);
        }
        let half = self.head_dim() / 2;
        let pair = i / 4 * 2 + i % 2;
        (pair < half).then_some(if i % 4 < 2 { pair } else { half + pair })
    }
}

/// A stack of blocks with its patch embedding.
#[derive(Debug)]
pub struct Encoder {
    shape: Shape,
    kernels: &'static Kernels,
    precision: Precision,
    patches: Patches,
    blocks: Vec<PackedBlock>,
}

/// A phase of a block.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The norm before attention; tokens become bytes where the weights are.
    Norm1,
    Qkv,
    Attention,
    /// What attention wrote becomes bytes.
    Attended,
    Projection,
    /// The norm before the feed-forward part.
    Norm2,
    Expand,
    /// The hidden activations become bytes.
    Hidden,
    Contract,
}

/// The phases of a block on f32 activations.
const STEPS: &[Step] = &[
    Step::Norm1,
    Step::Qkv,
    Step::Attention,
    Step::Projection,
    Step::Norm2,
    Step::Expand,
    Step::Contract,
];
/// The phases of a block whose weights are bytes.
const BYTE_STEPS: &[Step] = &[
    Step::Norm1,
    Step::Qkv,
    Step::Attention,
    Step::Attended,
    Step::Projection,
    Step::Norm2,
    Step::Expand,
    Step::Hidden,
    Step::Contract,
];

/// Where a phase finds tokens, and memory for a widened tile.
#[derive(Clone, Copy)]
struct Inputs {
    normed: Pointer,
    hidden: Pointer,
    words: Pointer<u32>,
    scale: Pointer,
    offset: Pointer,
    /// Scratch of `tile` numbers for every worker.
    widened: Pointer,
    tile: usize,
}

/// Tokens read out by one task.
const READ_TOGETHER: usize = 16;

impl Encoder {
    /// An encoder of `blocks`; `patch` is the patch embedding's weight `[dim, channels · side²]` (its bias belongs into
    /// [`Pixels::start`]).
    ///
    /// # Panics
    /// If the sizes do not fit, or `heads` does not divide `dim`.
    pub fn new(
        shape: Shape,
        patch: &[f32],
        channels: usize,
        side: usize,
        blocks: Vec<PackedBlock>,
    ) -> Self {
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
        assert!(
            shape.heads > 0 && shape.dim.is_multiple_of(shape.heads),
            "heads must divide dim"
        );
        assert!(
            !shape.rotary || shape.head_dim().is_multiple_of(2),
            "rotation needs an even head width"
        );
        let inputs = channels * side * side;
        assert_eq!(
            patch.len(),
            shape.dim * inputs,
            "the patch embedding is [dim, channels·side²]"
        );
        let bias = vec![0.0; shape.dim];
        let source = Source {
            weight: patch,
            bias: &bias,
            norm: None,
        };
        let tiles = shape.dim.div_ceil(kernels.rows);
        let layer = PackedLinear::pack(kernels, Precision::F32, inputs, tiles, |i| {
            (i < shape.dim).then_some((source, i, 1.0))
        });
        let precision = blocks.first().map_or(Precision::F32, |b| b.precision);
        assert!(
            blocks.iter().all(|b| b.precision == precision),
            "all blocks have the same precision"
        );
        let mut encoder = Self {
            shape,
            kernels,
            precision,
            patches: Patches {
                layer,
                channels,
                side,
            },
            blocks,
        };
        let patches = std::iter::once(&mut encoder.patches.layer);
        let layers = encoder.blocks.iter_mut().flat_map(PackedBlock::layers);
        move_together(
            &mut patches
                .chain(layers)
                .filter_map(PackedLinear::memory)
                .collect::<Vec<_>>(),
        );
        encoder
    }

    /// The sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// How its weights are kept; those of the patch embedding are always f32.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of memory that its packed weights take.
    pub fn weight_bytes(&self) -> usize {
        let blocks = self
            .blocks
            .iter()
            .flat_map(|b| [&b.qkv, &b.proj, &b.fc1, &b.fc2]);
        blocks
            .chain([&self.patches.layer])
            .map(PackedLinear::bytes)
            .sum()
    }

    /// What multiplies the weights, for messages: the instruction set, and the one for bytes where they are bytes.
    pub fn kernels(&self) -> String {
        match self.precision {
            Precision::Int8 => format!("{} with {}", self.kernels.isa, self.kernels.bytes().name),
            _ => self.kernels.isa.to_string(),
        }
    }

    /// Number of blocks.
    pub fn depth(&self) -> usize {
        self.blocks.len()
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
        let widest = PANEL_VECTORS * lanes.width;
        let [qkv, proj, fc1, fc2] = {
            let b = &blocks[0];
            [&b.qkv, &b.proj, &b.fc1, &b.fc2]
                .map(|layer| Split::new(layer, panels, widest, workers))
        };
        let steps = if self.precision == Precision::Int8 {
            BYTE_STEPS
        } else {
            STEPS
        };
        work.phases.clear();
        for _ in blocks {
            work.phases.extend(steps.iter().map(|step| match step {
                Step::Norm1 | Step::Norm2 | Step::Attended | Step::Hidden => panels,
                Step::Qkv => qkv.tasks(),
                Step::Attention => work.pieces.len() * shape.heads,
                Step::Projection => proj.tasks(),
                Step::Expand => fc1.tasks(),
                Step::Contract => fc2.tasks(),
            }));
        }
        let x = Pointer::new(&mut work.x);
        let (q, k, v) = (
            Pointer::new(&mut work.q),
            Pointer::new(&mut work.k),
            Pointer::new(&mut work.v),
        );
        let table = |buffer: &mut [f32]| {
            if shape.rotary {
                Pointer::new(buffer)
            } else {
                Pointer::null()
            }
        };
        let (cos, sin) = (table(&mut work.cos), table(&mut work.sin));
        let (strips, strip) = (Pointer::new(&mut work.strips), work.strip);
        let inputs = Inputs {
            normed: Pointer::new(&mut work.normed),
            hidden: Pointer::new(&mut work.hidden),
            words: Pointer::new(&mut work.words),
            scale: Pointer::new(&mut work.scale),
            offset: Pointer::new(&mut work.offset),
            widened: Pointer::new(&mut work.widened),
            tile: work.widened_tile,
        };
        let Inputs { normed, hidden, .. } = inputs;
        let (tokens, pieces) = (work.tokens, &work.pieces);
        let heads = Epilogue::Heads(Heads {
            q,
            k,
            v,
            cos,
            sin,
            heads: shape.heads,
            rotary_dim,
            keys,
        });
        let residual = Epilogue::Residual(Rows {
            out: x,
            features: shape.dim,
        });
        let to_hidden = Rows {
            out: hidden,
            features: shape.hidden,
        };
        let activation = if shape.gated {
            Epilogue::Gated(to_hidden)
        } else {
            Epilogue::Gelu(to_hidden)
        };
        work.team.run(workers, &work.phases, |worker, phase, task| {
            let block = &blocks[phase / steps.len()];
            let product = |operator, layer, split: &Split, from, epilogue| {
                self.product(
                    operator,
                    layer,
                    lanes,
                    split.part(task),
                    inputs,
                    from,
                    worker,
                    epilogue,
                );
            };
            match steps[phase % steps.len()] {
                Step::Norm1 => self.norm(&block.qkv, lanes, task, x, inputs),
                Step::Norm2 => self.norm(&block.fc1, lanes, task, x, inputs),
                Step::Attended => self.quantise(&block.proj, lanes, task, normed, None, inputs),
                Step::Hidden => self.quantise(&block.fc2, lanes, task, hidden, None, inputs),
                Step::Qkv => product(Operator::Qkv, &block.qkv, &qkv, normed, heads),
                Step::Attention => time(Operator::Attention, || {
                    let (piece, head) = (&pieces[task / shape.heads], task % shape.heads);
                    let panel = lanes.panel(piece.panel);
                    let stride = panel.vectors * lanes.width;
                    let lane = piece.offset * lanes.width;
                    let q_at = lanes.offset(panel, shape.heads * rotary_dim)
                        + head * rotary_dim * stride
                        + lane;
                    let out_at =
                        lanes.offset(panel, shape.dim) + head * shape.head_dim() * stride + lane;
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
                            strip: strips.get().add(worker * strip),
                            out: normed.get().add(out_at),
                            lanes: piece.lanes.clone(),
                        });
                    }
                }),
                Step::Projection => {
                    product(Operator::Projection, &block.proj, &proj, normed, residual);
                }
                Step::Expand => product(Operator::Expand, &block.fc1, &fc1, normed, activation),
                Step::Contract => product(Operator::Contract, &block.fc2, &fc2, hidden, residual),
            }
        });
    }

    /// Norms panel `task` of `x` for the layer `next`: to f32, or to bytes where its weights are.
    fn norm(&self, next: &PackedLinear, lanes: Lanes, task: usize, x: Pointer, inputs: Inputs) {
        if self.precision == Precision::Int8 {
            return self.quantise(next, lanes, task, x, Some(self.shape.eps), inputs);
        }
        let panel = lanes.panel(task);
        let at = lanes.offset(panel, self.shape.dim);
        // SAFETY: the buffers hold `dim` features of all panels, and this task alone writes this panel of `normed`;
        // kernels of `dispatch` are available.
        time(Operator::Norm, || unsafe {
            (self.kernels.norm)(Norm {
                x: x.get().add(at),
                out: inputs.normed.get().add(at),
                features: self.shape.dim,
                vectors: panel.vectors,
                eps: self.shape.eps,
            });
        });
    }

    /// Makes bytes of panel `task` of `x` for the layer `next`.
    fn quantise(
        &self,
        next: &PackedLinear,
        lanes: Lanes,
        task: usize,
        x: Pointer,
        norm: Option<f32>,
        inputs: Inputs,
    ) {
        let Weight::Bytes(bytes) = &next.weight else {
            return;
        };
        let panel = lanes.panel(task);
        let first = panel.first * lanes.width;
        // SAFETY: `x` holds `next.inputs` features of all panels and is not written in this phase; `Workspace` sized
        // the outputs for all panels, and this task alone writes this one; the kernels are available.
        time(Operator::Quantise, || unsafe {
            (self.kernels.bytes().quantise)(Quantise {
                x: x.get().add(lanes.offset(panel, next.inputs)),
                features: next.inputs,
                vectors: panel.vectors,
                norm,
                balance: &bytes.balance,
                words: inputs.words.get().add(lanes.offset(panel, bytes.groups)),
                scale: inputs.scale.get().add(first),
                offset: inputs.offset.get().add(first),
            });
        });
    }

    /// Some tiles of `layer` on some panels of `input`, or of the bytes made of it.
    fn product(
        &self,
        operator: Operator,
        layer: &PackedLinear,
        lanes: Lanes,
        (tiles, panels): (Range<usize>, Range<usize>),
        inputs: Inputs,
        input: Pointer,
        worker: usize,
        epilogue: Epilogue,
    ) {
        // SAFETY: `Workspace` sized inputs, outputs and this worker's scratch for all panels of this layer; the input is
        // not written in this phase, and the tiles of different tasks are different output rows.
        time(operator, || unsafe {
            if matches!(layer.weight, Weight::Bytes(_)) {
                (self.kernels.bytes().linear)(ByteLinear {
                    layer,
                    tiles,
                    lanes,
                    panels,
                    words: inputs.words.get(),
                    scale: inputs.scale.get(),
                    offset: inputs.offset.get(),
                    epilogue,
                });
            } else {
                let (input, widened) =
                    (input.get(), inputs.widened.get().add(worker * inputs.tile));
                (self.kernels.linear)(Linear {
                    layer,
                    tiles,
                    lanes,
                    panels,
                    input,
                    widened,
                    epilogue,
                });
            }
        });
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
        assert_eq!(
            out.len(),
            work.images * kept * dim,
            "out is [images, kept, dim]"
        );
        assert!(
            keep.iter().all(|r| r.end <= work.tokens),
            "only existing tokens can be kept"
        );
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
        let from: &[f32] = if norm.is_some() {
            &work.normed
        } else {
            &work.x
        };
        let out = Pointer::new(out);
        work.team
            .run(workers, &[images * tasks_per_image], |_, _, task| {
                let (image, first) = (
                    task / tasks_per_image,
                    task % tasks_per_image * READ_TOGETHER,
                );
                let mut columns = [(0, 1); READ_TOGETHER];
                let mut count = 0;
                for token in keep
                    .iter()
                    .cloned()
                    .flatten()
                    .skip(first)
                    .take(READ_TOGETHER)
                {
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
                time(Operator::Read, || unsafe {
                    (self.kernels.read_columns)(columns);
                });
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
                        let k = &work.k[head * work.keys * rotary_dim
                            + key / rows * rotary_dim * rows
                            + key % rows..];
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

#[cfg(test)]
mod tests;
