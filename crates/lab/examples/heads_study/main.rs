//! Compares zero-shot scorers, supervised heads and the default ensemble on cached tokens, as Markdown.
//!
//! ```text
//! find train test -type f | LC_ALL=C sort > IDS            (in the category's folder)
//! flawtune features --layers 8 -o TOKENS.safetensors $(cat IDS)
//! heads_study TOKENS.safetensors IDS [--seeds N] [--hard | --development] [--image-level] [--masks ground_truth]
//! ```
//!
//! `IDS` names the images of the file, one path a line, relative to the category, such as `test/crack/003.png`. Every
//! method sees all of train/good and the first M images of the seed's pool; all are tested on the same images. `--hard`
//! runs the hard protocol over all types, pooled and each type apart, the types never seen and the rest of the one that
//! was; `--image-level` leaves out what needs patch distances (minutes instead of seconds); `--masks` adds scorers whose
//! positives are the patches under the shots' masks.
//!
//! `--development` touches no test image of its seed: M ≤ 10 shots are the first of the pool, the rest of the pool is
//! ranked against a quarter of train/good that nothing was fitted to. Methods are chosen there. (Their patch distances
//! are to all other images of train/good, as those of the normals that are learned from.)
#![allow(clippy::print_stdout)]

#[path = "../markdown/mod.rs"]
mod markdown;
mod methods;
mod table;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use flawtune::evaluate::protocol::{Protocol, SampleInfo, Split, SplitOptions};

use self::methods::{Category, Named, pick};
use self::table::Study;

const SHOTS: [usize; 4] = [1, 5, 10, 20];
/// Shots of a development draw: what is left of a pool of 20 is ranked.
const DEVELOPMENT_SHOTS: [usize; 3] = [1, 5, 10];
/// Share of train/good that a development draw ranks the defects against.
const DEVELOPMENT_NORMALS: f64 = 0.25;

#[expect(
    clippy::too_many_lines,
    reason = "a program to read from top to bottom"
)]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|a| a == flag);
    let value = |flag: &str| match arguments.iter().position(|a| a == flag) {
        Some(at) => arguments
            .get(at + 1)
            .map(Some)
            .ok_or_else(|| format!("{flag} needs a value")),
        None => Ok(None),
    };
    let [path, ids, ..] = &arguments[..] else {
        return Err("which tokens, and whose? heads_study TOKENS.safetensors IDS".into());
    };
    let seeds: u64 = value("--seeds")?.map_or(Ok(5), |n| n.parse())?;
    let masks = value("--masks")?.map(Path::new);
    let category = Category::load(path, ids, !has("--image-level"), masks)?;
    let types: Vec<Option<&str>> = category
        .ids
        .iter()
        .map(|id| {
            id.strip_prefix("test/")
                .and_then(|rest| rest.split('/').next())
                .filter(|t| *t != "good")
        })
        .collect();
    let samples: Vec<SampleInfo<'_>> = category
        .ids
        .iter()
        .zip(&types)
        .map(|(id, &defect_type)| SampleInfo {
            id,
            is_train: id.starts_with("train/"),
            defect_type,
            content: blake3::hash(id.as_bytes()),
        })
        .collect();
    let development = has("--development");
    if development && has("--hard") {
        return Err("--development is of the held-out protocol: leave --hard out".into());
    }
    let counts: &[usize] = if development {
        &DEVELOPMENT_SHOTS
    } else {
        &SHOTS
    };
    let mut protocols = vec![Protocol::HeldOut];
    if has("--hard") {
        let mut names: Vec<&str> = types.iter().copied().flatten().collect();
        names.sort_unstable();
        names.dedup();
        protocols = names
            .into_iter()
            .map(|t| Protocol::Hard {
                defect_type: t.to_owned(),
            })
            .collect();
    }

    let mut all = Study::default();
    let mut own = Study::default();
    // by the type that was learned: tested on the others, and on the rest of its own
    let mut by_type: BTreeMap<&str, [Study; 2]> = BTreeMap::new();
    for protocol in &protocols {
        for seed in 0..seeds {
            for &shots in counts {
                // the same pool for every type, small ones included: under the hard protocol a type that is learned is
                // not tested, so a pool may take all of it
                let pool = (*protocol != Protocol::HeldOut).then_some(20);
                let mut options = SplitOptions {
                    protocol: protocol.clone(),
                    pool,
                    ..SplitOptions::held_out(seed, shots)
                };
                if development {
                    options.holdout_fraction = DEVELOPMENT_NORMALS;
                }
                let split = Split::new(path, &samples, &options)?;
                let (normals, test) = if development {
                    let learned = DEVELOPMENT_SHOTS[DEVELOPMENT_SHOTS.len() - 1];
                    let left = split.pool.iter().skip(learned);
                    (
                        split.train_normals,
                        split.holdout_normals.iter().chain(left).copied().collect(),
                    )
                } else {
                    (category.normals.clone(), split.test)
                };
                let Protocol::Hard { defect_type } = protocol else {
                    let rows = scored(&category, &normals, &split.shots, &test)?;
                    add(&mut all, shots, (&category, &types), &test, &rows);
                    continue;
                };
                let seen = |&i: &usize| types[i] == Some(defect_type.as_str());
                let rest = (0..samples.len()).filter(|i| seen(i) && !split.pool.contains(i));
                let tested: Vec<usize> = test.iter().copied().chain(rest).collect();
                let rows = scored(&category, &normals, &split.shots, &tested)?;
                let apart = by_type.entry(defect_type).or_default();
                for (of_type, pooled, wanted) in [(0, &mut all, false), (1, &mut own, true)] {
                    let at: Vec<usize> = (0..tested.len())
                        .filter(|&at| types[tested[at]].is_none() || seen(&tested[at]) == wanted)
                        .collect();
                    let images = pick(&tested, &at);
                    let rows: Named = rows
                        .iter()
                        .map(|(name, scores)| (*name, pick(scores, &at)))
                        .collect();
                    add(
                        &mut apart[of_type],
                        shots,
                        (&category, &types),
                        &images,
                        &rows,
                    );
                    add(pooled, shots, (&category, &types), &images, &rows);
                }
            }
        }
    }
    all.print()?;
    all.print_guard()?;
    if !by_type.is_empty() {
        println!("Tested on the rest of the type that was learned:\n");
        own.print()?;
        own.print_guard()?;
        for (at, title) in ["the types never seen", "the rest of its own"]
            .into_iter()
            .enumerate()
        {
            println!(
                "Each type learned, tested on {title}: differences to the strongest zero-shot scorer there.\n"
            );
            for (name, studies) in &by_type {
                studies[at].print_type(name)?;
            }
        }
    }
    Ok(())
}

/// What every method says of the tested images.
fn scored(
    category: &Category,
    normals: &[usize],
    shots: &[usize],
    test: &[usize],
) -> Result<Named, Box<dyn Error>> {
    let mut rows = category.zero_shot(normals, test);
    rows.extend(category.supervised(normals, shots, test)?);
    Ok(rows)
}

fn add(
    study: &mut Study,
    shots: usize,
    (category, types): (&Category, &[Option<&str>]),
    images: &[usize],
    rows: &Named,
) {
    let labels: Vec<bool> = images.iter().map(|&i| types[i].is_some()).collect();
    study.add(shots, &pick(&category.ids, images), &labels, rows);
}
