//! `<category>_scores.csv`: every test image's score by every scorer.

use std::path::{Path, PathBuf};

use flawtune_backbone::atomic_file;

use super::comparison::TestSet;

/// Columns in front of the scores.
const FIRST: [&str; 2] = ["image", "defect_type"];

/// Why a table of scores cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScoreTableError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not a table of scores.
    #[error("{}: {what}; 'flawtune evaluate' writes it again", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where there is one.
        what: String,
    },
}

/// Test images, and a score for each by several scorers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScoreTable {
    /// Id of each image.
    pub ids: Vec<String>,
    /// Its defect type, `None` for a normal image.
    pub defect_types: Vec<Option<String>>,
    /// Name of each scorer, and its score of each image: higher is more anomalous.
    pub columns: Vec<(String, Vec<f64>)>,
}

impl ScoreTable {
    /// The images of `test` with these scores, each in the test set's order.
    pub fn new(test: &TestSet<'_>, columns: &[(&'static str, Vec<f64>)]) -> Self {
        Self {
            ids: test.ids.iter().map(|&id| id.to_owned()).collect(),
            defect_types: test
                .defect_types
                .iter()
                .map(|t| t.map(str::to_owned))
                .collect(),
            columns: columns
                .iter()
                .map(|(name, scores)| ((*name).to_owned(), scores.clone()))
                .collect(),
        }
    }

    /// Which images are defective.
    pub fn labels(&self) -> Vec<bool> {
        self.defect_types.iter().map(Option::is_some).collect()
    }

    /// Scores of a scorer.
    pub fn column(&self, name: &str) -> Option<&[f64]> {
        self.columns
            .iter()
            .find(|c| c.0 == name)
            .map(|c| c.1.as_slice())
    }

    /// Writes the table, whole or not at all: one row an image, the defect type of a normal image empty.
    ///
    /// # Errors
    /// [`ScoreTableError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), ScoreTableError> {
        let failed = |source| ScoreTableError::Io {
            path: path.to_owned(),
            source,
        };
        let mut writer = csv::Writer::from_writer(Vec::new());
        let names = FIRST
            .into_iter()
            .chain(self.columns.iter().map(|c| c.0.as_str()));
        writer.write_record(names).map_err(|e| failed(e.into()))?;
        for (i, (id, kind)) in self.ids.iter().zip(&self.defect_types).enumerate() {
            let scores = self.columns.iter().map(|c| c.1[i].to_string());
            let row = [id.clone(), kind.clone().unwrap_or_default()]
                .into_iter()
                .chain(scores);
            writer.write_record(row).map_err(|e| failed(e.into()))?;
        }
        let bytes = writer.into_inner().map_err(|e| failed(e.into_error()))?;
        atomic_file::write(path, &bytes).map_err(failed)
    }

    /// Reads a table; of its columns all, or `only` one where others hold no scores.
    ///
    /// # Errors
    /// A file that cannot be read or is not a table of scores; scores that are not finite numbers.
    pub fn read(path: &Path, only: Option<&str>) -> Result<Self, ScoreTableError> {
        let bytes = std::fs::read(path).map_err(|source| ScoreTableError::Io {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&bytes, only).map_err(|what| ScoreTableError::Content {
            path: path.to_owned(),
            what,
        })
    }

    /// Parses a table.
    ///
    /// # Errors
    /// A text that says what is wrong and in which line.
    pub fn parse(bytes: &[u8], only: Option<&str>) -> Result<Self, String> {
        let mut reader = csv::Reader::from_reader(bytes);
        let header = reader.headers().map_err(|e| e.to_string())?.clone();
        if !header.iter().take(FIRST.len()).eq(FIRST) {
            return Err("the first line does not begin with image,defect_type".into());
        }
        let wanted: Vec<usize> = (FIRST.len()..header.len())
            .filter(|&i| only.is_none_or(|name| header.get(i) == Some(name)))
            .collect();
        if wanted.is_empty() {
            return Err("it has no column of scores".into());
        }
        let mut table = Self {
            columns: wanted
                .iter()
                .map(|&i| (header[i].to_owned(), Vec::new()))
                .collect(),
            ..Self::default()
        };
        for row in reader.records() {
            let row = row.map_err(|e| e.to_string())?;
            let line = row.position().map_or(0, csv::Position::line);
            table.ids.push(row[0].to_owned());
            table
                .defect_types
                .push((!row[1].is_empty()).then(|| row[1].to_owned()));
            for ((name, scores), &i) in table.columns.iter_mut().zip(&wanted) {
                let text = &row[i];
                let score: f64 = text
                    .parse()
                    .map_err(|_| format!("line {line}: {name} is {text:?}"))?;
                if !score.is_finite() {
                    return Err(format!(
                        "line {line}: {name} is {text}, not a finite number"
                    ));
                }
                scores.push(score);
            }
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_as_it_was_written() {
        let table = ScoreTable {
            ids: vec!["test/good/0.png".into(), "test/a, \"b\"/1.png".into()],
            defect_types: vec![None, Some("a, \"b\"".into())],
            columns: vec![
                ("zero_shot".into(), vec![0.1, 1.0 / 3.0]),
                ("x".into(), vec![-1e-300, 2.0]),
            ],
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.csv");
        table.write(&path).unwrap();
        assert_eq!(ScoreTable::read(&path, None).unwrap(), table);
        assert_eq!(table.labels(), [false, true]);
        assert_eq!(table.column("x"), Some(&[-1e-300, 2.0][..]));
        assert_eq!(table.column("y"), None);
        let text = "image,defect_type,score,verdict\ny.png,hole,3,flaw\n";
        let one = ScoreTable::parse(text.as_bytes(), Some("score")).unwrap();
        assert_eq!(one.columns, [("score".to_owned(), vec![3.0])]);
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for (text, part) in [
            ("", "first line"),
            ("image,a\n", "first line"),
            ("image,defect_type\n", "no column of scores"),
            ("image,defect_type,a\nx,,1\ny,,nan\n", "line 3"),
            ("image,defect_type,a\nx,,1,2\n", "record 1"),
            ("image,defect_type,a\nx,,one\n", "a is \"one\""),
        ] {
            let error = ScoreTable::parse(text.as_bytes(), None).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
