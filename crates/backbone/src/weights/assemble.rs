//! From the tensors of a file to [`VitWeights`], every shape checked.

use std::collections::HashSet;

use super::infer::Parts;
use super::keys::{BlockPart as B, Leaf, Part, spelling};
use super::{
    BlockWeights, FeedForwardWeights, Linear, Norm, Scheme, ShapeDifference, StoredTensor,
    VitWeights,
};
use crate::config::{Family, FeedForward, Position, VitConfig};

/// What a file lacks or has too much of.
#[derive(Debug, Default)]
pub(super) struct Differences {
    pub(super) missing: Vec<String>,
    pub(super) unexpected: Vec<String>,
    pub(super) different: Vec<ShapeDifference>,
}

impl Differences {
    pub(super) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.different.is_empty()
    }
}

/// Builds the weights of `config`, or says how the file differs; `unknown` keys count as unexpected. The content hash
/// stays empty.
pub(super) fn assemble(
    parts: &Parts<'_>,
    config: &VitConfig,
    unknown: &[&str],
    scheme: Scheme,
) -> Result<VitWeights, Differences> {
    let mut a = Assembly {
        parts,
        scheme,
        v2: config.family == Family::DinoV2,
        dim: config.dim,
        used: HashSet::new(),
        differences: Differences::default(),
    };
    let weights = a.weights(config);
    a.leftovers();
    a.differences
        .unexpected
        .extend(unknown.iter().map(|&k| k.to_owned()));
    match weights {
        Some(weights) if a.differences.is_empty() => Ok(weights),
        _ => Err(a.differences),
    }
}

struct Assembly<'a> {
    parts: &'a Parts<'a>,
    scheme: Scheme,
    v2: bool,
    dim: usize,
    used: HashSet<Part>,
    differences: Differences,
}

/// The shape without axes of length one: a class token is `[1, 1, D]` in some files and `[D]` in others.
fn squeezed(shape: &[usize]) -> Vec<usize> {
    shape.iter().copied().filter(|&n| n != 1).collect()
}

