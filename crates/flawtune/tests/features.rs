//! Extraction and its cache, with a backbone small enough to compute by hand.

#![allow(clippy::unwrap_used)] // a test may stop

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use flawtune::dataset::{Dataset, categories};
use flawtune::features::{
    Extractor, FeatureCache, FeatureError, Forward, ForwardError, Stage, TokenSet,
};
use flawtune_backbone::config::Normalization;
use flawtune_backbone::preprocess::Preprocess;

const PATCH: usize = 8;
const DIM: usize = 5;

/// Token = per-channel mean of the patch, its first value, and the patch's number; the class token is their mean.
struct Tiny {
    weights: &'static str,
    images: AtomicUsize,
}

impl Tiny {
    fn new(weights: &'static str) -> Self {
        Self {
            weights,
            images: AtomicUsize::new(0),
        }
    }

    /// Images that went through since the last call.
    fn seen(&self) -> usize {
        self.images.swap(0, Ordering::Relaxed)
    }
}

impl Forward for Tiny {
    fn name(&self) -> &'static str {
        "tiny"
    }

    fn weights_hash(&self) -> &str {
        self.weights
    }

    fn variant(&self) -> String {
        "last".to_string()
    }

    fn grid(&self, height: usize, width: usize) -> (usize, usize) {
        (height / PATCH, width / PATCH)
    }

    fn dim(&self) -> usize {
        DIM
    }

    fn forward(
        &self,
        pixels: &[f32],
        batch: usize,
        h: usize,
        w: usize,
    ) -> Result<Vec<f32>, ForwardError> {
        assert_eq!(pixels.len(), batch * 3 * h * w);
        if self.weights == "broken" {
            return Err("out of luck".into());
        }
        self.images.fetch_add(batch, Ordering::Relaxed);
        let mut out = Vec::new();
        for image in pixels.chunks_exact(3 * h * w) {
            let mut patches = Vec::new();
            for (number, (row, column)) in (0..h / PATCH)
                .flat_map(|r| (0..w / PATCH).map(move |c| (r, c)))
                .enumerate()
            {
                for plane in image.chunks_exact(h * w) {
                    let rows = (0..PATCH)
                        .map(|y| &plane[(row * PATCH + y) * w + column * PATCH..][..PATCH]);
                    patches.push(rows.flatten().sum::<f32>() / (PATCH * PATCH) as f32);
                }
                patches.push(image[row * PATCH * w + column * PATCH]);
                patches.push(number as f32);
            }
            let n = (patches.len() / DIM) as f32;
            out.extend((0..DIM).map(|d| patches.iter().skip(d).step_by(DIM).sum::<f32>() / n));
            out.extend(patches);
        }
        if self.weights == "short" {
            out.pop();
        }
        Ok(out)
    }
}

fn recipe() -> Preprocess {
    Preprocess::squash(16, 24, Normalization::IMAGENET)
}

fn picture(folder: &Path, name: &str, seed: u32) -> PathBuf {
    let path = folder.join(name);
    image::RgbImage::from_fn(30 + seed % 3, 20, |x, y| {
        image::Rgb([(x * seed) as u8, (y * 11 + seed) as u8, (x * y) as u8])
    })
    .save(&path)
    .unwrap();
    path
}

fn pictures(folder: &Path, n: u32) -> Vec<PathBuf> {
    (0..n)
        .map(|i| picture(folder, &format!("{i:03}.png"), i + 1))
        .collect()
}

fn values(set: &TokenSet) -> Vec<Vec<u32>> {
    set.images
        .iter()
        .map(|t| {
            t.cls()
                .iter()
                .chain(t.patches())
                .map(|v| v.to_bits())
                .collect()
        })
        .collect()
}

fn quiet() -> impl FnMut(flawtune::features::Progress) {
    |_| {}
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    files(folder)
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "tokens"))
        .collect()
}

