//! What `run.json` says about the commands that made a run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::super::WorkflowError;
use flawtune::dataset::{Folders, Layout, Source, VisaSplit};
use flawtune::record::{FILE_NAME, OptionSource, RecordError, RunFile, RunRecord};
use flawtune::report::page::{Cell, Table};

/// The commands whose records a page shows, in the order of a run.
const COMMANDS: [&str; 5] = ["train", "evaluate", "baseline", "fit", "predict"];

/// The records of a category in a folder, in the order of a run; none without `run.json`.
///
/// # Errors
/// A `run.json` that is damaged or newer than this program.
pub(super) fn records(folder: &Path, category: &str) -> Result<Vec<RunRecord>, WorkflowError> {
    if !folder.join(FILE_NAME).exists() {
        return Ok(Vec::new());
    }
    let file =
        RunFile::read(folder).map_err(|e: RecordError| WorkflowError::Input(e.to_string()))?;
    let of = |command: &&str| file.find(command, Some(category)).cloned();
    Ok(COMMANDS.iter().filter_map(of).collect())
}

/// The commands as they were typed, to copy.
pub(super) fn commands(records: &[RunRecord]) -> String {
    let line = |record: &RunRecord| {
        let typed = record.arguments.iter().map(|a| quoted(a));
        std::iter::once("flawtune".to_owned())
            .chain(typed)
            .collect::<Vec<_>>()
            .join(" ")
    };
    records
        .iter()
        .filter(|r| !r.arguments.is_empty())
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

/// An argument as a shell takes it.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=,:+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', "'\\''"))
    }
}

/// Versions, machine, times: name and value.
pub(super) fn facts(records: &[RunRecord]) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    for record in records {
        let mut add =
            |name: &str, value: String| facts.push((format!("{}: {name}", record.command), value));
        let versions: Vec<String> = record
            .versions
            .iter()
            .map(|(name, v)| format!("{name} {v}"))
            .collect();
        add("versions", versions.join(", "));
        add("started", record.started.clone());
        add("outcome", record.outcome.name().to_owned());
        let mut time = format!("{:.1} s", record.seconds);
        let parts: Vec<String> = record
            .timings
            .iter()
            .map(|(part, s)| format!("{part} {s:.1}"))
            .collect();
        if !parts.is_empty() {
            let _ = write!(time, " ({})", parts.join(", "));
        }
        add("time", time);
        if let Some(bytes) = record.peak_memory_bytes {
            add(
                "peak memory",
                format!("{:.0} MiB", bytes as f64 / (1u64 << 20) as f64),
            );
        }
        add("threads", record.threads.to_string());
        if let Some(seed) = record.seed {
            add("seed", seed.to_string());
        }
        if let Some(data) = &record.data {
            add("images", format!("{}, hash {}", data.images, data.hash));
        }
    }
    if let Some(last) = records.last() {
        facts.push(("machine".to_owned(), machine(last)));
    }
    facts
}

/// The machine in one line.
fn machine(record: &RunRecord) -> String {
    let machine = &record.machine;
    let cpu = machine.cpu.as_deref().unwrap_or("unknown processor");
    let memory = machine.memory_bytes.map_or_else(String::new, |bytes| {
        format!(", {:.1} GiB memory", bytes as f64 / (1u64 << 30) as f64)
    });
    format!(
        "{cpu}, {} physical cores{memory}, {} {}, kernels {}",
        machine.physical_cores, machine.os, machine.arch, machine.kernels
    )
}

/// Every option that somebody set, and by what.
pub(super) fn options(records: &[RunRecord]) -> Option<Table> {
    let mut rows = Vec::new();
    for record in records {
        for (name, option) in record
            .options
            .iter()
            .filter(|(_, o)| o.source != OptionSource::Default)
        {
            let value = option
                .value
                .as_str()
                .map_or_else(|| option.value.to_string(), str::to_owned);
            let source = match &option.from {
                Some(from) => format!("{} ({from})", option.source.name()),
                None => option.source.name().to_owned(),
            };
            let cells = [record.command.clone(), format!("--{name}"), value, source];
            rows.push(cells.map(Cell::Text).to_vec());
        }
    }
    (!rows.is_empty()).then(|| Table {
        title: "Options that were set".to_owned(),
        note: "All others had their defaults; run.json lists them.".to_owned(),
        columns: ["command", "option", "value", "set by"]
            .map(str::to_owned)
            .to_vec(),
        rows,
    })
}

