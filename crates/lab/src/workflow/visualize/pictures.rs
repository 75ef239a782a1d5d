//! The images asked about: read, hashed, prepared, and as a person sees what the backbone sees.

use std::path::PathBuf;

use flawtune_backbone::config::Normalization;
use flawtune_backbone::preprocess::{ImageError, Pixels, decode, read_file};
use image::{Rgb, RgbImage};
use rayon::prelude::*;

use super::super::{Engine, Event, OnEvent, WorkflowError};
use super::VisualizeRequest;
use super::model::Entering;
use flawtune::features::{BadImage, FeatureError};

/// An image, ready for the backbone and for a panel.
pub(super) struct Shown {
    pub(super) path: PathBuf,
    /// blake3 of the file.
    pub(super) content: blake3::Hash,
    pub(super) entering: Entering,
    /// The part of the prepared image that the patches cover.
    pub(super) picture: RgbImage,
}

impl Shown {
    /// The name without its ending, and the folder's before it: what tells images of a data set apart.
    pub(super) fn name(&self) -> String {
        let part = |p: Option<&std::ffi::OsStr>| p.map(|n| n.to_string_lossy().into_owned());
        let folder = part(self.path.parent().and_then(|p| p.file_name()));
        let name = part(self.path.file_stem()).unwrap_or_default();
        let joined = folder.map_or_else(|| name.clone(), |f| format!("{f}_{name}"));
        joined
            .chars()
            .map(|c| {
                if c.is_alphanumeric() || "-_.".contains(c) {
                    c
                } else {
                    '-'
                }
            })
            .collect()
    }
}

/// Reads the first images, as many as asked for.
///
/// # Errors
/// Images that cannot be read, all named, unless they are skipped; none that can.
pub(super) fn load(
    request: &VisualizeRequest,
    engine: &Engine,
    on_event: OnEvent<'_>,
) -> Result<Vec<Shown>, WorkflowError> {
    let paths = &request.images[..request.images.len().min(request.max_images)];
    if paths.len() < request.images.len() {
        on_event(Event::Warning(format!(
            "the first {} of {} images are looked at; `max_images` takes more",
            paths.len(),
            request.images.len()
        )));
    }
    let preprocess = engine.preprocess();
    let options = preprocess.decode_options();
    let read = |path: &PathBuf| -> Result<(blake3::Hash, Pixels), ImageError> {
        let bytes = read_file(path, &options)?;
        Ok((
            blake3::hash(&bytes),
            preprocess.apply(&decode(&bytes, path, &options)?),
        ))
    };
    let found: Vec<_> = paths.par_iter().map(read).collect();
    let (mut shown, mut bad) = (Vec::new(), Vec::new());
    for (i, (path, found)) in paths.iter().zip(found).enumerate() {
        match found {
            Ok((content, pixels)) => {
                let (tokens, grid) = engine.embed(&pixels.data, 1, pixels.height, pixels.width)?;
                let config = engine.config();
                let size = (grid.0 * config.patch_size, grid.1 * config.patch_size);
                let picture = seen(&pixels, size, &config.normalization);
                shown.push(Shown {
                    path: path.clone(),
                    content,
                    entering: Entering { tokens, grid },
                    picture,
                });
            }
            Err(error) => bad.push(BadImage::new(i, path.clone(), &error)),
        }
    }
    if !bad.is_empty() && !request.data.skip_bad_images {
        return Err(FeatureError::BadImages {
            images: bad,
            asked: paths.len(),
        }
        .into());
    }
    for bad in &bad {
        on_event(Event::Warning(format!("left out {bad}")));
    }
    if shown.is_empty() {
        return Err(FeatureError::NoImages { skipped: bad }.into());
    }
    Ok(shown)
}

/// The pixels that patches cover, with the normalisation undone.
fn seen(
    pixels: &Pixels,
    (height, width): (usize, usize),
    normalization: &Normalization,
) -> RgbImage {
    let plane = pixels.height * pixels.width;
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let at = y as usize * pixels.width + x as usize;
        Rgb(std::array::from_fn(|c| {
            let value = pixels.data[c * plane + at] * normalization.std[c] + normalization.mean[c];
            (value * 255.0).round().clamp(0.0, 255.0) as u8
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seen_part_has_its_own_colours() {
        let n = Normalization::IMAGENET;
        let byte = |c: usize, i: usize| (40 * c + 10 * i) as u8;
        let data = (0..3)
            .flat_map(|c| (0..6).map(move |i| n.table(c)[usize::from(byte(c, i))]))
            .collect();
        let pixels = Pixels {
            height: 2,
            width: 3,
            data,
        };
        let found = seen(&pixels, (2, 2), &n);
        assert_eq!(found.dimensions(), (2, 2));
        assert_eq!(
            found.get_pixel(1, 1).0,
            [byte(0, 4), byte(1, 4), byte(2, 4)]
        );
    }
}
