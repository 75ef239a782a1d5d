//! The backbones flawtune knows by name: sizes, where their weights live, under which licence.
//!
//! Sources: the model cards and hub configurations of `facebook/dinov3-*` and `facebook/dinov2-*`, and timm's
//! model definitions of the same weights.

mod table;

use std::fmt;
use std::iter;

use crate::config::{Family, FeedForward, Normalization, Position, VitConfig};
pub use table::VARIANTS;

/// The name used where the user gives none.
pub const DEFAULT: &str = "dinov3_vits16";

/// The small backbone that is part of the program, for demonstrations and trials: `DINOv3` architecture, distilled from
/// `DINOv2` ViT-S/14 by `tools/distill`.
pub const DEMO: &str = "demo_vit_tiny16";

/// Terms under which weights are given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Licence {
    /// Apache License 2.0.
    Apache2,
    /// Meta's DINOv3 License: commercial use allowed, its terms travel with the weights.
    DinoV3,
}

impl fmt::Display for Licence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apache2 => "Apache-2.0",
            Self::DinoV3 => "DINOv3 License",
        })
    }
}

/// Sizes of a transformer, shared by variants that differ only in their training data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Numbers per token.
    pub dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Feed-forward kind.
    pub feed_forward: FeedForward,
    /// Hidden width of the feed-forward part.
    pub hidden: usize,
}

/// A backbone known by name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variant {
    /// Short name, `dinov3_vits16`.
    pub name: &'static str,
    /// Family.
    pub family: Family,
    /// Sizes.
    pub sizes: Sizes,
    /// Register tokens.
    pub registers: usize,
    /// Pixel normalisation.
    pub normalization: Normalization,
    /// Where its weights come from.
    pub origin: Origin,
    /// Licence of the weights.
    pub licence: Licence,
}

/// Where the weights of a known backbone come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Origin {
    /// They are published, and fetched when they are first needed.
    Hub(Hub),
    /// They are part of this program: the bytes of a safetensors file.
    Embedded(&'static [u8]),
}

/// Where published weights are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hub {
    /// Repository with the weights in the hub's own key names.
    pub repository: &'static str,
    /// Repository of the same weights in timm's key names.
    pub timm: &'static str,
    /// Start of the name of the authors' own file, without the hash: `dinov3_vits16_pretrain_lvd1689m`.
    pub official: &'static str,
    /// Whether `repository` wants a login and an accepted licence.
    pub gated: bool,
}

impl Hub {
    /// The page where the licence is read and accepted.
    pub fn page(&self) -> String {
        format!("https://huggingface.co/{}", self.repository)
    }
}

impl Variant {
    /// Its full configuration. `DINOv3`: layer norm epsilon 1e-5, exact rotary periods of base 100; `DINOv2`: epsilon
    /// 1e-6, a 37×37 position table (518 pixels).
    pub fn config(&self) -> VitConfig {
        let (patch_size, norm_eps, position) = match self.family {
            Family::DinoV2 => (14, 1e-6, Position::Learned { grid: 37 }),
            Family::DinoV3 => (
                16,
                1e-5,
                Position::Rope {
                    base: 100.0,
                    round_periods: false,
                },
            ),
        };
        VitConfig {
            name: self.name.to_owned(),
            family: self.family,
            patch_size,
            dim: self.sizes.dim,
            depth: self.sizes.depth,
            heads: self.sizes.heads,
            registers: self.registers,
            feed_forward: self.sizes.feed_forward,
            hidden: self.sizes.hidden,
            norm_eps,
            position,
            normalization: self.normalization,
        }
    }

    /// Where its weights are published; `None` where they are part of the program.
    pub fn hub(&self) -> Option<&Hub> {
        match &self.origin {
            Origin::Hub(hub) => Some(hub),
            Origin::Embedded(_) => None,
        }
    }

    /// Every name it answers to.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let short = self.name;
        // `vits16`, but not `vits16` for the satellite variant: that keeps its `_sat`
        let published = self.hub().into_iter().flat_map(move |hub| {
            let bare = short.split_once('_').map_or(short, |(_, bare)| bare);
            let without_owner =
                |repository: &'static str| repository.split_once('/').map(|(_, name)| name);
            [
                Some(bare),
                Some(hub.repository),
                without_owner(hub.repository),
                Some(hub.timm),
                without_owner(hub.timm),
            ]
            .into_iter()
            .flatten()
            .chain([hub.official])
            // the class of the authors' hub file: `dinov2_vits14_reg`
            .chain(
                (self.family == Family::DinoV2).then(|| hub.official.trim_end_matches("_pretrain")),
            )
        });
        iter::once(short).chain(published).map(str::to_owned)
    }
}

/// A name that no known backbone has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no backbone is called '{name}'{}; known: {}",
    suggestion.map_or(String::new(), |s| format!(" (did you mean {s}?)")),
    VARIANTS.iter().map(|v| v.name).collect::<Vec<_>>().join(", ")
)]
pub struct UnknownModel {
    /// The name asked for.
    pub name: String,
    /// The nearest known name, where one is near.
    pub suggestion: Option<&'static str>,
}

