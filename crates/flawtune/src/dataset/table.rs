//! CSV files with a header, and errors that name the line.

use std::path::{Path, PathBuf};

use super::Subset;

/// What is wrong with a CSV file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ListError {
    /// The line, from 1.
    pub line: u64,
    /// What is wrong there and what is allowed.
    pub problem: String,
}

/// Rows of a CSV file, whose columns are known by name.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<String>,
    rows: Vec<(u64, csv::StringRecord)>,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    /// Its line in the file, from 1.
    pub(super) line: u64,
    columns: &'a [String],
    cells: &'a csv::StringRecord,
}

impl Table {
    /// Reads a table that has all of `required` and may have `optional` columns, in any order.
    pub(super) fn parse(
        bytes: &[u8],
        required: &[&str],
        optional: &[&str],
    ) -> Result<Self, ListError> {
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_reader(bytes);
        let header = reader.headers().map_err(|e| of_csv(bytes, &e))?;
        let columns: Vec<String> = header.iter().map(str::to_lowercase).collect();
        let line = line_of(bytes, header.position());
        let wrong = |problem: String| Err(ListError { line, problem });
        let known = || [required, optional].concat().join(", ");
        for (i, column) in columns.iter().enumerate() {
            if !required.contains(&column.as_str()) && !optional.contains(&column.as_str()) {
                return wrong(format!(
                    "no column '{column}' is known; the header names columns of {}, separated by commas",
                    known()
                ));
            }
            if columns[..i].contains(column) {
                return wrong(format!(
                    "the column '{column}' is there twice\nhint: remove one"
                ));
            }
        }
        if let Some(missing) = required
            .iter()
            .find(|name| !columns.iter().any(|c| c == *name))
        {
            return wrong(format!(
                "the column '{missing}' is missing; the first line is a header with columns of {}",
                known()
            ));
        }
        let mut rows = Vec::new();
        for record in reader.into_records() {
            let record = record.map_err(|e| of_csv(bytes, &e))?;
            rows.push((line_of(bytes, record.position()), record));
        }
        Ok(Self { columns, rows })
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|(line, cells)| Row {
            line: *line,
            columns: &self.columns,
            cells,
        })
    }
}

impl Row<'_> {
    /// The cell of a column; empty where there is no such column.
    pub(super) fn cell(&self, column: &str) -> &str {
        let at = self.columns.iter().position(|c| c == column);
        at.and_then(|i| self.cells.get(i)).unwrap_or_default()
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|c| c == column)
    }

    /// `train` or `test`.
    pub(super) fn subset(&self, column: &str) -> Result<Subset, ListError> {
        match self.cell(column) {
            "train" => Ok(Subset::Train),
            "test" => Ok(Subset::Test),
            other => Err(self.error(format!("the {column} is '{other}'; it is train or test"))),
        }
    }

    pub(super) fn error(&self, problem: String) -> ListError {
        ListError {
            line: self.line,
            problem,
        }
    }
}

/// A file that a table names, relative to `folder`.
pub(super) fn existing(folder: &Path, name: &str) -> Result<PathBuf, String> {
    let path = folder.join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("{}: no such file", path.display()))
    }
}

/// The line at which a record's text begins: its position is where the one before ended, before any empty lines.
fn line_of(bytes: &[u8], position: Option<&csv::Position>) -> u64 {
    let Some(position) = position else { return 1 };
    let rest = bytes.get(position.byte() as usize..).unwrap_or_default();
    let empty = rest.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
    position.line() + empty.filter(|b| **b == b'\n').count() as u64
}

fn of_csv(bytes: &[u8], error: &csv::Error) -> ListError {
    let line = line_of(bytes, error.position());
    let problem = match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => {
            format!(
                "{len} cells, but the header has {expected_len}\nhint: put cells that hold a comma into quotes"
            )
        }
        csv::ErrorKind::Utf8 { .. } => "not UTF-8\nhint: save the file as UTF-8".to_owned(),
        other => format!("not CSV: {other:?}"),
    };
    ListError { line, problem }
}
