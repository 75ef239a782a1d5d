//! What a weight file or checkpoint holds, without running it: for `flawtune info`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::load::Understood;
use super::source::{self, Container, Source};
use super::{Scheme, WeightsError, infer};
use crate::config::VitConfig;
use crate::torch_file::{self, Value};

/// Kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A safetensors file.
    Safetensors,
    /// Several safetensors files and their index.
    ShardedSafetensors,
    /// A `.pth`/`.pt` file with tensors by name.
    TorchStateDict,
    /// A checkpoint of trained prompts.
    PromptCheckpoint,
}

impl Kind {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors file",
            Self::ShardedSafetensors => "safetensors file in shards",
            Self::TorchStateDict => "PyTorch state dict",
            Self::PromptCheckpoint => "checkpoint of trained prompts",
        }
    }
}

/// What a file holds.
#[derive(Debug, Clone)]
pub struct Description {
    /// The file; the one found, where a folder was named.
    pub path: PathBuf,
    /// Its kind.
    pub kind: Kind,
    /// Its size in bytes, all shards together.
    pub bytes: u64,
    /// Who named its keys, where it is a backbone.
    pub scheme: Option<Scheme>,
    /// The backbone's sizes, where it is one and they can be made out.
    pub config: Option<VitConfig>,
    /// Tensors.
    pub tensors: usize,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Tensors and elements by element type, `float16`.
    pub dtypes: BTreeMap<String, (usize, u64)>,
    /// Keys in file order with what they hold: `float32 [3, 16]`, `text "bottle"`.
    pub entries: Vec<(String, String)>,
    /// What is wrong with it as a backbone, and other remarks.
    pub notes: Vec<String>,
}

/// Longest text that is shown whole.
const SHOWN: usize = 80;

/// Describes a weight file, an index of shards, a folder with either, or a checkpoint.
///
/// # Errors
/// The file cannot be opened or is neither.
pub fn describe(path: &Path) -> Result<Description, WeightsError> {
    let source = source::open(path)?;
    let mut out = Description {
        path: source.path.clone(),
        kind: match source.container {
            Container::Safetensors => Kind::Safetensors,
            Container::Sharded => Kind::ShardedSafetensors,
            Container::Torch => Kind::TorchStateDict,
        },
        bytes: source
            .files
            .iter()
            .filter_map(|f| fs::metadata(f).ok())
            .map(|m| m.len())
            .sum(),
        scheme: None,
        config: None,
        tensors: source.tensors.len(),
        parameters: 0,
        dtypes: BTreeMap::new(),
        entries: Vec::new(),
        notes: Vec::new(),
    };
    for (_, tensor) in &source.tensors {
        let (count, elements) = out
            .dtypes
            .entry(tensor.dtype.name().to_owned())
            .or_default();
        *count += 1;
        *elements += tensor.len() as u64;
        out.parameters += tensor.len() as u64;
    }
    let prompts = source.container == Container::Torch
        && source.tensors.iter().any(|(k, _)| k == "prompts")
        && source.others.iter().any(|(k, _)| k == "model_name");
    if prompts {
        out.kind = Kind::PromptCheckpoint;
        out.entries = checkpoint(&torch_file::read(&source.path)?);
        return Ok(out);
    }
    let tensors = source
        .tensors
        .iter()
        .map(|(k, t)| (k.clone(), format!("{} {:?}", t.dtype.name(), t.shape)));
    out.entries = tensors.chain(source.others.iter().cloned()).collect();
    backbone(&source, &mut out);
    Ok(out)
}

fn backbone(source: &Source, out: &mut Description) {
    let understood = match Understood::new(source) {
        Ok(u) => u,
        Err(e) => return out.notes.push(e.to_string()),
    };
    out.scheme = Some(understood.scheme);
    match infer::config(&understood.found, source) {
        Ok((config, notes)) => {
            out.config = Some(config);
            out.notes.extend(notes);
        }
        Err(e) => out.notes.push(e.to_string()),
    }
    if !understood.unknown.is_empty() {
        out.notes.push(format!(
            "{} keys no such model has: {}",
            understood.unknown.len(),
            understood.unknown[..understood.unknown.len().min(4)].join(", ")
        ));
    }
}

/// The top-level keys of a checkpoint with what they hold.
fn checkpoint(value: &Value) -> Vec<(String, String)> {
    let entries = value.as_dict().unwrap_or_default();
    entries
        .iter()
        .filter_map(|(k, v)| Some((k.as_str()?.to_owned(), summary(v))))
        .collect()
}

fn summary(value: &Value) -> String {
    match value {
        Value::None => "none".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Float(f) => f.to_string(),
        Value::Str(s) if s.chars().count() <= SHOWN => format!("{s:?}"),
        Value::Str(s) => format!("text of {} characters", s.chars().count()),
        Value::Bytes(b) => format!("{} bytes", b.len()),
        Value::List(l) | Value::Tuple(l) => match l.last() {
            Some(last @ (Value::Float(_) | Value::Int(_))) => {
                format!("{} of {}, last {}", value.kind(), l.len(), summary(last))
            }
            _ => format!("{} of {}", value.kind(), l.len()),
        },
        Value::Dict(d) => {
            let keys: Vec<&str> = d.iter().filter_map(|(k, _)| k.as_str()).take(12).collect();
            format!("dictionary of {}: {}", d.len(), keys.join(", "))
        }
        Value::Tensor(t) => format!("{} {:?}", t.dtype.name(), t.shape),
    }
}
