//! Listens to a job and writes down what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use super::{
    DataRecord, FileRecord, Kept, MachineRecord, OptionRecord, Outcome, RecordError, RunFile,
    RunRecord, WeightsRecord, peak_memory_bytes,
};
use crate::features::Forward as _;
use crate::workflow::{Category, Event};

/// Hexadecimal digits kept of each image's hash: 128 bits.
const HASH_DIGITS: usize = 32;
/// The part that nothing was said about.
const OTHER: &str = "other";

/// Listens to a job's events and leaves a [`RunRecord`] in the folder it wrote to.
#[derive(Debug)]
pub struct Recorder {
    record: RunRecord,
    folder: PathBuf,
    start: Instant,
    /// Parts that have begun and not ended, the innermost last.
    parts: Vec<&'static str>,
    /// Since when the innermost has been running.
    since: Instant,
    /// Whether all input was found to be right: training or scoring has begun.
    begun: bool,
    inputs: BTreeSet<PathBuf>,
    outputs: BTreeSet<PathBuf>,
}

impl Recorder {
    /// Starts the clock of a run of `command` that writes into `folder`.
    pub fn new(command: &str, folder: &Path) -> Self {
        let now = Instant::now();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self {
            record: RunRecord {
                command: command.to_owned(),
                category: None,
                outcome: Outcome::Failed,
                arguments: Vec::new(),
                options: BTreeMap::new(),
                working_folder: std::env::current_dir().ok(),
                versions: BTreeMap::from([("flawtune".to_owned(), version)]),
                machine: MachineRecord::here(),
                threads: rayon::current_num_threads(),
                seed: None,
                data: None,
                weights: None,
                split_manifest: None,
                inputs: Vec::new(),
                outputs: Vec::new(),
                started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
                seconds: 0.0,
                timings: BTreeMap::new(),
                peak_memory_bytes: None,
            },
            folder: if folder.as_os_str().is_empty() {
                ".".into()
            } else {
                folder.to_owned()
            },
            start: now,
            parts: Vec::new(),
            since: now,
            begun: false,
            inputs: BTreeSet::new(),
            outputs: BTreeSet::new(),
        }
    }

    /// What was typed, and what it came to.
    #[must_use]
    pub fn asked(
        mut self,
        arguments: Vec<String>,
        options: BTreeMap<String, OptionRecord>,
    ) -> Self {
        (self.record.arguments, self.record.options) = (arguments, options);
        self
    }

