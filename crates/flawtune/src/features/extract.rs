//! From image files to tokens.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use flawtune_backbone::preprocess::{
    DecodeOptions, ImageError, Preprocess, RgbImage8, decode, read_file,
};
use rayon::prelude::*;

use super::cache::{FeatureCache, Source};
use super::{BadImage, FeatureError, Forward, ImageTokens, Inputs, TokenSet, Turn};

/// Files hashed between two progress reports.
const READ_CHUNK: usize = 64;

/// Extracts tokens: a backbone, how its input is prepared, and where results are kept.
pub struct Extractor<'a> {
    /// The backbone.
    pub forward: &'a dyn Forward,
    /// How images become its input.
    pub preprocess: Preprocess,
    /// Bounds of decoding; the choice about EXIF is the preprocessing's.
    pub decode: DecodeOptions,
    /// Images per forward pass; 0 counts as 1.
    pub batch_size: usize,
    /// Where tokens are kept; `None` keeps nothing.
    pub cache: Option<FeatureCache>,
    /// Leave out images that cannot be read, instead of failing.
    pub skip_bad_images: bool,
    /// Turn every image before it is prepared.
    pub turn: Turn,
}

/// What extraction is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Files are read and looked up in the cache.
    Reading,
    /// Images that are not in the cache go through the backbone.
    Extracting,
    /// Good images are compared with each other.
    Comparing,
}

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// Images done in it.
    pub done: usize,
    /// Images it has.
    pub total: usize,
}

/// What an extraction did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExtractReport {
    /// Distinct images whose tokens came from the cache.
    pub hits: usize,
    /// Distinct images that went through the backbone.
    pub misses: usize,
    /// Images with the same bytes as an earlier one of the list.
    pub duplicates: usize,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Bytes of the distinct tokens.
    pub bytes: u64,
    /// What the user should know although it did not stop the work (the cache could not be written).
    pub notes: Vec<String>,
}

/// Tokens and how they came about.
#[derive(Debug, Clone)]
pub struct Extraction {
    /// The tokens of the images in `kept`, in that order.
    pub tokens: TokenSet,
    /// Positions in the list asked for; all of them unless images were skipped.
    pub kept: Vec<usize>,
    /// Images left out, in the order asked for.
    pub skipped: Vec<BadImage>,
    /// Counts.
    pub report: ExtractReport,
}

/// A distinct image.
struct Slot {
    hash: blake3::Hash,
    /// Positions in the list that have these bytes; never empty.
    positions: Vec<usize>,
    tokens: Option<ImageTokens>,
}

impl<'a> Extractor<'a> {
    /// An extractor without a cache that fails on the first list with an unreadable image; batches of 8.
    pub fn new(forward: &'a dyn Forward, preprocess: Preprocess) -> Self {
        Self {
            forward,
            preprocess,
            decode: preprocess.decode_options(),
            batch_size: 8,
            cache: None,
            skip_bad_images: false,
            turn: Turn::default(),
        }
    }

    /// What decides the tokens besides the images.
    pub fn source(&self) -> Source {
        Source {
            model: self.forward.name().to_string(),
            weights: self.forward.weights_hash().to_string(),
            variant: self.forward.variant(),
            preprocessing: match self.turn {
                none if none.is_none() => self.preprocess.id(),
                turn => format!("{} turned {}", self.preprocess.id(), turn.degrees()),
            },
        }
    }