/// Where the images were, from the options of the commands that read them.
pub(super) fn source(records: &[RunRecord]) -> Option<Source> {
    records.iter().rev().find_map(|record| {
        let text = |name: &str| record.options.get(name)?.value.as_str();
        let path = |name: &str| {
            let path = Path::new(text(name)?);
            Some(
                record
                    .working_folder
                    .as_ref()
                    .map_or_else(|| path.to_owned(), |folder| folder.join(path)),
            )
        };
        if let Some(list) = path("list") {
            return Some(Source::List(list));
        }
        if let Some(good) = path("good") {
            let (test_good, defect, masks) = (path("test-good"), path("defect"), path("masks"));
            return Some(Source::Folders(Folders {
                good,
                test_good,
                defect,
                masks,
            }));
        }
        let layout: Layout = text("layout")
            .and_then(|t| t.parse().ok())
            .unwrap_or_default();
        let visa_split: VisaSplit = text("visa-split")
            .and_then(|t| t.parse().ok())
            .unwrap_or_default();
        let root: PathBuf = path("root-dir")?;
        // a detector's category needs no option
        let below = record
            .category
            .as_ref()
            .is_some_and(|c| root.join(c).is_dir());
        if text("category").is_none() && !below {
            // the root was the category itself
            return Source::root_as_category(&root, layout, visa_split)
                .ok()
                .map(|(source, _)| source);
        }
        Some(Source::Root {
            root,
            layout,
            visa_split,
        })
    })
}

/// A folder of maps.
pub(super) struct Maps {
    pub(super) folder: PathBuf,
    /// Whether they are of the category of the records alone: `predict` is told of images, `evaluate` of a category.
    pub(super) own: bool,
}

/// Where `predict` or `evaluate` put its maps, where a record says so.
pub(super) fn maps(records: &[RunRecord]) -> Option<Maps> {
    let named = |record: &RunRecord| {
        let folder = record.options.get("maps")?.value.as_str()?;
        ["predict", "evaluate"]
            .contains(&&*record.command)
            .then(|| PathBuf::from(folder))
    };
    let found = |record| Some((record, named(record)?));
    let (record, folder) = records.iter().find_map(found)?;
    let base = record.working_folder.as_ref();
    Some(Maps {
        folder: base.map_or_else(|| folder.clone(), |base| base.join(&folder)),
        own: record.command == "evaluate",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flawtune::record::{OptionRecord, Outcome, Recorder};

    fn record(command: &str, options: &[(&str, &str)]) -> RunRecord {
        let options = options
            .iter()
            .map(|(name, value)| {
                (
                    (*name).to_owned(),
                    OptionRecord::new(*value, OptionSource::Flag),
                )
            })
            .collect();
        let arguments = vec![
            command.to_owned(),
            "--category".to_owned(),
            "a b's".to_owned(),
            String::new(),
        ];
        let mut record = Recorder::new(command, Path::new("."))
            .asked(arguments, options)
            .into_record(Outcome::Finished);
        record.working_folder = Some(PathBuf::from("/w"));
        record
    }

    #[test]
    fn the_category_of_a_detector_lies_below_its_root() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("data/plate/train/good")).unwrap();
        let mut evaluated = record("evaluate", &[("root-dir", "data")]);
        evaluated.working_folder = Some(folder.path().to_owned());
        evaluated.category = Some("plate".to_owned());
        let root = |record: &RunRecord| match source(std::slice::from_ref(record)) {
            Some(Source::Root { root, .. }) => Some(root),
            _ => None,
        };
        assert_eq!(root(&evaluated), Some(folder.path().join("data")));
        // no such folder: the root is the category
        evaluated.category = Some("bottle".to_owned());
        assert_ne!(root(&evaluated), Some(folder.path().join("data")));
    }

    #[test]
    fn commands_can_be_copied() {
        assert_eq!(
            commands(&[record("train", &[])]),
            "flawtune train --category 'a b'\\''s' ''"
        );
        assert_eq!(commands(&[]), "");
    }

    #[test]
    fn the_pictures_are_where_the_options_said() {
        let root = source(&[record(
            "train",
            &[("root-dir", "data"), ("category", "c"), ("layout", "btad")],
        )]);
        assert_eq!(
            root,
            Some(Source::Root {
                root: "/w/data".into(),
                layout: Layout::Btad,
                visa_split: VisaSplit::default()
            })
        );
        assert_eq!(
            source(&[record("train", &[("list", "/x/l.csv")])]),
            Some(Source::List("/x/l.csv".into()))
        );
        let folders = source(&[record(
            "train",
            &[("good", "g"), ("defect", "d"), ("root-dir", "mvtec_ad")],
        )]);
        let Some(Source::Folders(folders)) = folders else {
            panic!("{folders:?}")
        };
        assert_eq!(
            (folders.good, folders.defect),
            ("/w/g".into(), Some("/w/d".into()))
        );
        assert_eq!(source(&[]), None);
    }

    #[test]
    fn options_say_who_set_them() {
        let mut one = record("train", &[("seed", "3")]);
        one.options.insert(
            "threads".to_owned(),
            OptionRecord::new(4, OptionSource::Default),
        );
        let table = options(&[one]).unwrap();
        let wanted = ["train", "--seed", "3", "flag"].map(|t| Cell::Text(t.to_owned()));
        assert_eq!(table.rows, [wanted.to_vec()]);
        assert!(options(&[]).is_none());
    }
}