    /// The seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.record.seed = Some(seed);
        self
    }

    /// What options came to that nobody set; those that somebody did stay what they are.
    pub fn came_to(&mut self, options: impl IntoIterator<Item = (String, OptionRecord)>) {
        for (name, came_to) in options {
            let unset = self
                .record
                .options
                .get_mut(&name)
                .filter(|o| o.value.is_null());
            if let Some(option) = unset {
                *option = came_to;
            }
        }
    }

    /// Takes down what an event tells. Pass every event of the job.
    pub fn hear(&mut self, event: &Event<'_>) {
        match event {
            Event::PartBegins(part) => {
                self.tick();
                self.parts.push(part);
            }
            Event::PartEnds(part) => {
                self.tick();
                // what an error left open inside of it ends with it
                if let Some(at) = self.parts.iter().rposition(|p| p == part) {
                    self.parts.truncate(at);
                }
            }
            Event::Data(category) => {
                self.record.category = Some(category.dataset.category.clone());
                self.record.data = Some(DataRecord::of(category));
            }
            Event::Backbone(engine) => {
                self.record.weights = Some(WeightsRecord {
                    model_name: engine.config().name.clone(),
                    hash: engine.weights_hash().to_owned(),
                    path: engine.path().map(Path::to_owned),
                });
            }
            Event::Split(manifest) => {
                self.record.seed.get_or_insert(manifest.seed);
                self.record.split_manifest = serde_json::to_value(manifest).ok();
            }
            Event::Read(path) => drop(self.inputs.insert((*path).to_owned())),
            Event::Wrote(path) => drop(self.outputs.insert((*path).to_owned())),
            Event::Training { .. } | Event::Scoring(_) => self.begun = true,
            _ => {}
        }
    }

    /// The record, with the files as they are now.
    pub fn into_record(mut self, outcome: Outcome) -> RunRecord {
        self.tick();
        let mut record = self.record;
        record.outcome = outcome;
        record.seconds = self.start.elapsed().as_secs_f64();
        // the two clocks are read one after the other
        let sum: f64 = record.timings.values().sum();
        *record.timings.entry(OTHER.to_owned()).or_default() += record.seconds - sum;
        record.peak_memory_bytes = peak_memory_bytes();
        let files = |paths: &BTreeSet<PathBuf>| -> Vec<FileRecord> {
            let mut all = Vec::new();
            for path in paths {
                gather(path, &mut all);
            }
            // what is gone by now (a state that the finished checkpoint replaces) is not an output
            all.iter()
                .filter_map(|path| file_record(path, &self.folder).ok())
                .collect()
        };
        (record.inputs, record.outputs) = (files(&self.inputs), files(&self.outputs));
        record
    }

    /// Writes the record into the folder's `run.json`, if that folder exists and the run came as far as to know its
    /// images. A run that failed before it trained or scored anything is a wrong input, which leaves nothing.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn finish(self, outcome: Outcome) -> Result<Option<Kept>, RecordError> {
        let refused = outcome == Outcome::Failed && !self.begun && self.outputs.is_empty();
        if self.record.data.is_none() || refused || !self.folder.is_dir() {
            return Ok(None);
        }
        let folder = self.folder.clone();
        RunFile::add(&folder, self.into_record(outcome)).map(Some)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let part = self.parts.last().copied().unwrap_or(OTHER);
        *self.record.timings.entry(part.to_owned()).or_default() +=
            (now - self.since).as_secs_f64();
        self.since = now;
    }
}

impl DataRecord {
    /// The images of a category.
    pub fn of(category: &Category) -> Self {
        let mut contents: Vec<&[u8; 32]> = category
            .contents
            .iter()
            .map(blake3::Hash::as_bytes)
            .collect();
        contents.sort_unstable();
        let mut hasher = blake3::Hasher::new();
        for content in &contents {
            hasher.update(*content);
        }
        let hashes =
            category
                .dataset
                .samples
                .iter()
                .zip(&category.contents)
                .map(|(sample, content)| {
                    (
                        sample.id.clone(),
                        content.to_hex()[..HASH_DIGITS].to_owned(),
                    )
                });
        Self {
            intake: category.dataset.ledger.clone(),
            images: contents.len(),
            hash: hasher.finalize().to_hex().to_string(),
            image_hashes: hashes.collect(),
        }
    }

    /// What differs between this and `now`, image by image, in the order of their names: `changed x`, `gone y`,
    /// `new z`.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self
            .image_hashes
            .keys()
            .chain(now.image_hashes.keys())
            .collect();
        let of = |name: &String| match (self.image_hashes.get(name), now.image_hashes.get(name)) {
            (Some(a), Some(b)) => (a != b).then(|| format!("changed {name}")),
            (Some(_), None) => Some(format!("gone {name}")),
            (None, _) => Some(format!("new {name}")),
        };
        names.into_iter().filter_map(of).collect()
    }
}

/// A file by its content; its path is relative to `folder` if it is inside of it, and absolute otherwise.
///
/// # Errors
/// It cannot be read.
pub fn file_record(path: &Path, folder: &Path) -> io::Result<FileRecord> {
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    let (real, folder) = (path.canonicalize()?, folder.canonicalize()?);
    let inside = real.strip_prefix(&folder).ok().map(|rest| {
        let parts: Vec<_> = rest.iter().map(|p| p.to_string_lossy()).collect();
        parts.join("/")
    });
    Ok(FileRecord {
        path: inside.unwrap_or_else(|| real.to_string_lossy().into_owned()),
        bytes,
        blake3: hasher.finalize().to_hex().to_string(),
    })
}

