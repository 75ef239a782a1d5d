//! Writes drawn categories in the `MVTec` AD layout.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;

use super::files::{Unfinished, make_folder, write, write_mask};
use super::{Category, DefectType, SIZE_RANGE, SynthError, draw};

/// Quality of the written JPEG files, 1 to 100: noise survives, blocks do not show.
const JPEG_QUALITY: u8 = 88;

/// How many images a category gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counts {
    /// Images in `train/good`.
    pub train_good: u32,
    /// Images in `test/good`.
    pub test_good: u32,
    /// Images in each `test/<defect type>`.
    pub test_per_type: u32,
    /// How plain their defects are; see [`draw`].
    pub severity: f32,
}

impl Default for Counts {
    /// 40 good images to learn from, 30 good and 4 × 12 defective ones to test on.
    fn default() -> Self {
        Self {
            train_good: 40,
            test_good: 30,
            test_per_type: 12,
            severity: 1.0,
        }
    }
}

/// What [`generate`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The category's folder.
    pub folder: PathBuf,
    /// Images written, masks not counted.
    pub images: usize,
    /// Bytes of all files written.
    pub bytes: u64,
}

struct Job {
    split: &'static str,
    defect: Option<DefectType>,
    index: u32,
}

/// Draws a category into `dir/<category name>`, in the `MVTec` AD layout.
///
/// `train/good/NNN.jpg`, `test/good/NNN.jpg`, `test/<defect type>/NNN.jpg` and
/// `ground_truth/<defect type>/NNN_mask.png` (one channel, 0 sound, 255 defect). Images are drawn
/// in parallel in the current rayon pool; the bytes do not depend on its size. `on_progress` gets
/// (images finished, images in all) from any thread. The folder appears whole, or not at all.
///
/// # Errors
/// [`SynthError::Size`], [`SynthError::Exists`], or a file that cannot be written.
pub fn generate(
    category: Category,
    counts: &Counts,
    seed: u64,
    size: u32,
    dir: &Path,
    on_progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Generated, SynthError> {
    if !SIZE_RANGE.contains(&size) {
        return Err(SynthError::Size { found: size });
    }
    let unfinished = Unfinished::new(dir, category.name())?;
    let root = unfinished.root();

    let mut jobs = Vec::new();
    let mut add = |split, defect, count| {
        jobs.extend((0..count).map(|index| Job {
            split,
            defect,
            index,
        }));
    };
    add("train", None, counts.train_good);
    add("test", None, counts.test_good);
    for defect in DefectType::ALL {
        add("test", Some(defect), counts.test_per_type);
    }
    for job in &jobs {
        make_folder(&root.join(job.split).join(job.kind()))?;
        if let Some(defect) = job.defect {
            make_folder(&root.join("ground_truth").join(defect.name()))?;
        }
    }

    let finished = AtomicUsize::new(0);
    let bytes = jobs
        .par_iter()
        .map(|job| {
            let (picture, mask) = draw(
                category,
                job.defect,
                counts.severity,
                job.split,
                job.index,
                seed,
                size,
            );
            let mut bytes = write_jpeg(
                &root
                    .join(job.split)
                    .join(job.kind())
                    .join(format!("{:03}.jpg", job.index)),
                &picture,
            )?;
            if let Some(defect) = job.defect {
                let name = format!("{:03}_mask.png", job.index);
                bytes += write_mask(
                    &root.join("ground_truth").join(defect.name()).join(name),
                    &mask,
                )?;
            }
            on_progress(finished.fetch_add(1, Ordering::Relaxed) + 1, jobs.len());
            Ok::<u64, SynthError>(bytes)
        })
        .try_reduce(|| 0, |a, b| Ok(a + b))?;
    Ok(Generated {
        folder: unfinished.finish()?,
        images: jobs.len(),
        bytes,
    })
}

impl Job {
    fn kind(&self) -> &'static str {
        self.defect.map_or("good", DefectType::name)
    }
}

