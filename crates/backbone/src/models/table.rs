//! The table of variants.

use super::{DEMO, Hub, Licence, Origin, Sizes, Variant};
use crate::config::{Family, FeedForward, Normalization};

const fn sizes(
    dim: usize,
    depth: usize,
    heads: usize,
    feed_forward: FeedForward,
    hidden: usize,
) -> Sizes {
    Sizes {
        dim,
        depth,
        heads,
        feed_forward,
        hidden,
    }
}

const SMALL: Sizes = sizes(384, 12, 6, FeedForward::Mlp, 1536);
const SMALL_PLUS: Sizes = sizes(384, 12, 6, FeedForward::SwiGlu, 1536);
const BASE: Sizes = sizes(768, 12, 12, FeedForward::Mlp, 3072);
const LARGE: Sizes = sizes(1024, 24, 16, FeedForward::Mlp, 4096);
const HUGE_PLUS: Sizes = sizes(1280, 32, 20, FeedForward::SwiGlu, 5120);
const SEVEN_B: Sizes = sizes(4096, 40, 32, FeedForward::SwiGlu, 8192);
const TINY: Sizes = sizes(256, 6, 4, FeedForward::Mlp, 1024);
const GIANT: Sizes = sizes(1536, 40, 24, FeedForward::SwiGlu, 4096);

const fn v3(
    name: &'static str,
    sizes: Sizes,
    normalization: Normalization,
    repository: &'static str,
    timm: &'static str,
    official: &'static str,
) -> Variant {
    Variant {
        name,
        family: Family::DinoV3,
        sizes,
        registers: 4,
        normalization,
        origin: Origin::Hub(Hub {
            repository,
            timm,
            official,
            gated: true,
        }),
        licence: Licence::DinoV3,
    }
}

const fn v2(
    name: &'static str,
    sizes: Sizes,
    registers: usize,
    repository: &'static str,
    timm: &'static str,
    official: &'static str,
) -> Variant {
    Variant {
        name,
        family: Family::DinoV2,
        sizes,
        registers,
        normalization: Normalization::IMAGENET,
        origin: Origin::Hub(Hub {
            repository,
            timm,
            official,
            gated: false,
        }),
        licence: Licence::Apache2,
    }
}

const LVD: Normalization = Normalization::IMAGENET;
const SAT: Normalization = Normalization::SAT493M;

/// Every backbone known by name.
pub static VARIANTS: [Variant; 17] = [
    v3(
        "dinov3_vits16",
        SMALL,
        LVD,
        "facebook/dinov3-vits16-pretrain-lvd1689m",
        "timm/vit_small_patch16_dinov3.lvd1689m",
        "dinov3_vits16_pretrain_lvd1689m",
    ),
    v3(
        "dinov3_vits16plus",
        SMALL_PLUS,
        LVD,
        "facebook/dinov3-vits16plus-pretrain-lvd1689m",
        "timm/vit_small_plus_patch16_dinov3.lvd1689m",
        "dinov3_vits16plus_pretrain_lvd1689m",
    ),
    v3(
        "dinov3_vitb16",
        BASE,
        LVD,
        "facebook/dinov3-vitb16-pretrain-lvd1689m",
        "timm/vit_base_patch16_dinov3.lvd1689m",
        "dinov3_vitb16_pretrain_lvd1689m",
    ),
    v3(
        "dinov3_vitl16",
        LARGE,
        LVD,
        "facebook/dinov3-vitl16-pretrain-lvd1689m",
        "timm/vit_large_patch16_dinov3.lvd1689m",
        "dinov3_vitl16_pretrain_lvd1689m",
    ),
    v3(
        "dinov3_vitl16_sat",
        LARGE,
        SAT,
        "facebook/dinov3-vitl16-pretrain-sat493m",
        "timm/vit_large_patch16_dinov3.sat493m",
        "dinov3_vitl16_pretrain_sat493m",
    ),
    v3(
        "dinov3_vith16plus",
        HUGE_PLUS,
        LVD,
        "facebook/dinov3-vith16plus-pretrain-lvd1689m",
        "timm/vit_huge_plus_patch16_dinov3.lvd1689m",
        "dinov3_vith16plus_pretrain_lvd1689m",
    ),
    v3(
        "dinov3_vit7b16",
        SEVEN_B,
        LVD,
        "facebook/dinov3-vit7b16-pretrain-lvd1689m",
        "timm/vit_7b_patch16_dinov3.lvd1689m",
        "dinov3_vit7b16_pretrain_lvd1689m",
    ),
    v3(
        "dinov3_vit7b16_sat",
        SEVEN_B,
        SAT,
        "facebook/dinov3-vit7b16-pretrain-sat493m",
        "timm/vit_7b_patch16_dinov3.sat493m",
        "dinov3_vit7b16_pretrain_sat493m",
    ),
    v2(
        "dinov2_vits14",
        SMALL,
        0,
        "facebook/dinov2-small",
        "timm/vit_small_patch14_dinov2.lvd142m",
        "dinov2_vits14_pretrain",
    ),
    v2(
        "dinov2_vitb14",
        BASE,
        0,
        "facebook/dinov2-base",
        "timm/vit_base_patch14_dinov2.lvd142m",
        "dinov2_vitb14_pretrain",
    ),
    v2(
        "dinov2_vitl14",
        LARGE,
        0,
        "facebook/dinov2-large",
        "timm/vit_large_patch14_dinov2.lvd142m",
        "dinov2_vitl14_pretrain",
    ),
    v2(
        "dinov2_vitg14",
        GIANT,
        0,
        "facebook/dinov2-giant",
        "timm/vit_giant_patch14_dinov2.lvd142m",
        "dinov2_vitg14_pretrain",
    ),
    v2(
        "dinov2_vits14_reg",
        SMALL,
        4,
        "facebook/dinov2-with-registers-small",
        "timm/vit_small_patch14_reg4_dinov2.lvd142m",
        "dinov2_vits14_reg4_pretrain",
    ),
    v2(
        "dinov2_vitb14_reg",
        BASE,
        4,
        "facebook/dinov2-with-registers-base",
        "timm/vit_base_patch14_reg4_dinov2.lvd142m",
        "dinov2_vitb14_reg4_pretrain",
    ),
    v2(
        "dinov2_vitl14_reg",
        LARGE,
        4,
        "facebook/dinov2-with-registers-large",
        "timm/vit_large_patch14_reg4_dinov2.lvd142m",
        "dinov2_vitl14_reg4_pretrain",
    ),
    v2(
        "dinov2_vitg14_reg",
        GIANT,
        4,
        "facebook/dinov2-with-registers-giant",
        "timm/vit_giant_patch14_reg4_dinov2.lvd142m",
        "dinov2_vitg14_reg4_pretrain",
    ),
    Variant {
        name: DEMO,
        family: Family::DinoV3,
        sizes: TINY,
        registers: 4,
        normalization: Normalization::IMAGENET,
        origin: Origin::Embedded(include_bytes!(
            "../../../../assets/demo_vit_tiny16.safetensors"
        )),
        licence: Licence::Apache2,
    },
];
