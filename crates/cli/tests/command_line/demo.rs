//! `flawtune demo`: what it shows is what it runs, and it needs nothing.

use std::fs;

use serde_json::Value as Json;

use crate::world::{Run, World};

fn demo(world: &World, line: &str) -> Run {
    let mut command = world.command(line);
    // an empty home and no network: nothing but the binary
    command.env_remove("FLAWTUNE_CACHE_DIR");
    Run::new(command.output().unwrap())
}

/// The commands that a demonstration shows, in order.
fn shown(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("$ "))
        .collect()
}

#[test]
fn it_runs_from_end_to_end_and_shows_the_commands_that_it_runs() {
    let world = World::new();
    let first = demo(&world, "demo --output-dir {}/demo --seeds 2").succeeds();
    let folder = world.path("demo");
    let page = fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(
        first
            .stdout
            .contains(&folder.join("report.html").display().to_string()),
        "{first:#?}"
    );
    for text in [
        "What was found, and where",
        "demo_vit_tiny16",
        "data:image/",
    ] {
        assert!(page.contains(text), "{text}");
    }

    // one of the commands, typed in that folder, says what the demonstration said
    // every number that is told is there
    assert!(!first.stdout.contains("null"), "{}", first.stdout);
    let commands = shown(&first.stdout);
    let names = [
        "cd", "baseline", "baseline", "train", "evaluate", "train", "evaluate", "ablate", "fit",
    ];
    for (command, name) in commands.iter().zip(names) {
        let words: Vec<&str> = command.split(' ').collect();
        assert_eq!(words[usize::from(name != "cd")], name, "{commands:#?}");
    }
    assert!(
        commands
            .last()
            .unwrap()
            .starts_with("flawtune report outputs "),
        "{commands:#?}"
    );
    let evaluate = commands
        .iter()
        .find(|c| c.starts_with("flawtune evaluate"))
        .unwrap();
    let line = evaluate.strip_prefix("flawtune ").unwrap();
    let typed = Run::new(
        world
            .command(&format!("{line} --json"))
            .current_dir(&folder)
            .output()
            .unwrap(),
    );
    let said = typed.succeeds().json();
    let said = said["ensemble"]["prompt_tuned"]["auroc"].as_f64().unwrap();
    assert!(
        first.stdout.contains(&format!("{said:.3} with them")),
        "{said}: {}",
        first.stdout
    );

    // again, as JSON: the same numbers, whatever the number of threads
    let again = demo(
        &world,
        "demo --output-dir {}/demo --seeds 2 --json --threads 1",
    )
    .succeeds();
    let json = again.json();
    assert_eq!(json["model_name"], "demo_vit_tiny16");
    assert_eq!(json["categories"].as_array().unwrap().len(), 2);
    for row in json["over_seeds"].as_array().unwrap() {
        let mean = |v: &Json| {
            format!(
                "{:.3} ± {:.3}",
                v["mean"].as_f64().unwrap(),
                v["deviation"].as_f64().unwrap()
            )
        };
        for part in [&row["zero_shot"], &row["adapted"]] {
            assert!(
                first.stdout.contains(&mean(part)),
                "{row} is not in {}",
                first.stdout
            );
        }
    }
    let same = &json["categories"][0]["evaluation"]["ensemble"]["prompt_tuned"]["auroc"];
    assert!(
        first
            .stdout
            .contains(&format!("{:.3} with them", same.as_f64().unwrap()))
    );
}

#[test]
fn pictures_that_are_not_its_own_are_refused() {
    let world = World::new();
    let data = world.path("demo/data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("mine.png"), b"").unwrap();
    demo(&world, "demo --output-dir {}/demo").refuses(&["mine.png", "not of the demonstration"]);
    demo(&world, "demo --seeds 1").refuses(&["--seeds", "2..=100"]);
    fs::write(world.path("file"), b"").unwrap();
    demo(&world, "demo --output-dir {}/file").refuses(&["file"]);
}