impl Assembly<'_> {
    fn has(&self, part: Part) -> bool {
        self.parts.contains_key(&part)
    }

    /// The tensor of `part`, if it is there with this shape; otherwise it is noted.
    fn tensor(&mut self, part: Part, shape: &[usize]) -> Option<StoredTensor> {
        let Some((key, tensor)) = self.parts.get(&part) else {
            self.differences
                .missing
                .push(spelling(part, self.scheme, self.v2));
            return None;
        };
        self.used.insert(part);
        if squeezed(&tensor.shape) != squeezed(shape) {
            let difference = ShapeDifference {
                key: (*key).to_owned(),
                found: tensor.shape.clone(),
                wanted: shape.to_vec(),
            };
            self.differences.different.push(difference);
            return None;
        }
        let mut tensor = (*tensor).clone();
        tensor.shape = shape.to_vec();
        Some(tensor)
    }

    fn numbers(&mut self, part: Part, shape: &[usize]) -> Option<Vec<f32>> {
        self.tensor(part, shape).map(|t| t.to_f32())
    }

    fn norm(&mut self, part: impl Fn(Leaf) -> Part) -> Option<Norm> {
        let (weight, bias) = (
            self.numbers(part(Leaf::Weight), &[self.dim]),
            self.numbers(part(Leaf::Bias), &[self.dim]),
        );
        Some(Norm {
            weight: weight?,
            bias: bias?,
        })
    }

    fn linear(
        &mut self,
        part: impl Fn(Leaf) -> Part,
        outputs: usize,
        inputs: usize,
    ) -> Option<Linear> {
        let weight = self.tensor(part(Leaf::Weight), &[outputs, inputs]);
        let bias = self.numbers(part(Leaf::Bias), &[outputs]);
        Some(Linear {
            weight: vec![weight?],
            bias: bias?,
            inputs,
            outputs,
        })
    }

    fn weights(&mut self, config: &VitConfig) -> Option<VitWeights> {
        let (dim, side) = (config.dim, config.patch_size);
        let cls = self.numbers(Part::Cls, &[1, 1, dim]);
        let registers = if config.registers > 0 {
            self.numbers(Part::Registers, &[1, config.registers, dim])
        } else {
            Some(Vec::new())
        };
        let patch = self
            .tensor(Part::Patch(Leaf::Weight), &[dim, 3, side, side])
            .map(|mut t| {
                t.shape = vec![dim, 3 * side * side];
                t
            });
        let patch_bias = self.numbers(Part::Patch(Leaf::Bias), &[dim]);
        let positions = match config.position {
            Position::Rope { .. } => Some(None),
            Position::Learned { grid } => self.positions(grid).map(Some),
        };
        if let Some((key, periods)) = self.parts.get(&Part::Periods)
            && periods.len() != config.head_dim() / 4
        {
            self.differences.different.push(ShapeDifference {
                key: (*key).to_owned(),
                found: periods.shape.clone(),
                wanted: vec![config.head_dim() / 4],
            });
        }
        // a bias that one block has every block must have
        let anywhere: Vec<B> = [
            B::Qkv(Leaf::Bias),
            B::QkvMask,
            B::Query(Leaf::Bias),
            B::Key(Leaf::Bias),
            B::Value(Leaf::Bias),
        ]
        .into_iter()
        .filter(|&b| (0..config.depth).any(|n| self.has(Part::Block(n, b))))
        .collect();
        let blocks: Vec<Option<BlockWeights>> = (0..config.depth)
            .map(|n| self.block(n, config, &anywhere))
            .collect();
        let norm = self.norm(Part::Norm);
        Some(VitWeights {
            cls: cls?,
            registers: registers?,
            patch: Linear {
                weight: vec![patch?],
                bias: patch_bias?,
                inputs: 3 * side * side,
                outputs: dim,
            },
            positions: positions?,
            blocks: blocks.into_iter().collect::<Option<_>>()?,
            norm: norm?,
            content_hash: String::new(),
        })
    }

    /// The position table with a row for the class token; timm adds that row to the class token of models with
    /// registers and drops it, so that a row of zeros takes its place.
    fn positions(&mut self, grid: usize) -> Option<Vec<f32>> {
        let dim = self.dim;
        let rows = self
            .parts
            .get(&Part::Positions)
            .map_or(0, |(_, t)| t.len() / dim.max(1));
        if rows == grid * grid {
            let mut table = vec![0.0; dim];
            table.extend(self.numbers(Part::Positions, &[1, grid * grid, dim])?);
            return Some(table);
        }
        self.numbers(Part::Positions, &[1, 1 + grid * grid, dim])
    }

    fn block(&mut self, n: usize, config: &VitConfig, biases: &[B]) -> Option<BlockWeights> {
        let (dim, hidden) = (config.dim, config.hidden);
        let at = |b: B| Part::Block(n, b);
        let norm1 = self.norm(|l| at(B::Norm1(l)));
        let qkv = self.qkv(n, biases);
        let proj = self.linear(|l| at(B::Proj(l)), dim, dim);
        let scale1 = self.numbers(at(B::Scale1), &[dim]);
        let norm2 = self.norm(|l| at(B::Norm2(l)));
        let feed_forward = match config.feed_forward {
            FeedForward::Mlp => {
                let fc1 = self.linear(|l| at(B::Up(l)), hidden, dim);
                let fc2 = self.linear(|l| at(B::Down(l)), dim, hidden);
                fc1.zip(fc2)
                    .map(|(fc1, fc2)| FeedForwardWeights::Mlp { fc1, fc2 })
            }
            FeedForward::SwiGlu => {
                let pair = self.gate_and_up(n, hidden);
                let down = self.linear(|l| at(B::Down(l)), dim, hidden);
                pair.zip(down)
                    .map(|((gate, up), down)| FeedForwardWeights::SwiGlu { gate, up, down })
            }
        };
        let scale2 = self.numbers(at(B::Scale2), &[dim]);
        Some(BlockWeights {
            norm1: norm1?,
            qkv: qkv?,
            proj: proj?,
            scale1: scale1?,
            norm2: norm2?,
            feed_forward: feed_forward?,
            scale2: scale2?,
        })
    }

    fn qkv(&mut self, n: usize, biases: &[B]) -> Option<Linear> {
        let dim = self.dim;
        let at = |b: B| Part::Block(n, b);
        let apart = [B::Query as fn(Leaf) -> B, B::Key, B::Value];
        let weight: Option<Vec<StoredTensor>> =
            if self.scheme != Scheme::HuggingFace && !self.has(at(B::Query(Leaf::Weight))) {
                self.tensor(at(B::Qkv(Leaf::Weight)), &[3 * dim, dim])
                    .map(|t| vec![t])
            } else {
                let each = apart.map(|b| self.tensor(at(b(Leaf::Weight)), &[dim, dim]));
                each.into_iter().collect()
            };
        let mut bias = vec![0.0; 3 * dim];
        let mut complete = true;
        if biases.contains(&B::Qkv(Leaf::Bias)) {
            match self.numbers(at(B::Qkv(Leaf::Bias)), &[3 * dim]) {
                Some(b) => bias = b,
                None => complete = false,
            }
        }
        for (i, b) in apart.into_iter().enumerate() {
            if biases.contains(&b(Leaf::Bias)) {
                match self.numbers(at(b(Leaf::Bias)), &[dim]) {
                    Some(b) => bias[i * dim..][..dim].copy_from_slice(&b),
                    None => complete = false,
                }
            }
        }
        if biases.contains(&B::QkvMask) {
            match self.numbers(at(B::QkvMask), &[3 * dim]) {
                // masked entries may hold anything, NaN too
                Some(mask) => {
                    bias.iter_mut()
                        .zip(mask)
                        .for_each(|(b, m)| *b = if m == 0.0 { 0.0 } else { *b * m });
                }
                None => complete = false,
            }
        }
        complete.then_some(())?;
        Some(Linear {
            weight: weight?,
            bias,
            inputs: dim,
            outputs: 3 * dim,
        })
    }

    /// Gate and up, which DINOv2's giant keeps stacked in that order.
    fn gate_and_up(&mut self, n: usize, hidden: usize) -> Option<(Linear, Linear)> {
        let dim = self.dim;
        let at = |b: B| Part::Block(n, b);
        if !self.has(at(B::GateUp(Leaf::Weight))) {
            let gate = self.linear(|l| at(B::Gate(l)), hidden, dim);
            let up = self.linear(|l| at(B::Up(l)), hidden, dim);
            return gate.zip(up);
        }
        let both = self.linear(|l| at(B::GateUp(l)), 2 * hidden, dim)?;
        let half = |i: usize| Linear {
            weight: vec![both.weight[0].rows(i * hidden, hidden)],
            bias: both.bias[i * hidden..][..hidden].to_vec(),
            inputs: dim,
            outputs: hidden,
        };
        Some((half(0), half(1)))
    }

    /// Notes the tensors that nothing asked for.
    fn leftovers(&mut self) {
        let mut left: Vec<(Part, &str)> = self
            .parts
            .iter()
            .filter(|(part, _)| !self.used.contains(part))
            .filter(|(part, _)| !matches!(part, Part::Ignored | Part::LocalNorm | Part::Periods))
            .map(|(part, (key, _))| (*part, *key))
            .collect();
        left.sort_unstable();
        self.differences
            .unexpected
            .extend(left.into_iter().map(|(_, key)| key.to_owned()));
    }
}
