//! Which part of the images a detector looks at, and in which shape.

use super::FitRequest;
use crate::workflow::engine::ResizeChoice;
use crate::workflow::shape::{DEFAULT_RESIZE, kept};
use crate::workflow::{BackboneOptions, Category, Engine, Event, OnEvent, WorkflowError};

/// The images that decide.
pub(super) struct Shape<'a> {
    pub(super) category: &'a Category,
    /// Positions of the good images.
    pub(super) normals: &'a [usize],
    /// Those of the defects that are learned from.
    pub(super) shots: &'a [usize],
    /// Good images in the bank.
    pub(super) support: usize,
}

impl Shape<'_> {
    /// The engine with sizes of the good images' shape, if it is to keep it.
    pub(super) fn given_to(
        &self,
        engine: Engine,
        on_event: OnEvent<'_>,
    ) -> Result<Engine, WorkflowError> {
        let (preprocess, category) = (engine.preprocess(), self.category);
        let good = category.sizes(self.normals.iter().copied(), &preprocess)?;
        let shots = category.sizes(self.shots.iter().copied(), &preprocess)?;
        kept(engine, &good, &shots, category.strict(), on_event)
    }
}

/// The backbone of a fit without a checkpoint. A size with two sides says which shape is wanted: then no aspect is kept.
pub(super) fn options(request: &FitRequest) -> Result<BackboneOptions, WorkflowError> {
    let set = &request.backbone;
    let mut options = set.over(BackboneOptions::default());
    let named = set.image_size.iter().find(|size| !size.is_square());
    options.resize = match (set.resize, named) {
        (Some(ResizeChoice::Keep), Some(size)) => {
            return Err(WorkflowError::Input(format!(
                "`resize` keep chooses the longer side by the good images, and `image_size` {size} names it\nhint: name the \
                 shorter side alone, {}, or omit `resize`",
                size.shorter()
            )));
        }
        (Some(choice), _) => choice,
        (None, Some(_)) => ResizeChoice::Squash,
        (None, None) => DEFAULT_RESIZE,
    };
    Ok(options)
}

/// Says what a region of interest leaves of the images.
pub(super) fn tell_region(
    shape: &Shape<'_>,
    engine: &Engine,
    on_event: OnEvent<'_>,
) -> Result<(), WorkflowError> {
    let preprocess = engine.preprocess();
    let Some(roi) = preprocess.roi else {
        return Ok(());
    };
    let whole = flawtune_backbone::preprocess::Preprocess {
        roi: None,
        ..preprocess
    };
    let first = || shape.normals.iter().copied().take(1);
    let seen = shape.category.sizes(first(), &preprocess)?;
    let all = shape.category.sizes(first(), &whole)?;
    let share = match (seen.first(), all.first()) {
        (Some((_, seen)), Some((_, all))) => format!(
            ", {}×{} of {}×{} pixels ({:.0} %)",
            seen.1,
            seen.0,
            all.1,
            all.0,
            100.0 * (seen.0 * seen.1) as f64 / (all.0 * all.1) as f64
        ),
        _ => String::new(),
    };
    on_event(Event::Note(format!(
        "only the region {roi} of every image is looked at{share}; nothing outside of it is ever a flaw"
    )));
    Ok(())
}
