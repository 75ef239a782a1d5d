//! Arguments that several commands share, as the library wants them.

use std::fmt::{Display, Write as _};
use std::path::Path;

use flawtune::dataset::{self, DatasetError, Folders, Layout, Source, VisaSplit};
use flawtune::evaluate::protocol::{Protocol, SplitOptions};
use flawtune::features::FeatureCache;
use flawtune::workflow::CategoryOptions;

use crate::args::{CacheOptions, DataArgs, SourceArgs};
use crate::console::Console;
use crate::failure::Failure;
use crate::lock::Lock;

/// Keeps other runs from writing results of the same name into a folder, which is made if it is not there.
pub(super) fn lock(folder: &Path, name: &str) -> Result<Option<Lock>, Failure> {
    // a folder that can't be made is refused by whoever writes into it
    drop(std::fs::create_dir_all(folder));
    Lock::take(folder, name)
}

pub(super) fn cache(args: &CacheOptions, console: Console) -> Option<FeatureCache> {
    if args.no_cache {
        return None;
    }
    let cache = user_cache(args.cache_dir.as_deref());
    if cache.is_none() {
        console
            .note("no folder for the feature cache is known (set FLAWTUNE_CACHE_DIR); going on without one");
    }
    cache
}

pub(super) fn user_cache(folder: Option<&Path>) -> Option<FeatureCache> {
    folder.map(FeatureCache::at).or_else(FeatureCache::for_user)
}

pub(super) fn data(
    args: &DataArgs,
    cache: Option<FeatureCache>,
    batch_size: usize,
) -> Result<CategoryOptions, Failure> {
    data_of(&args.source, args.category.as_deref(), cache, batch_size)
}

/// The same of a category that may be named elsewhere.
pub(super) fn data_of(
    args: &SourceArgs,
    category: Option<&str>,
    cache: Option<FeatureCache>,
    batch_size: usize,
) -> Result<CategoryOptions, Failure> {
    let (source, category) = source(args, category).map_err(|e| Failure::from_error(&e))?;
    Ok(CategoryOptions {
        source,
        category,
        needs_test: true,
        skip_bad_images: args.skip_bad_images,
        strict: args.strict,
        exclude: Vec::new(),
        cache,
        batch_size,
    })
}

/// Where the images are, and what they are called.
fn source(args: &SourceArgs, category: Option<&str>) -> Result<(Source, String), DatasetError> {
    let source = if let Some(list) = &args.list {
        Source::List(list.clone())
    } else if let Some(good) = &args.good {
        Source::Folders(Folders {
            good: good.clone(),
            test_good: args.test_good.clone(),
            defect: args.defect.clone(),
            masks: args.masks.clone(),
        })
    } else if category.is_some() {
        Source::Root {
            root: args.root_dir.clone(),
            layout: args.layout,
            visa_split: args.visa_split,
        }
    } else {
        return Source::root_as_category(&args.root_dir, args.layout, args.visa_split);
    };
    let category = category.map_or_else(|| source.default_category(), |c| Ok(c.to_owned()))?;
    Ok((source, category))
}

/// Every category named (or else all there are) of one root, none of them twice.
pub(super) fn each_category(
    source: &SourceArgs,
    named: &[String],
    cache: &CacheOptions,
    console: Console,
    batch_size: usize,
) -> Result<Vec<CategoryOptions>, Failure> {
    let names = categories(source, named)?;
    if let Some(twice) = names
        .iter()
        .enumerate()
        .find(|(i, n)| names[..*i].contains(n))
    {
        return Err(Failure::Input(format!(
            "--categories names {} twice\nhint: name each once",
            twice.1
        )));
    }
    names
        .iter()
        .map(|n| data_of(source, Some(n), self::cache(cache, console), batch_size))
        .collect()
}

/// The categories named, or else all there are: every one under the root, or the root if it is a category itself.
pub(super) fn categories(args: &SourceArgs, named: &[String]) -> Result<Vec<String>, Failure> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    if args.list.is_none() && args.good.is_none() && !dataset::is_category(&args.root_dir) {
        return dataset::categories(&args.root_dir).map_err(|e| Failure::from_error(&e));
    }
    let (_, category) = source(args, None).map_err(|e| Failure::from_error(&e))?;
    Ok(vec![category])
}

/// The arguments that name the same images again, for a command to copy.
pub(super) fn data_line(args: &DataArgs) -> String {
    let mut line = String::new();
    let mut add = |flag: &str, value: &dyn Display| {
        let _ = write!(line, " --{flag} {value}");
    };
    if let Some(category) = &args.category {
        add("category", category);
    }
    let args = &args.source;
    if args.good.is_none() && args.list.is_none() {
        add("root-dir", &args.root_dir.display());
        if args.layout != Layout::Auto {
            add("layout", &args.layout);
        }
        if args.visa_split != VisaSplit::default() {
            add("visa-split", &args.visa_split);
        }
    }
    let folders = [
        ("good", &args.good),
        ("test-good", &args.test_good),
        ("defect", &args.defect),
        ("masks", &args.masks),
        ("list", &args.list),
    ];
    for (flag, path) in folders {
        if let Some(path) = path {
            add(flag, &path.display());
        }
    }
    line
}

pub(super) fn split(
    protocol: Protocol,
    seed: u64,
    shots: usize,
    pool: Option<u32>,
) -> SplitOptions {
    SplitOptions {
        protocol,
        pool: pool.map(|p| p as usize),
        ..SplitOptions::held_out(seed, shots)
    }
}
