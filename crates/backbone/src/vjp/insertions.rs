//! The trainable tensors that are put into a frozen backbone.

use crate::config::VitConfig;

use super::VjpError;

/// Where prompts enter the backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum PromptDepth {
    /// Nowhere inside: prompts change the output tokens (see --modulation-type)
    #[default]
    Output,
    /// Before the first block (VPT-shallow)
    Shallow,
    /// Before every block, each with its own (VPT-deep)
    ///
    /// They replace those of the block before.
    Deep,
}

/// Learned factors on what is inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Scaling {
    /// No factor is learned
    #[cfg_attr(feature = "clap", value(name = "none"))]
    #[default]
    Fixed,
    /// One factor; inside the transformer one per set of prompts and per adapter
    Scalar,
    /// One factor per channel
    ///
    /// Inside the transformer of each set of prompts and of each adapter's output.
    Channel,
}

/// Which tensors are inserted, and their sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InsertionSpec {
    /// Numbers per token, D.
    pub dim: usize,
    /// Blocks, L.
    pub depth: usize,
    /// Where prompts enter.
    pub prompt_depth: PromptDepth,
    /// Prompts per set, K; unused for [`PromptDepth::Output`].
    pub prompts: usize,
    /// Inner width r of a bottleneck adapter after each block; `None` for no adapters.
    pub adapter_dim: Option<usize>,
    /// Whether the adapters' second linear layer has a bias, an L·D shift of the tokens.
    pub adapter_up_bias: bool,
    /// Learned factors.
    pub scaling: Scaling,
}

/// Inner width of the adapters unless the user says otherwise. On ViT-S (D = 384, 12 blocks) it makes
/// `12·(2·384·6 + 6) = 55 368` trainable numbers without the bias of the second layer, 59 976 with it.
pub const DEFAULT_ADAPTER_DIM: usize = 6;

impl InsertionSpec {
    /// Nothing inserted into a backbone of this shape; set the fields that should differ.
    pub fn none(config: &VitConfig) -> Self {
        Self {
            dim: config.dim,
            depth: config.depth,
            prompt_depth: PromptDepth::Output,
            prompts: 0,
            adapter_dim: None,
            adapter_up_bias: false,
            scaling: Scaling::Fixed,
        }
    }

    /// Sets of prompts: 0, 1 or L.
    pub fn prompt_sets(&self) -> usize {
        match self.prompt_depth {
            PromptDepth::Output => 0,
            PromptDepth::Shallow => 1,
            PromptDepth::Deep => self.depth,
        }
    }

    /// Prompt tokens in the sequence: K, or 0 where prompts act on the output only.
    pub fn prompt_tokens(&self) -> usize {
        if self.prompt_sets() == 0 {
            0
        } else {
            self.prompts
        }
    }

    /// Names and shapes of the trainable tensors, in order. With S sets of prompts:
    ///
    /// | name | shape | there with |
    /// |---|---|---|
    /// | `vpt.prompts` | `[K, D]` shallow, `[L, K, D]` deep | prompts |
    /// | `vpt.scales` | `[S]` scalar, `[S, D]` channel | prompts and learned scaling |
    /// | `adapters.down.weight` | `[L, r, D]` | adapters |
    /// | `adapters.down.bias` | `[L, r]` | adapters |
    /// | `adapters.up.weight` | `[L, D, r]` | adapters |
    /// | `adapters.up.bias` | `[L, D]` | adapters with `adapter_up_bias` |
    /// | `adapters.scales` | `[L]` scalar, `[L, D]` channel | adapters and learned scaling |
    pub fn layout(&self) -> Vec<(&'static str, Vec<usize>)> {
        let (d, l, k, sets) = (self.dim, self.depth, self.prompts, self.prompt_sets());
        let scales = |n: usize| match self.scaling {
            Scaling::Fixed => None,
            Scaling::Scalar => Some(vec![n]),
            Scaling::Channel => Some(vec![n, d]),
        };
        let mut out = Vec::new();
        if sets > 0 {
            out.push((
                PROMPTS,
                if self.prompt_depth == PromptDepth::Deep {
                    vec![l, k, d]
                } else {
                    vec![k, d]
                },
            ));
            out.extend(scales(sets).map(|s| (PROMPT_SCALES, s)));
        }
        if let Some(r) = self.adapter_dim {
            out.push((DOWN_WEIGHT, vec![l, r, d]));
            out.push((DOWN_BIAS, vec![l, r]));
            out.push((UP_WEIGHT, vec![l, d, r]));
            if self.adapter_up_bias {
                out.push((UP_BIAS, vec![l, d]));
            }
            out.extend(scales(l).map(|s| (ADAPTER_SCALES, s)));
        }
        out
    }

