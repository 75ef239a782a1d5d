//! Images come from folders, films and streams, also where these are slow, broken or away.

#![allow(clippy::unwrap_used)] // a test may stop
#![allow(clippy::print_stdout)] // a skipped check says so by name

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use flawtune_server::receivers::{Address, Counted};
use flawtune_server::sources::{Refused, SourceOptions, Sources, Submit};
use flawtune_server::verdict::Source;
use image::ImageFormat;

const PATIENCE: Duration = Duration::from_secs(8);

/// Keeps what is handed in; refuses each time what it was told to.
#[derive(Default)]
struct Kept {
    images: Mutex<Vec<(String, Source, Vec<u8>)>>,
    refusals: Mutex<Vec<Refused>>,
    pause: Duration,
    /// How often an image of this content was handed in.
    bad: Mutex<HashMap<Vec<u8>, u32>>,
}

impl Submit for Kept {
    fn submit(&self, name: &str, source: Source, bytes: Vec<u8>) -> Result<(), Refused> {
        thread::sleep(self.pause);
        if let Some(refused) = self.refusals.lock().unwrap().pop() {
            return Err(refused);
        }
        if let Some(tried) = self.bad.lock().unwrap().get_mut(&bytes) {
            *tried += 1;
            return Err(Refused::Bad("it is no image".into()));
        }
        let mut images = self.images.lock().unwrap();
        images.push((name.to_owned(), source, bytes));
        Ok(())
    }
}

impl Kept {
    fn names(&self) -> Vec<String> {
        let images = self.images.lock().unwrap();
        images.iter().map(|(name, ..)| name.clone()).collect()
    }

    fn count(&self) -> usize {
        self.images.lock().unwrap().len()
    }

    fn pictures(&self) -> Vec<image::RgbImage> {
        let images = self.images.lock().unwrap();
        let read = |bytes: &[u8]| image::load_from_memory_with_format(bytes, ImageFormat::Png);
        images
            .iter()
            .map(|(.., bytes)| read(bytes).unwrap().into_rgb8())
            .collect()
    }
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what} took too long");
        thread::sleep(Duration::from_millis(10));
    }
}

fn only(counts: &[Counted]) -> &Counted {
    assert_eq!(counts.len(), 1, "{counts:?}");
    &counts[0]
}

fn start(options: &SourceOptions, folder: &Path, kept: &Arc<Kept>) -> Sources {
    let submit: Arc<dyn Submit> = Arc::clone(kept) as _;
    Sources::start(options, &folder.join("journal"), &[], submit).unwrap()
}

#[test]
fn a_folder_gives_each_image_once_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join("in").join(name);
    std::fs::create_dir_all(at("day")).unwrap();
    let options = SourceOptions {
        watch: Some(at("")),
        ..SourceOptions::default()
    };
    let kept = Arc::new(Kept::default());
    let busy = Refused::Busy(Duration::from_millis(30));
    kept.refusals.lock().unwrap().extend([busy.clone(), busy]);
    kept.bad.lock().unwrap().insert(b"bad".to_vec(), 0);
    let sources = start(&options, folder.path(), &kept);
    // a writer that takes its time
    let mut slow = std::fs::File::create(at("slow.png")).unwrap();
    for _ in 0..6 {
        slow.write_all(b"part").unwrap();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(kept.count(), 0, "it is not whole");
    }
    drop(slow);
    std::fs::write(at("day/a.png"), "one").unwrap();
    std::fs::write(at("bad.png"), "bad").unwrap();
    std::fs::write(at("note.txt"), "none").unwrap();
    wait("two images", || kept.count() == 2);
    let images = kept.images.lock().unwrap().clone();
    assert!(images.contains(&("slow.png".into(), Source::Folder, b"part".repeat(6))));
    assert!(images.contains(&("day/a.png".into(), Source::Folder, b"one".to_vec())));
    sources.stop();
    // what was taken is not taken again, what is new is
    std::fs::write(at("b.png"), "two").unwrap();
    let sources = start(&options, folder.path(), &kept);
    wait("a new image", || kept.count() == 3);
    assert_eq!(kept.names()[2], "b.png");
    // a folder that is away and comes back
    std::fs::rename(at(""), folder.path().join("away")).unwrap();
    thread::sleep(Duration::from_millis(300));
    std::fs::create_dir_all(at("")).unwrap();
    std::fs::write(at("c.png"), "three").unwrap();
    wait("another image", || kept.count() == 4);
    sources.stop();
    assert_eq!(kept.names()[3], "c.png");
}