/// The backbone called `name`: its short name, that name without the family, a hub repository or a timm name; case,
/// `-` and `_` do not matter.
///
/// # Errors
/// No backbone has that name; the error lists those that exist.
pub fn find(name: &str) -> Result<&'static Variant, UnknownModel> {
    let wanted = &normalized(name);
    if let Some(v) = VARIANTS
        .iter()
        .find(|v| v.names().any(|n| normalized(&n) == *wanted))
    {
        return Ok(v);
    }
    let nearest = VARIANTS
        .iter()
        .flat_map(|v| {
            v.names()
                .map(move |n| (strsim::levenshtein(&normalized(&n), wanted), v.name))
        })
        .min_by_key(|&(d, _)| d);
    // a third of the letters wrong is not a slip of the finger any more
    let suggestion = nearest
        .filter(|&(d, _)| d * 3 <= wanted.len())
        .map(|(_, n)| n);
    Err(UnknownModel {
        name: name.to_owned(),
        suggestion,
    })
}

/// Lower case, separators alike, without the site and the file type.
fn normalized(name: &str) -> String {
    let name = name.trim().trim_end_matches('/').to_lowercase();
    let name = name
        .strip_prefix("https://huggingface.co/")
        .unwrap_or(&name);
    name.replace(['-', '.'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_repositories_are_accepted() {
        for (name, wanted) in [
            ("dinov3_vits16", "dinov3_vits16"),
            ("vits16", "dinov3_vits16"),
            ("dinov3-vits16", "dinov3_vits16"),
            ("DINOv3_ViTS16", "dinov3_vits16"),
            ("facebook/dinov3-vits16-pretrain-lvd1689m", "dinov3_vits16"),
            (
                "https://huggingface.co/facebook/dinov3-vits16-pretrain-lvd1689m",
                "dinov3_vits16",
            ),
            ("dinov3-vitl16-pretrain-sat493m", "dinov3_vitl16_sat"),
            ("vitl16", "dinov3_vitl16"),
            ("timm/vit_small_patch16_dinov3.lvd1689m", "dinov3_vits16"),
            ("vit_large_patch16_dinov3.sat493m", "dinov3_vitl16_sat"),
            ("vit7b16", "dinov3_vit7b16"),
            ("facebook/dinov2-small", "dinov2_vits14"),
            ("vitg14_reg", "dinov2_vitg14_reg"),
            ("dinov2_vits14_reg4", "dinov2_vits14_reg"),
            ("facebook/dinov2-with-registers-base", "dinov2_vitb14_reg"),
        ] {
            assert_eq!(find(name).map(|v| v.name), Ok(wanted), "{name}");
        }
    }

    #[test]
    fn no_two_variants_share_a_name() {
        let mut all: Vec<(String, &str)> = VARIANTS
            .iter()
            .flat_map(|v| v.names().map(move |n| (normalized(&n), v.name)))
            .collect();
        all.sort();
        all.dedup();
        for pair in all.windows(2) {
            assert_ne!(pair[0].0, pair[1].0, "{} and {}", pair[0].1, pair[1].1);
        }
        assert_eq!(VARIANTS.len(), 17);
        assert!(find(DEFAULT).is_ok());
    }

    #[test]
    fn an_unknown_name_lists_what_exists_and_suggests() {
        let e = find("dinov3_vits61").unwrap_err();
        assert_eq!(e.suggestion, Some("dinov3_vits16"));
        let text = e.to_string();
        assert!(
            text.contains("did you mean dinov3_vits16") && text.contains("dinov2_vitg14_reg"),
            "{text}"
        );
        assert_eq!(find("resnet50_imagenet").unwrap_err().suggestion, None);
    }

    #[test]
    fn the_embedded_backbone_is_what_the_table_says() {
        let variant = find(DEMO).unwrap();
        let Origin::Embedded(bytes) = variant.origin else {
            panic!("{:?}", variant.origin)
        };
        assert!(bytes.len() <= 12_000_000, "{} bytes", bytes.len());
        let loaded = crate::weights::load_embedded(DEMO, bytes, Some(&variant.config())).unwrap();
        assert_eq!(loaded.config, variant.config());
        // the same without being told: as a copy of the file is read
        let told = crate::weights::load_embedded(DEMO, bytes, None).unwrap();
        assert_eq!((&told.config, told.notes.len()), (&variant.config(), 0));
        assert_eq!(
            told.weights.content_hash,
            blake3::hash(bytes).to_hex().to_string()
        );
        assert_eq!(variant.names().collect::<Vec<_>>(), [DEMO]);
        let nowhere = crate::hub::LocateOptions::from_env();
        let refused = crate::hub::locate(DEMO, &nowhere, &mut |_| {})
            .unwrap_err()
            .to_string();
        assert!(refused.contains("part of flawtune"), "{refused}");
    }

    #[test]
    fn sizes_agree_with_the_published_parameter_counts() {
        // (name, parameters of the hub file), DINOv3 model card; the mask token is counted there
        for (name, wanted) in [
            ("vits16", 21_596_544usize),
            ("vits16plus", 28_692_864),
            ("vitb16", 85_660_416),
            ("vitl16", 303_129_600),
            ("vith16plus", 840_592_640),
            ("vit7b16", 6_716_035_072),
        ] {
            let v = find(name).unwrap();
            let c = v.config();
            let (d, h) = (c.dim, c.hidden);
            let qv_bias = if v.sizes.dim == 4096 { 0 } else { 2 * d };
            let ffn = match c.feed_forward {
                FeedForward::Mlp => 2 * d * h + h + d,
                FeedForward::SwiGlu => 3 * d * h + 2 * h + d,
            };
            let block = 4 * d + 3 * d * d + qv_bias + d * d + d + 2 * d + ffn;
            let rest = d + d + c.registers * d + 3 * c.patch_size * c.patch_size * d + d + 2 * d;
            assert_eq!(c.depth * block + rest, wanted, "{name}");
        }
    }
}
