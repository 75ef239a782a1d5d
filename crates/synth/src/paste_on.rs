//! Writes a category of a user's own images, some with a synthetic defect, in the `MVTec` AD layout.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use flawtune_backbone::preprocess::{DecodeOptions, decode, read_file};
use image::RgbImage;
use rayon::prelude::*;

use super::files::{Unfinished, make_folder, write, write_mask, write_png};
use super::paste::SMALLEST_EDGE;
use super::random::Chance;
use super::{PasteKind, SynthError, paste_defects};

/// What [`paste_on`] makes a category of, and how.
#[derive(Clone, Debug)]
pub struct PasteOn<'a> {
    /// Good images, in any order. Of images with the same pixels only the first by path is used.
    pub pictures: &'a [PathBuf],
    /// Name of the category's folder.
    pub category: &'a str,
    /// Kinds of defects; an empty list stands for all.
    pub kinds: &'a [PasteKind],
    /// Images with a defect, of each kind.
    pub per_kind: u32,
    /// Part of the images that is kept to learn from, 0 to 1.
    pub train_share: f64,
    /// Decides which image goes where, and every defect.
    pub seed: u64,
    /// How images are read.
    pub decode: DecodeOptions,
}

/// What is being done, for [`paste_on`]'s progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasteStage {
    /// Every image is read once, to know that it can be.
    Reading,
    /// Images are copied, and defects put on some.
    Pasting,
}

/// What [`paste_on`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pasted {
    /// The category's folder.
    pub folder: PathBuf,
    /// Images in `train/good`.
    pub train_good: usize,
    /// Images in `test/good`.
    pub test_good: usize,
    /// Images with a defect.
    pub defects: usize,
    /// Different images that defects were put on; used in turn.
    pub pasted_on: usize,
    /// Images left out because another has the same pixels.
    pub left_out: usize,
    /// Bytes of all files written.
    pub bytes: u64,
}

/// A readable image with room for a defect.
struct Source<'a> {
    path: &'a Path,
    pixels: blake3::Hash,
    extension: &'static str,
}

/// An image to be written.
enum Job<'a> {
    Copy {
        from: &'a Source<'a>,
        folder: &'static str,
        index: usize,
    },
    Paste {
        from: &'a Source<'a>,
        kind: PasteKind,
        index: u32,
    },
}

/// Makes the category `dir/<category>` of a user's own good images, in the `MVTec` AD layout.
///
/// The images are divided into three groups by the seed. `train_share` of them (rounded, and at least one) is copied to
/// `train/good`, byte for byte; half of the others (rounded down, and at least one) to `test/good`; the rest gets the
/// defects, in turn: `test/<kind>/NNN.png` (8-bit RGB without loss, of the image's own size) with
/// `ground_truth/<kind>/NNN_mask.png` (one channel, 0 sound, 255 defect). So no image is in two groups. Copies are
/// named `NNN` too, by the order of their paths, and end in what their content is.
///
/// The same images and seed give the same bytes with any number of threads. `on_progress` gets (what is done, images
/// finished, images in all) from any thread. The folder appears whole, or not at all.
///
/// # Errors
/// [`SynthError::FolderName`], [`SynthError::Exists`], an image that cannot be read or is too small, fewer than three
/// different images, or a file that cannot be written. Of several unreadable images the first by path is told.
pub fn paste_on(
    request: &PasteOn<'_>,
    dir: &Path,
    on_progress: &(dyn Fn(PasteStage, usize, usize) + Sync),
) -> Result<Pasted, SynthError> {
    let name = request.category;
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        return Err(SynthError::FolderName {
            found: name.to_owned(),
        });
    }
    // told before minutes of reading, not after
    if dir.join(name).exists() {
        return Err(SynthError::Exists {
            path: dir.join(name),
        });
    }
    let (sources, left_out) = read(request, on_progress)?;
    let groups = divide(&sources, request.train_share, request.seed);
    if groups.defect.is_empty() {
        let (given, different) = (sources.len() + left_out, sources.len());
        return Err(SynthError::FewPictures { given, different });
    }
    let kinds = if request.kinds.is_empty() {
        &PasteKind::ALL[..]
    } else {
        request.kinds
    };
    let mut kinds = kinds.to_vec();
    kinds.sort_unstable();
    kinds.dedup();

    let mut jobs = Vec::new();
    for (folder, group) in [("train", &groups.train), ("test", &groups.test)] {
        jobs.extend(group.iter().enumerate().map(|(index, from)| Job::Copy {
            from,
            folder,
            index,
        }));
    }
    let mut bases = groups.defect.iter().cycle();
    for &kind in &kinds {
        for index in 0..request.per_kind {
            jobs.extend(bases.next().map(|from| Job::Paste { from, kind, index }));
        }
    }

    let unfinished = Unfinished::new(dir, name)?;
    let root = unfinished.root();
    for folder in ["train/good", "test/good"] {
        make_folder(&root.join(folder))?;
    }
    for kind in &kinds {
        make_folder(&root.join("test").join(kind.name()))?;
        make_folder(&root.join("ground_truth").join(kind.name()))?;
    }
    let finished = AtomicUsize::new(0);
    let bytes = jobs
        .par_iter()
        .map(|job| {
            let bytes = job.write(request, &root)?;
            on_progress(
                PasteStage::Pasting,
                finished.fetch_add(1, Ordering::Relaxed) + 1,
                jobs.len(),
            );
            Ok::<u64, SynthError>(bytes)
        })
        .try_reduce(|| 0, |a, b| Ok(a + b))?;
    Ok(Pasted {
        folder: unfinished.finish()?,
        train_good: groups.train.len(),
        test_good: groups.test.len(),
        defects: jobs.len() - groups.train.len() - groups.test.len(),
        pasted_on: groups
            .defect
            .len()
            .min(jobs.len() - groups.train.len() - groups.test.len()),
        left_out,
        bytes,
    })
}

