//! What was judged, so that a restart does not judge it again: a line of JSON an image, written after its verdict.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use flawtune_backbone::atomic_file;
use serde_json::{Value, json};

/// Length of a file, and nanoseconds of its last change since 1970.
type State = (u64, u64);

/// A journal that is open; what it holds of files that are gone, or changed, is left out when it is opened.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    before: HashMap<String, State>,
    failing: bool,
    warn: fn(&str),
}

fn nanoseconds(time: Option<SystemTime>) -> u64 {
    let since = time.and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

fn line(path: &str, (length, modified): State, verdict: &str) -> String {
    json!({"path": path, "length": length, "modified": modified, "verdict": verdict}).to_string()
}

impl Journal {
    /// The journal at `path`, which is made if it is not there.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(path: &Path, warn: fn(&str)) -> io::Result<Self> {
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e),
        };
        let (mut before, mut kept) = (HashMap::new(), String::new());
        let mut lines: Vec<(String, State, String)> = text.lines().filter_map(entry).collect();
        // the last line about a file counts
        lines.reverse();
        for (name, state, verdict) in lines {
            let now = std::fs::metadata(&name).ok();
            let now = now.map(|m| (m.len(), nanoseconds(m.modified().ok())));
            if now == Some(state) && before.insert(name.clone(), state).is_none() {
                let _ = writeln!(kept, "{}", line(&name, state, &verdict));
            }
        }
        atomic_file::write(path, kept.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            before,
            failing: false,
            warn,
        })
    }

    /// Whether a file was judged in this state.
    pub fn knows(&self, path: &Path, length: u64, modified: Option<SystemTime>) -> bool {
        let state = self.before.get(&*path.to_string_lossy());
        state == Some(&(length, nanoseconds(modified)))
    }

    /// Adds a file that is judged. A service outlives a journal that cannot be written, which is said once.
    pub fn add(&mut self, path: &Path, length: u64, modified: Option<SystemTime>, verdict: &str) {
        let state = (length, nanoseconds(modified));
        let text = line(&path.to_string_lossy(), state, verdict) + "\n";
        let failed = self.file.write_all(text.as_bytes()).err();
        match failed {
            Some(e) if !std::mem::replace(&mut self.failing, true) => (self.warn)(&format!(
                "{}: {e}; what is judged from now on may be judged again after a restart",
                self.path.display()
            )),
            Some(_) => {}
            None => self.failing = false,
        }
    }
}

/// A line, if it is one.
fn entry(line: &str) -> Option<(String, State, String)> {
    let value: Value = serde_json::from_str(line).ok()?;
    let number = |key: &str| value[key].as_u64();
    Some((
        value["path"].as_str()?.to_owned(),
        (number("length")?, number("modified")?),
        value["verdict"].as_str()?.to_owned(),
    ))
}
