//! `flawtune demo`: the main job from end to end on what is inside of the program.
//!
//! It runs the very commands that it shows, read by the parser that reads a person's, and tells what they print as JSON.

mod show;
mod tell;

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use flawtune::synth::embedded;
use flawtune_backbone::models;
use serde_json::json;

use self::show::Shown;
use self::tell::{Counted, Told};
use crate::Context;
use crate::args::DemoArgs;
use crate::console::{out, out_json};
use crate::failure::Failure;

/// Defects that are learned from: all that are reserved for learning and left out of the test.
const SHOTS: usize = 20;
/// Side of the images as the backbone sees them, in pixels: one size, for a demonstration of seconds.
const IMAGE_SIZE: &str = "288";
/// Folders in the demonstration's own.
const DATA: &str = "data";
const RESULTS: &str = "outputs";
/// Results that the page does not show: what good images alone find, and further draws.
const BEFORE: &str = "before";

pub(crate) fn run(args: &DemoArgs, context: Context) -> Result<(), Failure> {
    let folder = &args.output_dir;
    let unpacked = embedded::unpack(&folder.join(DATA)).map_err(|e| Failure::from_error(&e))?;
    for results in [RESULTS, BEFORE] {
        replace(&folder.join(results))?;
    }
    let show = Shown::new(context);
    show.text(&format!(
        "A demonstration. Backbone ({}) and images are inside of this program: drawn parts and a small network show\n\
         what flawtune does, not how well it will do on your parts.",
        models::DEMO
    ));

    show.step("Images of good parts, and of a few defects");
    for c in &unpacked.categories {
        let types: Vec<&str> = c.defect_types.iter().map(String::as_str).collect();
        show.text(&format!(
            "  {:<10}{} good to learn from; to test {} good, {} defective ({})",
            c.name,
            c.train_good,
            c.test_good,
            c.defects,
            types.join(", ")
        ));
    }
    for drawn in &embedded::DRAWN {
        show.text(&format!("  '{}' draws them.", embedded::made_by(drawn)));
    }
    let names: Vec<&str> = unpacked
        .categories
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    // what is shown can be typed there, as short as it is
    env::set_current_dir(folder)
        .map_err(|e| Failure::Input(format!("{}: {e}", folder.display())))?;
    show.text(&format!(
        "  $ cd {}",
        show::quoted(&folder.display().to_string())
    ));
    let demo = Demo { show };

    let before = demo.good_alone(&names)?;
    let after = demo.taught(&names, args.seeds)?;
    let told = Told {
        names: &names,
        before: &before,
        after: &after,
    };
    demo.page(&names, &told.introduction(), args.open)?;
    let page = folder.join("report.html");

    if context.json {
        return out_json(&json!({
            "report": page,
            "output_dir": folder,
            "model_name": models::DEMO,
            "seeds": args.seeds,
            "shots": SHOTS,
            "categories": told.rows(),
        }));
    }
    out("");
    out(told.table().trim_end());
    out(&format!("\n{}", page.display()));
    context.console.note(
        "\nOn your own parts, good ones in a folder, and defects if you have some in another:\n\
         \x20 flawtune fit     --good parts/good --defect parts/defects --model-name dinov2_vits14 --output parts.flaw\n\
         \x20 flawtune predict parts.flaw new/ --maps maps\n\
         A real backbone at two sizes finds more than what was shown here.",
    );
    Ok(())
}

/// The commands of the demonstration, as they are typed in its folder.
struct Demo {
    show: Shown,
}

impl Demo {
    /// `fit` of a category, and what `evaluate` says of the file.
    fn fit(
        &self,
        category: &str,
        file: &str,
        more: &[&str],
        results: &str,
    ) -> Result<Counted, Failure> {
        let fit = ["fit", "--root-dir", DATA, "--category", category];
        let of = ["--model-name", models::DEMO, "--image-size", IMAGE_SIZE];
        self.show
            .command(&[&fit, &of[..], more, &["--output", file]].concat())?;
        let mut evaluate = vec!["evaluate", file, "--root-dir", DATA];
        let maps = format!("{RESULTS}/maps/{category}");
        if results == RESULTS {
            evaluate.extend(["--maps", &maps]);
        } else {
            evaluate.extend(["--output-dir", results]);
        }
        let found = self.show.command(&evaluate)?;
        Counted::of(&found)
    }

    fn good_alone(&self, names: &[&str]) -> Result<Vec<Counted>, Failure> {
        self.show.step(&format!(
            "From good images alone: one file a category, with a threshold that lets {} of good parts be stopped",
            tell::allowed()
        ));
        let mut all = Vec::new();
        for name in names {
            let counted = self.fit(name, &format!("{name}_good.flaw"), &[], BEFORE)?;
            self.show.text(&format!("  {name}: {counted}"));
            all.push(counted);
        }
        Ok(all)
    }

    /// For each category, what was found after learning from each draw of the defects; the first is the one on the page.
    fn taught(&self, names: &[&str], seeds: u32) -> Result<Vec<Vec<Counted>>, Failure> {
        self.show.step(&format!(
            "Show it {SHOTS} defects, and test on the same good images and on defects that it has not seen"
        ));
        let shots = SHOTS.to_string();
        let mut all = Vec::new();
        for name in names {
            let mut draws = Vec::new();
            for seed in 0..seeds {
                let number = seed.to_string();
                let mut more = vec!["--num-defect-samples", &shots];
                let (mut file, mut results) = (format!("{name}.flaw"), RESULTS.to_owned());
                if seed > 0 {
                    more.extend(["--seed", &number]);
                    file = format!("{name}_{seed}.flaw");
                    results = format!("{BEFORE}/seed_{seed}");
                }
                let counted = self.fit(name, &file, &more, &results)?;
                self.show.text(&format!("  {name}: {counted}"));
                draws.push(counted);
            }
            all.push(draws);
        }
        Ok(all)
    }

    fn page(&self, names: &[&str], introduction: &str, open: bool) -> Result<(), Failure> {
        self.show
            .step("What was found and where, on a page to look at and to pass on");
        let title = format!("flawtune demo: {}", names.join(" and "));
        let mut line = vec![
            "report",
            RESULTS,
            "--title",
            &title,
            "--introduction",
            introduction,
        ];
        line.extend(open.then_some("--open"));
        self.show.command(&line)?;
        Ok(())
    }
}

/// Removes the results of an earlier demonstration.
fn replace(folder: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Failure::Input(format!(
            "{}: an earlier demonstration cannot be replaced: {e}\nhint: choose another --output-dir",
            folder.display()
        ))),
        _ => Ok(()),
    }
}
