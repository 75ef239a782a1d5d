//! `VisA`: one CSV file says for all objects which image is learned from, which is tested, and which mask it has.

use std::collections::HashSet;
use std::path::Path;

use super::table::{Table, existing};
use super::{DatasetError, ListError, Sample, VisaSplit};

const FOLDER: &str = "split_csv";
/// The layout knows anomalies only, no types.
const ANOMALY: &str = "anomaly";
const COLUMNS: [&str; 5] = ["object", "split", "label", "image", "mask"];

pub(super) fn read(
    root: &Path,
    category: &str,
    split: VisaSplit,
) -> Result<Vec<Sample>, DatasetError> {
    let file = root.join(FOLDER).join(split.file());
    let bytes = std::fs::read(&file).map_err(|source| DatasetError::ReadFile {
        path: file.clone(),
        source,
    })?;
    let failed = |source| DatasetError::List {
        file: file.clone(),
        source,
    };
    let table = Table::parse(&bytes, &COLUMNS, &[]).map_err(failed)?;
    let mut samples = Vec::new();
    for row in table.rows().filter(|row| row.cell("object") == category) {
        let subset = row.subset("split").map_err(failed)?;
        let defect = match row.cell("label") {
            "normal" => false,
            ANOMALY => true,
            other => {
                return Err(failed(row.error(format!(
                    "the label is '{other}'; it is normal or {ANOMALY}"
                ))));
            }
        };
        let (image, mask) = (row.cell("image"), row.cell("mask"));
        let masks = if defect && !mask.is_empty() {
            vec![existing(root, mask).map_err(|e| failed(row.error(e)))?]
        } else {
            Vec::new()
        };
        let path = existing(root, image).map_err(|e| failed(row.error(e)))?;
        let inside = image
            .strip_prefix(category)
            .and_then(|rest| rest.strip_prefix('/'));
        samples.push(Sample {
            path,
            id: inside.unwrap_or(image).to_owned(),
            subset,
            defect_type: defect.then(|| ANOMALY.to_owned()),
            masks,
        });
    }
    if samples.is_empty() {
        return Err(failed(ListError {
            line: 1,
            problem: format!(
                "no row has the object '{category}'; is it the split file of this data set?"
            ),
        }));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = samples.iter().find(|s| !seen.insert(&s.path)) {
        return Err(DatasetError::ListedTwice {
            list: file,
            picture: twice.path.clone(),
        });
    }
    Ok(samples)
}