impl Job<'_> {
    fn write(&self, request: &PasteOn<'_>, root: &Path) -> Result<u64, SynthError> {
        match *self {
            Job::Copy {
                from,
                folder,
                index,
            } => {
                let path = root
                    .join(folder)
                    .join("good")
                    .join(format!("{index:03}.{}", from.extension));
                write(&path, &read_file(from.path, &request.decode)?)
            }
            Job::Paste { from, kind, index } => {
                let mut chance = Chance::named(&[
                    b"paste on",
                    &request.seed.to_le_bytes(),
                    kind.name().as_bytes(),
                    &index.to_le_bytes(),
                ]);
                let seed = u64::from(chance.bits()) << 32 | u64::from(chance.bits());
                let (picture, _) = load(from.path, &request.decode)?;
                let (flawed, mask) = paste_defects(&picture, kind, seed);
                let place = |part: &str, name: String| root.join(part).join(kind.name()).join(name);
                let bytes = write_png(&place("test", format!("{index:03}.png")), &flawed)?;
                Ok(bytes
                    + write_mask(
                        &place("ground_truth", format!("{index:03}_mask.png")),
                        &mask,
                    )?)
            }
        }
    }
}

/// Reads every image once; returns those with different pixels in the order of their paths, and how many are left out.
fn read<'a>(
    request: &PasteOn<'a>,
    on_progress: &(dyn Fn(PasteStage, usize, usize) + Sync),
) -> Result<(Vec<Source<'a>>, usize), SynthError> {
    let mut paths: Vec<&Path> = request.pictures.iter().map(PathBuf::as_path).collect();
    paths.sort_unstable();
    let finished = AtomicUsize::new(0);
    let check = |path: &&'a Path| {
        let (picture, extension) = load(path, &request.decode)?;
        let (width, height) = picture.dimensions();
        if width.min(height) < SMALLEST_EDGE {
            return Err(SynthError::SmallPicture {
                path: path.to_path_buf(),
                width,
                height,
            });
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&width.to_le_bytes()).update(picture.as_raw());
        on_progress(
            PasteStage::Reading,
            finished.fetch_add(1, Ordering::Relaxed) + 1,
            paths.len(),
        );
        Ok(Source {
            path,
            pixels: hasher.finalize(),
            extension,
        })
    };
    // all of them before the first error is looked for, so that the same one is told every time
    let checked: Vec<Result<Source<'a>, SynthError>> = paths.par_iter().map(check).collect();
    let mut seen = HashSet::new();
    let mut sources = checked.into_iter().collect::<Result<Vec<_>, _>>()?;
    sources.retain(|source| seen.insert(source.pixels));
    let left_out = paths.len() - sources.len();
    Ok((sources, left_out))
}

/// The image, and how a file with such content is called.
fn load(path: &Path, options: &DecodeOptions) -> Result<(RgbImage, &'static str), SynthError> {
    let bytes = read_file(path, options)?;
    let decoded = decode(&bytes, path, options)?;
    let mut picture = RgbImage::new(decoded.width() as u32, decoded.height() as u32);
    picture.copy_from_slice(decoded.pixels());
    let format = image::guess_format(&bytes).ok();
    let extension = format
        .and_then(|format| format.extensions_str().first().copied())
        .unwrap_or("png");
    Ok((picture, extension))
}

struct Groups<'a> {
    train: Vec<&'a Source<'a>>,
    test: Vec<&'a Source<'a>>,
    defect: Vec<&'a Source<'a>>,
}

/// Who is learned from, who is tested as it is, who gets a defect: all empty with fewer than three images.
fn divide<'a>(sources: &'a [Source<'a>], train_share: f64, seed: u64) -> Groups<'a> {
    let count = sources.len();
    if count < 3 {
        return Groups {
            train: Vec::new(),
            test: Vec::new(),
            defect: Vec::new(),
        };
    }
    let mut order: Vec<usize> = (0..count).collect();
    let mut chance = Chance::named(&[b"paste on", &seed.to_le_bytes(), b"groups"]);
    for last in (1..count).rev() {
        order.swap(last, chance.below(last as u32 + 1) as usize);
    }
    let train = ((count as f64 * train_share + 0.5).floor() as usize).clamp(1, count - 2);
    let test = ((count - train) / 2).max(1);
    let (good, defect) = order.split_at_mut(train + test);
    let (train, test) = good.split_at_mut(train);
    train.sort_unstable();
    test.sort_unstable();
    let pick = |indices: &[usize]| indices.iter().map(|i| &sources[*i]).collect();
    Groups {
        train: pick(train),
        test: pick(test),
        defect: pick(defect),
    }
}

#[cfg(test)]
mod tests;