#[test]
fn tokens_come_in_the_order_asked_for_whatever_the_batch_and_threads() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = pictures(folder.path(), 11);
    paths.reverse();
    let tiny = Tiny::new("w");
    let mut expected = Vec::new();
    for path in &paths {
        let pixels = recipe().load(path).unwrap();
        let tokens = tiny.forward(&pixels.data, 1, 16, 24).unwrap();
        expected.push(tokens.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    }
    tiny.seen();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        for batch_size in [0, 1, 3, 8, 100] {
            let extractor = Extractor {
                batch_size,
                ..Extractor::new(&tiny, recipe())
            };
            let got = pool
                .install(|| extractor.extract(&paths, &mut |_| {}))
                .unwrap();
            assert_eq!((got.tokens.grid, got.tokens.dim), ((2, 3), DIM));
            assert_eq!(
                values(&got.tokens),
                expected,
                "{threads} threads, batches of {batch_size}"
            );
            assert_eq!(got.kept, (0..11).collect::<Vec<_>>());
            assert_eq!((got.report.hits, got.report.misses), (0, 11));
            assert_eq!(got.report.bytes, 11 * 7 * DIM as u64 * 4);
            assert_eq!(tiny.seen(), 11);
        }
    }
}

#[test]
fn a_second_run_makes_no_forward_pass() {
    let folder = tempfile::tempdir().unwrap();
    let cache = FeatureCache::at(folder.path().join("cache"));
    let paths = pictures(folder.path(), 7);
    let tiny = Tiny::new("w");
    let extractor = Extractor {
        cache: Some(cache.clone()),
        batch_size: 3,
        ..Extractor::new(&tiny, recipe())
    };
    let mut seen = Vec::new();
    let first = extractor
        .extract(&paths, &mut |p| seen.push((p.stage, p.done, p.total)))
        .unwrap();
    assert_eq!(
        seen,
        [
            (Stage::Reading, 7, 7),
            (Stage::Extracting, 3, 7),
            (Stage::Extracting, 6, 7),
            (Stage::Extracting, 7, 7)
        ]
    );
    assert_eq!(
        (first.report.hits, first.report.misses, tiny.seen()),
        (0, 7, 7)
    );
    let second = extractor.extract(&paths, &mut quiet()).unwrap();
    assert_eq!(
        (second.report.hits, second.report.misses, tiny.seen()),
        (7, 0, 0)
    );
    assert_eq!(values(&first.tokens), values(&second.tokens));
    // the name and the place of an image do not matter
    let moved = folder.path().join("elsewhere.bin");
    fs::copy(&paths[3], &moved).unwrap();
    let third = extractor
        .extract(&[&moved, &paths[0]], &mut quiet())
        .unwrap();
    assert_eq!((third.report.hits, tiny.seen()), (2, 0));
    assert_eq!(
        values(&third.tokens),
        [
            values(&first.tokens)[3].clone(),
            values(&first.tokens)[0].clone()
        ]
    );
    // everything else does
    let other = Tiny::new("other weights");
    let extract = |forward: &Tiny, preprocess| {
        let extractor = Extractor {
            cache: Some(cache.clone()),
            ..Extractor::new(forward, preprocess)
        };
        extractor
            .extract(&paths, &mut quiet())
            .unwrap()
            .report
            .misses
    };
    assert_eq!(extract(&other, recipe()), 7);
    assert_eq!(
        extract(
            &tiny,
            Preprocess::centre_crop(16, 24, Normalization::IMAGENET)
        ),
        7
    );
    assert_eq!(
        extract(&tiny, Preprocess::squash(16, 24, Normalization::SAT493M)),
        7
    );
    assert_eq!(extract(&tiny, recipe()), 0);

    let report = cache.report().unwrap();
    assert_eq!((report.entries, report.models.len()), (28, 4));
    let sources: Vec<_> = report
        .models
        .iter()
        .map(|m| m.source.clone().unwrap())
        .collect();
    assert!(sources.contains(&extractor.source()));
    assert_eq!(
        report.bytes,
        files(cache.folder())
            .iter()
            .map(|f| f.metadata().unwrap().len())
            .sum::<u64>()
    );
}

