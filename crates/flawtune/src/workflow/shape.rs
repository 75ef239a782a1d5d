//! The shape that images are given: where their aspect is kept, that which most of the good images have.
//!
//! A detector has one grid of patches at each size: maps, scales of positions and cached features all rest on it. So the aspect is
//! chosen once, from the good images, and becomes a size like any other; images of another aspect are stretched to it and named.

use super::engine::ResizeChoice;
use super::{Engine, Event, OnEvent, WorkflowError, intake};
use crate::dataset::{Ledger, Oddity};
use crate::image_size::ImageSize;

/// How `fit` gives images the backbone's size, where nothing is named.
pub(super) const DEFAULT_RESIZE: ResizeChoice = ResizeChoice::Squash;

/// What an aspect may differ by before an image counts as stretched: about what whole patches cost anyway.
const STRETCH: f64 = 0.05;
/// The longer side is at most so many times the shorter: beyond, images are squashed along it.
const LONGEST: f64 = 4.0;

/// An image by its name, with its height and width.
pub(super) type NamedSize<'a> = (&'a str, (usize, usize));

/// Width to height.
fn aspect((height, width): (usize, usize)) -> f64 {
    width as f64 / height as f64
}

/// Whether an image of `size` (height, width) has to be stretched to `wanted`, width to height.
pub(super) fn is_stretched(wanted: f64, size: (usize, usize)) -> bool {
    (aspect(size) / wanted).ln().abs() > STRETCH.ln_1p()
}

/// The aspect of the middle one of the images, where more than half of them share it.
fn shared(sizes: &[(usize, usize)]) -> Result<f64, usize> {
    let mut sorted: Vec<f64> = sizes.iter().map(|size| aspect(*size)).collect();
    sorted.sort_by(f64::total_cmp);
    let Some(&middle) = sorted.get(sorted.len() / 2) else {
        return Err(0);
    };
    let alike = sizes.iter().filter(|size| !is_stretched(middle, **size));
    match alike.count() {
        alike if 2 * alike > sizes.len() => Ok(middle),
        alike => Err(alike),
    }
}

/// The size whose shorter side is `size`'s and whose longer side is `aspect` (width to height) times that, in whole patches.
fn shaped(size: ImageSize, aspect: f64, patch: usize) -> ImageSize {
    let short = (size.shorter() / patch).max(1);
    let ratio = aspect.max(aspect.recip()).min(LONGEST);
    let long = ((short as f64 * ratio).round() as usize).max(short);
    if long == short {
        return ImageSize::square(size.shorter());
    }
    let (height, width) = if aspect > 1.0 {
        (short, long)
    } else {
        (long, short)
    };
    ImageSize {
        height: height * patch,
        width: width * patch,
    }
}

/// The engine with sizes of the shape that most of the `good` images have, if it is to keep it; where they share none, images are
/// squashed. Of `good` and `others`, the images that are stretched to it are counted and named.
pub(super) fn kept(
    engine: Engine,
    good: &[NamedSize<'_>],
    others: &[NamedSize<'_>],
    strict: bool,
    on_event: OnEvent<'_>,
) -> Result<Engine, WorkflowError> {
    if engine.options().resize != ResizeChoice::Keep || engine.options().aspect.is_some() {
        return Ok(engine);
    }
    let sizes: Vec<(usize, usize)> = good.iter().map(|(_, size)| *size).collect();
    let aspect = match shared(&sizes) {
        Ok(aspect) => aspect,
        // what cannot be read is told where it is read
        Err(_) if good.is_empty() => return engine.squashing(on_event),
        Err(alike) => {
            on_event(Event::Note(format!(
                "most good images do not share one shape (of {}, {alike} have about that of the middle one): all are squashed to \
                 squares, as `resize` squash does",
                good.len()
            )));
            return engine.squashing(on_event);
        }
    };
    let longer = aspect.max(aspect.recip());
    if longer > LONGEST {
        on_event(Event::Warning(format!(
            "good images are {longer:.1} times as long as they are short; their longer side is squashed to {LONGEST} times the \
             shorter\nhint: name a size of their shape with `image_size`, such as 1792x224, or cut the images into several"
        )));
    }
    let patch = engine.config().patch_size;
    let shaped: Vec<ImageSize> = engine
        .sizes()
        .into_iter()
        .map(|size| shaped(size, aspect, patch))
        .collect();
    let engine = engine.with_aspect(aspect, &shaped, on_event)?;
    on_event(Event::Note(format!(
        "the aspect is kept: good images are {aspect:.2} times as wide as they are high, and are looked at as {} px",
        ImageSize::join(&shaped, " and ")
    )));
    let mut ledger = Ledger::default();
    for (name, size) in good.iter().chain(others) {
        if is_stretched(aspect, *size) {
            ledger.add(Oddity::Stretched, *name);
        }
    }
    intake::tell(&ledger, strict, on_event)?;
    Ok(engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_side_is_in_whole_patches_and_bounded() {
        let at = |side: usize, aspect: f64, patch: usize| {
            let size = shaped(ImageSize::square(side), aspect, patch);
            (size.width, size.height)
        };
        assert_eq!(at(224, 1.5, 14), (336, 224));
        assert_eq!(at(224, 1.0 / 1.5, 14), (224, 336));
        assert_eq!(at(448, 4.0 / 3.0, 14), (602, 448));
        assert_eq!(at(224, 4.0 / 3.0, 16), (304, 224));
        // half a patch more is none
        assert_eq!(at(224, 1.03, 14), (224, 224));
        assert_eq!(at(224, 1.04, 14), (238, 224));
        assert_eq!(at(224, 9.0, 14), (896, 224));
        assert_eq!(at(224, 0.01, 14), (224, 896));
        // a size that is no multiple of the patch keeps whole patches
        assert_eq!(at(70, 2.0, 16), (128, 64));
        assert_eq!(at(70, 1.0, 16), (70, 70));
    }

    #[test]
    fn most_images_decide_or_none() {
        let (wide, high) = ((100, 150), (150, 100));
        assert_eq!(shared(&[wide, wide, high]), Ok(1.5));
        assert_eq!(shared(&[(100, 153), wide, high]), Ok(1.5));
        assert_eq!(shared(&[wide, high]), Err(1));
        assert_eq!(shared(&[wide, wide, high, high, (100, 100)]), Err(1));
        assert_eq!(shared(&[]), Err(0));
        assert!(is_stretched(1.5, high) && is_stretched(1.5, (100, 158)));
        assert!(!is_stretched(1.5, (100, 157)) && !is_stretched(1.5, (100, 143)));
    }
}
