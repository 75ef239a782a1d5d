//! Every kernel of the encoder on every instruction set, against plain loops in f64 and against the bits of the
//! portable set.

use super::*;
use crate::buffer::Buffer;
use crate::dispatch::Isa;
use crate::lanes::Lanes;

/// Uniform numbers in -1..1 from a xorshift.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / 8_388_608.0 - 1.0
    }

    fn many(&mut self, n: usize, bound: f32) -> Vec<f32> {
        (0..n).map(|_| bound * self.next()).collect()
    }
}

fn all_kernels() -> impl Iterator<Item = &'static Kernels> {
    Isa::available().filter_map(Isa::kernels)
}

/// Largest distance from the exact numbers, relative to `max(1, |exact|)`.
fn distance(got: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(got.len(), exact.len());
    got.iter()
        .zip(exact)
        .map(|(&g, &e)| (f64::from(g) - e).abs() / e.abs().max(1.0))
        .fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
}

/// A linear layer as a file has it.
struct Layer {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Layer {
    fn new(n: &mut Numbers, outputs: usize, inputs: usize) -> Self {
        Self {
            weight: n.many(outputs * inputs, (3.0 / inputs as f32).sqrt()),
            bias: n.many(outputs, 0.3),
        }
    }

    fn dense(&self) -> Dense<'_> {
        Dense {
            weight: &self.weight,
            bias: &self.bias,
        }
    }

    fn apply(&self, x: &[f64]) -> Vec<f64> {
        let rows = self.weight.chunks_exact(x.len());
        rows.zip(&self.bias)
            .map(|(row, &b)| {
                f64::from(b)
                    + row
                        .iter()
                        .zip(x)
                        .map(|(&w, x)| f64::from(w) * x)
                        .sum::<f64>()
            })
            .collect()
    }
}

/// A whole encoder: sizes, weights and an input.
struct Case {
    shape: Shape,
    images: usize,
    prefix: usize,
    grid: (usize, usize),
    side: usize,
    patch: Vec<f32>,
    start: Vec<f32>,
    pixels: Vec<f32>,
    rotation: Option<(Vec<f32>, Vec<f32>)>,
    /// norm1, norm2: gain and bias.
    norms: [(Vec<f32>, Vec<f32>); 2],
    qkv: Layer,
    proj: Layer,
    /// fc1, or gate and up.
    first: Vec<Layer>,
    last: Layer,
    scales: [Vec<f32>; 2],
}

const CHANNELS: usize = 2;

impl Case {
    fn new(shape: Shape, images: usize, prefix: usize, grid: (usize, usize)) -> Self {
        let n = &mut Numbers(0x9E37_79B9_7F4A_7C15);
        let (dim, hidden, side) = (shape.dim, shape.hidden, 2);
        let tokens = prefix + grid.0 * grid.1;
        let rotation = shape.rotary.then(|| {
            n.many(tokens * shape.head_dim() / 2, 3.0)
                .iter()
                .map(|&angle| (angle.cos(), angle.sin()))
                .unzip()
        });
        let mut norm = || {
            (
                n.many(dim, 0.5).iter().map(|x| 1.0 + x).collect(),
                n.many(dim, 0.3),
            )
        };
        let norms = [norm(), norm()];
        Self {
            shape,
            images,
            prefix,
            grid,
            side,
            patch: n.many(dim * CHANNELS * side * side, 0.5),
            start: n.many(tokens * dim, 1.0),
            // one row and one column of pixels that belong to no patch
            pixels: n.many(
                images * CHANNELS * (grid.0 * side + 1) * (grid.1 * side + 1),
                1.0,
            ),
            rotation,
            norms,
            qkv: Layer::new(n, 3 * dim, dim),
            proj: Layer::new(n, dim, dim),
            first: (0..=usize::from(shape.gated))
                .map(|_| Layer::new(n, hidden, dim))
                .collect(),
            last: Layer::new(n, dim, hidden),
            scales: [n.many(dim, 1.0), n.many(dim, 1.0)],
        }
    }

    fn tokens(&self) -> usize {
        self.prefix + self.grid.0 * self.grid.1
    }

