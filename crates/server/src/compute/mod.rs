//! Images that wait, looked at in batches, one after the other, and written down.

mod live;
mod queue;
mod record;

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use flawtune::score::residual::UNKNOWN;
use flawtune::{Image, Prediction};
use flawtune_backbone::preprocess::decode;
use rayon::prelude::*;
use tokio::sync::oneshot;

pub(crate) use live::{Live, Registry};
pub(crate) use queue::Queue;
pub(crate) use record::Recorder;

use crate::files;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::store::{NewPart, now};
use crate::verdict::{Label, Part, Place, Source};

/// Images a forward pass, at most: those that wait when one begins.
const BATCH: usize = 8;

/// An image to be looked at.
#[derive(Debug)]
pub(crate) struct Asked {
    /// By which detector.
    pub(crate) live: Arc<Live>,
    /// The image.
    pub(crate) image: Image,
    /// Its file as it came; none for bare pixels, of which nothing is written down.
    pub(crate) file: Option<Arc<[u8]>>,
    /// Its name.
    pub(crate) name: String,
    /// Where it came from.
    pub(crate) source: Source,
    /// Who waits for the answer.
    pub(crate) reply: oneshot::Sender<Result<Answer, Refusal>>,
    /// When it came.
    pub(crate) since: Instant,
}

/// What is said of an image.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The part; its number is 0 where nothing was written down.
    pub(crate) part: Arc<Part>,
    /// Scores of its patches, that maps are drawn of.
    pub(crate) patches: Vec<f32>,
}

/// Reads an image of a detector, within its bounds.
///
/// # Errors
/// Something else than an image that can be read.
pub(crate) fn read(live: &Live, name: &str, bytes: &[u8]) -> Result<Image, Refusal> {
    let options = live.detector.preprocess().decode_options();
    Ok(decode(bytes, name.as_ref(), &options).map_err(flawtune::Error::from)?)
}

/// Starts the thread that looks at what waits in the queue, until that is closed.
///
/// # Errors
/// A system without threads.
pub(crate) fn start(
    queue: Arc<Queue<Asked>>,
    recorder: Recorder,
    metrics: Arc<Metrics>,
) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new()
        .name("flawtune-look".into())
        .spawn(move || {
            let alike = |a: &Asked, b: &Asked| Arc::ptr_eq(&a.live, &b.live);
            // who asked together asks together again: a batch of one after one of eight would cost the others a pass
            let mut expected = 1;
            while let Some(batch) = queue.take(BATCH, expected, alike) {
                expected = batch.len();
                // who has gone needs no answer
                let mut batch: Vec<Asked> =
                    batch.into_iter().filter(|a| !a.reply.is_closed()).collect();
                if !batch.is_empty() {
                    let (images, begun) = (batch.len(), Instant::now());
                    look(&mut batch, &recorder);
                    metrics.batch(images, begun.elapsed());
                }
            }
        })
}

/// Looks at images of one detector and hands them to the recorder.
fn look(batch: &mut Vec<Asked>, recorder: &Recorder) {
    let live = Arc::clone(&batch[0].live);
    let images: Vec<Image> = batch
        .iter_mut()
        .map(|asked| std::mem::replace(&mut asked.image, Image::from_pixels(1, 1, vec![0; 3])))
        .collect();
    let found = match live.detector.find(&images) {
        Ok(found) => found,
        // one that cannot be looked at does not take the others with it
        Err(_) if batch.len() > 1 => {
            for (mut asked, image) in batch.drain(..).zip(images) {
                asked.image = image;
                look(&mut vec![asked], recorder);
            }
            return;
        }
        Err(error) => {
            let asked = batch.drain(..).next();
            if let Some(asked) = asked {
                drop(asked.reply.send(Err(error.into())));
            }
            return;
        }
    };
    let looked = batch.par_drain(..).zip(&images).zip(found);
    let judged: Vec<_> = looked
        .map(|((asked, image), found)| {
            let size = (image.height(), image.width());
            let said = live.detector.verdict(size, &found, None);
            let part = said.map(|said| NewPart {
                detector: live.row.id,
                part: part(&asked, size, &said),
                extension: asked.file.as_deref().and_then(files::extension),
                patches: found.distances,
            });
            (asked, part)
        })
        .collect();
    for (asked, part) in judged {
        match part {
            Ok(part) => recorder.record(part, asked),
            Err(error) => drop(asked.reply.send(Err(error.into()))),
        }
    }
}

fn part(asked: &Asked, size: (usize, usize), said: &Prediction) -> Part {
    let content = asked.file.as_ref();
    Part {
        part: 0,
        detector: asked.live.row.name.clone(),
        version: asked.live.version,
        content: content.map_or_else(String::new, |f| blake3::hash(f).to_hex().to_string()),
        name: asked.name.clone(),
        source: asked.source,
        at: now(),
        size,
        score: said.score,
        probability: said.probability,
        flaw: said.flaw,
        verdict: if said.flaw { Label::Flaw } else { Label::Good },
        kind: said.kind.clone(),
        drift: said.drift,
        doubt: doubt(said),
        threshold: asked.live.threshold(),
        regions: said.regions.iter().map(Place::from).collect(),
        judgement: None,
        kept: content.is_some(),
    }
}

/// How much a part deserves a person's look: 1 where a flaw is as likely as none, 0 where one is certain; one more where the image as a
/// whole is unlike those that the detector knows, half more where its flaw is of a kind that it does not know.
fn doubt(said: &Prediction) -> f64 {
    let unsure = 1.0 - (2.0 * said.probability - 1.0).abs();
    let unsure = if unsure.is_finite() { unsure } else { 1.0 };
    let drifted = f64::from(u8::from(said.drift >= 1.0));
    let strange = said.flaw && said.kind.as_deref() == Some(UNKNOWN);
    unsure + drifted + if strange { 0.5 } else { 0.0 }
}