#[test]
fn a_bad_image_is_tried_some_times_and_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("in")).unwrap();
    let options = SourceOptions {
        watch: Some(folder.path().join("in")),
        ..SourceOptions::default()
    };
    let kept = Arc::new(Kept::default());
    kept.bad.lock().unwrap().insert(b"bad".to_vec(), 0);
    // it heals while it is tried
    let path = folder.path().join("in/a.png");
    std::fs::write(&path, "bad").unwrap();
    let sources = start(&options, folder.path(), &kept);
    wait("a try", || kept.bad.lock().unwrap()[&b"bad"[..]] > 1);
    std::fs::write(&path, "well").unwrap();
    wait("the image", || kept.count() == 1);
    let counts = sources.stop();
    assert_eq!((only(&counts).sent, only(&counts).failed), (1, 0));
}

#[test]
fn what_the_server_writes_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let sorted = folder.path().join("sorted");
    std::fs::create_dir(&sorted).unwrap();
    std::fs::write(sorted.join("a.png"), "one").unwrap();
    std::fs::write(folder.path().join("b.png"), "two").unwrap();
    let kept = Arc::new(Kept::default());
    let options = SourceOptions {
        watch: Some(folder.path().to_owned()),
        ..SourceOptions::default()
    };
    let data = tempfile::tempdir().unwrap();
    let (journal, submit) = (data.path().join("journal"), Arc::clone(&kept) as _);
    let sources = Sources::start(&options, &journal, &[&sorted], submit).unwrap();
    wait("an image", || kept.count() == 1);
    thread::sleep(Duration::from_millis(500));
    sources.stop();
    assert_eq!(kept.names(), ["b.png"]);
}

#[test]
fn what_is_wrong_is_said_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let text = |options: SourceOptions| {
        let submit: Arc<dyn Submit> = Arc::new(Kept::default());
        let started = Sources::start(&options, &folder.path().join("journal"), &[], submit);
        started.err().unwrap().to_string()
    };
    let source = |source: &str| SourceOptions {
        source: Some(source.into()),
        on_trigger: true,
        ..SourceOptions::default()
    };
    let ffmpeg = SourceOptions {
        ffmpeg: Some(folder.path().join("none")),
        ..source("/dev/video0")
    };
    let neither = SourceOptions {
        on_trigger: false,
        ..source("/dev/video0")
    };
    let alone = SourceOptions {
        every: Some(Duration::from_secs(1)),
        ..SourceOptions::default()
    };
    let never = SourceOptions {
        every: Some(Duration::ZERO),
        on_trigger: false,
        ..source("/dev/video0")
    };
    let away = SourceOptions {
        watch: Some(folder.path().join("none")),
        ..SourceOptions::default()
    };
    let hostile = source("-f lavfi");
    for options in [
        ffmpeg,
        neither,
        alone,
        never,
        away,
        hostile,
        source("none.mp4"),
    ] {
        let text = text(options);
        let (said, hint) = text.split_once('\n').unwrap();
        assert!(said.contains('`') || said.contains("ffmpeg"), "{text}");
        assert!(hint.starts_with("hint: "), "{text}");
    }
}

