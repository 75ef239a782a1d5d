//! What a detector keeps so that it can learn more: beside its banks, which hold the patches of the good images, what was seen of
//! them and of the shots. It is read only when it is asked for.
//!
//! | tensor | |
//! |---|---|
//! | `kept` | U8, JSON of [`KeptImages`] |
//! | `kept_nearest.0`, `kept_distance.0`, … | U32 and F32 `[judged + shots, blocks, patches]` of each image size: the nearest patch of each patch, and how far it is |
//! | `kept_shots.0`, … | only with shots: F16 `[shots, blocks, patches, dim]`, their patch tokens of unit length |
//! | `kept_cover.0`, … | only with shots: F32 `[shots, patches]`, the share of each patch that a mask covers; -1 without a mask |

use std::path::Path;

use half::f16;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};

use super::error::BundleError;
use super::file::open;
use super::header::Header;
use crate::evaluate::protocol::ImageRef;
use crate::little_endian::{f32s, u32s};
use crate::score::residual::Look;

const IMAGES: &str = "kept";
const NEAREST: &str = "kept_nearest";
const DISTANCE: &str = "kept_distance";
const SHOTS: &str = "kept_shots";
const COVER: &str = "kept_cover";

/// The images that were judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptImages {
    /// Places in the support of the good images that were judged, ascending.
    pub judged: Vec<usize>,
    /// Height and width of each, in pixels.
    pub judged_sizes: Vec<(usize, usize)>,
    /// The shots.
    pub shots: Vec<ImageRef>,
    /// Type of each.
    pub types: Vec<String>,
    /// Share of good images that may be called flawed.
    pub max_false_alarm: f64,
    /// Seed of the draws.
    pub seed: u64,
}

/// What was seen at one image size.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeptSize {
    /// Of each judged image, without itself, then of each shot.
    pub looks: Vec<Look>,
    /// Patch tokens of each shot, block by block, of unit length: `[blocks][patches · dim]`.
    pub shots: Vec<Vec<Vec<f32>>>,
    /// The share of each patch of a shot that its mask covers.
    pub covers: Vec<Option<Vec<f32>>>,
}

/// Everything that is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// The images.
    pub images: KeptImages,
    /// What was seen, at the size of the header's grid first.
    pub sizes: Vec<KeptSize>,
}

/// A tensor to write: key, type, shape, bytes.
pub(super) type Stored = (String, &'static str, Vec<usize>, Vec<u8>);

impl Kept {
    /// As a file gives it back, in half precision: learning in memory and by way of a file are the same to the last bit.
    #[must_use]
    pub fn as_in_file(mut self) -> Self {
        let sizes = self.sizes.iter_mut();
        let tokens = sizes.flat_map(|size| size.shots.iter_mut().flatten().flatten());
        tokens.for_each(|value| *value = f16::from_f32(*value).to_f32());
        self
    }

    /// As tensors.
    ///
    /// # Errors
    /// Something that JSON cannot hold.
    pub(super) fn tensors(&self) -> Result<Vec<Stored>, serde_json::Error> {
        let json = serde_json::to_vec(&self.images)?;
        let mut tensors = vec![(IMAGES.to_owned(), "U8", vec![json.len()], json)];
        for (i, size) in self.sizes.iter().enumerate() {
            let key = |name: &str| format!("{name}.{i}");
            let first = size.looks.first();
            let blocks = first.map_or(0, |look| look.distances.len());
            let patches = first.and_then(|look| look.distances.first());
            let patches = patches.map_or(0, Vec::len);
            let looks = vec![size.looks.len(), blocks, patches];
            let nearest = size.looks.iter().flat_map(|l| l.nearest.iter().flatten());
            let nearest = nearest.flat_map(|n| n.to_le_bytes()).collect();
            tensors.push((key(NEAREST), "U32", looks.clone(), nearest));
            let distances = size.looks.iter().flat_map(|l| l.distances.iter().flatten());
            let distances = distances.flat_map(|d| d.to_le_bytes()).collect();
            tensors.push((key(DISTANCE), "F32", looks, distances));
            if size.shots.is_empty() {
                continue;
            }
            let tokens = size.shots.iter().flatten().flatten();
            let tokens: Vec<u8> = tokens
                .flat_map(|v| f16::from_f32(*v).to_le_bytes())
                .collect();
            let dim = tokens.len() / (2 * size.shots.len() * blocks * patches).max(1);
            let shape = vec![size.shots.len(), blocks, patches, dim];
            tensors.push((key(SHOTS), "F16", shape, tokens));
            let without = vec![-1.0; patches];
            let covers = size.covers.iter();
            let covers = covers.flat_map(|cover| cover.as_ref().unwrap_or(&without));
            let covers = covers.flat_map(|c| c.to_le_bytes()).collect();
            tensors.push((key(COVER), "F32", vec![size.shots.len(), patches], covers));
        }
        Ok(tensors)
    }

    /// What the file at `path`, whose header was read, keeps; `None` for a file that keeps nothing.
    ///
    /// # Errors
    /// Tensors that do not fit the header or each other.
    pub fn read(path: &Path, header: &Header) -> Result<Option<Self>, BundleError> {
        let file = open(path)?;
        let wrong = |key: &str, what: String| BundleError::Header {
            path: path.to_owned(),
            key: key.to_owned(),
            what,
        };
        let tensors = SafeTensors::deserialize(file.bytes())
            .map_err(|e| wrong(IMAGES, format!("cannot be read ({e})")))?;
        let Ok(json) = tensors.tensor(IMAGES) else {
            return Ok(None);
        };
        let images: KeptImages = serde_json::from_slice(json.data())
            .map_err(|e| wrong(IMAGES, format!("cannot be read ({e})")))?;
        let shots = images.shots.len();
        let right = images.judged.is_sorted_by(|a, b| a < b)
            && images
                .judged
                .last()
                .is_none_or(|i| *i < header.support.len())
            && images.judged_sizes.len() == images.judged.len()
            && images.types.len() == shots;
        if !right {
            return Err(wrong(IMAGES, "does not fit the support".into()));
        }
        let blocks = header.scorer.blocks();
        let grids = std::iter::once((header.grid, header.bank.rows))
            .chain(header.more_sizes.iter().map(|s| (s.grid, s.rows)));
        let sizes = grids.enumerate().map(|(i, ((height, width), rows))| {
            let tensors = OfSize {
                path,
                tensors: &tensors,
                i,
                blocks,
                patches: height * width,
                dim: header.dim / blocks,
            };
            tensors.read(rows, images.judged.len(), shots)
        });
        let sizes = sizes.collect::<Result<_, _>>()?;
        Ok(Some(Self { images, sizes }))
    }
}

/// The tensors of one size.
struct OfSize<'a> {
    path: &'a Path,
    tensors: &'a SafeTensors<'a>,
    i: usize,
    blocks: usize,
    patches: usize,
    dim: usize,
}

