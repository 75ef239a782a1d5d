//! Make one checkpoint of several that were trained apart.

use std::path::{Path, PathBuf};

use flawtune_backbone::torch_file::{self, Value};

use super::{Event, OnEvent, UNIVERSAL, WorkflowError, folder_of, manifests, writable};
use crate::adapt::universal::{Agreement, Merge, Merged, merge as merge_parameters};
use crate::adapt::{AdaptError, Checkpoint, Parameters};
use flawtune::evaluate::protocol::SplitManifest;

/// What to merge.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct MergeRequest {
    /// Checkpoints of 'flawtune train'
    #[cfg_attr(feature = "clap", arg(value_name = "CHECKPOINT", required = true, num_args = 2..))]
    pub checkpoints: Vec<PathBuf>,
    /// How the mean is taken
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "HOW", value_enum, default_value_t)
    )]
    pub how: Merge,
    /// A weight for each checkpoint, in their order; with --how weighted
    #[cfg_attr(feature = "clap", arg(long, value_name = "LIST", value_delimiter = ',', value_parser = flawtune::values::not_negative))]
    pub weights: Vec<f64>,
    /// The file to write
    #[cfg_attr(feature = "clap", arg(long, short, value_name = "FILE"))]
    pub output: PathBuf,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct MergedCheckpoint {
    /// The file.
    pub path: PathBuf,
    /// The categories whose images trained, in the order of the checkpoints.
    pub categories: Vec<String>,
    /// How each checkpoint's prompts lie to the result's.
    pub agreement: Vec<Agreement>,
    /// Mean length of the result's prompts over that of the merged ones.
    pub length_kept: f64,
}

/// Merges checkpoints and writes the result, which `evaluate` scores on any category: on those of the checkpoints under
/// their own splits, on others as never seen.
///
/// # Errors
/// Checkpoints of other backbones, options or shapes than the first; those with tensors inside the transformer, or that do
/// not say which images trained them.
pub fn merge(
    request: &MergeRequest,
    on_event: OnEvent<'_>,
) -> Result<MergedCheckpoint, WorkflowError> {
    if !request.weights.is_empty() && request.how != Merge::Weighted {
        return Err(WorkflowError::Input(
            "`weights` belongs to `how` weighted\nhint: add it, or omit the weights".into(),
        ));
    }
    let folder = folder_of(&request.output);
    writable(folder)?;
    let mut read = Vec::new();
    let mut lists: Vec<SplitManifest> = Vec::new();
    for path in &request.checkpoints {
        let checkpoint = Checkpoint::read(path)?;
        on_event(Event::Read(path));
        let of = manifests::manifests(path, &checkpoint)?;
        if of.is_empty() {
            return Err(WorkflowError::Input(format!(
                "{} does not say which images it was trained on, and what is merged from it could not be tested either\nhint: train it with this program",
                path.display()
            )));
        }
        lists.extend(of);
        read.push(checkpoint);
    }
    for (path, checkpoint) in request.checkpoints.iter().zip(&read) {
        alike((&request.checkpoints[0], &read[0]), (path, checkpoint))?;
    }
    let how = request.how;
    let weights = match how {
        Merge::Weighted if request.weights.is_empty() => shots(&request.checkpoints, &read)?,
        _ => request.weights.clone(),
    };
    let sets: Vec<&Parameters> = read.iter().map(|c| &c.parameters).collect();
    let Merged {
        parameters,
        agreement,
        length_kept,
    } = merge_parameters(&sets, how, &weights)?;
    let mut merged = Checkpoint {
        category: UNIVERSAL.to_owned(),
        parameters,
        history: Value::Dict(Vec::new()),
        best_epoch: None,
        split_manifest: None,
        resume: None,
        others: Vec::new(),
        ..read[0].clone()
    };
    manifests::put(&mut merged, &lists)?;
    let categories: Vec<String> = read.iter().map(|c| c.category.clone()).collect();
    let text = |v: &[String]| Value::List(v.iter().map(|n| Value::Str(n.clone())).collect());
    let weights = Value::List(agreement.iter().map(|a| Value::Float(a.weight)).collect());
    let made = [
        ("method", Value::from(how.name())),
        ("categories", text(&categories)),
        ("weights", weights),
    ];
    merged.others.push((UNIVERSAL.into(), Value::dict(made)));
    torch_file::write(&request.output, &merged.to_value()).map_err(AdaptError::from)?;
    on_event(Event::Wrote(&request.output));
    Ok(MergedCheckpoint {
        path: request.output.clone(),
        categories,
        agreement,
        length_kept,
    })
}

/// Whether two checkpoints mean the same by their numbers.
fn alike(first: (&Path, &Checkpoint), other: (&Path, &Checkpoint)) -> Result<(), WorkflowError> {
    let (a, b) = (first.1, other.1);
    if let Some((path, _)) = [first, other]
        .into_iter()
        .find(|(_, c)| c.inserted.is_some())
    {
        return Err(WorkflowError::Input(format!(
            "{}: holds tensors inside the transformer, which are not merged\nhint: merge checkpoints of `prompt_depth` output",
            path.display()
        )));
    }
    let options = |c: &Checkpoint| {
        format!(
            "{} with α = {}{}",
            c.options.modulation,
            c.options.scaling_factor,
            if c.options.use_cls {
                " on class tokens"
            } else {
                ""
            }
        )
    };
    let or_unknown = |t: &Option<String>| t.clone().unwrap_or_else(|| "unknown".into());
    for (what, of_first, of_other) in [
        ("the backbone", a.model_name.clone(), b.model_name.clone()),
        (
            "the weights",
            or_unknown(&a.weights_hash),
            or_unknown(&b.weights_hash),
        ),
        (
            "the preprocessing",
            or_unknown(&a.preprocessing),
            or_unknown(&b.preprocessing),
        ),
        ("the layers", or_unknown(&a.layers), or_unknown(&b.layers)),
        ("the modulation", options(a), options(b)),
    ] {
        if of_first != of_other {
            return Err(WorkflowError::Input(format!(
                "{} and {} differ in {what}: {of_first} and {of_other}\nhint: merge checkpoints that were trained alike",
                first.0.display(),
                other.0.display()
            )));
        }
    }
    Ok(())
}

/// The shots of each checkpoint, as weights.
fn shots(paths: &[PathBuf], read: &[Checkpoint]) -> Result<Vec<f64>, WorkflowError> {
    let of = |(path, checkpoint): (&PathBuf, &Checkpoint)| {
        let lists = manifests::manifests(path, checkpoint)?;
        Ok(lists.iter().map(|m| m.shots as f64).sum())
    };
    paths.iter().zip(read).map(of).collect()
}