    /// Trainable numbers: S·K·D for prompts and L·(2·D·r + r) for adapters (+ L·D with the second bias), plus one
    /// (or D) learned factor for each set of prompts and each adapter.
    pub fn count(&self) -> usize {
        self.layout()
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum()
    }

    fn check(&self) -> Result<(), VjpError> {
        let zero = |option, hint| {
            Err(VjpError::Size {
                option,
                found: 0,
                hint,
            })
        };
        if self.dim == 0 || self.depth == 0 {
            return zero(
                "the size of the backbone",
                "it needs at least one channel and one block",
            );
        }
        if self.prompt_sets() > 0 && self.prompts == 0 {
            return zero(
                "the number of prompts",
                "use at least one, or `prompt_depth` output",
            );
        }
        if self.adapter_dim == Some(0) {
            return zero(
                "`adapter_dim`",
                "use at least 1, or leave out `use_adapters`",
            );
        }
        Ok(())
    }
}

const PROMPTS: &str = "vpt.prompts";
const PROMPT_SCALES: &str = "vpt.scales";
const DOWN_WEIGHT: &str = "adapters.down.weight";
const DOWN_BIAS: &str = "adapters.down.bias";
const UP_WEIGHT: &str = "adapters.up.weight";
const UP_BIAS: &str = "adapters.up.bias";
const ADAPTER_SCALES: &str = "adapters.scales";

/// One trainable tensor: dense, row-major f32.
#[derive(Debug, Clone, PartialEq)]
pub struct InsertedTensor {
    /// Name, as in [`InsertionSpec::layout`] and in checkpoints.
    pub name: &'static str,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub data: Vec<f32>,
}

/// All trainable tensors inserted into a backbone, or the gradients with respect to them.
#[derive(Debug, Clone, PartialEq)]
pub struct Insertions {
    spec: InsertionSpec,
    tensors: Vec<InsertedTensor>,
}

/// Factor on the Xavier bound of the adapters' second layer at the start.
const NEAR_IDENTITY: f32 = 1e-2;

impl Insertions {
    /// All values 0.
    ///
    /// # Errors
    /// [`VjpError::Size`] if a size of `spec` is 0 that must not be.
    pub fn zeros(spec: InsertionSpec) -> Result<Self, VjpError> {
        spec.check()?;
        let tensor = |(name, shape): (&'static str, Vec<usize>)| {
            let data = vec![0.0; shape.iter().product()];
            InsertedTensor { name, shape, data }
        };
        Ok(Self {
            spec,
            tensors: spec.layout().into_iter().map(tensor).collect(),
        })
    }

    /// Values to start training from. `uniform` yields independent numbers uniform in −1..1; it is called once
    /// for each prompt number, then for `adapters.down.weight`, then for `adapters.up.weight`, in row-major order.
    ///
    /// - Prompts: Xavier-uniform for each set `[K, D]`, bound √(6 / (K + D)).
    /// - Adapters: first layer Xavier-uniform, bound √(6 / (r + D)); second layer the same times 0.01, so that an
    ///   adapter starts near the identity while, unlike with zeros there, every tensor gets a gradient from the
    ///   first step on. Biases 0.
    /// - Learned factors: 1.
    ///
    /// # Errors
    /// As [`Self::zeros`].
    pub fn initial(
        spec: InsertionSpec,
        mut uniform: impl FnMut() -> f32,
    ) -> Result<Self, VjpError> {
        let mut out = Self::zeros(spec)?;
        let xavier = |a: usize, b: usize| (6.0 / (a + b) as f32).sqrt();
        for t in &mut out.tensors {
            let bound = match t.name {
                PROMPTS => xavier(spec.prompts, spec.dim),
                DOWN_WEIGHT => xavier(spec.adapter_dim.unwrap_or(1), spec.dim),
                UP_WEIGHT => NEAR_IDENTITY * xavier(spec.adapter_dim.unwrap_or(1), spec.dim),
                PROMPT_SCALES | ADAPTER_SCALES => {
                    t.data.fill(1.0);
                    continue;
                }
                _ => continue,
            };
            t.data.fill_with(|| bound * uniform());
        }
        Ok(out)
    }

