//! Good images that the user takes out of what is learned from.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::WorkflowError;
use crate::dataset::{Dataset, Oddity, Sample, Source, Subset};

/// Takes the good images that `patterns` name out of what is learned from; the ledger counts them. A pattern is the path of a file
/// or folder, an image's name in the data set, its file name, or one of those with `*`, `?` and `[]`.
///
/// # Errors
/// A pattern that matches no good image.
pub(super) fn exclude(
    dataset: &mut Dataset,
    source: &Source,
    patterns: &[String],
) -> Result<(), WorkflowError> {
    if patterns.is_empty() {
        return Ok(());
    }
    // of folders that are named as good all is learned from, whatever a test would take
    let all = matches!(source, Source::Folders(folders) if folders.test_good.is_none());
    let learned = |sample: &Sample| !sample.is_defect() && (all || sample.subset == Subset::Train);
    let mut out = vec![false; dataset.samples.len()];
    for pattern in patterns {
        let excluded = Excluded::new(pattern);
        let mut matched = false;
        for (sample, out) in dataset.samples.iter().zip(&mut out) {
            if learned(sample) && excluded.names(sample) {
                (matched, *out) = (true, true);
            }
        }
        if !matched {
            let example = dataset.samples.iter().find(|s| learned(s));
            let example = example.map_or_else(String::new, |sample| {
                format!(", for example {}", sample.path.display())
            });
            return Err(WorkflowError::Input(format!(
                "`exclude` {pattern}: matches none of the good images to learn from\nhint: name a file or folder{example}, or a \
                 quoted pattern such as '*_blurred.png'"
            )));
        }
    }
    let mut kept = out.iter().map(|out| !out);
    for (sample, _) in dataset.samples.iter().zip(&out).filter(|(_, out)| **out) {
        let name = sample.path.display().to_string();
        dataset.ledger.add(Oddity::Excluded, name);
    }
    dataset.samples.retain(|_| kept.next().unwrap_or(true));
    Ok(())
}

/// One pattern.
struct Excluded<'a> {
    text: &'a str,
    /// What lies there, if anything does.
    place: Option<PathBuf>,
    pattern: Option<Pattern>,
}

impl<'a> Excluded<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            place: Path::new(text).canonicalize().ok(),
            pattern: Pattern::new(text).ok(),
        }
    }

    fn names(&self, sample: &Sample) -> bool {
        let path = sample.path.to_string_lossy();
        let file = sample
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        if let Some(place) = &self.place {
            // a file that is there is meant, whatever characters its name has
            let whole = sample.path.canonicalize();
            return whole.is_ok_and(|whole| whole.starts_with(place));
        }
        let options = MatchOptions::new();
        [&*path, &*sample.id, &*file].into_iter().any(|name| {
            let pattern = self.pattern.as_ref();
            name == self.text || pattern.is_some_and(|p| p.matches_with(name, options))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Folders, Ledger};

    fn dataset() -> Dataset {
        let sample = |id: &str, kind: Option<&str>, subset: Subset| Sample {
            id: id.to_owned(),
            path: PathBuf::from(format!("none/such/{id}")),
            defect_type: kind.map(str::to_owned),
            subset,
            masks: Vec::new(),
        };
        Dataset {
            root: PathBuf::new(),
            category: "parts".into(),
            samples: vec![
                sample("good/a1.png", None, Subset::Train),
                sample("good/a2.png", None, Subset::Train),
                sample("good/[b].png", None, Subset::Test),
                sample("hole/a1.png", Some("hole"), Subset::Test),
            ],
            ledger: Ledger::default(),
        }
    }

    fn folders() -> Source {
        Source::Folders(Folders {
            good: "good".into(),
            test_good: None,
            defect: None,
            masks: None,
        })
    }

    fn left(source: &Source, patterns: &[&str]) -> Result<(Vec<String>, usize), String> {
        let mut dataset = dataset();
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        exclude(&mut dataset, source, &patterns).map_err(|e| e.to_string())?;
        let ids = dataset.samples.iter().map(|s| s.id.clone()).collect();
        Ok((ids, dataset.ledger.count(Oddity::Excluded)))
    }

    #[test]
    fn names_paths_and_patterns_take_good_images_out() {
        let source = folders();
        let all = ["good/a1.png", "good/a2.png", "good/[b].png", "hole/a1.png"];
        for (patterns, gone) in [
            (&[][..], &[][..]),
            (&["a1.png"], &[0]),
            (&["good/a1.png"], &[0]),
            (&["none/such/good/a2.png"], &[1]),
            (&["a*.png"], &[0, 1]),
            (&["a1.png", "a1.png", "a?.png"], &[0, 1]),
            (&["[b].png"], &[2]),
            (&["*"], &[0, 1, 2]),
        ] {
            let (ids, count) = left(&source, patterns).unwrap();
            let wanted: Vec<&str> = (0..all.len())
                .filter(|i| !gone.contains(i))
                .map(|i| all[i])
                .collect();
            assert_eq!(
                (ids, count),
                (wanted.iter().map(|s| (*s).to_owned()).collect(), gone.len())
            );
        }
    }

    #[test]
    fn what_matches_no_good_image_is_an_error() {
        for pattern in ["hole/a1.png", "c.png", "["] {
            let error = left(&folders(), &["a1.png", pattern]).unwrap_err();
            assert!(
                error.contains(pattern) && error.contains("hint:"),
                "{error}"
            );
        }
        // what a layout keeps for the test is not learned from
        let list = Source::List("list.csv".into());
        assert!(left(&list, &["[b].png"]).is_err());
        assert_eq!(left(&list, &["*a?.png"]).unwrap().1, 2);
    }
}
