//! What a detector is fitted to, collected step by step.

use std::path::{Path, PathBuf};

use super::{
    BackboneOptions, BackboneOverrides, CategoryOptions, Detector, Engine, FitOptions, FitRequest,
    OnEvent, WorkflowError, fit_in_memory,
};
use crate::dataset::{Folders, Source};
use crate::features::FeatureCache;
use crate::image_size::ImageSize;

/// A frozen backbone: which weights, and how images get into it.
#[derive(Debug, Clone)]
pub struct Backbone {
    set: BackboneOverrides,
}

impl Backbone {
    /// A backbone by its name (`flawtune models` lists them) or by its weight file. Published weights are fetched at the first use.
    ///
    /// # Errors
    /// An unknown name, weights that cannot be found, fetched or read.
    pub fn open(name_or_file: impl AsRef<Path>) -> Result<Self, WorkflowError> {
        let given = name_or_file.as_ref();
        let mut set = BackboneOverrides::default();
        if given.exists() {
            set.weights = Some(given.to_owned());
        } else {
            set.model_name = Some(given.to_string_lossy().into_owned());
        }
        Self::with(set)
    }

    /// The same with every option; what is not set is the default. Named layers are the blocks that a detector looks at.
    ///
    /// # Errors
    /// As [`Self::open`]; options that the backbone cannot take.
    pub fn with(set: BackboneOverrides) -> Result<Self, WorkflowError> {
        Engine::open_unshaped(set.over(BackboneOptions::default()), &mut |_| {})?;
        Ok(Self { set })
    }

    /// Resizes images to a square of so many pixels, or to an [`ImageSize`]. Small flaws need larger images, which take longer.
    ///
    /// # Errors
    /// A size smaller than a patch.
    pub fn image_size(self, pixels: impl Into<ImageSize>) -> Result<Self, WorkflowError> {
        Self::with(BackboneOverrides {
            image_size: vec![pixels.into()],
            ..self.set
        })
    }

    /// The options that are set.
    pub fn set(&self) -> &BackboneOverrides {
        &self.set
    }
}

/// Collects what a detector is fitted to; [`Self::fit`] fits it.
#[derive(Debug, Clone)]
#[must_use = "nothing is fitted before `fit` is called"]
pub struct DetectorBuilder {
    backbone: BackboneOverrides,
    good: Option<PathBuf>,
    defect: Option<PathBuf>,
    masks: Option<PathBuf>,
    exclude: Vec<String>,
    options: FitOptions,
    cache: Option<FeatureCache>,
}

impl DetectorBuilder {
    pub(super) fn new(backbone: &Backbone) -> Self {
        Self {
            backbone: backbone.set.clone(),
            good: None,
            defect: None,
            masks: None,
            exclude: Vec::new(),
            options: FitOptions::default(),
            cache: None,
        }
    }

    /// Learns what is normal from the images in this folder, searched to any depth.
    ///
    /// # Errors
    /// Something else than a folder.
    pub fn good_folder(mut self, folder: impl Into<PathBuf>) -> Result<Self, WorkflowError> {
        self.good = Some(a_folder(folder.into())?);
        Ok(self)
    }

    /// Learns from the defects in this folder; those in a folder of it are of the type that the folder is called.
    ///
    /// # Errors
    /// Something else than a folder.
    pub fn defect_folder(mut self, folder: impl Into<PathBuf>) -> Result<Self, WorkflowError> {
        self.defect = Some(a_folder(folder.into())?);
        Ok(self)
    }

    /// Takes the places of the flaws from masks: `<type>/<name>.png` or `<type>/<name>_mask.png`. Without masks the oddest patches
    /// of a defect are taken for its flaw.
    ///
    /// # Errors
    /// Something else than a folder.
    pub fn mask_folder(mut self, folder: impl Into<PathBuf>) -> Result<Self, WorkflowError> {
        self.masks = Some(a_folder(folder.into())?);
        Ok(self)
    }

    /// Lets so large a share of good images be called flawed (0.01 by default).
    pub fn max_false_alarm(mut self, rate: f64) -> Self {
        self.options.max_false_alarm = rate;
        self
    }

    /// Draws with this seed (0 by default). The same seed gives the same bits on any number of threads.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = seed;
        self
    }

    /// Keeps tokens of images in a folder, so that a second fit of the same images makes no forward pass.
    pub fn cache(mut self, cache: FeatureCache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Learns nothing from the good images that this path, name or pattern (`*`, `?`, `[]`) names; may be called again.
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.exclude.push(pattern.into());
        self
    }

    /// Fits the detector.
    ///
    /// # Errors
    /// No good images; images or masks that cannot be read, each named.
    pub fn fit(self) -> Result<Detector, WorkflowError> {
        self.fit_with(&mut |_| {})
    }

    /// Fits the detector and tells what happens on the way.
    ///
    /// # Errors
    /// As [`Self::fit`].
    pub fn fit_with(self, on_event: OnEvent<'_>) -> Result<Detector, WorkflowError> {
        let good = self.good.ok_or_else(|| {
            WorkflowError::Input(
                "no good images: a detector learns from them what is normal\nhint: name their folder with good_folder".into(),
            )
        })?;
        let source = Source::Folders(Folders {
            good,
            test_good: None,
            defect: self.defect,
            masks: self.masks,
        });
        let data = CategoryOptions {
            category: source.default_category()?,
            source,
            needs_test: false,
            skip_bad_images: false,
            strict: false,
            exclude: self.exclude,
            cache: self.cache,
            batch_size: 32,
        };
        let request = FitRequest {
            backbone: self.backbone,
            options: self.options,
            ..FitRequest::new(data, PathBuf::new())
        };
        fit_in_memory(&request, on_event)
    }
}

fn a_folder(folder: PathBuf) -> Result<PathBuf, WorkflowError> {
    if folder.is_dir() {
        return Ok(folder);
    }
    Err(WorkflowError::Input(format!(
        "{}: is not a folder",
        folder.display()
    )))
}