    /// From named tensors in any order, as a checkpoint holds them.
    ///
    /// # Errors
    /// [`VjpError::Layout`] if a tensor is missing or not of these insertions, [`VjpError::Shape`] if one has
    /// another shape, [`VjpError::Size`] as in [`Self::zeros`].
    pub fn from_named<'a>(
        spec: InsertionSpec,
        tensors: impl IntoIterator<Item = (&'a str, &'a [usize], &'a [f32])>,
    ) -> Result<Self, VjpError> {
        let mut out = Self::zeros(spec)?;
        let mut seen = vec![false; out.tensors.len()];
        for (name, shape, data) in tensors {
            let Some(at) = out.tensors.iter().position(|t| t.name == name) else {
                return Err(VjpError::Layout {
                    tensor: name.to_owned(),
                    what: "not expected",
                });
            };
            let t = &mut out.tensors[at];
            if t.shape != shape || t.data.len() != data.len() {
                return Err(VjpError::Shape {
                    tensor: name.to_owned(),
                    found: shape.to_vec(),
                    wanted: t.shape.clone(),
                    hint: "the checkpoint belongs to another backbone or to other sizes of prompts or adapters",
                });
            }
            t.data.copy_from_slice(data);
            seen[at] = true;
        }
        match out.tensors.iter().zip(seen).find(|(_, seen)| !seen) {
            Some((t, _)) => Err(VjpError::Layout {
                tensor: t.name.to_owned(),
                what: "missing",
            }),
            None => Ok(out),
        }
    }

    /// The same without prompt `prompt` of every set: what the backbone does when that prompt is not there.
    ///
    /// # Errors
    /// [`VjpError::Size`] if there is no such prompt.
    pub fn without_prompt(&self, prompt: usize) -> Result<Self, VjpError> {
        let (k, d) = (self.spec.prompt_tokens(), self.spec.dim);
        if prompt >= k {
            let hint = "name a prompt that is inside the transformer, counted from 0";
            return Err(VjpError::Size {
                option: "the prompt to leave out",
                found: prompt,
                hint,
            });
        }
        let mut spec = InsertionSpec {
            prompts: k - 1,
            ..self.spec
        };
        if spec.prompts == 0 {
            spec.prompt_depth = PromptDepth::Output;
        }
        let mut out = Self::zeros(spec)?;
        for to in &mut out.tensors {
            let from = self.get(to.name).unwrap_or(&[]);
            if to.name == PROMPTS {
                let rows = from
                    .chunks_exact(d)
                    .enumerate()
                    .filter(|(row, _)| row % k != prompt);
                to.data = rows.flat_map(|(_, row)| row).copied().collect();
            } else {
                to.data.copy_from_slice(from);
            }
        }
        Ok(out)
    }

    /// What is inserted.
    pub fn spec(&self) -> &InsertionSpec {
        &self.spec
    }

    /// All tensors in the order of [`InsertionSpec::layout`].
    pub fn tensors(&self) -> &[InsertedTensor] {
        &self.tensors
    }

