//! Write tokens of images, or of ready pixel tensors, to a safetensors file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use flawtune_backbone::atomic_file;
use flawtune_backbone::preprocess::facts_of;
use flawtune_backbone::vit::VitError;
use flawtune_kernels::mapped::MappedFile;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::shape::{self, NamedSize};
use super::{BackboneOptions, Engine, Event, OnEvent, WorkflowError, folder_of, writable_or};
use crate::features::{Extractor, FeatureCache, Forward};
use crate::little_endian::f32s;

/// What tokens are made from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Images.
    Pictures(Vec<PathBuf>),
    /// A safetensors file with normalised pixels `[images, 3, height, width]`, f32, under the key `pixels`.
    Pixels(PathBuf),
}

/// What to extract, and where to put it.
#[derive(Debug, Clone)]
pub struct FeaturesRequest {
    /// Images or pixels.
    pub source: Source,
    /// The backbone.
    pub backbone: BackboneOptions,
    /// Where features are kept.
    pub cache: Option<FeatureCache>,
    /// Images a forward pass.
    pub batch_size: usize,
    /// Leave unreadable images out instead of failing.
    pub skip_bad_images: bool,
    /// The safetensors file to write.
    pub output: PathBuf,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Images.
    pub images: usize,
    /// Rows and columns of patches.
    pub grid: (usize, usize),
    /// Numbers per token.
    pub dim: usize,
}

/// Writes `class_tokens` `[images, dim]` and `patch_tokens` `[images, patches, dim]`, f32, after the final norm.
///
/// # Errors
/// Anything wrong with the images, the pixel file or the backbone.
pub fn features(
    request: &FeaturesRequest,
    on_event: OnEvent<'_>,
) -> Result<Written, WorkflowError> {
    if request.output.is_dir() {
        return Err(WorkflowError::Input(format!(
            "{}: is a folder\nhint: name a file in it with `output`",
            request.output.display()
        )));
    }
    writable_or(
        folder_of(&request.output),
        "choose a folder that can be written with `output`",
    )?;
    let (class, patches, written, names) = match &request.source {
        Source::Pictures(paths) => from_pictures(request, paths, on_event)?,
        Source::Pixels(file) => from_pixels(request, file, on_event)?,
    };
    let (n, p, d) = (written.images, written.grid.0 * written.grid.1, written.dim);
    let tensors = [
        ("class_tokens", vec![n, d], bytes_of(&class)),
        ("patch_tokens", vec![n, p, d], bytes_of(&patches)),
    ];
    let wrong = |e: safetensors::SafeTensorError| {
        WorkflowError::Input(format!(
            "{}: cannot be written: {e}",
            request.output.display()
        ))
    };
    let views = tensors
        .iter()
        .map(|(name, shape, data)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrong)?;
    let metadata: HashMap<String, String> = names.into_iter().collect();
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(wrong)?;
    let failed = |source| WorkflowError::Io {
        path: request.output.clone(),
        source,
        hint: "choose another `output` or make room",
    };
    atomic_file::write(&request.output, &bytes).map_err(failed)?;
    Ok(written)
}

type Extracted = (Vec<f32>, Vec<f32>, Written, Vec<(String, String)>);

fn from_pictures(
    request: &FeaturesRequest,
    paths: &[PathBuf],
    on_event: OnEvent<'_>,
) -> Result<Extracted, WorkflowError> {
    let engine = Engine::open_unshaped(request.backbone.clone(), on_event)?;
    let names: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    let turned = engine.preprocess().apply_exif_orientation;
    let sizes: Vec<NamedSize<'_>> = names
        .iter()
        .zip(paths)
        .filter_map(|(name, path)| Some((name.as_str(), facts_of(path)?.size(turned))))
        .collect();
    let engine = shape::kept(engine, &sizes, &[], false, on_event)?;
    let mut extractor = Extractor::new(&engine, engine.preprocess());
    extractor.batch_size = request.batch_size;
    extractor.cache.clone_from(&request.cache);
    extractor.skip_bad_images = request.skip_bad_images;
    let found = extractor.extract(paths, &mut |p| on_event(Event::Images(p)))?;
    for bad in &found.skipped {
        on_event(Event::Warning(format!("left out {bad}")));
    }
    let tokens = &found.tokens;
    let class = tokens
        .images
        .iter()
        .flat_map(crate::features::ImageTokens::cls)
        .copied()
        .collect();
    let patches = tokens
        .images
        .iter()
        .flat_map(crate::features::ImageTokens::patches)
        .copied()
        .collect();
    let listed = found
        .kept
        .iter()
        .map(|&k| paths[k].display().to_string())
        .collect::<Vec<_>>();
    let names = vec![
        ("images".to_owned(), serde_json::json!(listed).to_string()),
        ("model".to_owned(), engine.config().name.clone()),
        ("preprocessing".to_owned(), engine.preprocess().id()),
    ];
    let written = Written {
        images: tokens.images.len(),
        grid: tokens.grid,
        dim: tokens.dim,
    };
    Ok((class, patches, written, names))
}

fn from_pixels(
    request: &FeaturesRequest,
    file: &Path,
    on_event: OnEvent<'_>,
) -> Result<Extracted, WorkflowError> {
    let wrong = |what: String| WorkflowError::Input(format!("{}: {what}", file.display()));
    let mapped = MappedFile::open(file).map_err(|e| wrong(e.to_string()))?;
    let tensors = SafeTensors::deserialize(mapped.bytes())
        .map_err(|e| wrong(format!("not a readable safetensors file ({e})")))?;
    let pixels = tensors.tensor("pixels").map_err(|_| {
        let names = tensors.names();
        wrong(format!(
            "no tensor named 'pixels'; it holds {}",
            if names.is_empty() {
                "none".into()
            } else {
                names.join(", ")
            }
        ))
    })?;
    let &[images, 3, height, width] = pixels.shape() else {
        return Err(wrong(format!(
            "'pixels' has shape {:?}; [images, 3, height, width] is wanted",
            pixels.shape()
        )));
    };
    if pixels.dtype() != Dtype::F32 {
        return Err(wrong(format!(
            "'pixels' is {:?}; F32 is wanted",
            pixels.dtype()
        )));
    }
    if images == 0 {
        return Err(wrong("'pixels' holds no image".into()));
    }
    let values: Vec<f32> = f32s(pixels.data()).collect();
    let engine = Engine::open(request.backbone.clone(), on_event)?;
    let grid = engine.grid(height, width);
    if grid.0 * grid.1 == 0 {
        return Err(VitError::TooSmall {
            height,
            width,
            patch: engine.config().patch_size,
        }
        .into());
    }
    let (dim, each) = (engine.dim(), 3 * height * width);
    let (mut class, mut patches) = (Vec::new(), Vec::new());
    for batch in values.chunks(request.batch_size.max(1) * each.max(1)) {
        let count = batch.len() / each.max(1);
        for image in engine
            .tokens(batch, count, height, width)?
            .chunks_exact((1 + grid.0 * grid.1) * dim)
        {
            class.extend_from_slice(&image[..dim]);
            patches.extend_from_slice(&image[dim..]);
        }
    }
    let names = vec![("model".to_owned(), engine.config().name.clone())];
    Ok((class, patches, Written { images, grid, dim }, names))
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
