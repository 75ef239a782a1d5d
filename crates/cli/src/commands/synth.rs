//! `flawtune synth`

use std::sync::{Mutex, PoisonError};

use flawtune::synth::{
    Category, Counts, PasteKind, PasteOn, PasteStage, SynthError, generate, paste_on,
};
use flawtune_backbone::preprocess::DecodeOptions;
use serde_json::json;

use crate::Context;
use crate::args::SynthArgs;
use crate::commands::predict::expand;
use crate::console::{bytes, out, out_json};
use crate::failure::Failure;
use crate::progress::Tally;

/// Name of a category made of own images, where none is given.
const PASTED: &str = "pasted";

pub(crate) fn run(args: &SynthArgs, context: Context) -> Result<(), Failure> {
    if args.paste_on.is_empty() {
        draw(args, context)
    } else {
        paste(args, context)
    }
}

/// Each name as what it names.
fn named<T>(names: &[String]) -> Result<Vec<T>, Failure>
where
    T: std::str::FromStr<Err = SynthError>,
{
    names
        .iter()
        .map(|name| {
            name.parse()
                .map_err(|e: SynthError| Failure::from_error(&e))
        })
        .collect()
}

fn draw(args: &SynthArgs, context: Context) -> Result<(), Failure> {
    let categories = if args.category.is_empty() {
        Category::ALL.to_vec()
    } else {
        named::<Category>(&args.category)?
    };
    let counts = Counts {
        train_good: args.train_good,
        test_good: args.test_good,
        test_per_type: args.test_per_type,
        severity: args.severity,
    };
    let mut made = Vec::new();
    for category in categories {
        let total = counts.train_good + counts.test_good + 4 * counts.test_per_type;
        let bar = context.console.bar(total as u64, "drawing", "images");
        let told = Mutex::new(Tally::new(context.console));
        let drawn = generate(
            category,
            &counts,
            args.seed,
            args.size,
            &args.output_dir,
            &|done, all| {
                bar.set_length(all as u64);
                bar.set_position(done as u64);
                // a thread that panicked leaves nothing half done here
                told.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .images("drawing", done, all);
            },
        );
        bar.finish_and_clear();
        let drawn = drawn.map_err(|e| Failure::from_error(&e))?;
        if !context.json {
            out(&format!(
                "{}: {} images, {}",
                drawn.folder.display(),
                drawn.images,
                bytes(drawn.bytes)
            ));
        }
        made.push(json!({"folder": drawn.folder, "images": drawn.images, "bytes": drawn.bytes}));
    }
    if context.json {
        out_json(&made)
    } else {
        Ok(())
    }
}

fn paste(args: &SynthArgs, context: Context) -> Result<(), Failure> {
    let category = match args.category.as_slice() {
        [] => PASTED,
        [one] => one,
        more => {
            let text = format!(
                "--paste-on makes one category\nhint: give --category one name, not {}",
                more.len()
            );
            return Err(Failure::Input(text));
        }
    };
    let kinds = named::<PasteKind>(&args.kinds)?;
    let mut pictures = Vec::new();
    for path in &args.paste_on {
        expand(path, &mut pictures)?;
    }
    let request = PasteOn {
        pictures: &pictures,
        category,
        kinds: &kinds,
        per_kind: args.per_kind,
        train_share: args.train_share,
        seed: args.seed,
        decode: DecodeOptions {
            apply_exif_orientation: args.exif_orientation,
            ..DecodeOptions::default()
        },
    };
    let bar = context
        .console
        .bar(pictures.len() as u64, "reading", "images");
    let told = Mutex::new(Tally::new(context.console));
    let made = paste_on(&request, &args.output_dir, &|stage, done, all| {
        let stage = match stage {
            PasteStage::Reading => "reading",
            PasteStage::Pasting => "pasting",
        };
        // a thread that panicked leaves nothing half done here
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        bar.set_prefix(stage);
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        told.images(stage, done, all);
    });
    bar.finish_and_clear();
    let made = made.map_err(|e| Failure::from_error(&e))?;
    let images = made.train_good + made.test_good + made.defects;
    if context.json {
        return out_json(&[json!({
            "folder": made.folder, "images": images, "bytes": made.bytes, "train_good": made.train_good,
            "test_good": made.test_good, "defects": made.defects, "pasted_on": made.pasted_on, "left_out": made.left_out,
        })]);
    }
    out(&format!(
        "{}: {images} images, {}",
        made.folder.display(),
        bytes(made.bytes)
    ));
    out(&format!(
        "train/good {}, test/good {}, {} defects on {} other images",
        made.train_good, made.test_good, made.defects, made.pasted_on
    ));
    if made.left_out > 0 {
        out(&format!(
            "{} left out: another image has the same pixels",
            made.left_out
        ));
    }
    Ok(())
}
