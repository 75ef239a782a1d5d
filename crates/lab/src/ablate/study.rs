//! The runs of a study and where each of them lives.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::grid::{folder_name, joined};
use super::{AblateError, Axis, Setting, io_error, points};

/// One training and its evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSpec {
    /// Category.
    pub category: String,
    /// Seed of everything random.
    pub seed: u64,
    /// The grid's settings.
    pub point: Vec<Setting>,
    /// Hash of everything that decides the result; empty until it is known.
    pub key: String,
}

impl RunSpec {
    /// Its folder below the study's.
    pub fn folder(&self) -> PathBuf {
        Path::new("runs")
            .join(&self.category)
            .join(folder_name(&self.point))
            .join(format!("seed-{}", self.seed))
    }

    /// Its settings for people: `num-prompts=5 loss-type=ranking`.
    pub fn settings(&self) -> String {
        joined(&self.point, " ")
    }
}

/// A study: every category, seed and point of the grid.
#[derive(Debug, Clone)]
pub struct Study {
    /// Where everything is written.
    pub folder: PathBuf,
    /// The grid.
    pub axes: Vec<Axis>,
    /// Categories.
    pub categories: Vec<String>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// The runs, in the order of the tables: by category, then point, then seed.
    pub runs: Vec<RunSpec>,
}

impl Study {
    /// The runs of a grid.
    ///
    /// # Errors
    /// [`AblateError::Plan`]: no category or seed, one of them twice, an axis twice.
    pub fn new(
        folder: PathBuf,
        axes: Vec<Axis>,
        categories: Vec<String>,
        seeds: Vec<u64>,
    ) -> Result<Self, AblateError> {
        let once = |what: &str, names: Vec<String>| {
            if names.is_empty() {
                return Err(AblateError::Plan(format!("no {what} is named")));
            }
            let twice = (1..names.len()).find(|&i| names[..i].contains(&names[i]));
            twice.map_or(Ok(()), |i| {
                Err(AblateError::Plan(format!(
                    "{what} {} is named twice",
                    names[i]
                )))
            })
        };
        once("category", categories.clone())?;
        once("seed", seeds.iter().map(u64::to_string).collect())?;
        let points = points(&axes)?;
        let mut runs = Vec::new();
        for category in &categories {
            for point in &points {
                for &seed in &seeds {
                    runs.push(RunSpec {
                        category: category.clone(),
                        seed,
                        point: point.clone(),
                        key: String::new(),
                    });
                }
            }
        }
        Ok(Self {
            folder,
            axes,
            categories,
            seeds,
            runs,
        })
    }

    /// Keeps other processes out of the folder until the lock is dropped or the process ends, however it ends.
    ///
    /// # Errors
    /// [`AblateError::Busy`], [`AblateError::Io`].
    pub fn lock(&self) -> Result<StudyLock, AblateError> {
        std::fs::create_dir_all(&self.folder).map_err(io_error(&self.folder))?;
        let path = self.folder.join(".lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(io_error(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(StudyLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(AblateError::Busy {
                folder: self.folder.clone(),
            }),
            Err(TryLockError::Error(e)) => Err(io_error(&path)(e)),
        }
    }
}

/// Held while a process works in a study's folder.
#[derive(Debug)]
pub struct StudyLock {
    _file: File,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study(folder: &Path, categories: &[&str], seeds: &[u64]) -> Result<Study, AblateError> {
        let axes = vec!["a=1,2".parse().unwrap()];
        let categories = categories.iter().map(|&c| c.to_owned()).collect();
        Study::new(folder.to_owned(), axes, categories, seeds.to_vec())
    }

    #[test]
    fn runs_are_listed_by_category_point_and_seed() {
        let found = study(Path::new("d"), &["x", "y"], &[3, 0]).unwrap();
        let names: Vec<String> = found
            .runs
            .iter()
            .map(|r| r.folder().display().to_string())
            .collect();
        assert_eq!(names.len(), 8);
        assert_eq!(
            &names[..3],
            [
                "runs/x/a=1/seed-3",
                "runs/x/a=1/seed-0",
                "runs/x/a=2/seed-3"
            ]
        );
        assert_eq!(names[7], "runs/y/a=2/seed-0");
        for (categories, seeds) in [
            (&[][..], &[0][..]),
            (&["x"], &[]),
            (&["x", "x"], &[0]),
            (&["x"], &[1, 1]),
        ] {
            assert!(matches!(
                study(Path::new("d"), categories, seeds),
                Err(AblateError::Plan(_))
            ));
        }
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let study = study(folder.path(), &["x"], &[0]).unwrap();
        let lock = study.lock().unwrap();
        assert!(matches!(study.lock(), Err(AblateError::Busy { .. })));
        drop(lock);
        study.lock().unwrap();
    }
}
