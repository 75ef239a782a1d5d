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
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use flawtune_backbone::preprocess::DecodeOptions;
    use image::{DynamicImage, Luma, Rgb, RgbImage};

    use super::{PasteKind, PasteOn, PasteStage, Pasted, SynthError, paste_on};
    use crate::files::read_all as files;

    fn picture(seed: u32) -> RgbImage {
        RgbImage::from_fn(40, 30, |x, y| {
            Rgb([
                (x * 5 + seed * 9) as u8,
                (y * 7 + seed) as u8,
                ((x + y) * 3) as u8,
            ])
        })
    }

    /// `count` images, PNG and JPEG in turn.
    fn pictures(folder: &Path, count: u32) -> Vec<PathBuf> {
        let save = |i| {
            let path = folder.join(format!(
                "part{i:02}.{}",
                if i % 2 == 0 { "png" } else { "jpg" }
            ));
            picture(i).save(&path).unwrap();
            path
        };
        (0..count).map(save).collect()
    }

    fn request<'a>(pictures: &'a [PathBuf], kinds: &'a [PasteKind]) -> PasteOn<'a> {
        PasteOn {
            pictures,
            category: "parts",
            kinds,
            per_kind: 3,
            train_share: 0.6,
            seed: 5,
            decode: DecodeOptions::default(),
        }
    }

    /// The original that an image with a defect was made of: the one that most pixels agree with.
    fn base(flawed: &RgbImage, originals: &[PathBuf]) -> usize {
        let agree = |path: &PathBuf| {
            let original = image::open(path).unwrap().into_rgb8();
            original
                .pixels()
                .zip(flawed.pixels())
                .filter(|(a, b)| a == b)
                .count()
        };
        (0..originals.len())
            .max_by_key(|i| agree(&originals[*i]))
            .unwrap()
    }

    #[test]
    fn the_groups_share_no_picture_and_masks_tell_what_changed() {
        let folder = tempfile::tempdir().unwrap();
        let originals = pictures(folder.path(), 10);
        let made = paste_on(
            &request(&originals, &[]),
            &folder.path().join("out"),
            &|_, _, _| {},
        )
        .unwrap();
        let found = files(&made.folder);
        assert_eq!(
            (
                made.train_good,
                made.test_good,
                made.defects,
                made.pasted_on
            ),
            (6, 2, 15, 2)
        );
        assert_eq!(found.len(), 6 + 2 + 2 * 15);
        assert_eq!(
            made.bytes,
            found.values().map(|bytes| bytes.len() as u64).sum::<u64>()
        );
        let mut group = vec![None; originals.len()];
        for (name, bytes) in &found {
            let (part, kind) = (
                name.split('/').next().unwrap(),
                name.split('/').nth(1).unwrap(),
            );
            if part == "ground_truth" {
                continue;
            }
            let (which, group_of) = if kind == "good" {
                // byte for byte, under the right ending
                let which = originals
                    .iter()
                    .position(|p| &fs::read(p).unwrap() == bytes)
                    .unwrap();
                assert_eq!(Path::new(name).extension(), originals[which].extension());
                (which, part)
            } else {
                let flawed = image::load_from_memory(bytes).unwrap().into_rgb8();
                let which = base(&flawed, &originals);
                let original = image::open(&originals[which]).unwrap().into_rgb8();
                let mask = &found[&name
                    .replace("test/", "ground_truth/")
                    .replace(".png", "_mask.png")];
                let mask = image::load_from_memory(mask).unwrap();
                assert_eq!(mask.color(), image::ColorType::L8);
                let mask = mask.into_luma8();
                assert_eq!(mask.dimensions(), original.dimensions());
                let marked: Vec<_> = mask
                    .enumerate_pixels()
                    .filter(|p| *p.2 == Luma([255]))
                    .collect();
                assert!((1..600).contains(&marked.len()), "{name}: {}", marked.len());
                let changed = marked
                    .iter()
                    .filter(|p| flawed.get_pixel(p.0, p.1) != original.get_pixel(p.0, p.1));
                assert!(2 * changed.count() >= marked.len(), "{name}");
                (which, "defect")
            };
            assert!(
                group[which].is_none_or(|g| g == group_of),
                "{name}: in two groups"
            );
            group[which] = Some(group_of);
        }
        assert!(group.iter().all(Option::is_some), "{group:?}");
    }

    #[test]
    fn bytes_do_not_depend_on_threads_or_on_the_order_of_the_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let mut originals = pictures(folder.path(), 9);
        let mut made = Vec::new();
        for (threads, seed) in [(1, 5), (4, 5), (4, 6)] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let kinds = [PasteKind::Blend, PasteKind::Scratch];
            let request = PasteOn {
                seed,
                ..request(&originals, &kinds)
            };
            let out = folder.path().join(format!("out{}", made.len()));
            let pasted = pool
                .install(|| paste_on(&request, &out, &|_, _, _| {}))
                .unwrap();
            made.push(files(&pasted.folder));
            originals.reverse();
        }
        assert_eq!(made[0], made[1]);
        assert_ne!(made[1], made[2]);
    }

    #[test]
    fn kinds_and_shares_are_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let originals = pictures(folder.path(), 7);
        let mut seen = 0;
        for (share, train, test) in [(0.0, 1, 3), (0.5, 4, 1), (0.6, 4, 1), (1.0, 5, 1)] {
            let kinds = [PasteKind::Hole, PasteKind::Hole];
            let request = PasteOn {
                train_share: share,
                per_kind: 2,
                ..request(&originals, &kinds)
            };
            seen += 1;
            let stages = std::sync::Mutex::new(Vec::new());
            let note = |stage, done, all| stages.lock().unwrap().push((stage, done, all));
            let made: Pasted =
                paste_on(&request, &folder.path().join(format!("{seen}")), &note).unwrap();
            assert_eq!(
                (made.train_good, made.test_good, made.defects),
                (train, test, 2),
                "{share}"
            );
            let stages = stages.into_inner().unwrap();
            assert!(stages.contains(&(PasteStage::Reading, 7, 7)));
            let all = made.train_good + made.test_good + 2;
            assert!(stages.contains(&(PasteStage::Pasting, all, all)));
            assert!(made.folder.join("test/hole/001.png").is_file());
            assert!(!made.folder.join("test/scratch").exists());
        }
    }

    #[test]
    fn a_picture_that_is_there_twice_is_used_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut originals = pictures(folder.path(), 4);
        // the same pixels in another file, and the same file again
        let twin = folder.path().join("twin.bmp");
        picture(0).save(&twin).unwrap();
        originals.extend([twin, originals[1].clone()]);
        let made = paste_on(
            &request(&originals, &[]),
            &folder.path().join("out"),
            &|_, _, _| {},
        )
        .unwrap();
        assert_eq!(
            (
                made.left_out,
                made.train_good + made.test_good + made.pasted_on
            ),
            (2, 4)
        );
    }

    #[test]
    fn every_kind_of_pixel_is_read_as_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        let sound = DynamicImage::from(picture(3));
        let kinds = [
            ("grey", DynamicImage::from(sound.to_luma8())),
            (
                "deep",
                DynamicImage::from(DynamicImage::from(picture(4)).to_rgb16()),
            ),
            (
                "alpha",
                DynamicImage::from(DynamicImage::from(picture(5)).to_rgba8()),
            ),
        ];
        let save = |(name, picture): &(&str, DynamicImage)| {
            let path = folder.path().join(format!("{name}.png"));
            picture.save(&path).unwrap();
            path
        };
        let originals: Vec<PathBuf> = kinds.iter().map(save).collect();
        for seed in 0..4 {
            let request = PasteOn {
                seed,
                ..request(&originals, &[PasteKind::Hole])
            };
            let made = paste_on(
                &request,
                &folder.path().join(format!("{seed}")),
                &|_, _, _| {},
            )
            .unwrap();
            let flawed = image::open(made.folder.join("test/hole/000.png")).unwrap();
            assert_eq!(flawed.color(), image::ColorType::Rgb8);
            let flawed = flawed.into_rgb8();
            let original = image::open(&originals[base(&flawed, &originals)])
                .unwrap()
                .into_rgb8();
            let same = original
                .pixels()
                .zip(flawed.pixels())
                .filter(|(a, b)| a == b)
                .count();
            assert!(same > 40 * 30 / 2, "{same}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_told_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let originals = pictures(folder.path(), 4);
        let out = folder.path().join("out");
        let refused = |request: &PasteOn<'_>| paste_on(request, &out, &|_, _, _| {}).unwrap_err();
        for category in ["", "..", ".hidden", "a/b", "a\\b"] {
            let e = refused(&PasteOn {
                category,
                ..request(&originals, &[])
            });
            assert!(matches!(e, SynthError::FolderName { .. }), "{e}");
        }
        let e = refused(&request(&originals[..2], &[]));
        assert!(
            matches!(
                e,
                SynthError::FewPictures {
                    given: 2,
                    different: 2
                }
            ),
            "{e}"
        );
        let mut bad = originals.clone();
        let small = folder.path().join("small.png");
        RgbImage::new(7, 90).save(&small).unwrap();
        bad.push(small);
        assert!(
            refused(&request(&bad, &[]))
                .to_string()
                .contains("small.png: 7x90")
        );
        // two are damaged: the first by path is told
        for name in ["z.png", "a.png"] {
            let path = folder.path().join(name);
            fs::write(&path, "no image").unwrap();
            bad.insert(0, path);
        }
        let e = refused(&request(&bad, &[]));
        assert!(e.to_string().contains("a.png: not an image"), "{e}");
        assert!(!out.exists());
        fs::create_dir_all(out.join("parts")).unwrap();
        assert!(matches!(
            refused(&request(&originals, &[])),
            SynthError::Exists { .. }
        ));
    }
}
