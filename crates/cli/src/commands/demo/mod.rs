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
use serde_json::{Value, json};

use self::show::Shown;
use self::tell::number;
use crate::Context;
use crate::args::DemoArgs;
use crate::console::{out, out_json};
use crate::failure::Failure;

/// Defects that are learned from: all that are reserved for learning and left out of the test.
const SHOTS: usize = 20;
/// Epochs of the prompts: a tenth of the default, for a minute in all; the ensemble, which is what is shown, knows none.
const EPOCHS: usize = 10;
/// Folders in the demonstration's own.
const DATA: &str = "data";
const RESULTS: &str = "outputs";
/// Scorer that the demonstration is about, as results name it.
const ADAPTED: &str = "ensemble";

pub(crate) fn run(args: &DemoArgs, context: Context) -> Result<(), Failure> {
    let folder = &args.output_dir;
    let unpacked = embedded::unpack(&folder.join(DATA)).map_err(|e| Failure::from_error(&e))?;
    replace(&folder.join(study(args.seeds)))?;
    let show = Shown::new(context);
    show.text(&format!(
        "A demonstration. Backbone ({}) and images are inside of this program: generated images and a small network \
         show\nwhat flawtune does, not how well it will do on your parts.",
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
    show.text(&format!("  '{}' makes them.", embedded::MADE_BY));
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

    let zero_shot = demo.untouched(&names)?;
    let adapted = demo.learned(&names)?;
    let study = demo.study(&names, args.seeds)?;
    let detection = demo.detector(&names)?;
    let summary = tell::over_seeds(&study, &names, args.seeds)?;
    demo.page(&names, &summary.introduction(args.seeds), args.open)?;
    let page = folder.join("report.html");

    if context.json {
        return out_json(&json!({
            "report": page,
            "output_dir": folder,
            "model_name": models::DEMO,
            "seeds": args.seeds,
            "shots": SHOTS,
            "categories": names.iter().enumerate().map(|(i, name)| json!({
                "category": name,
                "baseline": zero_shot[i],
                "evaluation": adapted[i],
                "detection": detection[i],
            })).collect::<Vec<_>>(),
            "over_seeds": summary.rows,
        }));
    }
    out("");
    out(&format!(
        "Held-out AUROC over {} draws of the {SHOTS} defects learned from:",
        args.seeds
    ));
    out(summary.table().trim_end());
    out(&summary.verdict());
    out(&format!("\n{}", page.display()));
    context.console.note(
        "\nOn your own parts, good ones in a folder, and defects if you have some in another:\n\
         \x20 flawtune fit     --good parts/good --defect parts/defects --model-name dinov2_vits14 --output parts.flaw\n\
         \x20 flawtune predict parts.flaw new/ --maps maps\n\
         It looks at several blocks of the network and at two sizes, and finds more than what was shown here.",
    );
    Ok(())
}

/// The commands of the demonstration, as they are typed in its folder.
struct Demo {
    show: Shown,
}

impl Demo {
    /// `NAME --root-dir … --category …`, and more.
    fn of(&self, command: &str, category: &str, more: &[&str]) -> Result<Value, Failure> {
        self.show
            .command(&[&[command, "--root-dir", DATA, "--category", category], more].concat())
    }

    fn untouched(&self, names: &[&str]) -> Result<Vec<Value>, Failure> {
        self.show
            .step("The untouched network: how far is an image from the nearest good ones?");
        let mut all = Vec::new();
        for name in names {
            let found = self.of("baseline", name, &["--model-name", models::DEMO])?;
            let best = tell::best(&found["scorers"]);
            self.show.text(&format!(
                "  {name}: AUROC {} ({})",
                number(&best["auroc"]),
                tell::word(&best["scorer"])
            ));
            all.push(found);
        }
        Ok(all)
    }

    fn learned(&self, names: &[&str]) -> Result<Vec<Value>, Failure> {
        self.show.step(&format!(
            "Learn from the good images and {SHOTS} defects; test on images that nothing was learned from"
        ));
        let mut all = Vec::new();
        for name in names {
            let (shots, epochs) = (SHOTS.to_string(), EPOCHS.to_string());
            self.of(
                "train",
                name,
                &[
                    "--model-name",
                    models::DEMO,
                    "--num-defect-samples",
                    &shots,
                    "--num-epochs",
                    &epochs,
                ],
            )?;
            let found = self.of("evaluate", name, &["--checkpoint", &checkpoint(name)])?;
            let ensemble = &found[ADAPTED];
            self.show.text(&format!(
                "  {name}: AUROC {} without the defects, {} with them ({} trained numbers)",
                number(&ensemble["zero_shot"]["auroc"]),
                number(&ensemble["prompt_tuned"]["auroc"]),
                ensemble["trainable"]
            ));
            all.push(found);
        }
        Ok(all)
    }

    fn study(&self, names: &[&str], seeds: u32) -> Result<Value, Failure> {
        self.show.step(&format!(
            "Was that luck? The same with {seeds} draws of the {SHOTS} defects that are learned from"
        ));
        self.show.command(&[
            "ablate",
            "--root-dir",
            DATA,
            "--category",
            &names.join(","),
            "--model-name",
            models::DEMO,
            "--grid",
            &format!("num-defect-samples={SHOTS}"),
            "--set",
            &format!("num-epochs={EPOCHS}"),
            "--seeds",
            &seeds.to_string(),
            "--with-ensemble",
            "--guard",
            "--output-dir",
            &study(seeds),
        ])
    }

    fn detector(&self, names: &[&str]) -> Result<Vec<Value>, Failure> {
        self.show
            .step("One file for the line: a verdict on each image, and where the flaw is");
        let mut all = Vec::new();
        for name in names {
            let bundle = format!("{name}.flaw");
            self.of(
                "fit",
                name,
                &["--checkpoint", &checkpoint(name), "--output", &bundle],
            )?;
            let found = self.of("evaluate", name, &["--bundle", &bundle])?;
            let (pictures, maps) = (
                format!("{DATA}/{name}/test"),
                format!("{RESULTS}/maps/{name}/test"),
            );
            self.show
                .command(&["predict", &bundle, &pictures, "--maps", &maps])?;
            let row = &found["rows"][0];
            let (stopped, known) = (&row["metrics"]["false_alarms"], &row["metrics"]["found"]);
            self.show.text(&format!(
                "  {name}: {} of {} defects found, {} false alarms among {} good images; place of the flaws: pixel AUROC {}",
                known["count"],
                known["of"],
                stopped["count"],
                stopped["of"],
                number(&row["pixels"]["auroc"])
            ));
            all.push(found);
        }
        Ok(all)
    }

    fn page(&self, names: &[&str], introduction: &str, open: bool) -> Result<(), Failure> {
        self.show.step("A page to look at and to pass on");
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

/// Folder of the study.
fn study(seeds: u32) -> String {
    format!("study_{seeds}_seeds")
}

/// Removes the study of an earlier demonstration, whose runs would not be repeated.
fn replace(folder: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Failure::Input(format!(
            "{}: an earlier demonstration cannot be replaced: {e}\nhint: choose another --output-dir",
            folder.display()
        ))),
        _ => Ok(()),
    }
}

fn checkpoint(category: &str) -> String {
    format!("{RESULTS}/{category}_prompts.pt")
}
