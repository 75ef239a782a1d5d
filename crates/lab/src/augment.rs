//! More views of a handful of defects, and synthetic defects on good ones, written as images that one can look at.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use flawtune_backbone::atomic_file;
use flawtune_backbone::preprocess::{DecodeOptions, ImageError, decode, read_file};
use image::{ImageFormat, RgbImage, imageops};

use flawtune::names::one_of;
use flawtune::random::{Purpose, Stream};
use flawtune_synth::{PasteKind, paste_defects};

/// Photometric views of an image.
const PHOTOMETRIC_VIEWS: usize = 2;
/// Contrast is multiplied by at most this, or divided by it.
const CONTRAST: f64 = 1.25;
/// Brightness moves by at most this many of 255 levels.
const BRIGHTNESS: f64 = 25.0;
/// Kinds of synthetic defects, in turn.
const PASTED: [PasteKind; 5] = [
    PasteKind::CutPaste,
    PasteKind::Blend,
    PasteKind::Scratch,
    PasteKind::Hole,
    PasteKind::Stain,
];

/// A way to make more of a defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Augmentation {
    /// Mirrored left to right, top to bottom, and both.
    Flips,
    /// Turned by a quarter to the left and to the right. (Half a turn is both mirrors.)
    Rotations,
    /// Two views of other brightness and contrast.
    Photometric,
    /// As many good images as there are shots, each with one synthetic defect.
    Synthetic,
}

impl Augmentation {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Flips,
        Self::Rotations,
        Self::Photometric,
        Self::Synthetic,
    ];

    /// Name on the command line and in checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flips => "flips",
            Self::Rotations => "rotations",
            Self::Photometric => "photometric",
            Self::Synthetic => "synthetic",
        }
    }
}

impl fmt::Display for Augmentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Augmentation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(&Self::ALL, Self::name, text)
    }
}

/// An image made from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Where it was written.
    pub path: PathBuf,
    /// The shot it shows, by its place in the list; `None` for a synthetic defect on a good image.
    pub shot: Option<usize>,
}

/// Why views could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AugmentError {
    /// An image could not be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A view could not be written.
    #[error("cannot write {}: {source}\nhint: choose another output folder or make room", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Writes views of the shots, and synthetic defects on the good images, as PNG files to `folder`, which is made if it
/// is missing. The same images, kinds and seed give the same files.
///
/// # Errors
/// Images that cannot be read, a folder that cannot be written.
pub fn write_views(
    kinds: &[Augmentation],
    shots: &[PathBuf],
    good: &[PathBuf],
    seed: u64,
    options: &DecodeOptions,
    folder: &Path,
) -> Result<Vec<View>, AugmentError> {
    let mut stream = Stream::new(seed, Purpose::Augmentation);
    let mut views = Vec::new();
    std::fs::create_dir_all(folder).map_err(|source| AugmentError::Write {
        path: folder.to_owned(),
        source,
    })?;
    let mut add = |picture: &RgbImage, name: String, shot| -> Result<(), AugmentError> {
        let path = folder.join(name);
        let mut bytes = std::io::Cursor::new(Vec::new());
        let failed = |source| AugmentError::Write {
            path: path.clone(),
            source,
        };
        picture
            .write_to(&mut bytes, ImageFormat::Png)
            .map_err(|e| failed(std::io::Error::other(e)))?;
        atomic_file::write(&path, bytes.get_ref()).map_err(failed)?;
        views.push(View { path, shot });
        Ok(())
    };
    for (i, path) in shots.iter().enumerate() {
        if kinds.iter().all(|k| *k == Augmentation::Synthetic) {
            break;
        }
        let picture = load(path, options)?;
        if kinds.contains(&Augmentation::Flips) {
            add(
                &imageops::flip_horizontal(&picture),
                format!("{i:02}_mirrored.png"),
                Some(i),
            )?;
            add(
                &imageops::flip_vertical(&picture),
                format!("{i:02}_upside_down.png"),
                Some(i),
            )?;
            add(
                &imageops::rotate180(&picture),
                format!("{i:02}_half_turn.png"),
                Some(i),
            )?;
        }
        if kinds.contains(&Augmentation::Rotations) {
            add(
                &imageops::rotate90(&picture),
                format!("{i:02}_right.png"),
                Some(i),
            )?;
            add(
                &imageops::rotate270(&picture),
                format!("{i:02}_left.png"),
                Some(i),
            )?;
        }
        if kinds.contains(&Augmentation::Photometric) {
            for view in 0..PHOTOMETRIC_VIEWS {
                let contrast = CONTRAST.powf(2.0 * stream.uniform() - 1.0);
                let brightness = BRIGHTNESS * (2.0 * stream.uniform() - 1.0);
                add(
                    &relit(&picture, contrast, brightness),
                    format!("{i:02}_light_{view}.png"),
                    Some(i),
                )?;
            }
        }
    }
    if kinds.contains(&Augmentation::Synthetic) && !good.is_empty() {
        let mut order: Vec<usize> = (0..good.len()).collect();
        stream.shuffle(&mut order);
        for (i, &from) in order.iter().cycle().take(shots.len()).enumerate() {
            let kind = PASTED[i % PASTED.len()];
            let (picture, _) = paste_defects(
                &load(&good[from], options)?,
                kind,
                seed.wrapping_add(i as u64),
            );
            add(&picture, format!("synthetic_{i:02}_{kind}.png"), None)?;
        }
    }
    Ok(views)
}