impl OfSize<'_> {
    fn wrong(&self, key: &str, what: String) -> BundleError {
        BundleError::Header {
            path: self.path.to_owned(),
            key: key.to_owned(),
            what,
        }
    }

    fn bytes(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Vec<u8>, BundleError> {
        let key = format!("{name}.{}", self.i);
        match self.tensors.tensor(&key) {
            Ok(found) if found.dtype() == dtype && found.shape() == shape => {
                Ok(found.data().to_vec())
            }
            _ => Err(self.wrong(&key, format!("is not {dtype:?} {shape:?}"))),
        }
    }

    /// Of a bank of so many `rows` in each block, and so many images.
    fn read(&self, rows: usize, judged: usize, shots: usize) -> Result<KeptSize, BundleError> {
        let &Self {
            blocks,
            patches,
            dim,
            ..
        } = self;
        let looks = [judged + shots, blocks, patches];
        let nearest = self.bytes(NEAREST, Dtype::U32, &looks)?;
        let nearest: Vec<u32> = u32s(&nearest).collect();
        if nearest
            .iter()
            .any(|n| *n as usize >= rows && *n != u32::MAX)
        {
            return Err(self.wrong(NEAREST, "names patches that are not there".into()));
        }
        let distances = self.bytes(DISTANCE, Dtype::F32, &looks)?;
        let distances: Vec<f32> = f32s(&distances).collect();
        let (tokens, covers) = if shots == 0 {
            (Vec::new(), Vec::new())
        } else {
            let tokens = self.bytes(SHOTS, Dtype::F16, &[shots, blocks, patches, dim])?;
            (tokens, self.bytes(COVER, Dtype::F32, &[shots, patches])?)
        };
        let tokens: Vec<f32> = tokens
            .chunks_exact(2)
            .map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect();
        let covers: Vec<f32> = f32s(&covers).collect();
        let mut all = tokens.iter().chain(&distances).chain(&covers);
        if all.any(|v| !v.is_finite()) {
            return Err(self.wrong(SHOTS, "has numbers that are not finite".into()));
        }
        let look = |(nearest, distances): (&[u32], &[f32])| Look {
            nearest: nearest.chunks_exact(patches).map(<[_]>::to_vec).collect(),
            distances: distances.chunks_exact(patches).map(<[_]>::to_vec).collect(),
        };
        let each = blocks * patches;
        let by_block = |shot: &[f32]| {
            shot.chunks_exact(patches * dim)
                .map(<[_]>::to_vec)
                .collect()
        };
        let looks = nearest.chunks_exact(each);
        Ok(KeptSize {
            looks: looks.zip(distances.chunks_exact(each)).map(look).collect(),
            shots: tokens.chunks_exact(each * dim).map(by_block).collect(),
            covers: covers
                .chunks_exact(patches)
                .map(|cover| (cover[0] >= 0.0).then(|| cover.to_vec()))
                .collect(),
        })
    }
}
