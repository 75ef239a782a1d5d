//! Whether two runs wrote the same.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::{FileRecord, file_record};

/// Keys of JSON results whose values say where or when, not what.
const WHERE_AND_WHEN: [&str; 3] = ["checkpoint", "bundle", "seconds"];

/// The files of two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Whether all of them say the same.
    pub identical: bool,
    /// File by file.
    pub files: Vec<FileComparison>,
}

/// One file of two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileComparison {
    /// The command that wrote it.
    pub command: String,
    /// Its path in the output folder.
    pub path: String,
    /// Whether both say the same.
    pub identical: bool,
    /// Whether they are equal byte by byte; JSON may differ in paths and times.
    pub same_bytes: bool,
    /// The first difference, where there is one.
    pub difference: Option<String>,
}

/// Compares the `recorded` outputs of a command, which were written into `folder`, with those that its repetition
/// recorded as written into `again`.
///
/// Files of equal hash are identical. JSON files that differ in bytes are compared value by value, except for those that
/// say where or when; for that the first run's file has to be as it was recorded.
pub fn compare_outputs(
    command: &str,
    recorded: (&[FileRecord], &Path),
    repeated: (&[FileRecord], &Path),
) -> Vec<FileComparison> {
    let ((old, folder), (new, again)) = (recorded, repeated);
    let one = |path: &str, same_bytes: bool, difference: Option<String>| FileComparison {
        command: command.to_owned(),
        path: path.to_owned(),
        identical: difference.is_none(),
        same_bytes,
        difference,
    };
    let mut files: Vec<FileComparison> = old
        .iter()
        .map(|was| match new.iter().find(|is| is.path == was.path) {
            None => one(&was.path, false, Some("was not written again".into())),
            Some(is) if is.blake3 == was.blake3 => one(&was.path, true, None),
            Some(is) => one(&was.path, false, difference(was, folder, is, again)),
        })
        .collect();
    let known = |path: &str| old.iter().any(|was| was.path == path);
    let more = new.iter().filter(|is| !known(&is.path));
    files.extend(more.map(|is| {
        one(
            &is.path,
            false,
            Some("was not written by the recorded run".into()),
        )
    }));
    files
}

/// What differs first in two files of other bytes; `None`: nothing that counts.
fn difference(was: &FileRecord, folder: &Path, is: &FileRecord, again: &Path) -> Option<String> {
    let bytes = || {
        if was.bytes == is.bytes {
            format!("other bytes ({} of them in both)", was.bytes)
        } else {
            format!("{} bytes became {}", was.bytes, is.bytes)
        }
    };
    if !Path::new(&was.path)
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("json"))
    {
        return Some(bytes());
    }
    let (old, new) = (folder.join(&was.path), again.join(&is.path));
    let unchanged = file_record(&old, folder).is_ok_and(|now| now.blake3 == was.blake3);
    if !unchanged {
        return Some(format!(
            "{}; the recorded file itself has changed or gone since",
            bytes()
        ));
    }
    let read = |path: &Path| {
        std::fs::read(path)
            .ok()
            .and_then(|b| serde_json::from_slice::<Value>(&b).ok())
    };
    match (read(&old), read(&new)) {
        (Some(old), Some(new)) => first_difference(&old, &new, ""),
        _ => Some(bytes()),
    }
}

/// The first place where two values differ, and how.
fn first_difference(old: &Value, new: &Value, at: &str) -> Option<String> {
    let inside = |key: &str| {
        if at.is_empty() {
            key.to_owned()
        } else {
            format!("{at}.{key}")
        }
    };
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, was) in a {
                if WHERE_AND_WHEN.contains(&key.as_str()) {
                    continue;
                }
                let found = match b.get(key) {
                    Some(is) => first_difference(was, is, &inside(key)),
                    None => Some(format!("{} is gone", inside(key))),
                };
                if found.is_some() {
                    return found;
                }
            }
            let more = b
                .keys()
                .find(|key| !a.contains_key(*key) && !WHERE_AND_WHEN.contains(&key.as_str()))?;
            Some(format!("{} is new", inside(more)))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(i, (was, is))| first_difference(was, is, &format!("{at}[{i}]"))),
        (Value::Array(a), Value::Array(b)) => {
            Some(format!("{at}: {} entries became {}", a.len(), b.len()))
        }
        _ if old == new => None,
        _ => Some(format!("{at}: {old} became {new}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn first(old: &Value, new: &Value) -> Option<String> {
        first_difference(old, new, "")
    }

    #[test]
    fn values_count_and_places_and_times_do_not() {
        let old =
            json!({"auroc": 0.5, "seconds": 1.0, "of": {"checkpoint": "a", "list": [1, {"x": 2}]}});
        let mut new = old.clone();
        (new["seconds"], new["of"]["checkpoint"]) = (json!(2.0), json!("b"));
        assert_eq!(first(&old, &new), None);
        new["of"]["list"][1]["x"] = json!(3);
        assert_eq!(first(&old, &new).unwrap(), "of.list[1].x: 2 became 3");
        new["auroc"] = json!(0.25);
        assert_eq!(first(&old, &new).unwrap(), "auroc: 0.5 became 0.25");
        assert_eq!(
            first(&json!([1]), &json!([1, 2])).unwrap(),
            ": 1 entries became 2"
        );
        assert_eq!(first(&json!({"a": 1}), &json!({})).unwrap(), "a is gone");
        assert_eq!(first(&json!({}), &json!({"a": 1})).unwrap(), "a is new");
    }

    #[test]
    fn files_are_compared_by_hash_then_by_value() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |folder: &Path, files: &[(&str, &str)]| -> Vec<FileRecord> {
            let record = |(name, text): &(&str, &str)| {
                let path = folder.join(name);
                fs::write(&path, text).unwrap();
                file_record(&path, folder).unwrap()
            };
            files.iter().map(record).collect()
        };
        let old = write(
            a.path(),
            &[
                ("same.pt", "x"),
                ("place.json", r#"{"checkpoint": "a", "v": 1}"#),
                ("value.json", r#"{"v": 1}"#),
                ("long.csv", "12"),
                ("gone.pt", "g"),
            ],
        );
        let new = write(
            b.path(),
            &[
                ("same.pt", "x"),
                ("place.json", r#"{"checkpoint": "b", "v": 1}"#),
                ("value.json", r#"{"v": 2}"#),
                ("long.csv", "123"),
                ("new.pt", "n"),
            ],
        );
        let found = compare_outputs("train", (&old, a.path()), (&new, b.path()));
        let seen: Vec<_> = found
            .iter()
            .map(|f| (f.path.as_str(), f.same_bytes, f.difference.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                ("same.pt", true, None),
                ("place.json", false, None),
                ("value.json", false, Some("v: 1 became 2")),
                ("long.csv", false, Some("2 bytes became 3")),
                ("gone.pt", false, Some("was not written again")),
                ("new.pt", false, Some("was not written by the recorded run")),
            ]
        );
        // without the recorded file there is no value to compare with
        fs::write(a.path().join("place.json"), "{}").unwrap();
        let found = compare_outputs("train", (&old[1..2], a.path()), (&new[1..2], b.path()));
        let text = found[0].difference.as_deref().unwrap();
        assert!(text.contains("has changed or gone since"), "{text}");
    }
}
