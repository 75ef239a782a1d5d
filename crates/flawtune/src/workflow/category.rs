//! A category on disk together with the hashes of its images: what a split needs to know.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use flawtune_backbone::preprocess::{Facts, Preprocess, decode, facts, read_file};
use rayon::prelude::*;

use super::intake::{self, Met};
use super::shape::NamedSize;
use super::{Engine, Event, OnEvent, WorkflowError, exclude, part};
use crate::dataset::{Dataset, Source, Subset};
use crate::evaluate::protocol::{SampleInfo, Split, SplitOptions};
use crate::features::{Extractor, FeatureCache, Forward, TokenSet, Turn};

/// How a category's images are read.
#[derive(Debug, Clone)]
pub struct CategoryOptions {
    /// Where the images are.
    pub source: Source,
    /// Name of the category.
    pub category: String,
    /// Whether there have to be images to test; without, good images to learn from are enough.
    pub needs_test: bool,
    /// Leave unreadable images out instead of failing.
    pub skip_bad_images: bool,
    /// Fail where something would only be warned of.
    pub strict: bool,
    /// Good images that are not learned from: paths, names or patterns with `*`, `?` and `[]`.
    pub exclude: Vec<String>,
    /// Where features are kept; `None` keeps none.
    pub cache: Option<FeatureCache>,
    /// Images a forward pass.
    pub batch_size: usize,
}

/// The samples of a category and the hash of each file.
#[derive(Debug)]
pub struct Category {
    /// The samples.
    pub dataset: Dataset,
    /// blake3 of each sample's file.
    pub contents: Vec<blake3::Hash>,
    /// What the header of each sample's file says.
    facts: Vec<Option<Facts>>,
    /// Whether it was said what preprocessing leaves of these images.
    told: AtomicBool,
    options: CategoryOptions,
}

impl Category {
    /// Lists and hashes the images.
    ///
    /// # Errors
    /// A folder or list that is not as it should be; a file that cannot be read (with `skip_bad_images` it is left out).
    pub fn open(options: &CategoryOptions, on_event: OnEvent<'_>) -> Result<Self, WorkflowError> {
        let category = part("images", on_event, |on_event| Self::read(options, on_event))?;
        on_event(Event::Data(&category));
        Ok(category)
    }

    fn read(options: &CategoryOptions, on_event: OnEvent<'_>) -> Result<Self, WorkflowError> {
        let mut dataset = Dataset::open(&options.source, &options.category, options.needs_test)?;
        intake::check_names(&dataset, options.skip_bad_images)?;
        exclude::exclude(&mut dataset, &options.source, &options.exclude)?;
        let looks: Vec<_> = dataset.samples.par_iter().map(|s| look(&s.path)).collect();
        let mut met = Vec::with_capacity(looks.len());
        for (sample, look) in dataset.samples.drain(..).zip(looks) {
            match look {
                Ok((content, facts)) => met.push(Met {
                    sample,
                    content,
                    facts,
                }),
                Err(source) if options.skip_bad_images => {
                    on_event(Event::Warning(format!(
                        "left out {}: {source}",
                        sample.path.display()
                    )));
                }
                Err(source) => {
                    return Err(WorkflowError::Io {
                        path: sample.path,
                        source,
                        hint: "repair or remove it, or leave such images out with `skip_bad_images`",
                    });
                }
            }
        }
        let met = intake::once(met, &mut dataset.ledger, options.skip_bad_images)?;
        intake::look_at_masks(&met, &mut dataset.ledger);
        intake::tell(&dataset.ledger, options.strict, on_event)?;
        let mut category = Self {
            dataset,
            contents: Vec::with_capacity(met.len()),
            facts: Vec::with_capacity(met.len()),
            told: AtomicBool::new(false),
            options: options.clone(),
        };
        for one in met {
            category.dataset.samples.push(one.sample);
            category.contents.push(one.content);
            category.facts.push(one.facts);
        }
        Ok(category)
    }

