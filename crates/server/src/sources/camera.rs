//! Images of a camera, a stream or a film.

use std::io::BufReader;
use std::process::{Child, ChildStdout, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use image::ExtendedColorType;
use image::ImageEncoder as _;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};

use super::ffmpeg::{Ffmpeg, Input, Kind, Pace, complaints};
use super::frames::{Frame, Frames, Taking};
use super::{Hand, Refused, Tally};
use crate::receivers::Backoff;
use crate::verdict::Source;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a camera may show nothing, beside the time between two pictures.
const STALLED: Duration = Duration::from_secs(30);
/// How long a program may take to end once it writes no more.
const LAST: Duration = Duration::from_secs(2);

/// What reads pictures, and what hands them in.
#[derive(Debug)]
pub(super) struct Camera {
    input: Input,
    pace: Pace,
    ffmpeg: Ffmpeg,
    pub(super) frames: Frames,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    process: Option<Child>,
    /// When the last picture came, or the program started.
    alive: Instant,
    over: bool,
}

impl Camera {
    pub(super) fn new(input: Input, pace: Pace, ffmpeg: Ffmpeg) -> Self {
        let taking = match (pace, input.kind) {
            (Pace::Trigger, _) => Taking::Asked,
            (Pace::Every(_), Kind::Film) => Taking::All,
            (Pace::Every(_), _) => Taking::Newest,
        };
        Self {
            input,
            pace,
            ffmpeg,
            frames: Frames::new(taking),
            running: Mutex::new(Running {
                process: None,
                alive: Instant::now(),
                over: false,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the program, now and for good.
    pub(super) fn stop(&self) {
        let mut running = self.lock();
        running.over = true;
        if let Some(process) = &mut running.process {
            drop(process.kill());
        }
        drop(running);
        self.frames.end();
    }

    /// Reads pictures until the film or the server ends; what ends otherwise is started again.
    pub(super) fn read(&self, hand: &Hand) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let source = hand.tally.name.as_str();
        while !self.lock().over {
            let (pictures, reason) = self.play(&hand.tally);
            self.frames.away();
            if self.lock().over {
                break;
            }
            if self.input.kind == Kind::Film {
                if let Some(reason) = reason {
                    hand.tally.failed();
                    tracing::warn!(source, pictures, "the film ends before its end: {reason}");
                } else {
                    tracing::info!(source, pictures, "the film is over");
                }
                break;
            }
            if pictures > 0 {
                backoff.reset();
            }
            if backoff.is_fresh() {
                let reason = reason.as_deref().unwrap_or("the stream ended");
                tracing::warn!(source, "no pictures, trying again: {reason}");
            }
            hand.stop.rest(backoff.pause());
        }
        self.frames.end();
    }

    /// Runs the program once: how many pictures came, and what it died of.
    fn play(&self, tally: &Tally) -> (u64, Option<String>) {
        let mut process = match self.ffmpeg.start(&self.input, self.pace) {
            Ok(process) => process,
            Err(e) => return (0, Some(format!("ffmpeg does not start: {e}"))),
        };
        let (out, complained) = (process.stdout.take(), process.stderr.take());
        let mut running = self.lock();
        if running.over {
            drop(process.kill());
        }
        running.process = Some(process);
        running.alive = Instant::now();
        drop(running);
        let (pictures, read, complaints) = std::thread::scope(|scope| {
            let complaints = complained.map(|from| scope.spawn(|| complaints(from, &self.input)));
            let (pictures, read) = self.pictures(out, tally);
            if read.is_err() {
                // it may be well and write what is no picture
                if let Some(process) = &mut self.lock().process {
                    drop(process.kill());
                }
            }
            let lines = complaints.and_then(|thread| thread.join().ok());
            (pictures, read, lines.unwrap_or_default())
        });
        let process = self.lock().process.take();
        let status = process.map(reaped);
        let complaints = Vec::from(complaints).join("; ");
        let reason = match (read, status) {
            (Ok(()), Some(Ok(status))) if status.success() && pictures > 0 => None,
            (Ok(()), Some(Ok(status))) if status.success() => {
                Some("there is no picture in it".into())
            }
            (Ok(()), Some(Ok(status))) => Some(format!("ffmpeg ended with {status}")),
            (Err(e), _) | (Ok(()), Some(Err(e))) => Some(e.to_string()),
            (Ok(()), None) => None,
        };
        let reason = reason.map(|reason| match complaints.as_str() {
            "" => reason,
            complaints => format!("{reason}: {complaints}"),
        });
        (pictures, reason)
    }

    fn pictures(&self, out: Option<ChildStdout>, tally: &Tally) -> (u64, std::io::Result<()>) {
        let Some(out) = out else {
            return (0, Ok(()));
        };
        let mut out = BufReader::with_capacity(1 << 16, out);
        let mut pictures = 0;
        loop {
            match super::ppm::read(&mut out) {
                Ok(Some(picture)) => {
                    pictures += 1;
                    self.lock().alive = Instant::now();
                    self.frames.arrive(picture, tally);
                }
                Ok(None) => return (pictures, Ok(())),
                Err(e) => return (pictures, Err(e)),
            }
        }
    }

    /// Ends a program that shows nothing any more, so that it is started again.
    pub(super) fn guard(&self, hand: &Hand) {
        let most = match self.pace {
            Pace::Every(every) => STALLED + every,
            Pace::Trigger => STALLED,
        };
        while hand.stop.rest(Duration::from_millis(500)) {
            self.frames.forget_late(&hand.tally);
            let mut running = self.lock();
            let stalled = self.input.kind != Kind::Film && running.alive.elapsed() > most;
            if let Some(process) = running.process.as_mut().filter(|_| stalled) {
                drop(process.kill());
                running.alive = Instant::now();
                drop(running);
                tracing::warn!(
                    source = hand.tally.name,
                    "the camera shows nothing any more"
                );
            }
        }
    }

    /// Hands in what is taken until no more comes.
    pub(super) fn work(&self, hand: &Hand) {
        while let Some(frame) = self.frames.next(&hand.tally) {
            if hand.stop.is_over() {
                hand.tally.dropped(1);
                continue;
            }
            let name = self.name(&frame);
            let bytes = match png(&frame) {
                Ok(bytes) => bytes,
                Err(error) => {
                    hand.tally.failed();
                    tracing::warn!(image = name, %error, "a picture cannot be written as PNG");
                    continue;
                }
            };
            let newest = matches!(self.pace, Pace::Every(_)) && self.input.kind != Kind::Film;
            let handed = if newest {
                // the next is as good
                hand.submit_once(&name, Source::Camera, bytes)
            } else {
                hand.submit_all(&name, Source::Camera, &bytes)
            };
            match handed {
                Ok(()) => {}
                Err(Refused::Busy(_)) => hand.tally.dropped(1),
                Err(Refused::Bad(reason)) => {
                    hand.tally.failed();
                    tracing::warn!(image = name, "left out: {reason}");
                }
                Err(Refused::Closed) => {
                    hand.tally.dropped(1);
                    self.stop();
                }
            }
        }
    }

    fn name(&self, frame: &Frame) -> String {
        let stem = &self.input.stem;
        if self.input.kind == Kind::Film {
            return format!("{stem}-{:06}.png", frame.number);
        }
        let time = humantime::format_rfc3339_millis(frame.at).to_string();
        format!("{stem}-{}.png", time.replace(':', "-"))
    }
}

/// How a program ended that writes no more; one that does not end is ended.
fn reaped(mut process: Child) -> std::io::Result<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < LAST {
        if let Some(status) = process.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    process.kill()?;
    process.wait()
}

fn png(frame: &Frame) -> image::ImageResult<Vec<u8>> {
    let mut bytes = Vec::new();
    let picture = &frame.picture;
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive)
        .write_image(
            &picture.pixels,
            picture.width,
            picture.height,
            ExtendedColorType::Rgb8,
        )?;
    Ok(bytes)
}