fn installed(test: &str) -> bool {
    let mut program = Command::new("ffmpeg");
    program
        .arg("-version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let found = program.status().is_ok();
    if !found {
        println!("skipped: {test} (ffmpeg not installed)");
    }
    found
}

/// A film of three seconds, ten pictures each.
fn film(folder: &Path) -> PathBuf {
    let film = folder.join("line 1.mp4");
    let made = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-f", "lavfi"])
        .args([
            "-i",
            "testsrc=duration=3:size=64x48:rate=10",
            "-c:v",
            "mpeg4",
        ])
        .arg(&film)
        .status();
    assert!(made.unwrap().success());
    film
}

fn camera(source: &str, every: Option<u64>) -> SourceOptions {
    SourceOptions {
        source: Some(source.into()),
        every: every.map(Duration::from_millis),
        on_trigger: every.is_none(),
        ..SourceOptions::default()
    }
}

#[test]
fn a_film_is_looked_at_from_its_beginning_to_its_end() {
    if !installed("a_film_is_looked_at_from_its_beginning_to_its_end") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let film = film(folder.path());
    for (every, wanted) in [(500, 6), (1000, 3), (1, 30)] {
        // who looks is slower than the film is read, and busy at first
        let kept = Arc::new(Kept {
            pause: Duration::from_millis(20),
            ..Kept::default()
        });
        let busy = Refused::Busy(Duration::from_millis(30));
        kept.refusals.lock().unwrap().push(busy);
        let sources = start(
            &camera(film.to_str().unwrap(), Some(every)),
            folder.path(),
            &kept,
        );
        assert!(!sources.trigger(), "nobody is asked");
        wait("the film", || kept.count() == wanted);
        thread::sleep(Duration::from_millis(100));
        let counts = sources.stop();
        let counted = only(&counts);
        assert_eq!(
            (counted.sent, counted.dropped, counted.failed),
            (wanted as u64, 0, 0)
        );
        let pictures = kept.pictures();
        assert_eq!(pictures[0].dimensions(), (64, 48));
        assert!(
            pictures.windows(2).all(|two| two[0] != two[1]),
            "one came twice"
        );
        assert_eq!(
            kept.names()[..2],
            ["line 1-000001.png", "line 1-000002.png"]
        );
        assert!(
            kept.images
                .lock()
                .unwrap()
                .iter()
                .all(|i| i.1 == Source::Camera)
        );
    }
}

#[test]
fn what_is_no_film_is_said_to_be_so() {
    if !installed("what_is_no_film_is_said_to_be_so") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let film = folder.path().join("film.mp4");
    std::fs::write(&film, "this is no film").unwrap();
    let kept = Arc::new(Kept::default());
    let sources = start(
        &camera(film.to_str().unwrap(), Some(500)),
        folder.path(),
        &kept,
    );
    wait("the end", || only(&sources.counts()).failed == 1);
    assert_eq!(only(&sources.stop()).sent, 0);
}

#[test]
fn a_picture_is_taken_when_it_is_asked_for() {
    if !installed("a_picture_is_taken_when_it_is_asked_for") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let film = film(folder.path());
    let kept = Arc::new(Kept::default());
    let sources = start(&camera(film.to_str().unwrap(), None), folder.path(), &kept);
    first(&sources, &kept);
    for number in 2..=3 {
        thread::sleep(Duration::from_millis(300));
        assert!(sources.trigger());
        wait("a picture", || kept.count() == number);
    }
    thread::sleep(Duration::from_millis(200));
    assert_eq!(kept.count(), 3, "only what was asked for");
    let pictures = kept.pictures();
    assert!(pictures[0] != pictures[1] && pictures[1] != pictures[2]);
    assert_eq!(only(&sources.stop()).sent, 3);
}

/// A camera that sends so many pictures to each who asks, ten a second, and then hangs up; while it is `silent` it sends none.
fn stream(pictures: u8, silent: &Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let silent = Arc::clone(silent);
    let send = move |mut stream: TcpStream, silent: &AtomicBool| -> std::io::Result<()> {
        let _ = stream.read(&mut [0; 4096])?;
        let head =
            "HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=cut\r\n\r\n";
        stream.write_all(head.as_bytes())?;
        for number in 0..pictures {
            let grey = image::Rgb([10 + number * 2; 3]);
            let picture = image::RgbImage::from_pixel(48, 32, grey);
            let mut bytes = std::io::Cursor::new(Vec::new());
            picture
                .write_to(&mut bytes, ImageFormat::Jpeg)
                .expect("a picture");
            let bytes = bytes.into_inner();
            let head = format!(
                "--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
                bytes.len()
            );
            stream.write_all(&[head.as_bytes(), &bytes, b"\r\n"].concat())?;
            thread::sleep(Duration::from_millis(100));
            while silent.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let silent = Arc::clone(&silent);
            thread::spawn(move || send(stream, &silent));
        }
    });
    address
}

