//! Verdicts as lines of a file.
//!
//! A line a part, written at once. Where the file is moved away or emptied, as logrotate does, the next line begins anew.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::ReceiverError;
use super::queue::{Backoff, Outcome, Queue};
use crate::verdict::{Label, Part};

const OPTION: &str = "verdicts";
/// Bytes of a torn line that are looked at.
const END: u64 = 64 << 10;

const COLUMNS: [&str; 18] = [
    "part",
    "detector",
    "version",
    "content",
    "name",
    "source",
    "at",
    "score",
    "probability",
    "verdict",
    "kind",
    "drift",
    "doubt",
    "threshold",
    "box_x",
    "box_y",
    "box_width",
    "box_height",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Lines,
}

/// A file that verdicts are appended to.
#[derive(Debug)]
pub(super) struct Table {
    path: PathBuf,
    format: Format,
    file: Option<File>,
}

impl Table {
    /// Opens the file, which is made if it is not there, and ends a line that was never written whole.
    pub(super) fn open(path: &Path) -> Result<Self, ReceiverError> {
        let extension = path.extension().and_then(|e| e.to_str());
        let format = match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("csv") => Format::Csv,
            Some("jsonl" | "ndjson") => Format::Lines,
            _ => {
                return Err(ReceiverError::File {
                    option: OPTION,
                    path: path.to_owned(),
                    found: "its name ends in neither .csv nor .jsonl".into(),
                    hint: "name a file such as verdicts.csv with `verdicts`",
                });
            }
        };
        let mut table = Self {
            path: path.to_owned(),
            format,
            file: None,
        };
        table.file().map_err(|source| ReceiverError::Io {
            option: OPTION,
            path: path.to_owned(),
            source,
            hint: "name a file that can be written with `verdicts`",
        })?;
        Ok(table)
    }

    /// Writes until no more comes.
    pub(super) fn work(&mut self, queue: &Queue) {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        while let Some(told) = queue.take() {
            let outcome = loop {
                let Err(error) = self.write(&told.part) else {
                    backoff.reset();
                    break Outcome::Sent;
                };
                // a full disk may be cleared
                if backoff.is_fresh() {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "verdicts cannot be written: trying again");
                }
                if !queue.rest(backoff.pause()) {
                    break Outcome::Dropped;
                }
            };
            queue.settle(outcome);
        }
    }

    fn write(&mut self, part: &Part) -> io::Result<()> {
        let line = match self.format {
            Format::Csv => csv_line(&fields(part))?,
            Format::Lines => {
                let mut line = serde_json::to_vec(part)?;
                line.push(b'\n');
                line
            }
        };
        let written = self.file().and_then(|file| file.write_all(&line));
        if written.is_err() {
            // what is there of the line is ended when the file is opened again
            self.file = None;
        }
        written
    }

    /// The file that has the name now.
    fn file(&mut self) -> io::Result<&mut File> {
        let there = std::fs::metadata(&self.path).ok();
        let kept = self.file.take().filter(|open| {
            let (Ok(open), Some(there)) = (open.metadata(), &there) else {
                return false;
            };
            is_same(&open, there)
        });
        let mut file = match kept {
            Some(file) => file,
            None => self.reopened()?,
        };
        if self.format == Format::Csv && file.metadata()?.len() == 0 {
            file.write_all(&csv_line(&COLUMNS)?)?;
        }
        Ok(self.file.insert(file))
    }

    fn reopened(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .append(true)
            .create(true)
            .open(&self.path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(END)))?;
        let mut end = Vec::new();
        (&file).take(END).read_to_end(&mut end)?;
        let torn = end.rsplit(|b| *b == b'\n').next().unwrap_or_default();
        if !torn.is_empty() {
            // no line of ours has a line break in a field: a quote that is open ends with its line
            let open = torn.split(|b| *b == b'"').count() % 2 == 0;
            let quote = self.format == Format::Csv && open;
            file.write_all(if quote { b"\"\n" } else { b"\n" })?;
            let path = self.path.display();
            tracing::warn!(%path, "the last line was never written whole");
        }
        Ok(file)
    }
}

#[cfg(unix)]
fn is_same(open: &Metadata, there: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

#[cfg(not(unix))]
fn is_same(open: &Metadata, there: &Metadata) -> bool {
    open.created().ok() == there.created().ok()
}

fn fields(part: &Part) -> [String; 18] {
    let at = UNIX_EPOCH + Duration::from_millis(part.at.max(0) as u64);
    let source = serde_json::to_value(part.source).ok();
    let source = source.as_ref().and_then(|s| s.as_str()).unwrap_or_default();
    let region = part.regions.first();
    let of = |number: Option<usize>| number.map(|n| n.to_string()).unwrap_or_default();
    let text = |text: &str| text.replace(char::is_control, " ");
    [
        part.part.to_string(),
        text(&part.detector),
        part.version.to_string(),
        part.content.clone(),
        text(&part.name),
        source.to_owned(),
        humantime::format_rfc3339_millis(at).to_string(),
        part.score.to_string(),
        part.probability.to_string(),
        match part.verdict {
            Label::Good => "good".into(),
            Label::Flaw => "flaw".into(),
        },
        text(part.kind.as_deref().unwrap_or_default()),
        part.drift.to_string(),
        part.doubt.to_string(),
        part.threshold.to_string(),
        of(region.map(|r| r.left)),
        of(region.map(|r| r.top)),
        of(region.map(|r| r.width)),
        of(region.map(|r| r.height)),
    ]
}

fn csv_line(fields: &[impl AsRef<[u8]>]) -> io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(fields)?;
    writer.into_inner().map_err(csv::IntoInnerError::into_error)
}
