//! Copies of images by verdict: `good`, `flaw/<kind>`.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::ReceiverError;
use super::queue::{Outcome, Queue, Told};
use crate::verdict::Part;

const OPTION: &str = "sorted";
/// Bytes that a part of a path may have, so that there is room for a number and for a temporary name.
const LONGEST: usize = 200;
/// Folders of a name that are kept, the last.
const DEEPEST: usize = 8;
/// Names of which the next free number is remembered.
const REMEMBERED: usize = 10_000;
/// How often it is said that images cannot be copied.
const SAID: Duration = Duration::from_secs(60);

/// A folder with a folder for each verdict.
#[derive(Debug)]
pub(super) struct Sorted {
    folder: PathBuf,
    /// The last number given to a name: cameras call every image the same.
    numbers: HashMap<PathBuf, u32>,
    said: Option<Instant>,
}

impl Sorted {
    /// Makes the folder if it is not there, and proves that it can be written.
    pub(super) fn open(folder: &Path) -> Result<Self, ReceiverError> {
        let proved = std::fs::create_dir_all(folder)
            .and_then(|()| tempfile::NamedTempFile::new_in(folder).map(drop));
        proved.map_err(|source| ReceiverError::Io {
            option: OPTION,
            path: folder.to_owned(),
            source,
            hint: "name a folder that can be written with `sorted`",
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            numbers: HashMap::new(),
            said: None,
        })
    }

    /// Copies until no more comes.
    pub(super) fn work(&mut self, queue: &Queue) {
        while let Some(told) = queue.take() {
            let outcome = match self.put(&told) {
                Ok(()) => Outcome::Sent,
                Err(error) => {
                    if self.said.is_none_or(|said| said.elapsed() >= SAID) {
                        self.said = Some(Instant::now());
                        let (folder, name) = (self.folder.display(), &told.part.name);
                        tracing::warn!(%folder, name, %error, "an image cannot be copied");
                    }
                    Outcome::Failed
                }
            };
            queue.settle(outcome);
        }
    }

    /// Copies an image under its verdict, whole or not at all, and over nothing that is there.
    fn put(&mut self, told: &Told) -> io::Result<()> {
        let image = told.image.as_deref().unwrap_or_default();
        let wanted = self.folder.join(place(&told.part));
        let folder = wanted.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder)?;
        let mut options = tempfile::Builder::new();
        options.prefix(flawtune_backbone::atomic_file::PREFIX);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // less what the process's umask takes away, as any new file
            options.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let mut copy = options.tempfile_in(folder)?;
        copy.write_all(image)?;
        let first = self.numbers.get(&wanted).copied().unwrap_or(1);
        for number in first.. {
            let place = numbered(&wanted, number);
            if is_there(&place, image)? {
                return Ok(());
            }
            match copy.persist_noclobber(&place) {
                Ok(_) => {
                    if self.numbers.len() >= REMEMBERED {
                        self.numbers.clear();
                    }
                    self.numbers.insert(wanted, number);
                    return Ok(());
                }
                Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => copy = e.file,
                Err(e) => return Err(e.error),
            }
        }
        Ok(())
    }
}

/// Whether a file with these bytes is there.
fn is_there(place: &Path, image: &[u8]) -> io::Result<bool> {
    match std::fs::metadata(place) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
        Ok(there) => Ok(there.is_file()
            && there.len() == image.len() as u64
            && std::fs::read(place)? == image),
    }
}

/// The name, from the second on with its number: `a~2.png`.
fn numbered(wanted: &Path, number: u32) -> PathBuf {
    if number == 1 {
        return wanted.to_owned();
    }
    let mut name = wanted.file_stem().unwrap_or_default().to_owned();
    name.push(format!("~{number}"));
    if let Some(extension) = wanted.extension() {
        name.push(".");
        name.push(extension);
    }
    wanted.with_file_name(name)
}