/// Asks until the camera is there and one picture is taken; how often in vain.
fn first(sources: &Sources, kept: &Kept) -> u64 {
    let mut failed = 0;
    sources.trigger();
    wait("the first picture", || {
        let now = only(&sources.counts()).failed;
        if kept.count() == 0 && now > failed {
            failed = now;
            sources.trigger();
        }
        kept.count() == 1
    });
    failed
}

#[test]
fn a_stream_that_ends_is_read_again() {
    if !installed("a_stream_that_ends_is_read_again") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}/video", stream(12, &Arc::default()));
    let kept = Arc::new(Kept::default());
    let sources = start(&camera(&url, Some(200)), folder.path(), &kept);
    wait("a second connection", || {
        let pictures = kept.pictures();
        let darker =
            |two: &[image::RgbImage]| two[1].get_pixel(0, 0)[0] < two[0].get_pixel(0, 0)[0];
        pictures.windows(2).any(darker)
    });
    let start = Instant::now();
    let counts = sources.stop();
    assert!(start.elapsed() < Duration::from_secs(2), "stopping waits");
    assert!(only(&counts).sent >= 4, "{counts:?}");
    let names = kept.names();
    assert!(
        names.iter().all(|name| name.starts_with("127.0.0.1-20")),
        "{names:?}"
    );
}

#[test]
fn the_newest_of_a_stream_is_taken_and_an_old_one_is_not() {
    if !installed("the_newest_of_a_stream_is_taken_and_an_old_one_is_not") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let silent = Arc::default();
    let url = format!("http://{}/video", stream(120, &silent));
    let kept = Arc::new(Kept::default());
    let sources = start(&camera(&url, None), folder.path(), &kept);
    let failed = first(&sources, &kept);
    thread::sleep(Duration::from_millis(900));
    sources.trigger();
    wait("a later picture", || kept.count() == 2);
    let grey = |p: &image::RgbImage| p.get_pixel(0, 0)[0];
    let grey: Vec<u8> = kept.pictures().iter().map(grey).collect();
    assert!(grey[1] > grey[0] + 6, "{grey:?}");
    // the camera hangs: what it saw last is another part
    silent.store(true, Ordering::Relaxed);
    thread::sleep(Duration::from_millis(1500));
    sources.trigger();
    wait("giving up", || only(&sources.counts()).failed == failed + 1);
    let start = Instant::now();
    assert_eq!(only(&sources.stop()).sent, 2);
    assert!(start.elapsed() < Duration::from_secs(2), "stopping waits");
}

#[test]
fn who_takes_no_more_is_asked_no_more() {
    if !installed("who_takes_no_more_is_asked_no_more") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}/video", stream(30, &Arc::default()));
    let kept = Arc::new(Kept::default());
    let mut refusals = vec![Refused::Closed, Refused::Bad("it is no image".into())];
    refusals.push(Refused::Busy(Duration::from_millis(20)));
    *kept.refusals.lock().unwrap() = refusals;
    let sources = start(&camera(&url, Some(100)), folder.path(), &kept);
    wait("the end", || kept.refusals.lock().unwrap().is_empty());
    thread::sleep(Duration::from_millis(400));
    assert_eq!(kept.count(), 0);
    let counts = sources.stop();
    assert_eq!((only(&counts).sent, only(&counts).failed), (0, 1));
    assert!(only(&counts).dropped >= 2, "{counts:?}");
}

#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_ffmpeg_complains_of_is_said_without_secrets() {
    if !installed("what_ffmpeg_complains_of_is_said_without_secrets") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let said = Said::default();
    let theirs = said.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || theirs.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let kept = Arc::new(Kept::default());
    for scheme in ["rtsp", "http"] {
        let url = format!("{scheme}://me:s3cr%65t@{address}/1?key=s3cret");
        let options = camera(&url, Some(500));
        let sources = start(&options, folder.path(), &kept);
        let shown = format!("{scheme}://{address}/1");
        let text = || String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
        wait("a complaint", || {
            text()
                .lines()
                .any(|l| l.contains(&shown) && l.contains("refused"))
        });
        let counts = sources.stop();
        let text = format!("{} {counts:?} {:?}", text(), Address::from(url.as_str()));
        assert!(!text.contains("s3cr"), "{text}");
    }
}