    /// Tokens after the embedding and after each of two runs of the block, `[images, tokens, dim]`, then the last ones
    /// with the second norm, by the kernels.
    fn run(&self, kernels: &'static Kernels, work: &mut Workspace) -> Vec<Vec<f32>> {
        self.run_in(Precision::F32, kernels, work)
    }

    fn run_in(
        &self,
        precision: Precision,
        kernels: &'static Kernels,
        work: &mut Workspace,
    ) -> Vec<Vec<f32>> {
        let affine = |i: usize| Affine {
            weight: &self.norms[i].0,
            bias: &self.norms[i].1,
        };
        let feed_forward = match &self.first[..] {
            [fc1] => FeedForward::Mlp {
                fc1: fc1.dense(),
                fc2: self.last.dense(),
            },
            [gate, up] => FeedForward::Gated {
                gate: gate.dense(),
                up: up.dense(),
                down: self.last.dense(),
            },
            _ => unreachable!("one or two layers"),
        };
        let block = Block {
            norm1: affine(0),
            qkv: self.qkv.dense(),
            proj: self.proj.dense(),
            scale1: &self.scales[0],
            norm2: affine(1),
            feed_forward,
            scale2: &self.scales[1],
        };
        let packed = (0..2)
            .map(|_| PackedBlock::pack_with(kernels, &self.shape, &block, precision))
            .collect();
        let encoder = Encoder::new_with(
            kernels,
            self.shape,
            &self.patch,
            CHANNELS,
            self.side,
            packed,
        );
        let rotation = self
            .rotation
            .as_ref()
            .map(|(cos, sin)| (&cos[..], &sin[..]));
        work.configure(&encoder, self.images, self.tokens(), rotation);
        let pixels = Pixels {
            data: Values::Normalised(&self.pixels),
            height: self.grid.0 * self.side + 1,
            width: self.grid.1 * self.side + 1,
            rows: self.grid.0,
            columns: self.grid.1,
            start: &self.start,
        };
        encoder.embed(work, &pixels);
        let keep = [0..1, 1..self.tokens()];
        let read = |work: &mut Workspace, norm| {
            let mut out = vec![0.0; self.images * self.tokens() * self.shape.dim];
            encoder.read(work, norm, &keep, &mut out);
            out
        };
        let mut stages = vec![read(work, None)];
        for block in 0..2 {
            encoder.run(work, block..block + 1);
            stages.push(read(work, None));
        }
        stages.push(read(work, Some(affine(1))));
        stages
    }

    /// What [`Case::run`] computes, in f64 and without any of its tricks.
    fn exact(&self) -> Vec<Vec<f64>> {
        let (dim, side) = (self.shape.dim, self.side);
        let (height, width) = (self.grid.0 * side + 1, self.grid.1 * side + 1);
        let mut x = vec![];
        for image in 0..self.images {
            for token in 0..self.tokens() {
                for d in 0..dim {
                    let mut sum = f64::from(self.start[token * dim + d]);
                    if let Some(patch) = token.checked_sub(self.prefix) {
                        let (row, column) =
                            (patch / self.grid.1 * side, patch % self.grid.1 * side);
                        for i in 0..CHANNELS * side * side {
                            let (channel, y, x) = (i / (side * side), i / side % side, i % side);
                            let at = ((image * CHANNELS + channel) * height + row + y) * width
                                + column
                                + x;
                            let w = self.patch[d * CHANNELS * side * side + i];
                            sum += f64::from(w) * f64::from(self.pixels[at]);
                        }
                    }
                    x.push(sum);
                }
            }
        }
        let mut stages = vec![x.clone()];
        for _ in 0..2 {
            for image in x.chunks_exact_mut(self.tokens() * dim) {
                self.block(image);
            }
            stages.push(x.clone());
        }
        stages.push(
            x.chunks_exact(dim)
                .flat_map(|token| self.normed(token, 1))
                .collect(),
        );
        stages
    }

    fn normed(&self, token: &[f64], which: usize) -> Vec<f64> {
        let n = token.len() as f64;
        let mean = token.iter().sum::<f64>() / n;
        let variance = token.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
        let scale = 1.0 / (variance + f64::from(self.shape.eps)).sqrt();
        let affine = self.norms[which].0.iter().zip(&self.norms[which].1);
        token
            .iter()
            .zip(affine)
            .map(|(x, (&g, &b))| (x - mean) * scale * f64::from(g) + f64::from(b))
            .collect()
    }