/// The place of an image below the folder, from a name that may be anything.
fn place(part: &Part) -> PathBuf {
    let mut place = if part.flaw {
        let kind = part.kind.as_deref().unwrap_or_default().trim();
        let kind = kind.replace(['/', '\\'], "_");
        let kind = if kind.is_empty() { "unknown" } else { &kind };
        Path::new("flaw").join(cleaned(kind))
    } else {
        PathBuf::from("good")
    };
    let names: Vec<String> = part
        .name
        .split(['/', '\\'])
        .filter(|name| !matches!(name.trim(), "" | "."))
        .map(cleaned)
        .collect();
    place.extend(&names[names.len().saturating_sub(DEEPEST)..]);
    if names.is_empty() {
        place.push("image");
    }
    place
}

/// A name without what a file system reads otherwise, and not too long.
fn cleaned(name: &str) -> String {
    let name = name.trim_end_matches('\0');
    if matches!(name.trim(), "" | "." | "..") {
        return "__".into();
    }
    let special = |c: char| c.is_control() || matches!(c, '/' | '\\');
    let foreign = |c: char| cfg!(windows) && matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*');
    let mut name = name.replace(|c| special(c) || foreign(c), "_");
    if cfg!(windows) && name.ends_with(['.', ' ']) {
        name.push('_');
    }
    if name.len() <= LONGEST {
        return name;
    }
    let extension = Path::new(&name).extension().and_then(|e| e.to_str());
    let extension = extension.filter(|e| e.len() < 16);
    let extension = extension.map(|e| format!(".{e}")).unwrap_or_default();
    let mut short = String::new();
    for c in name.chars() {
        if short.len() + c.len_utf8() + extension.len() > LONGEST {
            break;
        }
        short.push(c);
    }
    short + &extension
}

#[cfg(test)]
mod tests {
    use super::super::tests::part;
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_folder() {
        for (name, wanted) in [
            ("a.png", "good/a.png"),
            ("day/shift/a.png", "good/day/shift/a.png"),
            ("/etc/passwd", "good/etc/passwd"),
            ("../../a.png", "good/__/__/a.png"),
            ("..\\..\\a.png", "good/__/__/a.png"),
            ("a/./..", "good/a/__"),
            (".. /x", "good/__/x"),
            ("a\0b\n.png", "good/a_b_.png"),
            ("", "good/image"),
            ("//", "good/image"),
        ] {
            assert_eq!(place(&part(1, name)), Path::new(wanted), "{name:?}");
        }
        let mut flaw = part(1, "a.png");
        flaw.flaw = true;
        assert_eq!(place(&flaw), Path::new("flaw/unknown/a.png"));
        for (kind, wanted) in [
            ("scratch", "flaw/scratch/a.png"),
            ("../x", "flaw/.._x/a.png"),
            ("..", "flaw/__/a.png"),
            (" ", "flaw/unknown/a.png"),
        ] {
            flaw.kind = Some(kind.into());
            assert_eq!(place(&flaw), Path::new(wanted), "{kind:?}");
        }
        let long = format!("{}.png", "ß".repeat(300));
        let name = cleaned(&long);
        assert!(name.len() <= LONGEST && Path::new(&name).extension().is_some());
        let deep = place(&part(1, &"a/".repeat(5000)));
        assert_eq!(deep.components().count(), 1 + DEEPEST);
    }

    #[test]
    fn copies_lie_over_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut sorted = Sorted::open(folder.path()).unwrap();
        for content in ["one", "one", "two", "three", "one"] {
            let told = Told {
                part: part(1, "a.png").into(),
                image: Some(content.as_bytes().into()),
                at: Instant::now(),
            };
            sorted.put(&told).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("good/a.png"), "one");
        assert_eq!(read("good/a~2.png"), "two");
        assert_eq!(read("good/a~3.png"), "three");
        assert_eq!(
            read("good/a~4.png"),
            "one",
            "only the last is compared with"
        );
        assert_eq!(
            std::fs::read_dir(folder.path().join("good"))
                .unwrap()
                .count(),
            4
        );
        std::fs::write(folder.path().join("file"), "").unwrap();
        let text = Sorted::open(&folder.path().join("file"))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("`sorted`") && text.contains("\nhint: "),
            "{text}"
        );
    }
}