/// The files of a folder to any depth, by name; or the file itself.
fn gather(path: &Path, all: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(path) else {
        all.push(path.to_owned());
        return;
    };
    let mut inside: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    inside.sort();
    for path in inside {
        gather(&path, all);
    }
}

#[cfg(test)]
mod tests {
    use super::super::OptionSource;
    use super::*;

    #[test]
    fn parts_nest_and_add_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::new("train", folder.path());
        let wait = || std::thread::sleep(std::time::Duration::from_millis(20));
        recorder.hear(&Event::PartBegins("ensemble"));
        wait();
        recorder.hear(&Event::PartBegins("features"));
        wait();
        recorder.hear(&Event::PartEnds("features"));
        recorder.hear(&Event::PartEnds("ensemble"));
        wait();
        let record = recorder.into_record(Outcome::Finished);
        let names: Vec<&str> = record.timings.keys().map(String::as_str).collect();
        assert_eq!(names, ["ensemble", "features", "other"]);
        assert!(
            record.timings.values().all(|s| *s >= 0.02),
            "{:?}",
            record.timings
        );
        let sum: f64 = record.timings.values().sum();
        assert!(
            (sum - record.seconds).abs() < 1e-9,
            "{sum} of {}",
            record.seconds
        );
    }

    #[test]
    fn files_are_named_from_their_folder_and_gone_ones_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let (out, other) = (folder.path().join("out"), folder.path().join("in.pt"));
        fs::create_dir_all(out.join("views/a")).unwrap();
        fs::write(out.join("views/a/1.png"), b"abc").unwrap();
        fs::write(out.join("x.json"), b"").unwrap();
        fs::write(&other, b"in").unwrap();
        let mut recorder = Recorder::new("train", &out);
        for path in [out.join("x.json"), out.join("gone.pt"), out.join("views")] {
            recorder.hear(&Event::Wrote(&path));
        }
        recorder.hear(&Event::Read(&other));
        let record = recorder.into_record(Outcome::Finished);
        let outputs: Vec<_> = record
            .outputs
            .iter()
            .map(|f| (f.path.as_str(), f.bytes))
            .collect();
        assert_eq!(outputs, [("views/a/1.png", 3), ("x.json", 0)]);
        assert_eq!(
            record.outputs[0].blake3,
            blake3::hash(b"abc").to_hex().to_string()
        );
        assert_eq!(
            record.inputs[0].path,
            other.canonicalize().unwrap().display().to_string()
        );
    }

    #[test]
    fn only_options_that_nobody_set_come_to_something() {
        let option = |value: Option<i32>, source| OptionRecord::new(value, source);
        let unset = option(None, OptionSource::Default);
        let given = BTreeMap::from([
            ("seed".to_owned(), option(Some(1), OptionSource::Flag)),
            ("epochs".to_owned(), unset),
        ]);
        let mut recorder =
            Recorder::new("train", Path::new(".")).asked(vec!["train".into()], given);
        let two = option(Some(2), OptionSource::Preset);
        recorder.came_to(["seed", "epochs", "unknown"].map(|name| (name.to_owned(), two.clone())));
        let record = recorder.into_record(Outcome::Finished);
        let found: Vec<_> = record
            .options
            .iter()
            .map(|(n, o)| (n.as_str(), o.value.clone(), o.source))
            .collect();
        assert_eq!(
            found,
            [
                ("epochs", 2.into(), OptionSource::Preset),
                ("seed", 1.into(), OptionSource::Flag)
            ]
        );
    }

    #[test]
    fn a_run_that_knew_no_images_leaves_no_record() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            Recorder::new("train", folder.path())
                .finish(Outcome::Failed)
                .unwrap()
                .is_none()
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
