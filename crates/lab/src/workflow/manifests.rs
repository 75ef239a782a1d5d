//! What a checkpoint says of the images it learned from: one list a category.

use std::path::Path;

use flawtune_backbone::torch_file::Value;

use super::WorkflowError;
use crate::adapt::Checkpoint;
use flawtune::evaluate::protocol::SplitManifest;

/// Key of the lists of a checkpoint of several categories, as JSON. Such a file has no `split_manifest`: a program that
/// does not know this key refuses to test it but by the leaky protocol.
pub(super) const SPLIT_MANIFESTS: &str = "split_manifests";

/// All lists of a checkpoint; none if it does not say.
///
/// # Errors
/// Lists that cannot be read or were changed.
pub(super) fn manifests(
    path: &Path,
    checkpoint: &Checkpoint,
) -> Result<Vec<SplitManifest>, WorkflowError> {
    let unreadable = |e: String| {
        WorkflowError::Input(format!(
            "{}: its split manifest cannot be read ({e})",
            path.display()
        ))
    };
    let mut found: Vec<SplitManifest> = Vec::new();
    if let Some(text) = &checkpoint.split_manifest {
        found.push(serde_json::from_str(text).map_err(|e| unreadable(e.to_string()))?);
    } else if let Some(value) = checkpoint.other(SPLIT_MANIFESTS) {
        let text = value
            .as_str()
            .ok_or_else(|| unreadable(format!("it is {}, not text", value.kind())))?;
        found = serde_json::from_str(text).map_err(|e| unreadable(e.to_string()))?;
    }
    if found.iter().any(|m| m.hash != m.computed_hash()) {
        return Err(WorkflowError::Input(format!(
            "{}: its split manifest was changed after training; what it was trained on cannot be told any more",
            path.display()
        )));
    }
    Ok(found)
}

/// The list that says how to split `category`: its own, or where none of its images trained the first, for the seed.
///
/// # Errors
/// As [`manifests`].
pub(super) fn manifest(
    path: &Path,
    checkpoint: &Checkpoint,
    category: &str,
) -> Result<Option<SplitManifest>, WorkflowError> {
    let mut all = manifests(path, checkpoint)?;
    let own = all.iter().position(|m| m.category == category).unwrap_or(0);
    Ok((own < all.len()).then(|| all.swap_remove(own)))
}

/// Puts the lists into a checkpoint of several categories.
///
/// # Errors
/// Lists that are not JSON; not for lists made by this program.
pub(super) fn put(checkpoint: &mut Checkpoint, all: &[SplitManifest]) -> Result<(), WorkflowError> {
    let text = serde_json::to_string(all).map_err(|e| {
        WorkflowError::Input(format!(
            "the split manifests cannot be written as JSON: {e}"
        ))
    })?;
    checkpoint.split_manifest = None;
    checkpoint
        .others
        .push((SPLIT_MANIFESTS.into(), Value::Str(text)));
    Ok(())
}
