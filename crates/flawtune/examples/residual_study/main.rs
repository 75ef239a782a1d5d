//! What defects teach the residual head, over seeds and numbers of shots: the same split, banks, heads and scores as
//! `flawtune fit --num-defect-samples M --seed S` and `flawtune evaluate`, with every image looked at once.
//!
//! ```sh
//! cargo run --release -p flawtune --example residual_study -- WEIGHTS ROOT CATEGORY CACHE [--image-size 448,224]
//!     [--blocks 5,7,9,11] [--top N] [--no-masks] [--penalty X] [--seeds N] [--judged N]
//!     [--tables shots,types,pixels]
//! ```
//!
//! `shots`, the default, is a row a number of shots: mean and standard deviation of the AUROC over seeds, with and without what was
//! learned, their difference with a paired bootstrap interval over all seeds, and the share of defects found and of good images
//! stopped at the threshold for 2 % false alarms that good images alone choose. `types` is the hard protocol, a row a type: ten
//! shots of it alone (fewer where its pool holds fewer), the defects of all other types, and those of the same. `pixels` is a row
//! of the pixels of ten shots of the held-out protocol.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod look;
mod tables;

use std::path::PathBuf;

use flawtune::dataset::Source;
use flawtune::evaluate::protocol::{Split, SplitOptions};
use flawtune::features::FeatureCache;
use flawtune::score::Finding;
use flawtune::score::residual::{DEFAULT_SIZES, ResidualOptions, joined};
use flawtune::workflow::{Category, CategoryOptions};
use look::AtSize;

type Failure = Box<dyn std::error::Error>;

struct Options {
    weights: PathBuf,
    root: PathBuf,
    category: String,
    cache: PathBuf,
    image_sizes: Vec<usize>,
    judged: usize,
    blocks: Option<Vec<i32>>,
    top: Option<usize>,
    masks: bool,
    seeds: u64,
    tables: Vec<String>,
    learning: ResidualOptions,
}

fn options() -> Result<Options, Failure> {
    let mut given = std::env::args().skip(1);
    let mut next = |what: &'static str| given.next().ok_or(format!("{what} is missing"));
    let mut options = Options {
        weights: next("WEIGHTS")?.into(),
        root: next("ROOT")?.into(),
        category: next("CATEGORY")?,
        cache: next("CACHE")?.into(),
        image_sizes: DEFAULT_SIZES.to_vec(),
        judged: usize::MAX,
        blocks: None,
        top: None,
        masks: true,
        seeds: 5,
        tables: vec!["shots".into()],
        learning: ResidualOptions::default(),
    };
    while let Some(flag) = given.next() {
        let mut value = || given.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--image-size" => {
                let sizes = value()?;
                let sizes = sizes.split(',').map(str::parse::<usize>);
                options.image_sizes = sizes.collect::<Result<_, _>>()?;
            }
            "--judged" => options.judged = value()?.parse()?,
            "--blocks" => {
                let blocks = value()?;
                let from_zero = blocks.split(',').map(|b| b.parse::<i32>().map(|b| b - 1));
                options.blocks = Some(from_zero.collect::<Result<_, _>>()?);
            }
            "--top" => options.top = Some(value()?.parse()?),
            "--no-masks" => options.masks = false,
            "--penalty" => options.learning.penalty = value()?.parse()?,
            "--weight" => options.learning.weight = Some(value()?.parse()?),
            "--seeds" => options.seeds = value()?.parse()?,
            "--tables" => options.tables = value()?.split(',').map(str::to_owned).collect(),
            _ => return Err(format!("{flag}: unknown").into()),
        }
    }
    Ok(options)
}

/// A category whose images were looked at.
struct Study {
    options: Options,
    category: Category,
    /// Positions of what is no good training image.
    others: Vec<usize>,
    sizes: Vec<AtSize>,
}

impl Study {
    fn open(options: Options) -> Result<Self, Failure> {
        let data = CategoryOptions {
            source: Source::root(&options.root),
            category: options.category.clone(),
            needs_test: true,
            skip_bad_images: false,
            strict: false,
            exclude: Vec::new(),
            cache: Some(FeatureCache::at(&options.cache)),
            batch_size: 32,
        };
        let category = Category::open(&data, &mut |_| {})?;
        let (good, others): (Vec<usize>, Vec<usize>) = {
            let infos = category.infos();
            (0..infos.len()).partition(|&i| infos[i].is_train)
        };
        let mut sizes = Vec::new();
        for &size in &options.image_sizes {
            sizes.push(AtSize::look(&options, &category, size, (&good, &others))?);
        }
        Ok(Self {
            options,
            category,
            others,
            sizes,
        })
    }

    /// How the category is split.
    fn split(&self, options: &SplitOptions) -> Result<Split, Failure> {
        Ok(self.category.split(options)?)
    }

    /// What a detector that learned from `shots` says of the good images, each without itself, and of `test`.
    fn judge(
        &self,
        seed: u64,
        shots: &[usize],
        test: &[usize],
    ) -> Result<[Vec<Finding>; 2], Failure> {
        let (mut good, mut tested) = (Vec::new(), Vec::new());
        for size in &self.sizes {
            let asked = (seed, shots, test);
            let [own, found] = size.judge(&self.options, &self.category, &self.others, asked)?;
            good.push((size.tokens.grid, own));
            tested.push((size.tokens.grid, found));
        }
        Ok([joined(good), joined(tested)])
    }
}

fn main() -> Result<(), Failure> {
    let study = Study::open(options()?)?;
    let options = &study.options;
    println!("{} at {:?} px", options.category, options.image_sizes);
    for table in &options.tables {
        match table.as_str() {
            "shots" => tables::shots(&study)?,
            "types" => tables::types(&study)?,
            "pixels" => tables::pixels(&study)?,
            other => return Err(format!("--tables: {other}: unknown").into()),
        }
    }
    Ok(())
}