    fn block(&self, image: &mut [f64]) {
        let (dim, head_dim, tokens) = (self.shape.dim, self.shape.head_dim(), self.tokens());
        let mut qkv: Vec<Vec<f64>> = image
            .chunks_exact(dim)
            .map(|token| self.qkv.apply(&self.normed(token, 0)))
            .collect();
        if let Some((cos, sin)) = &self.rotation {
            let half = head_dim / 2;
            for (token, row) in qkv.iter_mut().enumerate() {
                for head in row[..2 * dim].chunks_exact_mut(head_dim) {
                    for pair in 0..half {
                        let (c, s) = (cos[token * half + pair], sin[token * half + pair]);
                        let (c, s, x, y) =
                            (f64::from(c), f64::from(s), head[pair], head[half + pair]);
                        (head[pair], head[half + pair]) = (x * c - y * s, y * c + x * s);
                    }
                }
            }
        }
        for query in 0..tokens {
            let mut mixed = vec![0.0; dim];
            for head in 0..self.shape.heads {
                let part = |i: usize, from: usize| &qkv[i][from + head * head_dim..][..head_dim];
                let weights: Vec<f64> = (0..tokens)
                    .map(|key| {
                        let dot: f64 = part(query, 0)
                            .iter()
                            .zip(part(key, dim))
                            .map(|(q, k)| q * k)
                            .sum();
                        (dot / (head_dim as f64).sqrt()).exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for (key, weight) in weights.iter().enumerate() {
                    for (m, v) in mixed[head * head_dim..].iter_mut().zip(part(key, 2 * dim)) {
                        *m += weight / total * v;
                    }
                }
            }
            let token = &mut image[query * dim..][..dim];
            for ((x, p), &s) in token
                .iter_mut()
                .zip(self.proj.apply(&mixed))
                .zip(&self.scales[0])
            {
                *x += p * f64::from(s);
            }
            let normed = self.normed(token, 1);
            let first = self.first[0].apply(&normed);
            let hidden: Vec<f64> = match self.first.get(1) {
                None => first.iter().map(|&x| x * normal(x)).collect(),
                Some(up) => first
                    .iter()
                    .zip(up.apply(&normed))
                    .map(|(&x, u)| x / (1.0 + (-x).exp()) * u)
                    .collect(),
            };
            for ((x, p), &s) in token
                .iter_mut()
                .zip(self.last.apply(&hidden))
                .zip(&self.scales[1])
            {
                *x += p * f64::from(s);
            }
        }
    }
}

/// Φ by its Taylor series: the arguments here are small.
fn normal(x: f64) -> f64 {
    assert!(x.abs() < 6.0);
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / (2.0 * f64::from(n));
        sum += term / (2.0 * f64::from(n) + 1.0);
    }
    0.5 + sum / std::f64::consts::TAU.sqrt()
}

/// Two blocks in f32; sums of up to 48 terms, tokens of magnitude 5.
const TOLERANCE: f64 = 4e-6;

fn check_case(shape: Shape, images: usize, prefix: usize, grid: (usize, usize)) {
    let case = Case::new(shape, images, prefix, grid);
    let exact = case.exact();
    let mut first: Option<Vec<Vec<f32>>> = None;
    for kernels in all_kernels() {
        let what = format!("{} {images}x({prefix}+{grid:?}) {shape:?}", kernels.isa);
        let stages = case.run(kernels, &mut Workspace::default());
        for (stage, (got, exact)) in stages.iter().zip(&exact).enumerate() {
            let off = distance(got, exact);
            assert!(off <= TOLERANCE, "{what}: stage {stage} is off by {off}");
        }
        let first = first.get_or_insert_with(|| stages.clone());
        // not assert_eq: thousands of numbers say nothing
        assert!(*first == stages, "{what}: other bits than the portable set");
    }
}

const PLAIN: Shape = Shape {
    dim: 12,
    heads: 2,
    hidden: 10,
    gated: false,
    rotary: false,
    eps: 1e-6,
};

#[test]
fn small_encoders_equal_the_definition() {
    // also run under Miri: every epilogue, panels of one vector, padding in every dimension
    check_case(PLAIN, 1, 1, (1, 2));
    check_case(
        Shape {
            dim: 8,
            heads: 1,
            hidden: 6,
            gated: true,
            rotary: true,
            ..PLAIN
        },
        2,
        1,
        (1, 1),
    );
}

#[cfg(not(miri))]
#[test]
fn encoders_equal_the_definition() {
    // tokens of one image in one to many panels, images that begin inside a vector, more than one head
    for (images, prefix, grid) in [
        (1, 0, (1, 1)),
        (1, 1, (3, 5)),
        (3, 2, (3, 3)),
        (2, 1, (4, 12)),
        (5, 1, (2, 4)),
    ] {
        for gated in [false, true] {
            for rotary in [false, true] {
                for (dim, heads, hidden) in [(12, 3, 17), (16, 2, 48), (20, 1, 24), (36, 3, 7)] {
                    check_case(
                        Shape {
                            dim,
                            heads,
                            hidden,
                            gated,
                            rotary,
                            eps: 1e-5,
                        },
                        images,
                        prefix,
                        grid,
                    );
                }
            }
        }
    }
}

#[test]
fn smaller_weights_give_the_same_bits_on_every_set() {
    // also run under Miri, on one small case: bytes and halves through their epilogues
    let precisions = if cfg!(miri) {
        &[Precision::F16, Precision::Int8][..]
    } else {
        &Precision::ALL
    };
    for gated in [false, true].into_iter().skip(usize::from(cfg!(miri))) {
        let case = Case::new(
            if cfg!(miri) {
                Shape {
                    dim: 8,
                    heads: 1,
                    hidden: 6,
                    gated,
                    rotary: true,
                    eps: 1e-6,
                }
            } else {
                Shape {
                    dim: 12,
                    heads: 2,
                    hidden: 10,
                    gated,
                    rotary: gated,
                    eps: 1e-6,
                }
            },
            if cfg!(miri) { 1 } else { 3 },
            1,
            if cfg!(miri) { (1, 1) } else { (4, 5) },
        );
        let plain = case.run(all_kernels().next().unwrap(), &mut Workspace::default());
        for &precision in precisions {
            let mut first: Option<Vec<Vec<f32>>> = None;
            let mut work = Workspace::default();
            for kernels in all_kernels() {
                let stages = case.run_in(precision, kernels, &mut work);
                let first = first.get_or_insert_with(|| stages.clone());
                assert!(
                    *first == stages,
                    "{precision} on {}: other bits than the portable set",
                    kernels.isa
                );
            }
            // bytes of weights and tokens: a hundredth of tokens of magnitude 5, through two blocks
            let exact: Vec<f64> = plain[2].iter().map(|&x| f64::from(x)).collect();
            let off = first.map(|f| distance(&f[2], &exact)).unwrap();
            let most = match precision {
                Precision::F32 => 0.0,
                Precision::F16 => 3e-3,
                Precision::Bf16 => 2e-2,
                Precision::Int8 => 8e-2,
            };
            assert!(
                off <= most && (off > 0.0 || most == 0.0),
                "{precision}: off by {off}"
            );
        }
    }
}

/// FNV-1a of the bits.
#[cfg(not(miri))]
fn fingerprint(values: &[f32]) -> u64 {
    values
        .iter()
        .flat_map(|x| x.to_bits().to_le_bytes())
        .fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        })
}