    /// Tokens of the images at `paths`, in that order.
    ///
    /// Images of equal bytes are extracted once. The result does not depend on the cache, the batch size or the
    /// number of threads (as far as the backbone's does not). At most two batches of prepared pixels are in memory.
    /// A cache that cannot be written is given up with a note in the report.
    ///
    /// # Errors
    /// [`FeatureError::BadImages`] names every image that cannot be read, unless they are skipped; what else can
    /// happen is that no image is left, or that the backbone fails.
    pub fn extract<P: AsRef<Path> + Sync>(
        &self,
        paths: &[P],
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<Extraction, FeatureError> {
        let start = Instant::now();
        let (height, width) = self.preprocess.size;
        let (grid, dim) = (self.forward.grid(height, width), self.forward.dim());
        if grid.0 == 0 || grid.1 == 0 {
            return Err(FeatureError::TooSmall {
                height,
                width,
                model: self.forward.name().to_string(),
            });
        }
        let source = self.source();
        let mut report = ExtractReport::default();
        let mut bad: Vec<BadImage> = Vec::new();

        let mut slots = self.distinct(paths, &mut bad, on_progress);
        report.duplicates = slots.iter().map(|s| s.positions.len() - 1).sum();
        if let Some(cache) = &self.cache {
            slots.par_iter_mut().for_each(|slot| {
                slot.tokens = cache
                    .load(&source, &slot.hash)
                    .filter(|entry| entry.grid == grid && entry.dim == dim)
                    .map(|entry| entry.tokens);
            });
        }
        let missing: Vec<usize> = (0..slots.len())
            .filter(|i| slots[*i].tokens.is_none())
            .collect();
        report.hits = slots.len() - missing.len();
        self.extract_missing(
            &mut slots,
            &missing,
            paths,
            &source,
            &mut bad,
            &mut report,
            on_progress,
        )?;

        bad.sort_by_key(|image| image.index);
        if !bad.is_empty() && !self.skip_bad_images {
            return Err(FeatureError::BadImages {
                images: bad,
                asked: paths.len(),
            });
        }
        let mut of_position: Vec<Option<ImageTokens>> = vec![None; paths.len()];
        for slot in &slots {
            if let Some(tokens) = &slot.tokens {
                report.bytes += (4 * (tokens.cls().len() + tokens.patches().len())) as u64;
                for position in &slot.positions {
                    of_position[*position] = Some(tokens.clone());
                }
            }
        }
        let kept: Vec<usize> = (0..paths.len())
            .filter(|i| of_position[*i].is_some())
            .collect();
        if kept.is_empty() {
            return Err(FeatureError::NoImages { skipped: bad });
        }
        let images = of_position.into_iter().flatten().collect();
        report.seconds = start.elapsed().as_secs_f64();
        Ok(Extraction {
            tokens: TokenSet { grid, dim, images },
            kept,
            skipped: bad,
            report,
        })
    }

    fn decode_options(&self) -> DecodeOptions {
        DecodeOptions {
            apply_exif_orientation: self.preprocess.apply_exif_orientation,
            bit_depth: self.preprocess.bit_depth,
            ..self.decode
        }
    }

    /// Reads and hashes every file and groups equal ones, in the order of first appearance.
    fn distinct<P: AsRef<Path> + Sync>(
        &self,
        paths: &[P],
        bad: &mut Vec<BadImage>,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Vec<Slot> {
        let options = self.decode_options();
        let mut slots: Vec<Slot> = Vec::new();
        let mut known: HashMap<blake3::Hash, usize> = HashMap::new();
        let mut position = 0;
        for chunk in paths.chunks(READ_CHUNK) {
            let hashes: Vec<_> = chunk
                .par_iter()
                .map(|path| read_file(path.as_ref(), &options).map(|bytes| blake3::hash(&bytes)))
                .collect();
            for (path, hash) in chunk.iter().zip(hashes) {
                match hash {
                    Ok(hash) => {
                        let slot = *known.entry(hash).or_insert_with(|| {
                            slots.push(Slot {
                                hash,
                                positions: Vec::new(),
                                tokens: None,
                            });
                            slots.len() - 1
                        });
                        slots[slot].positions.push(position);
                    }
                    Err(error) => {
                        bad.push(BadImage::new(position, path.as_ref().to_path_buf(), &error));
                    }
                }
                position += 1;
            }
            on_progress(Progress {
                stage: Stage::Reading,
                done: position,
                total: paths.len(),
            });
        }
        slots
    }

    /// Sends the missing slots through the backbone, batch by batch, and stores them.
    fn extract_missing<P: AsRef<Path> + Sync>(
        &self,
        slots: &mut [Slot],
        missing: &[usize],
        paths: &[P],
        source: &Source,
        bad: &mut Vec<BadImage>,
        report: &mut ExtractReport,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<(), FeatureError> {
        let batches: Vec<&[usize]> = missing.chunks(self.batch_size.max(1)).collect();
        let mut cache = self.cache.as_ref();
        let mut done = 0;
        // once an image is bad and none may be skipped, the rest is only checked, so that all are named
        let mut compute = bad.is_empty() || self.skip_bad_images;
        let mut current = batches
            .first()
            .map(|batch| self.prepare(batch, slots, paths, compute));
        for (i, batch) in batches.iter().enumerate() {
            let prepared = current.take().unwrap_or_default();
            for (slot, error) in &prepared.failed {
                for position in &slots[*slot].positions {
                    bad.push(BadImage::new(
                        *position,
                        paths[*position].as_ref().to_path_buf(),
                        error,
                    ));
                }
            }
            compute &= prepared.failed.is_empty() || self.skip_bad_images;
            let next = batches.get(i + 1);
            let shared: &[Slot] = slots;
            let (tokens, upcoming) = rayon::join(
                || {
                    // a batch in which images turn out to be bad was prepared, but is not worth a pass
                    let count = if compute { prepared.slots.len() } else { 0 };
                    prepared
                        .inputs
                        .tokens(self.forward, count, self.preprocess.size)
                },
                || next.map(|batch| self.prepare(batch, shared, paths, compute)),
            );
            current = upcoming;
            let tokens = tokens?;
            let (grid, dim) = self.shape();
            if let Some(open) = cache {
                let stored = prepared.slots.par_iter().zip(&tokens);
                let stored: Result<(), _> = stored
                    .map(|(slot, tokens)| {
                        open.store(source, &shared[*slot].hash, grid, dim, tokens)
                    })
                    .collect();
                if let Err(error) = stored {
                    report.notes.push(format!(
                        "the feature cache {} cannot be written ({error}); going on without it, the next run will \
                         extract again",
                        open.folder().display()
                    ));
                    cache = None;
                }
            }
            report.misses += tokens.len();
            for (slot, tokens) in prepared.slots.iter().zip(tokens) {
                slots[*slot].tokens = Some(ImageTokens::owned(tokens, grid.0 * grid.1, dim));
            }
            done += batch.len();
            on_progress(Progress {
                stage: Stage::Extracting,
                done,
                total: missing.len(),
            });
        }
        Ok(())
    }

    fn shape(&self) -> ((usize, usize), usize) {
        let (height, width) = self.preprocess.size;
        (self.forward.grid(height, width), self.forward.dim())
    }

    /// Decodes a batch in parallel; with `compute` off the images are only checked.
    fn prepare<P: AsRef<Path> + Sync>(
        &self,
        batch: &[usize],
        slots: &[Slot],
        paths: &[P],
        compute: bool,
    ) -> Prepared {
        let options = self.decode_options();
        let load = |slot: &usize, put: &mut dyn FnMut(&RgbImage8)| -> Result<(), ImageError> {
            let path = paths[slots[*slot].positions[0]].as_ref();
            let bytes = read_file(path, &options)?;
            if blake3::hash(&bytes) != slots[*slot].hash {
                // its tokens would be stored under the key of the old content
                let source = std::io::Error::other("the file changed while it was being read");
                return Err(ImageError::Read {
                    path: path.to_path_buf(),
                    source,
                });
            }
            let image = decode(&bytes, path, &options)?;
            self.preprocess
                .check_size(path, (image.height(), image.width()))?;
            if compute && self.turn.is_none() {
                put(&image);
            } else if compute {
                // what is turned is the part that is looked at
                put(&self.turn.apply(self.preprocess.cut(&image).into_owned()));
            }
            Ok(())
        };
        let (inputs, results) = if compute {
            let after_turn = Preprocess {
                roi: self.preprocess.roi.filter(|_| self.turn.is_none()),
                ..self.preprocess
            };
            Inputs::load(batch, self.forward, &after_turn, load)
        } else {
            (
                Inputs::default(),
                batch
                    .par_iter()
                    .map(|slot| load(slot, &mut |_| {}))
                    .collect(),
            )
        };
        let mut prepared = Prepared {
            inputs,
            ..Prepared::default()
        };
        for (slot, result) in batch.iter().zip(results) {
            match result {
                Ok(()) if compute => prepared.slots.push(*slot),
                Ok(()) => {}
                Err(error) => prepared.failed.push((*slot, error)),
            }
        }
        prepared
    }
}

/// A batch that is ready for the backbone.
#[derive(Default)]
struct Prepared {
    /// The slots whose images are in `inputs`.
    slots: Vec<usize>,
    inputs: Inputs,
    /// The slots whose images cannot be read.
    failed: Vec<(usize, ImageError)>,
}