fn load(path: &Path, options: &DecodeOptions) -> Result<RgbImage, ImageError> {
    let picture = decode(&read_file(path, options)?, path, options)?;
    let mut copy = RgbImage::new(picture.width() as u32, picture.height() as u32);
    copy.copy_from_slice(picture.pixels());
    Ok(copy)
}

/// Contrast around middle grey, then brightness.
fn relit(picture: &RgbImage, contrast: f64, brightness: f64) -> RgbImage {
    let mut out = picture.clone();
    for v in out.iter_mut() {
        *v = ((f64::from(*v) - 127.5) * contrast + 127.5 + brightness)
            .round()
            .clamp(0.0, 255.0) as u8;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures(folder: &Path, count: u32) -> Vec<PathBuf> {
        (0..count)
            .map(|i| {
                let path = folder.join(format!("{i}.png"));
                RgbImage::from_fn(24, 16, |x, y| {
                    image::Rgb([(x * 9 + i) as u8, (y * 15) as u8, 90])
                })
                .save(&path)
                .unwrap();
                path
            })
            .collect()
    }

    fn made(kinds: &[Augmentation], seed: u64) -> (tempfile::TempDir, Vec<View>) {
        let folder = tempfile::tempdir().unwrap();
        let all = pictures(folder.path(), 5);
        let to = folder.path().join("views");
        let views = write_views(
            kinds,
            &all[..2],
            &all[2..],
            seed,
            &DecodeOptions::default(),
            &to,
        )
        .unwrap();
        (folder, views)
    }

    #[test]
    fn views_are_what_their_names_say() {
        let (folder, views) = made(&Augmentation::ALL, 3);
        assert_eq!(views.len(), 2 * (3 + 2 + PHOTOMETRIC_VIEWS) + 2);
        assert_eq!(views.iter().filter(|v| v.shot == Some(1)).count(), 7);
        assert_eq!(views.iter().filter(|v| v.shot.is_none()).count(), 2);
        let open = |path: &Path| image::open(path).unwrap().into_rgb8();
        let at = |name: &str| open(&folder.path().join("views").join(name));
        let shot = open(&folder.path().join("1.png"));
        assert_eq!(at("01_mirrored.png").get_pixel(0, 3), shot.get_pixel(23, 3));
        assert_eq!(
            at("01_upside_down.png").get_pixel(4, 0),
            shot.get_pixel(4, 15)
        );
        assert_eq!(at("01_right.png").dimensions(), (16, 24));
        assert_eq!(at("01_right.png").get_pixel(15, 0), shot.get_pixel(0, 0));
        assert_eq!(at("01_left.png").get_pixel(0, 23), shot.get_pixel(0, 0));
        assert_ne!(at("01_light_0.png"), shot);
        // a synthetic defect changes a part of a good image
        let pasted = at("synthetic_00_cut-paste.png");
        assert!((2..5).all(|i| open(&folder.path().join(format!("{i}.png"))) != pasted));
    }

    #[test]
    fn the_same_seed_gives_the_same_files_and_another_does_not() {
        let bytes = |seed| {
            let (folder, views) = made(&[Augmentation::Photometric, Augmentation::Synthetic], seed);
            let read = views
                .iter()
                .map(|v| std::fs::read(&v.path).unwrap())
                .collect::<Vec<_>>();
            drop(folder);
            read
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }

    #[test]
    fn relit_pixels_follow_the_formula() {
        let grey = RgbImage::from_pixel(1, 1, image::Rgb([27, 128, 250]));
        // (27 − 127.5) · 1.2 + 137.5 = 16.9; (128 − 127.5) · 1.2 + 137.5 = 138.1; 284.5 is cut to 255
        assert_eq!(relit(&grey, 1.2, 10.0).get_pixel(0, 0).0, [17, 138, 255]);
    }
}
