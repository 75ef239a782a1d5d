//! Patch matching: for every patch of one image, the most similar patch of another.
//!
//! The product of two patch sets is never stored; the maximum is kept while it is computed.

/// The patches of one image, laid out for the matching kernel: `[patches, dim]` f32, any norm.
#[derive(Debug, Clone)]
pub struct PackedPatches {
    patches: usize,
    dim: usize,
    data: Vec<f32>,
}

/// Which patch of the other image each patch matched best, and how well.
#[derive(Debug, Clone, Default)]
pub struct Matches {
    /// Largest dot product, one per patch.
    pub best: Vec<f32>,
    /// Index of the patch that reached it (the lowest among equals).
    pub index: Vec<u32>,
}

impl PackedPatches {
    /// Packs row-major `rows` (`[patches, dim]`).
    ///
    /// # Panics
    /// If `dim` is 0 or `rows` is not a whole number of rows.
    pub fn pack(rows: &[f32], dim: usize) -> Self {
        assert!(dim > 0 && rows.len().is_multiple_of(dim), "rows must be [patches, dim]");
        Self { patches: rows.len() / dim, dim, data: rows.to_vec() }
    }

    /// Number of patches.
    pub fn patches(&self) -> usize {
        self.patches
    }

    /// Numbers per patch.
    pub fn dim(&self) -> usize {
        self.dim
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// `best[p] = max_q a_p · b_q`; one number per patch of `a`.
pub fn max_similarity(a: &PackedPatches, b: &PackedPatches, best: &mut [f32]) {
    assert_eq!(a.dim, b.dim);
    assert_eq!(best.len(), a.patches);
    for (p, out) in best.iter_mut().enumerate() {
        let row = &a.data[p * a.dim..][..a.dim];
        *out = b.data.chunks_exact(b.dim).map(|q| dot(row, q)).fold(f32::NEG_INFINITY, f32::max);
    }
}

/// Best matches of the patches of `a` in `b`, with their indices.
pub fn match_patches(a: &PackedPatches, b: &PackedPatches, out: &mut Matches) {
    assert_eq!(a.dim, b.dim);
    out.best.clear();
    out.index.clear();
    for p in 0..a.patches {
        let row = &a.data[p * a.dim..][..a.dim];
        let (mut best, mut index) = (f32::NEG_INFINITY, 0);
        for (q, other) in b.data.chunks_exact(b.dim).enumerate() {
            let s = dot(row, other);
            if s > best {
                (best, index) = (s, q as u32);
            }
        }
        out.best.push(best);
        out.index.push(index);
    }
}

/// Best matches in both directions from one product: `ab` of the patches of `a` in `b`, `ba` the other way.
pub fn match_both(a: &PackedPatches, b: &PackedPatches, ab: &mut Matches, ba: &mut Matches) {
    match_patches(a, b, ab);
    match_patches(b, a, ba);
}