#[test]
fn equal_pictures_are_extracted_once() {
    let folder = tempfile::tempdir().unwrap();
    let paths = pictures(folder.path(), 2);
    let copy = folder.path().join("copy.png");
    fs::copy(&paths[0], &copy).unwrap();
    let tiny = Tiny::new("w");
    let asked = [&paths[0], &paths[1], &copy, &paths[0]];
    let got = Extractor::new(&tiny, recipe())
        .extract(&asked, &mut quiet())
        .unwrap();
    assert_eq!(
        (tiny.seen(), got.report.misses, got.report.duplicates),
        (2, 2, 2)
    );
    let tokens = values(&got.tokens);
    assert_eq!(tokens.len(), 4);
    assert_eq!((&tokens[2], &tokens[3]), (&tokens[0], &tokens[0]));
    assert_ne!(tokens[0], tokens[1]);
}

#[test]
fn every_unreadable_picture_is_named_or_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = pictures(folder.path(), 9);
    let png = fs::read(&paths[1]).unwrap();
    fs::write(&paths[1], &png[..png.len() / 2]).unwrap();
    fs::write(&paths[4], b"this is text").unwrap();
    fs::write(&paths[8], b"").unwrap();
    fs::copy(&paths[4], folder.path().join("twin.png")).unwrap();
    paths.insert(5, folder.path().join("twin.png"));
    paths.push(folder.path().join("missing.png"));
    let tiny = Tiny::new("w");
    let strict = Extractor {
        batch_size: 2,
        ..Extractor::new(&tiny, recipe())
    };
    let Err(error @ FeatureError::BadImages { .. }) = strict.extract(&paths, &mut quiet()) else {
        panic!("must be refused")
    };
    let text = error.to_string();
    let FeatureError::BadImages { images, asked } = error else {
        unreachable!()
    };
    assert_eq!(asked, 11);
    assert_eq!(
        images.iter().map(|i| i.index).collect::<Vec<_>>(),
        [1, 4, 5, 9, 10]
    );
    for image in &images {
        assert_eq!(image.path, paths[image.index]);
        assert!(text.contains(&image.path.display().to_string()), "{text}");
    }
    assert!(
        text.starts_with("5 of 11 images") && text.contains("`skip_bad_images`"),
        "{text}"
    );

    tiny.seen();
    for batch_size in [1, 2, 100] {
        let lenient = Extractor {
            skip_bad_images: true,
            batch_size,
            ..Extractor::new(&tiny, recipe())
        };
        let got = lenient.extract(&paths, &mut quiet()).unwrap();
        assert_eq!(got.kept, [0, 2, 3, 6, 7, 8]);
        assert_eq!(got.skipped, images);
        assert_eq!(tiny.seen(), 6);
        let good: Vec<_> = got.kept.iter().map(|i| &paths[*i]).collect();
        let alone = strict.extract(&good, &mut quiet()).unwrap();
        assert_eq!(values(&got.tokens), values(&alone.tokens));
        tiny.seen();
    }
    let lenient = Extractor {
        skip_bad_images: true,
        ..Extractor::new(&tiny, recipe())
    };
    let only_bad = [&paths[1], &paths[10]];
    let error = lenient.extract(&only_bad, &mut quiet()).unwrap_err();
    assert!(
        matches!(&error, FeatureError::NoImages { skipped } if skipped.len() == 2),
        "{error}"
    );
    let nothing: [&Path; 0] = [];
    assert!(matches!(
        strict.extract(&nothing, &mut quiet()),
        Err(FeatureError::NoImages { .. })
    ));
}