#[cfg(not(miri))]
#[test]
fn every_machine_gives_the_same_bits() {
    // the other tests compare the sets of one machine; this number is that of all of them, aarch64 included
    let shape = Shape {
        dim: 36,
        heads: 3,
        hidden: 40,
        gated: true,
        rotary: true,
        eps: 1e-5,
    };
    let mut case = Case::new(shape, 3, 2, (5, 4));
    // no elementary function of the machine's library in the input
    let tokens = case.tokens();
    let angles = (0..tokens * 6).map(|i| {
        if i % 3 == 0 {
            (0.6, 0.8)
        } else {
            (-0.28, 0.96)
        }
    });
    case.rotation = Some(angles.unzip());
    for kernels in all_kernels() {
        let stages = case.run(kernels, &mut Workspace::default());
        assert_eq!(
            stages.iter().map(|s| fingerprint(s)).collect::<Vec<_>>(),
            FINGERPRINTS,
            "{}",
            kernels.isa
        );
    }
}

#[cfg(not(miri))]
const FINGERPRINTS: [u64; 4] = [
    0x8C67_9B5B_F0B4_3C5E,
    0xF8B4_F616_FCA7_8A55,
    0x9CE7_AFD2_FE0D_F873,
    0xB1E3_9388_DBBC_C7E8,
];

