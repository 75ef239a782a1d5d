//! Arguments of `synth`.

use std::path::PathBuf;

use clap::Args;

use flawtune::values;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune synth --output-dir synth_data
  flawtune train --root-dir synth_data --category flange --model-name dinov2_vits14
  flawtune synth --paste-on parts/good --kinds scratch,hole --per-kind 10 --output-dir pasted --category parts
  flawtune baseline --root-dir pasted --category parts

Drawn images show how flawtune is used, not how good it is on your parts. gravel is cut from a photograph, training
images from its left half and test images from its right. The same seed draws the same bytes on any machine.

With --paste-on an image is in train/good, in test/good or gets defects, never two of them: --train-share of the images,
chosen by the seed, are copied to train/good, half of the others to test/good, and the rest get the defects in turn. Copies
are byte for byte; test/<kind>/NNN.png has the image's own size, ground_truth/<kind>/NNN_mask.png tells where
the defect is. Images with the same pixels count as one. Pasted defects test a line from camera to verdict; how well
real defects are found only real ones tell.")]
pub(crate) struct SynthArgs {
    /// Folder that the categories are put into; a category that exists is not touched
    #[arg(long, value_name = "DIR", default_value = "synth_data")]
    pub(crate) output_dir: PathBuf,
    /// Categories to draw: flange (a machined part), gravel (a photographed texture), plate (drilled
    /// steel with oil on it) or twill (a cloth); with --paste-on
    /// the name of the one that is made, 'pasted' if none is given [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) category: Vec<String>,
    /// Side of an image in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 192)]
    pub(crate) size: u32,
    /// Good images for training
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub(crate) train_good: u32,
    /// Good images for testing
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) test_good: u32,
    /// Defects of each type
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub(crate) test_per_type: u32,
    /// How large and strong drawn defects are: 1 no plainer than harmless marks, 2 seen at a glance (0.5 to 3)
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = values::severity)]
    pub(crate) severity: f32,
    /// Seed of everything drawn, pasted or divided
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Draw nothing: put synthetic defects on these good images (files, folders at any depth, or patterns; at least 3)
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["size", "train_good", "test_good", "test_per_type", "severity"])]
    pub(crate) paste_on: Vec<PathBuf>,
    /// Kinds of defects to put on: scratch, hole, stain, cut-paste (a piece of the image in a wrong place), blend (a
    /// foreign texture let in) [default: all]
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        requires = "paste_on"
    )]
    pub(crate) kinds: Vec<String>,
    /// Images with a defect, of each kind
    #[arg(long, value_name = "N", default_value_t = 5, requires = "paste_on",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) per_kind: u32,
    /// Part of the images that is learned from
    #[arg(long, value_name = "SHARE", default_value_t = 0.6, requires = "paste_on", value_parser = values::rate)]
    pub(crate) train_share: f64,
    /// Turn images by their EXIF orientation before a defect is put on (copies stay as they are)
    #[arg(long, requires = "paste_on")]
    pub(crate) exif_orientation: bool,
}
