//! The list of images a checkpoint learned from, and the guard that keeps them out of the test set.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Protocol, ProtocolError, SplitOptions};

/// One image by name and by content.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageRef {
    /// Path relative to the category.
    pub id: String,
    /// blake3 of the file's bytes, hexadecimal.
    pub content: String,
}

impl ImageRef {
    /// A reference to the file `id` whose bytes hash to `content`.
    pub fn new(id: &str, content: blake3::Hash) -> Self {
        Self {
            id: id.to_owned(),
            content: content.to_hex().to_string(),
        }
    }

    /// One hash over a list of images, in the list's order.
    pub fn digest(images: &[Self]) -> String {
        let mut hasher = blake3::Hasher::new();
        for image in images {
            absorb(&mut hasher, &image.id);
            absorb(&mut hasher, &image.content);
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Length first: no two lists of texts give the same bytes.
fn absorb(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

/// What a checkpoint learned from and was chosen on. Travels inside the checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitManifest {
    /// Category.
    pub category: String,
    /// The rule of the split.
    pub protocol: Protocol,
    /// The seed.
    pub seed: u64,
    /// Share of train/good that was held out.
    pub holdout_fraction: f64,
    /// Defects learned from or chosen on, in the order of the seed.
    pub pool: Vec<ImageRef>,
    /// How many of the pool, from its start, were learned from.
    pub shots: usize,
    /// Normal images learned from.
    pub train_normals: Vec<ImageRef>,
    /// Normal images chosen on.
    pub holdout_normals: Vec<ImageRef>,
    /// Images learned from after the first fit, wherever they came from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<ImageRef>,
    /// blake3 over all of the above.
    pub hash: String,
}

impl SplitManifest {
    /// The options that split its category so again.
    pub fn options(&self) -> SplitOptions {
        SplitOptions {
            protocol: self.protocol.clone(),
            seed: self.seed,
            shots: self.shots,
            pool: (self.protocol != Protocol::Leaky).then_some(self.pool.len()),
            holdout_fraction: self.holdout_fraction,
        }
    }

    pub(super) fn new(
        category: String,
        options: &SplitOptions,
        pool: Vec<ImageRef>,
        shots: usize,
        train_normals: Vec<ImageRef>,
        holdout_normals: Vec<ImageRef>,
    ) -> Self {
        let mut manifest = Self {
            category,
            protocol: options.protocol.clone(),
            seed: options.seed,
            holdout_fraction: options.holdout_fraction,
            pool,
            shots,
            train_normals,
            holdout_normals,
            added: Vec::new(),
            hash: String::new(),
        };
        manifest.hash = manifest.computed_hash();
        manifest
    }

    /// The hash the contents should have; differs from [`hash`](Self::hash) when somebody edited the manifest.
    pub fn computed_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        absorb(&mut hasher, &self.category);
        absorb(&mut hasher, &self.protocol.to_string());
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&self.holdout_fraction.to_le_bytes());
        hasher.update(&(self.shots as u64).to_le_bytes());
        for list in [&self.pool, &self.train_normals, &self.holdout_normals] {
            hasher.update(&(list.len() as u64).to_le_bytes());
            absorb(&mut hasher, &ImageRef::digest(list));
        }
        if !self.added.is_empty() {
            absorb(&mut hasher, &ImageRef::digest(&self.added));
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Every image learned from or chosen on.
    pub fn images(&self) -> impl Iterator<Item = &ImageRef> {
        self.pool
            .iter()
            .chain(&self.train_normals)
            .chain(&self.holdout_normals)
            .chain(&self.added)
    }

    /// Appends images that are learned from after the first fit.
    pub fn add(&mut self, images: impl IntoIterator<Item = ImageRef>) {
        self.added.extend(images);
        self.hash = self.computed_hash();
    }

    fn len(&self) -> usize {
        self.images().count()
    }
}

/// Refuses a test set that holds an image the checkpoint learned from or was chosen on: a file of the same id (in the
/// same category) or of the same content under any name. The leaky protocol is let through.
///
/// # Errors
/// [`ProtocolError::TrainedOnTest`] with the number of such images and the first of them.
pub fn check_disjoint(
    manifest: &SplitManifest,
    category: &str,
    test: &[ImageRef],
    protocol: &Protocol,
) -> Result<(), ProtocolError> {
    if *protocol == Protocol::Leaky {
        return Ok(());
    }
    let ids: HashSet<&str> = manifest.images().map(|i| i.id.as_str()).collect();
    let contents: HashSet<&str> = manifest.images().map(|i| i.content.as_str()).collect();
    let refuse = |how, overlap: Vec<&ImageRef>| match overlap.first() {
        Some(first) => Err(ProtocolError::TrainedOnTest {
            count: overlap.len(),
            trained: manifest.len(),
            how,
            first: first.id.clone(),
        }),
        None => Ok(()),
    };
    if category == manifest.category {
        refuse(
            "same file",
            test.iter()
                .filter(|t| ids.contains(t.id.as_str()))
                .collect(),
        )?;
    }
    refuse(
        "same content",
        test.iter()
            .filter(|t| contents.contains(t.content.as_str()))
            .collect(),
    )
}