#[cfg(not(miri))]
#[test]
fn a_used_workspace_changes_nothing() {
    let shape = |rotary| Shape {
        dim: 20,
        heads: 2,
        hidden: 24,
        gated: rotary,
        rotary,
        eps: 1e-5,
    };
    for kernels in all_kernels() {
        let mut used = Workspace::default();
        for (images, grid, rotary) in [
            (3, (3, 4), true),
            (1, (2, 2), false),
            (2, (5, 5), true),
            (2, (5, 5), false),
        ] {
            let case = Case::new(shape(rotary), images, 1, grid);
            let fresh = case.run(kernels, &mut Workspace::default());
            assert!(
                case.run(kernels, &mut used) == fresh,
                "{} {images} {grid:?}",
                kernels.isa
            );
        }
    }
}

#[test]
fn layer_norm_equals_the_definition() {
    for features in [1, 3, 8, 13] {
        // some columns far from zero: the two passes must not lose their variance
        let n = &mut Numbers(7);
        let columns = if cfg!(miri) { 5 } else { 57 };
        let rows: Vec<f32> = (0..columns)
            .flat_map(|c| {
                let offset = if c % 3 == 0 { 100.0 } else { 0.0 };
                n.many(features, 2.0).into_iter().map(move |x| x + offset)
            })
            .collect();
        let exact: Vec<f64> = rows
            .chunks_exact(features)
            .flat_map(|row| {
                let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
                let mean = row.iter().sum::<f64>() / features as f64;
                let variance =
                    row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / features as f64;
                let scale = (variance + 1e-5).sqrt();
                row.into_iter()
                    .map(move |x| (x - mean) / scale)
                    .collect::<Vec<_>>()
            })
            .collect();
        let mut first: Option<Vec<f32>> = None;
        for kernels in all_kernels() {
            let lanes = Lanes::panels_of(columns, kernels.lanes);
            let (mut x, mut out) = (
                Buffer::zeroed(lanes.padded() * features),
                Buffer::zeroed(lanes.padded() * features),
            );
            lanes.pack_rows(&rows, features, &mut x);
            for p in 0..lanes.panels() {
                let panel = lanes.panel(p);
                let at = lanes.offset(panel, features);
                let (x, out) = (x[at..].as_ptr(), out[at..].as_mut_ptr());
                // SAFETY: the set is present, and both buffers hold `features` features of all panels.
                unsafe {
                    (kernels.norm)(Norm {
                        x,
                        out,
                        features,
                        vectors: panel.vectors,
                        eps: 1e-5,
                    });
                };
            }
            let got: Vec<f32> = (0..columns * features)
                .map(|i| out[lanes.index(features, i % features, i / features)])
                .collect();
            // 100 is known to 4e-6, and so is its distance from the mean, of magnitude 1
            let off = distance(&got, &exact);
            assert!(
                off <= 3e-5,
                "{} {features} features: off by {off}",
                kernels.isa
            );
            assert!(
                *first.get_or_insert_with(|| got.clone()) == got,
                "{}: other bits",
                kernels.isa
            );
        }
    }
}