    /// What the protocol knows of each sample.
    pub fn infos(&self) -> Vec<SampleInfo<'_>> {
        self.dataset
            .samples
            .iter()
            .zip(&self.contents)
            .map(|(s, content)| SampleInfo {
                id: &s.id,
                is_train: s.subset == Subset::Train,
                defect_type: s.defect_type.as_deref(),
                content: *content,
            })
            .collect()
    }

    /// Names of the samples at `positions`, and height and width of what `preprocess` looks at of each, where their headers say it.
    ///
    /// # Errors
    /// A region of interest that reaches beyond an image, unless bad images are skipped.
    pub(super) fn sizes(
        &self,
        positions: impl Iterator<Item = usize>,
        preprocess: &Preprocess,
    ) -> Result<Vec<NamedSize<'_>>, WorkflowError> {
        let one = |i: usize| {
            let (sample, facts) = (&self.dataset.samples[i], self.facts[i]?);
            let (height, width) = facts.size(preprocess.apply_exif_orientation);
            let fits = preprocess.check_size(&sample.path, (height, width));
            if fits.is_err() && self.options.skip_bad_images {
                return None;
            }
            let part = preprocess.part(height, width);
            Some(fits.map(|()| (sample.id.as_str(), (part.height, part.width))))
        };
        Ok(positions.filter_map(one).collect::<Result<_, _>>()?)
    }

    /// Whether a warning about the images is to be an error.
    pub(super) fn strict(&self) -> bool {
        self.options.strict
    }

    /// Splits the category.
    ///
    /// # Errors
    /// Too few images for what is asked.
    pub fn split(&self, options: &SplitOptions) -> Result<Split, WorkflowError> {
        let split = if self.options.needs_test {
            Split::new
        } else {
            Split::without_test
        };
        Ok(split(&self.dataset.category, &self.infos(), options)?)
    }

    /// Where tokens are kept, if anywhere.
    pub(crate) fn cache(&self) -> Option<&FeatureCache> {
        self.options.cache.as_ref()
    }

    /// Tokens of the samples at `positions`, from the cache where it has them. Returns the positions that could be
    /// read (all of them unless bad images are skipped) and their tokens, in the same order.
    ///
    /// # Errors
    /// Unreadable images, all named, unless they are skipped.
    pub fn tokens(
        &self,
        engine: &Engine,
        positions: &[usize],
        on_event: OnEvent<'_>,
    ) -> Result<(Vec<usize>, TokenSet), WorkflowError> {
        if !engine.options().more_sizes.is_empty() {
            return Err(WorkflowError::Input(format!(
                "image sizes {}: only a fit with the scorer residual looks at several\nhint: name one image size",
                engine.sizes_text(", ")
            )));
        }
        self.turned_tokens(
            engine,
            engine.preprocess(),
            positions,
            Turn::default(),
            on_event,
        )
    }

    /// The same of the images turned, as `preprocess` prepares them.
    ///
    /// # Errors
    /// As [`Self::tokens`].
    pub fn turned_tokens(
        &self,
        engine: &Engine,
        preprocess: Preprocess,
        positions: &[usize],
        turn: Turn,
        on_event: OnEvent<'_>,
    ) -> Result<(Vec<usize>, TokenSet), WorkflowError> {
        let cache = self.options.cache.clone();
        self.tokens_of(engine, preprocess, cache, positions, turn, on_event)
    }

    /// Tokens of image files that are not samples, kept as the samples' are.
    ///
    /// # Errors
    /// As [`Self::tokens`].
    pub fn tokens_of_views<P: AsRef<Path> + Sync>(
        &self,
        engine: &Engine,
        paths: &[P],
        on_event: OnEvent<'_>,
    ) -> Result<(Vec<usize>, TokenSet), WorkflowError> {
        let cache = self.options.cache.clone();
        self.tokens_of_files(
            engine,
            &engine.preprocess(),
            cache,
            paths,
            Turn::default(),
            on_event,
        )
    }

    /// As [`Self::tokens`], by any network and with any cache.
    ///
    /// # Errors
    /// As [`Self::tokens`].
    pub fn tokens_of(
        &self,
        forward: &dyn Forward,
        preprocess: Preprocess,
        cache: Option<FeatureCache>,
        positions: &[usize],
        turn: Turn,
        on_event: OnEvent<'_>,
    ) -> Result<(Vec<usize>, TokenSet), WorkflowError> {
        let paths: Vec<&Path> = positions
            .iter()
            .map(|&i| self.dataset.samples[i].path.as_path())
            .collect();
        let (kept, tokens) =
            self.tokens_of_files(forward, &preprocess, cache, &paths, turn, on_event)?;
        Ok((kept.iter().map(|&k| positions[k]).collect(), tokens))
    }

    /// Height and width of a sample's image, as it is decoded.
    pub(super) fn image_size(
        &self,
        position: usize,
        preprocess: &Preprocess,
    ) -> Result<(usize, usize), WorkflowError> {
        let path = &self.dataset.samples[position].path;
        let options = preprocess.decode_options();
        let image = decode(&read_file(path, &options)?, path, &options)?;
        Ok((image.height(), image.width()))
    }

    /// As [`Self::tokens_of`], of any image files; returns which of them could be read.
    fn tokens_of_files<P: AsRef<Path> + Sync>(
        &self,
        forward: &dyn Forward,
        preprocess: &Preprocess,
        cache: Option<FeatureCache>,
        paths: &[P],
        turn: Turn,
        on_event: OnEvent<'_>,
    ) -> Result<(Vec<usize>, TokenSet), WorkflowError> {
        let mut extractor = Extractor::new(forward, *preprocess);
        extractor.batch_size = self.options.batch_size;
        extractor.cache = cache;
        extractor.skip_bad_images = self.options.skip_bad_images;
        extractor.turn = turn;
        if !self.told.swap(true, Ordering::Relaxed) {
            let samples = self.dataset.samples.iter().zip(&self.facts);
            intake::tell_preprocessing(samples, preprocess, self.options.strict, on_event)?;
        }
        let found = part("features", on_event, |on_event| {
            Ok(extractor.extract(paths, &mut |p| on_event(Event::Images(p)))?)
        })?;
        for note in &found.report.notes {
            on_event(Event::Note(note.clone()));
        }
        for bad in &found.skipped {
            on_event(Event::Warning(format!("left out {bad}")));
        }
        let report = &found.report;
        on_event(Event::Note(format!(
            "features: {} images, {} from the cache, {} extracted in {:.1} s",
            found.kept.len(),
            report.hits,
            report.misses,
            report.seconds
        )));
        Ok((found.kept, found.tokens))
    }
}

fn look(path: &Path) -> std::io::Result<(blake3::Hash, Option<Facts>)> {
    let bytes = std::fs::read(path)?;
    Ok((blake3::hash(&bytes), facts(&bytes)))
}
