//! Images that a detector learns from later.

use rayon::prelude::*;

use super::super::{Category, CategoryOptions, Detector, Event, OnEvent, WorkflowError};
use super::Lessons;
use crate::bundle::Kept;
use crate::dataset::Source;
use crate::features::{ImageTokens, TokenSet, Turn};

/// Images that the detector does not know yet.
pub(super) struct NewImages {
    pub(super) category: Category,
    /// Positions of the good ones and of the defects.
    pub(super) good: Vec<usize>,
    pub(super) defects: Vec<usize>,
    /// Height and width of the good ones.
    pub(super) sizes: Vec<(usize, usize)>,
    /// Tokens of the good ones and then of the defects, at each size that the detector looks at.
    tokens: Vec<TokenSet>,
    /// What the old detector says of them.
    pub(super) good_found: Vec<f64>,
    pub(super) defects_found: Vec<f64>,
}

impl NewImages {
    pub(super) fn read(
        lessons: &Lessons,
        old: &Detector,
        kept: &Kept,
        on_event: OnEvent<'_>,
    ) -> Result<Self, WorkflowError> {
        let category = Category::open(
            &CategoryOptions {
                source: Source::More(lessons.images.clone()),
                category: old.header().category.clone(),
                needs_test: false,
                skip_bad_images: lessons.skip_bad_images,
                strict: lessons.strict,
                exclude: Vec::new(),
                cache: lessons.cache.clone(),
                batch_size: lessons.batch_size,
            },
            on_event,
        )?;
        let shots: Vec<&str> = kept
            .images
            .shots
            .iter()
            .map(|s| s.content.as_str())
            .collect();
        let support = old.header().support.iter();
        let support: Vec<&str> = support.map(|s| s.content.as_str()).collect();
        let (mut good, mut defects, mut known) = (Vec::new(), Vec::new(), 0);
        for (i, info) in category.infos().iter().enumerate() {
            let content = info.content.to_hex().to_string();
            let defect = info.defect_type.is_some();
            let (same, other) = if defect {
                (&shots, &support)
            } else {
                (&support, &shots)
            };
            if other.contains(&content.as_str()) {
                let (is, was) = if defect {
                    ("a defect", "good")
                } else {
                    ("good", "a defect")
                };
                return Err(WorkflowError::Input(format!(
                    "{}: is {is} now, but the detector learned it as {was}\nhint: decide which it is; to unlearn it, fit again",
                    category.dataset.samples[i].path.display()
                )));
            }
            if same.contains(&content.as_str()) {
                known += 1;
            } else if defect {
                defects.push(i);
            } else {
                good.push(i);
            }
        }
        if known > 0 {
            on_event(Event::Note(format!("{known} images are known already")));
        }
        if good.is_empty() && defects.is_empty() {
            return Err(WorkflowError::Input(
                "no image that the detector does not know\nhint: name a folder of new good images or of new defects".into(),
            ));
        }
        Self {
            category,
            good,
            defects,
            sizes: Vec::new(),
            tokens: Vec::new(),
            good_found: Vec::new(),
            defects_found: Vec::new(),
        }
        .looked_at(old, on_event)
    }

    /// Makes the tokens of the images, once, and has the old detector judge them by those. Images that cannot be read and may be left
    /// out are.
    fn looked_at(mut self, old: &Detector, on_event: OnEvent<'_>) -> Result<Self, WorkflowError> {
        let engine = old.engine();
        let asked: Vec<usize> = self.good.iter().chain(&self.defects).copied().collect();
        let mut readable = asked.clone();
        for size in engine.sizes() {
            let (kept, tokens) = self.category.tokens_of(
                &**engine,
                engine.preprocess_at(size),
                None,
                &asked,
                Turn::default(),
                on_event,
            )?;
            readable = kept;
            self.tokens.push(tokens);
        }
        self.good.retain(|i| readable.contains(i));
        self.defects.retain(|i| readable.contains(i));
        if readable.is_empty() {
            return Err(WorkflowError::Input(
                "none of the new images can be read\nhint: name a folder of images".into(),
            ));
        }
        let found = old.found(&self.tokens)?;
        let mut scores = found.into_iter().map(|finding| finding.score);
        self.good_found = scores.by_ref().take(self.good.len()).collect();
        self.defects_found = scores.collect();
        let sizes = self.good.par_iter();
        let sizes = sizes.map(|&i| self.category.image_size(i, &old.preprocess()));
        self.sizes = sizes.collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Tokens at one of the sizes, of the good images and of the defects.
    pub(super) fn tokens(&self, size: usize) -> (&[ImageTokens], &[ImageTokens]) {
        self.tokens[size].images.split_at(self.good.len())
    }
}
