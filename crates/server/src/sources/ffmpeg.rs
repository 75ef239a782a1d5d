//! The program that reads cameras and films, as a process of its own.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use super::SourceError;
use crate::receivers::Address;

/// How long the program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);
/// Lines and bytes of what it complains of that are kept.
const LINES: usize = 20;
const LINE: u64 = 2048;
const HINT: &str =
    "name rtsp://…, http://…, a device such as /dev/video0, or the file of a film with `source`";

/// What kind of thing images are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It goes on, whether somebody reads or not.
    Stream,
    /// The same, on this machine.
    Device,
    /// It has an end, and waits.
    Film,
}

/// How often an image is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    Every(Duration),
    Trigger,
}

/// What images are read from.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) kind: Kind,
    /// What a log may hold.
    pub(super) shown: String,
    /// What names of its images begin with.
    pub(super) stem: String,
    argument: String,
    /// What the program must not read beside it.
    protocols: &'static str,
    options: &'static [&'static str],
    /// Not to be shown.
    secrets: Vec<String>,
}

impl Input {
    /// Finds out what an address names; it cannot become an option.
    pub(super) fn new(address: &Address) -> Result<Self, SourceError> {
        let wrong = |found: &str| SourceError::Address {
            address: address.clone(),
            found: found.to_owned(),
            hint: HINT,
        };
        let text = address.secret();
        if text.is_empty() || text.starts_with('-') || text.contains(['\0', '\n', '\r']) {
            return Err(wrong("this is the name of no camera, stream or film"));
        }
        if text.contains("://") {
            return Self::stream(address);
        }
        let path = Path::new(text);
        let name = |name: Option<&OsStr>| {
            let name = name.unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        let mut input = Self {
            kind: Kind::Device,
            shown: text.to_owned(),
            stem: name(path.file_name()),
            argument: text.to_owned(),
            protocols: "file",
            options: &[
                "-f",
                "v4l2",
                "-fflags",
                "nobuffer",
                "-use_wallclock_as_timestamps",
                "1",
            ],
            secrets: Vec::new(),
        };
        if text.starts_with("/dev/") && !text.contains("/../") {
            return Ok(input);
        }
        let opened = std::fs::File::open(path).and_then(|file| file.metadata());
        let film = opened.map_err(|source| SourceError::Io {
            option: "source",
            path: path.to_owned(),
            source,
            hint: HINT,
        })?;
        if film.is_dir() {
            return Err(SourceError::Address {
                address: address.clone(),
                found: "this is a folder".into(),
                hint: "name it with `watch` to take the images that arrive in it",
            });
        }
        input.kind = Kind::Film;
        input.stem = name(path.file_stem());
        // whatever else its name looks like, it is a file
        input.argument = format!("file:{text}");
        input.options = &[];
        Ok(input)
    }

    fn stream(address: &Address) -> Result<Self, SourceError> {
        let wrong = |found: &str| SourceError::Address {
            address: address.clone(),
            found: found.to_owned(),
            hint: HINT,
        };
        let parts = address.parts().map_err(wrong)?;
        // by TCP: a packet that UDP lost is a grey block, and that is a flaw
        let rtsp: &[&str] = &[
            "-rtsp_transport",
            "tcp",
            "-fflags",
            "nobuffer",
            "-use_wallclock_as_timestamps",
            "1",
        ];
        let (protocols, options) = match parts.scheme.as_str() {
            "rtsp" => ("rtsp,rtp,tcp,udp", rtsp),
            "rtsps" => ("rtsps,rtsp,rtp,tcp,udp,tls", rtsp),
            "http" | "https" => ("http,https,tcp,tls,crypto", &rtsp[2..]),
            _ => return Err(wrong("only rtsp, rtsps, http and https are served")),
        };
        let text = address.secret();
        let after = text.split_once("://").map_or("", |(_, after)| after);
        let login = after.rsplit_once('@').map(|(login, _)| login.to_owned());
        let raw = login.as_ref().and_then(|l| l.split_once(':'));
        let raw = raw.map(|(_, password)| password.to_owned());
        let secrets = [
            Some(text.to_owned()),
            login.clone(),
            raw,
            parts.password,
            parts.query,
        ];
        Ok(Self {
            kind: Kind::Stream,
            shown: address.to_string(),
            stem: parts.host.trim_matches(['[', ']']).replace(':', "-"),
            argument: text.to_owned(),
            protocols,
            options,
            secrets: secrets
                .into_iter()
                .flatten()
                .filter(|s| !s.is_empty())
                .collect(),
        })
    }

    /// A line without what is secret in the address.
    fn scrubbed(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (number, secret) in self.secrets.iter().enumerate() {
            let instead = if number == 0 {
                self.shown.as_str()
            } else {
                "***"
            };
            line = line.replace(secret, instead);
        }
        line
    }
}

/// The program, found.
#[derive(Debug)]
pub(super) struct Ffmpeg {
    program: PathBuf,
    /// Of before 5.1, which called an option otherwise.
    old: bool,
}

impl Ffmpeg {
    /// Asks the program who it is.
    pub(super) fn find(named: Option<&Path>) -> Result<Self, SourceError> {
        let program = named.unwrap_or(Path::new("ffmpeg")).to_owned();
        let failed = |found: String| SourceError::Ffmpeg {
            program: program.clone(),
            found,
        };
        let spawned = Command::new(&program)
            .arg("-version")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .env_remove("FFREPORT")
            .spawn();
        let mut process = spawned.map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => failed("is not there".into()),
            _ => failed(format!("does not start: {e}")),
        })?;
        let start = Instant::now();
        while matches!(process.try_wait(), Ok(None)) {
            if start.elapsed() > PATIENCE {
                drop(process.kill());
                drop(process.wait());
                return Err(failed("does not answer".into()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut said = Vec::new();
        if let Some(out) = process.stdout.take() {
            drop(out.take(LINE).read_to_end(&mut said));
        }
        let said = String::from_utf8_lossy(&said);
        let version = said.strip_prefix("ffmpeg version ");
        let version = version.ok_or_else(|| failed("answers as another program does".into()))?;
        Ok(Self {
            old: is_old(version),
            program,
        })
    }

    /// Starts to read. Pictures come from its output; nothing goes through a shell.
    pub(super) fn start(&self, input: &Input, pace: Pace) -> std::io::Result<Child> {
        Command::new(&self.program)
            .args(self.arguments(input, pace))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_remove("FFREPORT")
            .spawn()
    }

    fn arguments(&self, input: &Input, pace: Pace) -> Vec<OsString> {
        let mut list: Vec<OsString> = Vec::new();
        let mut add = |more: &[&str]| list.extend(more.iter().map(OsString::from));
        add(&["-nostdin", "-hide_banner", "-loglevel", "error"]);
        add(input.options);
        if input.kind == Kind::Film && pace == Pace::Trigger {
            // as it was filmed: there is a newest picture only in time
            add(&["-re"]);
        }
        add(&[
            "-protocol_whitelist",
            input.protocols,
            "-i",
            &input.argument,
        ]);
        add(&["-map", "0:v:0", "-an", "-sn", "-dn"]);
        if let Pace::Every(every) = pace {
            let every = every.as_secs_f64().max(1e-3);
            let part = |time: &str| format!("floor({time}/{every}+0.001)");
            let (now, before) = (part("t"), part("prev_selected_t"));
            add(&[
                "-vf",
                &format!("select='isnan(prev_selected_t)+gt({now},{before})'"),
            ]);
        }
        // a picture for each that there is, none twice
        add(&[if self.old { "-vsync" } else { "-fps_mode" }, "passthrough"]);
        add(&[
            "-f",
            "image2pipe",
            "-c:v",
            "ppm",
            "-pix_fmt",
            "rgb24",
            "pipe:1",
        ]);
        list
    }
}

/// Whether a version such as `4.4.2-0ubuntu0.22.04.1` is before 5.1; one that is built from a commit is new.
fn is_old(version: &str) -> bool {
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|n| n.parse::<u32>().ok());
    let first = numbers.next();
    first.is_some_and(|first| (first, numbers.next().unwrap_or(0)) < (5, 1))
}

/// The last lines that the program complained in.
pub(super) fn complaints(from: ChildStderr, input: &Input) -> VecDeque<String> {
    let mut from = BufReader::new(from);
    let mut lines = VecDeque::new();
    loop {
        let mut line = Vec::new();
        match (&mut from).take(LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return lines,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end().replace(char::is_control, " ");
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(input.scrubbed(&line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(list: &[OsString]) -> String {
        let list: Vec<_> = list.iter().map(|a| a.to_string_lossy()).collect();
        list.join(" ")
    }

    #[test]
    fn a_source_cannot_become_an_option() {
        for wrong in [
            "-i",
            "-f lavfi",
            "",
            "a\nb",
            "concat:a|b",
            "none.mp4",
            "lavfi://x",
            "file:///etc/passwd",
        ] {
            let said = Input::new(&wrong.into()).unwrap_err().to_string();
            assert!(
                said.contains("`source`") && said.contains("\nhint: "),
                "{said}"
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let film = folder.path().join("concat:a|b.mp4");
        std::fs::write(&film, "").unwrap();
        let film = film.to_str().unwrap();
        let input = Input::new(&film.into()).unwrap();
        assert_eq!((input.kind, &*input.stem), (Kind::Film, "concat:a|b"));
        assert_eq!(input.argument, format!("file:{film}"));
        let said = Input::new(&folder.path().to_str().unwrap().into()).unwrap_err();
        assert!(said.to_string().contains("`watch`"), "{said}");
    }

    #[test]
    fn what_is_read_is_limited() {
        let new = Ffmpeg {
            program: "ffmpeg".into(),
            old: false,
        };
        let every = Pace::Every(Duration::from_millis(500));
        let camera = Input::new(&"rtsp://me:s3cr%65t@cam:8554/1?key=abc".into()).unwrap();
        assert_eq!((camera.kind, &*camera.stem), (Kind::Stream, "cam"));
        let said = text(&new.arguments(&camera, every));
        assert!(
            said.contains("-protocol_whitelist rtsp,rtp,tcp,udp -i rtsp://me:s3cr%65t@cam"),
            "{said}"
        );
        assert!(
            said.contains("-rtsp_transport tcp") && said.contains("-fps_mode passthrough"),
            "{said}"
        );
        assert!(
            said.contains("gt(floor(t/0.5+0.001),floor(prev_selected_t/0.5+0.001))"),
            "{said}"
        );
        let line = camera.scrubbed(
            "a rtsp://me:s3cr%65t@cam:8554/1?key=abc b s3cr%65t c s3cret d me:s3cr%65t@ key=abc",
        );
        assert_eq!(line, "a rtsp://cam:8554/1 b *** c *** d ***@ ***");
        let device = Input::new(&"/dev/video7".into()).unwrap();
        let old = Ffmpeg { old: true, ..new };
        let said = text(&old.arguments(&device, Pace::Trigger));
        assert!(
            said.contains("-f v4l2") && said.contains("-i /dev/video7"),
            "{said}"
        );
        assert!(
            said.contains("-vsync passthrough") && !said.contains("select"),
            "{said}"
        );
    }

    #[test]
    fn a_version_is_old_or_not() {
        for (version, old) in [
            ("4.4.2-0ubuntu0.22.04.1", true),
            ("5.0.1", true),
            ("5.1.9-0+deb12u1", false),
            ("6.1", false),
            ("N-1-g0", false),
            ("8", false),
        ] {
            assert_eq!(is_old(version), old, "{version}");
        }
    }

    #[test]
    fn without_the_program_there_is_a_hint() {
        let said = Ffmpeg::find(Some(Path::new("/none/ffmpeg")))
            .unwrap_err()
            .to_string();
        assert!(said.contains("is not there\nhint: install it"), "{said}");
        let said = Ffmpeg::find(Some(Path::new("true")))
            .unwrap_err()
            .to_string();
        assert!(said.contains("another program"), "{said}");
    }
}
