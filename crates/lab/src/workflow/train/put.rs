//! What a checkpoint says of its training, and whether an interrupted one was of the same.

use flawtune_backbone::torch_file::Value;

use super::super::WorkflowError;
use super::super::meta::{INIT_MANIFESTS, Init};
use super::TrainRequest;
use crate::adapt::{AdaptationOptions, Checkpoint};
use flawtune::evaluate::protocol::SplitManifest;

const SPLIT_HASH: &str = "split_hash";
/// Of how many shots a mask said where the flaw is, where masks were asked for.
const SHOT_MASKS: &str = "shot_masks";

/// Whether an interrupted run was one of this request.
pub(super) fn belongs(
    saved: &Checkpoint,
    request: &TrainRequest,
    wanted: &AdaptationOptions,
    split: &str,
) -> bool {
    let kept = saved.other(SPLIT_HASH).and_then(Value::as_str);
    let inserted = saved.inserted.as_ref().map(|i| &i.options);
    kept.is_none_or(|hash| hash == split)
        && saved.options == *wanted
        && inserted == request.inside.as_ref()
        && saved.other(SHOT_MASKS).is_some() == request.shot_masks
}

/// Records who trained and who is kept for testing.
pub(super) fn put_split(
    checkpoint: &mut Checkpoint,
    manifest: &SplitManifest,
) -> Result<(), WorkflowError> {
    let text = serde_json::to_string(manifest).map_err(|e| {
        WorkflowError::Input(format!("the split manifest cannot be written as JSON: {e}"))
    })?;
    checkpoint.split_manifest = Some(text);
    let hash = Value::Str(manifest.hash.clone());
    checkpoint.others.push((SPLIT_HASH.into(), hash));
    Ok(())
}

/// Records of how many shots a mask said where the flaw is.
pub(super) fn put_masks(checkpoint: &mut Checkpoint, masks: &[Option<Vec<bool>>]) {
    let used = masks.iter().flatten().filter(|mask| mask.contains(&true));
    let used = Value::Int(used.count() as i64);
    checkpoint.others.push((SHOT_MASKS.into(), used));
}

/// Records what training started from.
pub(super) fn put_init(checkpoint: &mut Checkpoint, init: &Init) -> Result<(), WorkflowError> {
    let text = serde_json::to_string(&init.lists).map_err(|e| {
        WorkflowError::Input(format!(
            "the split manifests cannot be written as JSON: {e}"
        ))
    })?;
    checkpoint.others.extend([
        ("init".into(), Value::Str(init.hash.clone())),
        (INIT_MANIFESTS.into(), Value::Str(text)),
    ]);
    Ok(())
}