    /// The values of all tensors, in order, to be changed by an optimiser; names and shapes stay.
    pub fn values_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut [f32])> {
        self.tensors.iter_mut().map(|t| (t.name, &mut t.data[..]))
    }

    /// Values of the tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.tensors
            .iter()
            .find(|t| t.name == name)
            .map(|t| &t.data[..])
    }

    fn part(&self, name: &str, index: usize, parts: usize) -> Option<&[f32]> {
        let data = self.get(name)?;
        let n = data.len() / parts;
        Some(&data[index * n..(index + 1) * n])
    }

    fn part_mut(&mut self, name: &str, index: usize, parts: usize) -> &mut [f32] {
        match self.tensors.iter_mut().find(|t| t.name == name) {
            Some(t) => {
                let n = t.data.len() / parts;
                &mut t.data[index * n..(index + 1) * n]
            }
            None => &mut [],
        }
    }

    /// Prompts `[K, D]` that enter before block `index`, and their learned factors (empty, 1 or D numbers).
    pub(super) fn prompts(&self, index: usize) -> Option<(&[f32], &[f32])> {
        let sets = self.spec.prompt_sets();
        if index >= sets {
            return None;
        }
        let scales = self.part(PROMPT_SCALES, index, sets).unwrap_or(&[]);
        self.part(PROMPTS, index, sets).map(|p| (p, scales))
    }

    /// The same for gradients: `(prompts, scales)`.
    pub(super) fn prompts_mut(&mut self, index: usize) -> PromptsMut<'_> {
        let sets = self.spec.prompt_sets().max(1);
        let (mut prompts, mut scales): (&mut [f32], &mut [f32]) = (&mut [], &mut []);
        for t in &mut self.tensors {
            let n = t.data.len() / sets;
            match t.name {
                PROMPTS => prompts = &mut t.data[index * n..(index + 1) * n],
                PROMPT_SCALES => scales = &mut t.data[index * n..(index + 1) * n],
                _ => {}
            }
        }
        PromptsMut { prompts, scales }
    }

    /// The adapter after block `index`.
    pub(super) fn adapter(&self, index: usize) -> Option<Adapter<'_>> {
        let l = self.spec.depth;
        Some(Adapter {
            inner: self.spec.adapter_dim?,
            down: self.part(DOWN_WEIGHT, index, l)?,
            down_bias: self.part(DOWN_BIAS, index, l)?,
            up: self.part(UP_WEIGHT, index, l)?,
            up_bias: self.part(UP_BIAS, index, l).unwrap_or(&[]),
            scales: self.part(ADAPTER_SCALES, index, l).unwrap_or(&[]),
        })
    }

    /// Adds `values` to the part of the tensor that belongs to block `index`.
    pub(super) fn add(&mut self, which: AdapterPart, index: usize, values: &[f32]) {
        let name = match which {
            AdapterPart::Down => DOWN_WEIGHT,
            AdapterPart::DownBias => DOWN_BIAS,
            AdapterPart::Up => UP_WEIGHT,
            AdapterPart::UpBias => UP_BIAS,
            AdapterPart::Scales => ADAPTER_SCALES,
        };
        let l = self.spec.depth;
        for (to, v) in self.part_mut(name, index, l).iter_mut().zip(values) {
            *to += v;
        }
    }

    /// The sum of `parts`, in their order, in f64; all must have the layout of `spec`.
    pub(super) fn sum(spec: InsertionSpec, parts: &[Self]) -> Result<Self, VjpError> {
        let mut out = Self::zeros(spec)?;
        for (i, t) in out.tensors.iter_mut().enumerate() {
            for (j, value) in t.data.iter_mut().enumerate() {
                *value = parts
                    .iter()
                    .map(|p| f64::from(p.tensors[i].data[j]))
                    .sum::<f64>() as f32;
            }
        }
        Ok(out)
    }
}

/// One adapter; see [`InsertionSpec::layout`] for the shapes. `up_bias` and `scales` may be empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Adapter<'a> {
    pub(super) inner: usize,
    pub(super) down: &'a [f32],
    pub(super) down_bias: &'a [f32],
    pub(super) up: &'a [f32],
    pub(super) up_bias: &'a [f32],
    pub(super) scales: &'a [f32],
}

