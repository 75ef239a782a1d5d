//! Fitting a detector to the good images that were handed in.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use flawtune::dataset::{Folders, Source};
use flawtune::workflow::{BackboneOverrides, CategoryOptions, Event, FitRequest, fit_in_memory};
use flawtune::{FeatureCache, ImageSize};
use flawtune_backbone::models;
use serde_json::json;

use super::{JobKind, Work};
use crate::app::App;
use crate::files::link;
use crate::refusal::Refusal;
use crate::store::{DetectorRow, GoodImage, NewVersion, VersionKind};

/// Images a forward pass.
const BATCH: usize = 8;
/// Side of the images as the embedded backbone sees them, in pixels: as in `flawtune demo`.
const DEMO_SIZE: usize = 288;
/// Good images without which nothing can be said of a threshold.
const LEAST: usize = 4;

/// Fitting.
#[derive(Debug)]
pub(crate) struct Fit {
    /// The backbone's name; the default where none is named.
    pub(crate) backbone: Option<String>,
    /// Who asked.
    pub(crate) by: Option<String>,
}

impl Work for Fit {
    const KIND: JobKind = JobKind::Fit;

    fn run(
        self,
        app: &App,
        detector: &DetectorRow,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<serde_json::Value, Refusal> {
        let begun = Instant::now();
        let good: Vec<GoodImage> = app.store.good(detector.id)?;
        let good: Vec<&GoodImage> = good.iter().filter(|image| !image.excluded).collect();
        if good.len() < LEAST {
            return Err(Refusal::conflict(format!(
                "'{}' has {} good images, wanted at least {LEAST}",
                detector.name,
                good.len()
            ))
            .hint("hand in more: some twenty do, a hundred are better"));
        }
        let folder = tempfile::tempdir_in(app.files.tmp())?;
        let named = laid_out(app, &good, folder.path())?;
        let request = FitRequest {
            backbone: self.backbone(app),
            ..FitRequest::new(
                data(app, detector, folder.path().join("good")),
                PathBuf::new(),
            )
        };
        let mut oddest = Vec::new();
        let mut notes = Vec::new();
        let fitted = fit_in_memory(&request, &mut |event| {
            match &event {
                Event::Oddest(images) => {
                    let one = |odd: &flawtune::workflow::OddImage| {
                        let image = named.get(&odd.path)?;
                        Some(json!({
                            "content": image.content,
                            "name": image.name,
                            "deviations": odd.deviations,
                            "stands_out": odd.stands_out(),
                        }))
                    };
                    oddest = images.iter().filter_map(one).collect();
                }
                Event::Warning(text) => notes.push(text.clone()),
                _ => {}
            }
            on_event(event);
        })?;

        let number = app.store.next_version(detector.id)?;
        let file = format!("{number}.flaw");
        let folder = app.files.detector(&detector.name);
        fs::create_dir_all(&folder)?;
        fitted.save(folder.join(&file))?;
        let header = fitted.header();
        let note = std::iter::once(format!("fitted to {} good images", good.len())).chain(notes);
        let new = NewVersion {
            kind: VersionKind::Fitted,
            note: note.collect::<Vec<_>>().join("\n"),
            file,
            base: None,
            lessons: Vec::new(),
            threshold: header.threshold.value,
            given: false,
            good: good.len(),
            defects: 0,
            before: None,
            after: None,
            oddest: serde_json::to_string(&oddest).ok(),
        };
        let version = app.store.add_version(detector, &new, self.by.as_deref())?;
        app.in_force(&detector.name)?;
        Ok(json!({
            "version": version,
            "good": good.len(),
            "seconds": begun.elapsed().as_secs_f64(),
            "oddest": oddest,
        }))
    }
}

impl Fit {
    fn backbone(&self, app: &App) -> BackboneOverrides {
        let mut set = BackboneOverrides::default();
        match (&self.backbone, app.registry.weights()) {
            (Some(name), _) if name != WEIGHT_FILE => set.model_name = Some(name.clone()),
            (_, Some(weights)) => set.weights = Some(weights.clone()),
            _ => set.model_name = Some(models::DEMO.to_owned()),
        }
        if set.model_name.as_deref() == Some(models::DEMO) {
            set.image_size = vec![ImageSize::square(DEMO_SIZE)];
        }
        set
    }
}

/// What the weight file that the server was started with is called where backbones are named.
pub(crate) const WEIGHT_FILE: &str = "weights";

fn data(app: &App, detector: &DetectorRow, good: PathBuf) -> CategoryOptions {
    CategoryOptions {
        source: Source::Folders(Folders {
            good,
            test_good: None,
            defect: None,
            masks: None,
        }),
        category: detector.name.clone(),
        needs_test: false,
        skip_bad_images: false,
        strict: false,
        exclude: Vec::new(),
        cache: Some(FeatureCache::at(app.files.features())),
        batch_size: BATCH,
    }
}

/// Lays images out as the workflow reads them; what lies where.
fn laid_out<'a>(
    app: &App,
    good: &[&'a GoodImage],
    folder: &Path,
) -> Result<HashMap<PathBuf, &'a GoodImage>, Refusal> {
    let folder = folder.join("good");
    fs::create_dir_all(&folder)?;
    let mut named = HashMap::new();
    for &image in good {
        let path = folder.join(file_name(&image.name, &image.content, &image.kind));
        link(&app.files.image(&image.content, &image.kind), &path)?;
        named.insert(path, image);
    }
    Ok(named)
}

/// A file's name that begins as the image's, and is no other image's.
pub(super) fn file_name(name: &str, content: &str, extension: &str) -> String {
    let stem = Path::new(name).file_stem().unwrap_or_default();
    let plain = |c: char| {
        if c.is_alphanumeric() || "-_".contains(c) {
            c
        } else {
            '_'
        }
    };
    let stem: String = stem.to_string_lossy().chars().map(plain).take(40).collect();
    format!(
        "{stem}.{}.{extension}",
        content.get(..12).unwrap_or(content)
    )
}
