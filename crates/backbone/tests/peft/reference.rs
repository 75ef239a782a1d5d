//! The same network with everything that can be inserted, written plainly in f64, to take differences of.

use flawtune_backbone::config::VitConfig;
use flawtune_backbone::vjp::Insertions;
use flawtune_backbone::weights::{FeedForwardWeights, Linear, VitWeights};

type Matrix = Vec<Vec<f64>>;

/// Inserted tensors in f64, as `(name, values)`.
pub(crate) type Values = Vec<(&'static str, Vec<f64>)>;

pub(crate) fn values(insertions: &Insertions) -> Values {
    let wide = |data: &[f32]| data.iter().map(|&v| f64::from(v)).collect();
    insertions
        .tensors()
        .iter()
        .map(|t| (t.name, wide(&t.data)))
        .collect()
}

fn linear(x: &[f64], l: &Linear) -> Vec<f64> {
    let w = l.weight_f32();
    w.chunks_exact(l.inputs)
        .zip(&l.bias)
        .map(|(row, &b)| dot(row.iter().map(|&v| f64::from(v)), x) + f64::from(b))
        .collect()
}

fn dot(a: impl Iterator<Item = f64>, b: &[f64]) -> f64 {
    a.zip(b).map(|(x, y)| x * y).sum()
}

fn norm(x: &[f64], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    let inv = 1.0 / (var + f64::from(eps)).sqrt();
    x.iter()
        .zip(weight.iter().zip(bias))
        .map(|(v, (&w, &b))| (v - mean) * inv * f64::from(w) + f64::from(b))
        .collect()
}

/// x·Φ(x), Φ by the series `½ + φ(x)·Σ x^(2k+1)/(2k+1)!!`, exact to f64 for the small arguments of these tests.
fn gelu(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for k in 1..200 {
        term *= x * x / f64::from(2 * k + 1);
        sum += term;
    }
    x * (0.5 + sum * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt())
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// Everything fixed about a run.
pub(crate) struct Reference<'a> {
    pub(crate) config: &'a VitConfig,
    pub(crate) weights: &'a VitWeights,
    /// `[B, S, K]`
    pub(crate) keep: &'a [f32],
    pub(crate) layers: &'a [usize],
    pub(crate) prompts: usize,
    /// L, 1 or 0 sets of prompts.
    pub(crate) sets: usize,
}

impl Reference<'_> {
    /// Part `index` of `parts` of a tensor; empty if it is not there.
    fn part<'v>(values: &'v Values, name: &str, index: usize, parts: usize) -> &'v [f64] {
        values
            .iter()
            .find(|(n, _)| *n == name)
            .map_or(&[], |(_, v)| {
                let n = v.len() / parts;
                &v[index * n..(index + 1) * n]
            })
    }

    fn factor(scales: &[f64], i: usize) -> f64 {
        match scales.len() {
            0 => 1.0,
            1 => scales[0],
            _ => scales[i],
        }
    }

    fn prompt_rows(&self, values: &Values, image: usize, set: usize) -> Matrix {
        let prompts = Self::part(values, "vpt.prompts", set, self.sets);
        let scales = Self::part(values, "vpt.scales", set, self.sets);
        let row = |(k, p): (usize, &[f64])| {
            let keep = f64::from(self.keep[(image * self.sets + set) * self.prompts + k]);
            p.iter()
                .enumerate()
                .map(|(i, v)| keep * Self::factor(scales, i) * v)
                .collect()
        };
        prompts
            .chunks_exact(self.config.dim)
            .enumerate()
            .map(row)
            .collect()
    }

    fn block(&self, i: usize, x: &mut Matrix) {
        let (c, w) = (self.config, &self.weights.blocks[i]);
        let (d, head) = (c.dim, c.head_dim());
        let qkv: Matrix = x
            .iter()
            .map(|r| linear(&norm(r, &w.norm1.weight, &w.norm1.bias, c.norm_eps), &w.qkv))
            .collect();
        let attended: Matrix = (0..x.len())
            .map(|t| {
                let mut out = vec![0.0; d];
                for h in 0..c.heads {
                    let q = &qkv[t][h * head..(h + 1) * head];
                    let logit = |k: &Vec<f64>| {
                        dot(k[d + h * head..d + (h + 1) * head].iter().copied(), q)
                            / (head as f64).sqrt()
                    };
                    let p: Vec<f64> = qkv.iter().map(|k| logit(k).exp()).collect();
                    let total: f64 = p.iter().sum();
                    for (p, v) in p.iter().zip(&qkv) {
                        for j in 0..head {
                            out[h * head + j] += p / total * v[2 * d + h * head + j];
                        }
                    }
                }
                out
            })
            .collect();
        for (row, a) in x.iter_mut().zip(&attended) {
            add_scaled(row, &linear(a, &w.proj), &w.scale1);
            let n = norm(row, &w.norm2.weight, &w.norm2.bias, c.norm_eps);
            let out = match &w.feed_forward {
                FeedForwardWeights::Mlp { fc1, fc2 } => linear(
                    &linear(&n, fc1).into_iter().map(gelu).collect::<Vec<_>>(),
                    fc2,
                ),
                FeedForwardWeights::SwiGlu { gate, up, down } => {
                    let both = linear(&n, gate).into_iter().zip(linear(&n, up));
                    linear(&both.map(|(g, u)| silu(g) * u).collect::<Vec<_>>(), down)
                }
            };
            add_scaled(row, &out, &w.scale2);
        }
    }

    fn adapter(&self, i: usize, values: &Values, x: &mut Matrix) {
        let parts = self.config.depth;
        let down = Self::part(values, "adapters.down.weight", i, parts);
        if down.is_empty() {
            return;
        }
        let part = |name| Self::part(values, name, i, parts);
        let (down_bias, up, up_bias, scales) = (
            part("adapters.down.bias"),
            part("adapters.up.weight"),
            part("adapters.up.bias"),
            part("adapters.scales"),
        );
        for row in x {
            let inner: Vec<f64> = down
                .chunks_exact(self.config.dim)
                .zip(down_bias)
                .map(|(w, b)| gelu(dot(w.iter().copied(), row) + b))
                .collect();
            for (j, w) in up.chunks_exact(inner.len()).enumerate() {
                let bias = up_bias.get(j).copied().unwrap_or(0.0);
                row[j] += Self::factor(scales, j) * (dot(w.iter().copied(), &inner) + bias);
            }
        }
    }

    /// Features `[1 + P, D]` of each layer for image `image`, whose embedded tokens are `tokens_in`.
    pub(crate) fn forward(
        &self,
        image: usize,
        tokens_in: &[f64],
        values: &Values,
    ) -> Vec<Vec<f64>> {
        let (d, prefix) = (self.config.dim, self.config.prefix());
        let mut x: Matrix = tokens_in.chunks_exact(d).map(<[f64]>::to_vec).collect();
        let patches = x.split_off(prefix);
        let prompts = if self.sets > 0 { self.prompts } else { 0 };
        x.extend((0..prompts).map(|_| vec![f64::NAN; d]));
        x.extend(patches);
        let mut features = Vec::new();
        for i in 0..self.config.depth {
            if i < self.sets {
                for (k, row) in self.prompt_rows(values, image, i).into_iter().enumerate() {
                    x[prefix + k] = row;
                }
            }
            self.block(i, &mut x);
            self.adapter(i, values, &mut x);
            if self.layers.contains(&i) {
                let n = &self.weights.norm;
                let rows = x[..1].iter().chain(&x[prefix + prompts..]);
                features.push(
                    rows.flat_map(|r| norm(r, &n.weight, &n.bias, self.config.norm_eps))
                        .collect(),
                );
            }
        }
        features
    }
}

fn add_scaled(row: &mut [f64], add: &[f64], scale: &[f32]) {
    for ((r, a), &s) in row.iter_mut().zip(add).zip(scale) {
        *r += a * f64::from(s);
    }
}