/// Gradients of one set of prompts and of its factors.
#[derive(Debug)]
pub(super) struct PromptsMut<'a> {
    pub(super) prompts: &'a mut [f32],
    pub(super) scales: &'a mut [f32],
}

/// A tensor of an adapter.
#[derive(Debug, Clone, Copy)]
pub(super) enum AdapterPart {
    Down,
    DownBias,
    Up,
    UpBias,
    Scales,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ViT-S with default adapters.
    fn small() -> InsertionSpec {
        InsertionSpec {
            dim: 384,
            depth: 12,
            prompt_depth: PromptDepth::Output,
            prompts: 10,
            adapter_dim: Some(DEFAULT_ADAPTER_DIM),
            adapter_up_bias: false,
            scaling: Scaling::Fixed,
        }
    }

    #[test]
    fn the_default_adapters_of_vit_s_have_54k_numbers() {
        assert_eq!(small().count(), 55_368);
        assert_eq!(small().count() / 1024, 54);
        assert_eq!(
            InsertionSpec {
                adapter_up_bias: true,
                ..small()
            }
            .count(),
            59_976
        );
        let deep = InsertionSpec {
            prompt_depth: PromptDepth::Deep,
            adapter_dim: None,
            ..small()
        };
        assert_eq!(deep.count(), 12 * 10 * 384);
        assert_eq!(
            InsertionSpec {
                scaling: Scaling::Scalar,
                ..deep
            }
            .count(),
            12 * 10 * 384 + 12
        );
    }

    #[test]
    fn initial_values_are_bounded_and_near_the_identity() {
        let spec = InsertionSpec {
            prompt_depth: PromptDepth::Shallow,
            scaling: Scaling::Scalar,
            ..small()
        };
        let mut n = 0;
        let start = Insertions::initial(spec, || {
            n += 1;
            1.0
        })
        .unwrap();
        assert_eq!(n, 10 * 384 + 2 * 12 * 6 * 384);
        assert_eq!(
            start.get("vpt.prompts").unwrap()[0],
            (6.0f32 / 394.0).sqrt()
        );
        assert_eq!(
            start.get("adapters.down.weight").unwrap()[0],
            (6.0f32 / 390.0).sqrt()
        );
        assert_eq!(
            start.get("adapters.up.weight").unwrap()[0],
            0.01 * (6.0f32 / 390.0).sqrt()
        );
        assert!(
            start
                .get("adapters.down.bias")
                .unwrap()
                .iter()
                .all(|v| *v == 0.0)
        );
        assert_eq!(start.get("adapters.scales").unwrap(), [1.0; 12]);
    }

    #[test]
    fn named_tensors_come_back_and_wrong_ones_are_refused() {
        let mut n = 0.0;
        let start = Insertions::initial(small(), || {
            n += 1e-6;
            n
        })
        .unwrap();
        let named = || {
            start
                .tensors()
                .iter()
                .map(|t| (t.name, &t.shape[..], &t.data[..]))
        };
        assert_eq!(
            Insertions::from_named(small(), named().collect::<Vec<_>>().into_iter().rev()).unwrap(),
            start
        );
        let missing = Insertions::from_named(small(), named().skip(1)).unwrap_err();
        assert_eq!(
            missing,
            VjpError::Layout {
                tensor: "adapters.down.weight".to_owned(),
                what: "missing"
            }
        );
        let extra =
            Insertions::from_named(small(), named().chain([("head", &[1][..], &[0.0][..])]))
                .unwrap_err();
        assert!(extra.to_string().contains("\"head\" is not expected"));
        let wider = InsertionSpec {
            adapter_dim: Some(7),
            ..small()
        };
        let shape = Insertions::from_named(wider, named()).unwrap_err();
        assert!(
            shape
                .to_string()
                .contains("found shape [12, 6, 384], wanted [12, 7, 384]"),
            "{shape}"
        );
        let empty = Insertions::zeros(InsertionSpec {
            adapter_dim: Some(0),
            ..small()
        })
        .unwrap_err();
        assert!(empty.to_string().starts_with("`adapter_dim` is 0"));
    }
}