/// One head: `count` keys from `first` on among others, queries in some lanes of a piece.
fn check_attention(first: usize, count: usize, head_dim: usize) {
    let n = &mut Numbers(99);
    let total = first + count + 3;
    let (keys, values) = (n.many(total * head_dim, 1.5), n.many(total * head_dim, 2.0));
    for kernels in all_kernels() {
        let (rows, width) = (kernels.rows, kernels.lanes);
        let padded = head_dim.next_multiple_of(rows);
        let all = total.next_multiple_of(rows);
        // NaN where nothing may be read: keys of other images in the same tile are multiplied, never counted
        let (mut k, mut v) = (Buffer::zeroed(all * padded), Buffer::zeroed(all * padded));
        for key in 0..total {
            for d in 0..head_dim {
                let foreign = !(first..first + count).contains(&key);
                k[key / rows * padded * rows + d * rows + key % rows] = if foreign {
                    f32::NAN
                } else {
                    keys[key * head_dim + d]
                };
                v[(d / rows * all + key) * rows + d % rows] = if foreign {
                    f32::NAN
                } else {
                    values[key * head_dim + d]
                };
            }
        }
        for vectors in 1..=if cfg!(miri) { 1 } else { 3 } {
            let stride = vectors * width;
            let queries = Numbers(5).many(padded * stride, 1.0);
            for lanes in [
                0..stride,
                1..stride,
                0..stride - 1,
                stride / 2..stride / 2 + 1,
            ] {
                let mut q = Buffer::zeroed(padded * stride);
                q[..head_dim * stride].copy_from_slice(&queries[..head_dim * stride]);
                let mut out = vec![7.0; head_dim * stride];
                let mut strip = Buffer::zeroed((count + 2 * rows) * stride);
                let args = Attention {
                    q: q.as_ptr(),
                    stride,
                    vectors,
                    k: k.as_ptr(),
                    v: v.as_ptr(),
                    keys: all,
                    first,
                    count,
                    rotary_dim: padded,
                    head_dim,
                    strip: strip.as_mut_ptr(),
                    out: out.as_mut_ptr(),
                    lanes: lanes.clone(),
                };
                // SAFETY: the set is present, and the buffers have the sizes that `Attention` names.
                unsafe { (kernels.attention)(args) };
                for lane in 0..stride {
                    let got: Vec<f32> = (0..head_dim).map(|d| out[d * stride + lane]).collect();
                    if !lanes.contains(&lane) {
                        assert_eq!(
                            got,
                            vec![7.0; head_dim],
                            "{} lane {lane} of {lanes:?}",
                            kernels.isa
                        );
                        continue;
                    }
                    let weights: Vec<f64> = (first..first + count)
                        .map(|key| {
                            let dot = |d| {
                                f64::from(queries[d * stride + lane])
                                    * f64::from(keys[key * head_dim + d])
                            };
                            (0..head_dim).map(dot).sum::<f64>().exp2()
                        })
                        .collect();
                    let sum: f64 = weights.iter().sum();
                    let exact: Vec<f64> = (0..head_dim)
                        .map(|d| {
                            let of =
                                |(w, key): (&f64, usize)| w * f64::from(values[key * head_dim + d]);
                            weights.iter().zip(first..).map(of).sum::<f64>() / sum
                        })
                        .collect();
                    let off = distance(&got, &exact);
                    assert!(
                        off <= 3e-6,
                        "{} {first}+{count}, {vectors} vectors: off by {off}",
                        kernels.isa
                    );
                }
            }
        }
    }
}

#[test]
fn attention_equals_the_definition_and_touches_no_other_lane() {
    // also run under Miri
    check_attention(3, 6, 5);
    if cfg!(not(miri)) {
        for (first, count, head_dim) in
            [(0, 1, 1), (0, 8, 8), (5, 40, 12), (16, 33, 16), (1, 2, 64)]
        {
            check_attention(first, count, head_dim);
        }
    }
}

#[cfg(not(miri))]
#[test]
fn attention_probabilities_are_those_of_the_definition() {
    let case = Case::new(
        Shape {
            dim: 16,
            heads: 2,
            hidden: 8,
            gated: false,
            rotary: true,
            eps: 1e-5,
        },
        2,
        1,
        (2, 3),
    );
    let mut first: Option<Vec<f32>> = None;
    for kernels in all_kernels() {
        let mut work = Workspace::default();
        case.run(kernels, &mut work);
        let encoder = Encoder::new_with(
            kernels,
            case.shape,
            &case.patch,
            CHANNELS,
            case.side,
            vec![],
        );
        let probabilities = encoder.attention_probabilities(&work);
        assert_eq!(probabilities.len(), 2 * 2 * 7 * 7);
        for row in probabilities.chunks_exact(7) {
            assert!(
                (row.iter().sum::<f32>() - 1.0).abs() < 1e-6,
                "{}: {row:?}",
                kernels.isa
            );
        }
        let first = first.get_or_insert_with(|| probabilities.clone());
        let same = first
            .iter()
            .zip(&probabilities)
            .all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(same, "{}", kernels.isa);
    }
}
