//! Which files belong to a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::{WorkflowError, folder_of};
use crate::adapt::Checkpoint;

/// What the commands leave in a run folder, by the end of the file's name. The first four are results.
const ENDINGS: [&str; 7] = [
    "_comparison.json",
    "_detection.json",
    "_baseline.json",
    "_prompts.pt",
    "_scores.csv",
    "_predictions.csv",
    "_history.json",
];
const RESULTS: usize = 4;

/// The files of one category in one run folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RunFiles {
    pub(super) folder: PathBuf,
    pub(super) category: String,
    pub(super) comparison: Option<PathBuf>,
    pub(super) detection: Option<PathBuf>,
    pub(super) baseline: Option<PathBuf>,
    pub(super) checkpoint: Option<PathBuf>,
    pub(super) scores: Option<PathBuf>,
    pub(super) predictions: Option<PathBuf>,
    pub(super) history: Option<PathBuf>,
}

impl RunFiles {
    fn slot(&mut self, ending: usize) -> &mut Option<PathBuf> {
        match ending {
            0 => &mut self.comparison,
            1 => &mut self.detection,
            2 => &mut self.baseline,
            3 => &mut self.checkpoint,
            4 => &mut self.scores,
            5 => &mut self.predictions,
            _ => &mut self.history,
        }
    }
}

/// Category and kind of a file, by its name.
fn kind_of(name: &str) -> Option<(&str, usize)> {
    let of = |(kind, ending): (usize, &&'static str)| {
        let category = name.strip_suffix(*ending).filter(|c| !c.is_empty())?;
        Some((category, kind))
    };
    ENDINGS.iter().enumerate().find_map(of)
}

/// What a RUN on the command line names: a folder with all its categories, or one category by one of its files.
///
/// # Errors
/// Nothing there, or nothing that is a result.
pub(super) fn find(run: &Path) -> Result<Vec<RunFiles>, WorkflowError> {
    if run.is_dir() {
        let found: Vec<RunFiles> = in_folder(run)?.into_values().collect();
        if found.is_empty() {
            return Err(WorkflowError::Input(format!(
                "{}: holds no results (no …{})\nhint: write some with 'flawtune evaluate' in {}, or name the \
                 folder that results were written to",
                run.display(),
                ENDINGS[..RESULTS].join(", …"),
                run.display()
            )));
        }
        return Ok(found);
    }
    if !run.exists() {
        return Err(WorkflowError::Input(format!(
            "{}: there is no such file or folder\nhint: name a run folder, a …_comparison.json or a checkpoint",
            run.display()
        )));
    }
    let folder = folder_of(run);
    let name = run.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if let Some((category, _)) = kind_of(name) {
        if let Some(files) = in_folder(folder)?.remove(category) {
            return Ok(vec![files]);
        }
        return Err(WorkflowError::Input(format!(
            "{}: no result of {category} lies beside it\nhint: name a …_comparison.json or a checkpoint",
            run.display()
        )));
    }
    if run.extension().is_some_and(|e| e == "pt" || e == "pth") {
        let category = Checkpoint::read(run)?.category;
        let beside = in_folder(folder)?.remove(&category).unwrap_or_default();
        // what lies beside it belongs to another checkpoint if there is one of the usual name
        let mut files = if beside.checkpoint.is_some() {
            RunFiles::default()
        } else {
            beside
        };
        (files.folder, files.category) = (folder.to_owned(), category);
        files.checkpoint = Some(run.to_owned());
        return Ok(vec![files]);
    }
    Err(WorkflowError::Input(format!(
        "{}: is neither a run folder, a …_comparison.json, a …_detection.json nor a checkpoint (.pt)",
        run.display()
    )))
}

/// The categories of a folder that have a result.
fn in_folder(folder: &Path) -> Result<BTreeMap<String, RunFiles>, WorkflowError> {
    let failed = |source| WorkflowError::Io {
        path: folder.to_owned(),
        source,
        hint: "name a run folder that can be read",
    };
    let mut found: BTreeMap<String, RunFiles> = BTreeMap::new();
    let mut results = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some((category, kind)) = path.file_name().and_then(|n| n.to_str()).and_then(kind_of)
        else {
            continue;
        };
        if kind < RESULTS {
            results.insert(category.to_owned());
        }
        let files = found.entry(category.to_owned()).or_default();
        *files.slot(kind) = Some(path.clone());
        (files.folder, files.category) = (folder.to_owned(), category.to_owned());
    }
    found.retain(|category, _| results.contains(category));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_the_end_of_their_names() {
        assert_eq!(kind_of("a_b_comparison.json"), Some(("a_b", 0)));
        assert_eq!(kind_of("screw_prompts.pt"), Some(("screw", 3)));
        assert_eq!(kind_of("_prompts.pt"), None);
        assert_eq!(kind_of("run.json"), None);
    }

    #[test]
    fn a_category_needs_a_result() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();
        write("a_history.json");
        let text = find(folder.path()).unwrap_err().to_string();
        assert!(
            text.contains("holds no results") && text.contains("flawtune evaluate"),
            "{text}"
        );
        write("a_comparison.json");
        write("b_detection.json");
        write("b_scores.csv");
        let found = find(folder.path()).unwrap();
        assert_eq!(
            found
                .iter()
                .map(|f| f.category.as_str())
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert!(
            found[0].history.is_some() && found[0].scores.is_none() && found[1].scores.is_some()
        );
        assert_eq!(
            find(&folder.path().join("b_scores.csv")).unwrap(),
            found[1..]
        );
        assert!(
            find(&folder.path().join("none"))
                .unwrap_err()
                .to_string()
                .contains("no such file")
        );
        write("other.txt");
        assert!(
            find(&folder.path().join("other.txt"))
                .unwrap_err()
                .to_string()
                .contains("neither")
        );
    }
}
