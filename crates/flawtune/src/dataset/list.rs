//! A CSV list of images.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::listing::is_picture;
use super::table::{ListError, Table, existing};
use super::{DEFECT, DatasetError, Sample, Subset, share};

const REQUIRED: [&str; 2] = ["path", "label"];
const OPTIONAL: [&str; 3] = ["split", "type", "masks"];
/// Between several masks in a cell.
const SEPARATOR: char = ';';

/// A row of a CSV list; see [`parse_list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRow {
    /// Its line in the file, from 1.
    pub line: u64,
    /// The image, relative to the file's folder.
    pub path: String,
    /// `train` or `test`, where the list has that column.
    pub subset: Option<Subset>,
    /// The defect type, `None` for good images.
    pub defect_type: Option<String>,
    /// Masks, relative to the file's folder.
    pub masks: Vec<String>,
}

/// Reads the rows of a CSV list. Its header names the columns `path`, `label` (`good` or `defect`, `0` or `1`) and, if
/// wanted, `split` (`train` or `test`), `type` (of a defect) and `masks` (several are separated by `;`), in any order.
/// No file is looked for.
///
/// # Errors
/// The line and what is wrong there: a missing, unknown or doubled column, a wrong number of cells, a label or split
/// that is none, a type or mask of a good image, a path that is not an image's, text that is not UTF-8.
pub fn parse_list(bytes: &[u8]) -> Result<Vec<ListRow>, ListError> {
    let table = Table::parse(bytes, &REQUIRED, &OPTIONAL)?;
    let mut rows = Vec::new();
    for row in table.rows() {
        let (path, label, kind) = (row.cell("path"), row.cell("label"), row.cell("type"));
        let masks: Vec<String> = row
            .cell("masks")
            .split(SEPARATOR)
            .map(str::trim)
            .filter(|m| !m.is_empty())
            .map(Into::into)
            .collect();
        if !is_picture(Path::new(path)) {
            return Err(row.error(format!(
                "'{path}' is not an image (png, jpg, bmp, tif or webp)"
            )));
        }
        let defect_type = match label {
            "good" | "0" => {
                if !kind.is_empty() || !masks.is_empty() {
                    return Err(row.error(
                        "a good image has neither type nor masks; empty those cells".into(),
                    ));
                }
                None
            }
            "defect" | "1" if kind == "good" => {
                return Err(row.error(
                    "a defect cannot be of the type 'good'\nhint: name it otherwise".into(),
                ));
            }
            "defect" | "1" if kind.is_empty() => Some(DEFECT.to_owned()),
            "defect" | "1" => Some(kind.to_owned()),
            other => {
                return Err(row.error(format!(
                    "the label is '{other}'; it is good or defect, or 0 or 1"
                )));
            }
        };
        let subset = if row.has("split") {
            Some(row.subset("split")?)
        } else {
            None
        };
        rows.push(ListRow {
            line: row.line,
            path: path.to_owned(),
            subset,
            defect_type,
            masks,
        });
    }
    Ok(rows)
}

pub(super) fn read(file: &Path) -> Result<Vec<Sample>, DatasetError> {
    let bytes = std::fs::read(file).map_err(|source| DatasetError::ReadFile {
        path: file.to_path_buf(),
        source,
    })?;
    let failed = |source| DatasetError::List {
        file: file.to_path_buf(),
        source,
    };
    let rows = parse_list(&bytes).map_err(failed)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut lines: HashMap<PathBuf, u64> = HashMap::new();
    let mut samples = Vec::with_capacity(rows.len());
    let mut undecided = false;
    for row in rows {
        let wrong = |problem| {
            failed(ListError {
                line: row.line,
                problem,
            })
        };
        let path = existing(folder, &row.path).map_err(wrong)?;
        // one image may be written in several ways
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if let Some(before) = lines.insert(real, row.line) {
            return Err(wrong(format!(
                "{} is listed on line {before} already\nhint: remove one",
                path.display()
            )));
        }
        let masks = row
            .masks
            .iter()
            .map(|mask| existing(folder, mask))
            .collect::<Result<Vec<_>, _>>();
        let mut masks = masks.map_err(wrong)?;
        masks.sort_unstable();
        undecided |= row.subset.is_none();
        let fallback = if row.defect_type.is_some() {
            Subset::Test
        } else {
            Subset::Train
        };
        samples.push(Sample {
            path,
            id: plain(&row.path),
            subset: row.subset.unwrap_or(fallback),
            defect_type: row.defect_type,
            masks,
        });
    }
    if undecided && samples.iter().any(Sample::is_defect) {
        share::give_to_test(&mut samples);
    }
    if !samples
        .iter()
        .any(|s| s.subset == Subset::Train && !s.is_defect())
    {
        return Err(DatasetError::NoGoodListed {
            file: file.to_path_buf(),
        });
    }
    Ok(samples)
}

/// A path as an id: `/` between names, no `.` among them.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::CurDir => {}
            Component::RootDir => parts.push(""),
            other => parts.push(other.as_os_str().to_str().unwrap_or_default()),
        }
    }
    parts.join("/")
}
