//! `flawtune synth`

use std::sync::{Mutex, PoisonError};

use flawtune::synth::{Category, Counts, generate};
use serde_json::json;

use crate::Context;
use crate::args::SynthArgs;
use crate::console::{bytes, out, out_json};
use crate::failure::Failure;
use crate::progress::Tally;

pub(crate) fn run(args: &SynthArgs, context: Context) -> Result<(), Failure> {
    let categories = if args.category.is_empty() {
        Category::ALL.to_vec()
    } else {
        let parse = |name: &String| name.parse::<Category>().map_err(|e| Failure::from_error(&e));
        args.category.iter().map(parse).collect::<Result<_, _>>()?
    };
    let counts =
        Counts { train_good: args.train_good, test_good: args.test_good, test_per_type: args.test_per_type };
    let mut made = Vec::new();
    for category in categories {
        let total = counts.train_good + counts.test_good + 4 * counts.test_per_type;
        let bar = context.console.bar(total as u64, "drawing", "pictures");
        let told = Mutex::new(Tally::new(context.console));
        let drawn = generate(category, &counts, args.seed, args.size, &args.output_dir, &|done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            // a thread that panicked leaves nothing half done here
            told.lock().unwrap_or_else(PoisonError::into_inner).images("drawing", done, all);
        });
        bar.finish_and_clear();
        let drawn = drawn.map_err(|e| Failure::from_error(&e))?;
        if !context.json {
            out(&format!("{}: {} pictures, {}", drawn.folder.display(), drawn.images, bytes(drawn.bytes)));
        }
        made.push(json!({"folder": drawn.folder, "images": drawn.images, "bytes": drawn.bytes}));
    }
    if context.json { out_json(&made) } else { Ok(()) }
}