#[test]
fn failures_of_the_backbone_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let paths = pictures(folder.path(), 2);
    let extract = |weights, recipe| {
        Extractor::new(&Tiny::new(weights), recipe)
            .extract(&paths, &mut quiet())
            .unwrap_err()
    };
    let text = extract("broken", recipe()).to_string();
    assert!(
        text.contains("tiny") && text.contains("out of luck"),
        "{text}"
    );
    let error = extract("short", recipe());
    assert!(
        matches!(
            error,
            FeatureError::Shape {
                batch: 2,
                wanted: 70,
                found: 69,
                ..
            }
        ),
        "{error}"
    );
    let error = extract("w", Preprocess::squash(7, 64, Normalization::IMAGENET));
    assert!(
        matches!(
            error,
            FeatureError::TooSmall {
                height: 7,
                width: 64,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn damaged_entries_are_computed_again_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let cache = FeatureCache::at(folder.path().join("cache"));
    let paths = pictures(folder.path(), 4);
    let tiny = Tiny::new("w");
    let extractor = Extractor {
        cache: Some(cache.clone()),
        ..Extractor::new(&tiny, recipe())
    };
    let good = values(&extractor.extract(&paths, &mut quiet()).unwrap().tokens);
    tiny.seen();
    let stored = entries(cache.folder());
    assert_eq!(stored.len(), 4);
    let mut bytes = fs::read(&stored[0]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&stored[0], &bytes).unwrap();
    fs::write(&stored[1], &bytes[..100]).unwrap();
    fs::write(&stored[2], b"").unwrap();
    fs::copy(&stored[0], &stored[3]).unwrap();
    let again = extractor.extract(&paths, &mut quiet()).unwrap();
    assert_eq!((again.report.misses, tiny.seen()), (4, 4));
    assert_eq!(values(&again.tokens), good);
    assert_eq!(
        extractor.extract(&paths, &mut quiet()).unwrap().report.hits,
        4
    );
}

#[test]
fn clearing_removes_our_files_only() {
    let folder = tempfile::tempdir().unwrap();
    let cache = FeatureCache::at(folder.path());
    assert_eq!(cache.clear().unwrap().entries, 0);
    let pictures_folder = tempfile::tempdir().unwrap();
    let paths = pictures(pictures_folder.path(), 3);
    let tiny = Tiny::new("w");
    let extractor = Extractor {
        cache: Some(cache.clone()),
        ..Extractor::new(&tiny, recipe())
    };
    let kept = extractor.extract(&paths, &mut quiet()).unwrap();
    let mapped = extractor.extract(&paths, &mut quiet()).unwrap();
    let model = entries(folder.path())[0].parent().unwrap().to_path_buf();
    fs::write(model.join(".tmp-abandoned"), b"half").unwrap();
    fs::write(folder.path().join("thesis.txt"), b"mine").unwrap();
    fs::create_dir(folder.path().join("photos")).unwrap();
    fs::write(folder.path().join("photos/a.tokens"), b"mine").unwrap();
    let removed = cache.clear().unwrap();
    assert_eq!(removed.entries, 3);
    let left = files(folder.path());
    assert_eq!(
        left,
        [
            folder.path().join("photos/a.tokens"),
            folder.path().join("thesis.txt")
        ]
    );
    assert!(!model.exists());
    assert_eq!(cache.report().unwrap().entries, 0);
    // tokens that are mapped stay valid after their file is gone
    assert_eq!(values(&kept.tokens), values(&mapped.tokens));
    assert_eq!(
        extractor
            .extract(&paths, &mut quiet())
            .unwrap()
            .report
            .misses,
        3
    );
}

#[test]
fn a_cache_that_cannot_be_written_is_given_up_with_a_note() {
    let folder = tempfile::tempdir().unwrap();
    // a file where the folder should be: fails for every user, the superuser included
    let blocked = folder.path().join("cache");
    fs::write(&blocked, b"in the way").unwrap();
    let paths = pictures(folder.path(), 5);
    let tiny = Tiny::new("w");
    for cache in [blocked.clone(), blocked.join("deeper")] {
        let extractor = Extractor {
            cache: Some(FeatureCache::at(cache)),
            batch_size: 2,
            ..Extractor::new(&tiny, recipe())
        };
        let got = extractor.extract(&paths, &mut quiet()).unwrap();
        assert_eq!((got.tokens.images.len(), got.report.misses), (5, 5));
        assert_eq!(got.report.notes.len(), 1);
        assert!(
            got.report.notes[0].contains("cannot be written"),
            "{}",
            got.report.notes[0]
        );
    }
    assert_eq!(fs::read(&blocked).unwrap(), b"in the way");
}

fn assets() -> PathBuf {
    std::env::var_os("FLAWTUNE_ASSETS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets"),
        PathBuf::from,
    )
}

#[test]
fn real_pictures_of_different_sizes_are_extracted() {
    let root = assets().join("mvtec_like");
    if !root.is_dir() {
        // past the harness, which keeps what a passing test prints
        let note = "skipped: real_pictures_of_different_sizes_are_extracted (assets absent)";
        drop(std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("{note}\n"),
        ));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for category in categories(&root).unwrap() {
        let dataset = Dataset::mvtec(&root, &category).unwrap();
        let samples: Vec<_> = dataset.samples.iter().step_by(9).collect();
        let tiny = Tiny::new("w");
        let recipe = Preprocess::squash(64, 64, Normalization::IMAGENET);
        let cache = Some(FeatureCache::at(folder.path()));
        let extractor = Extractor {
            cache,
            ..Extractor::new(&tiny, recipe)
        };
        let first = extractor.extract(&samples, &mut quiet()).unwrap();
        assert_eq!(first.tokens.images.len(), samples.len());
        assert_eq!(first.report.misses + first.report.duplicates, samples.len());
        for tokens in &first.tokens.images {
            assert_eq!(tokens.patches().len(), 64 * DIM);
            // normalised bytes lie between these bounds, their means too; the last number counts patches
            let bounded = |t: &[f32]| t[..4].iter().all(|v| (-2.2..=2.7).contains(v));
            assert!(tokens.patches().chunks(DIM).all(bounded) && bounded(tokens.cls()));
        }
        let second = extractor.extract(&samples, &mut quiet()).unwrap();
        assert_eq!(second.report.misses, 0);
        assert_eq!(values(&first.tokens), values(&second.tokens));
    }
}

const CHILD: &str = "FLAWTUNE_TEST_CHILD_FOLDER";

/// Does nothing by itself; [`processes_share_a_cache`] runs it in processes of their own.
#[test]
fn child_of_processes_share_a_cache() {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return;
    };
    let paths: Vec<_> = (0..40)
        .map(|i| folder.join(format!("{i:03}.png")))
        .collect();
    let tiny = Tiny::new("w");
    let extractor = Extractor {
        cache: Some(FeatureCache::at(folder.join("cache"))),
        batch_size: 1,
        ..Extractor::new(&tiny, recipe())
    };
    let reference = Extractor::new(&tiny, recipe())
        .extract(&paths, &mut quiet())
        .unwrap();
    for _ in 0..5 {
        let got = extractor.extract(&paths, &mut quiet()).unwrap();
        assert_eq!(values(&got.tokens), values(&reference.tokens));
        assert!(got.report.notes.is_empty(), "{:?}", got.report.notes);
    }
}

#[test]
fn processes_share_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let paths = pictures(folder.path(), 40);
    let program = std::env::current_exe().unwrap();
    let children: Vec<_> = (0..3)
        .map(|_| {
            Command::new(&program)
                .args(["--exact", "child_of_processes_share_a_cache"])
                .env(CHILD, folder.path())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(text.contains("1 passed"), "{text}");
    }
    let cache = FeatureCache::at(folder.path().join("cache"));
    assert_eq!(cache.report().unwrap().entries, 40);
    assert!(
        files(cache.folder())
            .iter()
            .all(|f| !f.to_string_lossy().contains(".tmp-"))
    );
    let tiny = Tiny::new("w");
    let extractor = Extractor {
        cache: Some(cache),
        ..Extractor::new(&tiny, recipe())
    };
    assert_eq!(
        extractor.extract(&paths, &mut quiet()).unwrap().report.hits,
        40
    );
}