fn write_jpeg(path: &Path, picture: &RgbImage) -> Result<u64, SynthError> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
        .encode_image(picture)
        .map_err(|source| SynthError::Encode {
            path: path.to_owned(),
            source,
        })?;
    write(path, &bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Counts, SynthError, generate};
    use crate::files::read_all as files;
    use crate::{Category, DefectType, draw};

    const FEW: Counts = Counts {
        train_good: 3,
        test_good: 2,
        test_per_type: 2,
        severity: 1.0,
    };

    #[test]
    fn the_layout_is_complete_and_every_mask_fits_its_picture() {
        let folder = tempfile::tempdir().unwrap();
        for category in Category::ALL {
            let made = generate(category, &FEW, 3, 48, folder.path(), &|_, _| {}).unwrap();
            let found = files(&made.folder);
            assert_eq!(made.images, 3 + 2 + 4 * 2);
            assert_eq!(found.len(), made.images + 4 * 2);
            assert_eq!(
                made.bytes,
                found.values().map(|bytes| bytes.len() as u64).sum::<u64>()
            );
            for defect in DefectType::ALL {
                for index in 0..2 {
                    let picture = image::load_from_memory(
                        &found[&format!("test/{}/{index:03}.jpg", defect.name())],
                    );
                    let mask =
                        &found[&format!("ground_truth/{}/{index:03}_mask.png", defect.name())];
                    let mask = image::load_from_memory(mask).unwrap();
                    assert_eq!(mask.color(), image::ColorType::L8);
                    let mask = mask.to_luma8();
                    assert_eq!(picture.unwrap().to_rgb8().dimensions(), mask.dimensions());
                    let marked = mask.pixels().filter(|p| p.0[0] == 255).count();
                    assert!(
                        (1..48 * 48 / 4).contains(&marked),
                        "{category} {}: {marked}",
                        defect.name()
                    );
                    assert!(mask.pixels().all(|p| p.0[0] == 0 || p.0[0] == 255));
                }
            }
            // nothing temporary is left behind
            assert!(
                fs::read_dir(folder.path()).unwrap().all(|e| !e
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .starts_with('.'))
            );
        }
    }

    #[test]
    fn bytes_do_not_depend_on_the_number_of_threads() {
        let mut made = Vec::new();
        for threads in [1, 5] {
            let folder = tempfile::tempdir().unwrap();
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            for category in Category::ALL {
                pool.install(|| generate(category, &FEW, 9, 40, folder.path(), &|_, _| {}))
                    .unwrap();
            }
            made.push(files(folder.path()));
        }
        assert_eq!(made[0], made[1]);
    }

    #[test]
    fn the_drawings_are_the_same_bits_everywhere() {
        // a change here changes the committed demonstration images: draw those again with it
        let fingerprint = |categories: &[Category], splits: &[&str]| {
            let mut hasher = blake3::Hasher::new();
            for &category in categories {
                for split in splits {
                    for defect in [None].into_iter().chain(DefectType::ALL.map(Some)) {
                        let (picture, mask) = draw(category, defect, 1.0, split, 0, 1, 64);
                        hasher.update(picture.as_raw());
                        hasher.update(mask.as_raw());
                    }
                }
            }
            hasher.finalize().to_hex().to_string()
        };
        assert_eq!(
            fingerprint(&[Category::Flange, Category::Twill], &["test"]),
            DRAWINGS
        );
        assert_eq!(fingerprint(&[Category::Gravel], &["train", "test"]), GRAVEL);
    }

    const GRAVEL: &str = "93889879b775a390bf7ca790939e49f8f9e1dd8ea386e6535472b8cda2aac007";
    const DRAWINGS: &str = "edb7541e68b1e36fd59ad09ac159065778f20c91b3899709fbef56fe5bc06dce";

    #[test]
    fn a_defect_is_drawn_where_its_mask_says() {
        // the same scene cannot be drawn sound and flawed (streams are named by the defect), so this
        // looks at the screws: a mask lies on the part, inside the frame's middle
        for index in 0..20 {
            let (_, mask) = draw(
                Category::Flange,
                Some(DefectType::Misplaced),
                1.0,
                "test",
                index,
                1,
                96,
            );
            let marked: Vec<_> = mask
                .enumerate_pixels()
                .filter(|(_, _, p)| p.0[0] == 255)
                .collect();
            let area = marked.len() as f32 / (96.0 * 96.0);
            assert!((0.004..0.02).contains(&area), "{index}: {area}");
            for (x, y, _) in marked {
                let (dx, dy) = (x as f32 - 47.5, y as f32 - 47.5);
                let r = (dx * dx + dy * dy).sqrt() / 48.0;
                assert!((0.3..0.85).contains(&r), "{index}: {r}");
            }
        }
    }

    #[test]
    fn severity_changes_the_defect_and_not_the_part() {
        for category in Category::ALL {
            let good = |severity| draw(category, None, severity, "test", 3, 1, 64).0;
            assert_eq!(good(1.0), good(2.0), "{category}");
            for defect in DefectType::ALL {
                let marked = |severity| -> usize {
                    (0..4)
                        .map(|i| draw(category, Some(defect), severity, "test", i, 1, 64).1)
                        .map(|mask| mask.pixels().filter(|p| p.0[0] == 255).count())
                        .sum()
                };
                // a screw that is out of place is as large as any
                let least =
                    usize::from((category, defect) != (Category::Flange, DefectType::Misplaced));
                assert!(
                    marked(2.0) >= marked(1.0) + least,
                    "{category} {}",
                    defect.name()
                );
            }
        }
    }

    #[test]
    fn nothing_is_overwritten_and_sizes_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let none = Counts {
            train_good: 0,
            test_good: 0,
            test_per_type: 0,
            ..Counts::default()
        };
        let made = generate(Category::Twill, &none, 0, 64, folder.path(), &|_, _| {}).unwrap();
        assert_eq!((made.images, made.bytes), (0, 0));
        let again = generate(Category::Twill, &none, 0, 64, folder.path(), &|_, _| {});
        assert!(matches!(again, Err(SynthError::Exists { .. })));
        let tiny = generate(Category::Flange, &none, 0, 8, folder.path(), &|_, _| {});
        assert!(matches!(tiny, Err(SynthError::Size { found: 8 })));
    }
}
