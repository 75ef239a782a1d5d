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
    let first = demo(&world, "demo --output-dir {}/demo").succeeds();
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
        "cd", "fit", "evaluate", "fit", "evaluate", "fit", "evaluate",
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
        .find(|c| c.starts_with("flawtune evaluate gravel.flaw"))
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
    let told = |said: &Json| {
        let metrics = &said["rows"][0]["metrics"];
        format!(
            "finds {} of 28 defects, stops {} of 50 good images (AUROC {:.3})",
            metrics["found"]["count"],
            metrics["false_alarms"]["count"],
            metrics["auroc"].as_f64().unwrap()
        )
    };
    assert!(first.stdout.contains(&told(&said)), "{said}");

    // again, as JSON: the same numbers, whatever the number of threads
    let again = demo(&world, "demo --output-dir {}/demo --json --threads 1").succeeds();
    let json = again.json();
    assert_eq!(json["model_name"], "demo_vit_tiny16");
    let categories = json["categories"].as_array().unwrap();
    assert_eq!(categories.len(), 2);
    // what is shown is true: learning from the defects finds most of the others, and stops no more good parts than allowed
    let (mut found, mut stopped) = (0, 0);
    for category in categories {
        let after = category["after"].as_array().unwrap();
        assert_eq!(after.len(), 1);
        let count =
            |said: &Json, which: &str| said["rows"][0]["metrics"][which]["count"].as_u64().unwrap();
        for said in [&category["before"], &after[0]] {
            assert!(first.stdout.contains(&told(said)), "{said}");
        }
        assert!(count(&after[0], "found") >= count(&category["before"], "found") + 5);
        found += count(&after[0], "found");
        stopped += count(&after[0], "false_alarms");
    }
    assert!(
        10 * found >= 9 * 2 * 28 && stopped <= 2,
        "{found} {stopped}"
    );
}

#[test]
fn pictures_that_are_not_its_own_are_refused() {
    let world = World::new();
    let data = world.path("demo/data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("mine.png"), b"").unwrap();
    demo(&world, "demo --output-dir {}/demo").refuses(&["mine.png", "not of the demonstration"]);
    demo(&world, "demo --seeds 0").refuses(&["--seeds", "1..=100"]);
    fs::write(world.path("file"), b"").unwrap();
    demo(&world, "demo --output-dir {}/file").refuses(&["file"]);
}
