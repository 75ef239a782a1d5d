//! `flawtune visualize` from end to end.

use std::fs;

use serde_json::Value as Json;

use crate::world::{CATEGORY, World, golden, read_json};

fn line(rest: &str) -> String {
    let weights = golden("ckpt/tiny_mlp/hf.safetensors");
    format!(
        "visualize {{}}/out/{CATEGORY}_prompts.pt {rest} --root-dir {{}}/data --weights {}",
        weights.display()
    )
}

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect()
}

#[test]
fn panels_numbers_and_the_section_of_the_report() {
    let world = World::new();
    world.trained("--no-ensemble");
    let run = world
        .run(&line(
            "{}/data/cloth/test/hole --max-images 2 --prompts 2 --json",
        ))
        .succeeds();
    assert!(
        run.stderr.contains("the first 2 of 7 images"),
        "{}",
        run.stderr
    );
    let found = run.json();
    let folder = world.out().join("visualize");
    assert_eq!(
        found,
        read_json(&folder.join(format!("{CATEGORY}_visualize.json")))
    );
    assert_eq!(
        (found["support_images"].as_u64(), found["block"].as_u64()),
        (Some(8), Some(2))
    );
    let images = found["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    for image in images {
        assert_eq!(numbers(&image["before"]["distances"]).len(), 16);
        assert!(image["before"]["score"].as_f64().unwrap() > 0.0);
        let attended: f64 = image["prompts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["attended"].as_f64().unwrap())
            .sum();
        assert!((attended - 1.0).abs() < 1e-5, "{attended}");
        assert!(numbers(&image["change_size"]).iter().all(|v| *v > 0.0));
        let cam = numbers(&image["before"]["grad_cam"]);
        assert!(cam.iter().all(|v| *v >= 0.0) && cam.iter().any(|v| *v > 0.0));
        let rollout: f64 = numbers(&image["before"]["rollout_class"]).iter().sum();
        assert!(rollout > 0.05 && rollout < 1.0, "{rollout}");
        let panel = image::open(folder.join(image["panel"].as_str().unwrap()))
            .unwrap()
            .to_rgb8();
        // image, two distances, difference, size, two prompts, rollout, two Grad-CAMs, two of principal components
        assert!(
            panel.width() > 1000 && panel.height() > 500,
            "{:?}",
            panel.dimensions()
        );
    }
    // the hole of the first image lies on patches 1, 2, 5 and 6 of the grid of 4 × 4
    let top = images[0]["before"]["top"][0].as_u64().unwrap();
    assert!([1, 2, 5, 6].contains(&top), "{top}");
    for ending in ["svg", "png"] {
        assert!(
            folder
                .join(format!("{CATEGORY}_projection.{ending}"))
                .is_file()
        );
    }
    // the same on one thread, byte for byte
    world
        .run(&line(
            "{}/data/cloth/test/hole --max-images 2 --prompts 2 --threads 1 --output-dir {}/again",
        ))
        .succeeds();
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name();
        let (one, other) = (
            fs::read(folder.join(&name)).unwrap(),
            fs::read(world.path("again").join(&name)).unwrap(),
        );
        assert!(one == other, "{name:?} differs");
    }
    world.run("report {}/out --output {}/page.html").succeeds();
    let page = fs::read_to_string(world.path("page.html")).unwrap();
    assert!(page.contains("What the prompts look at and change"));
    assert!(page.contains("data:image/png;base64,") && page.contains("Prompts among patches"));
}

#[test]
fn prompts_inside_the_transformer_have_their_rollout() {
    let world = World::new();
    world.trained("--prompt-depth deep --no-ensemble");
    // an image that trained is told, and one of the bank is not compared with itself
    let found = world
        .run(&line("{}/data/cloth/train/good/000.png --block 1 --json"))
        .succeeds()
        .json();
    assert_eq!(
        (found["prompt_depth"].as_str(), found["modulation"].as_str()),
        (Some("deep"), None)
    );
    let image = &found["images"][0];
    assert_eq!(
        (
            image["in_support"].as_bool(),
            image["before"]["score"].as_f64().unwrap() > 1e-4
        ),
        (Some(true), true)
    );
    assert_eq!(image["prompts"].as_array().unwrap().len(), 0);
    let inside = image["prompts_inside"].as_array().unwrap();
    assert_eq!(inside.len(), 3);
    assert!(
        inside
            .iter()
            .all(|p| p["change"].as_f64().unwrap() > 0.0 && numbers(&p["patches"]).len() == 16)
    );
    let (before, after) = (&image["before"], &image["after"]);
    assert_eq!(before["rollout_class_from_prompts"].as_f64(), Some(0.0));
    assert!(after["rollout_class_from_prompts"].as_f64().unwrap() > 0.01);
    assert_eq!(found["projections"][0]["space"], "block 1");
}

#[test]
fn wrong_inputs_are_refused_with_what_to_do() {
    let world = World::new();
    world.trained("--no-ensemble");
    fs::create_dir_all(world.path("empty")).unwrap();
    fs::write(world.path("broken.png"), "no image").unwrap();
    world
        .run(&line("{}/empty"))
        .refuses(&["empty", "no images in this folder"]);
    world
        .run(&line("{}/broken.png"))
        .refuses(&["broken.png", "cannot be read"]);
    world
        .run(&line("{}/data/cloth/test/hole --block 3"))
        .refuses(&["--block 3", "from 0 to 2"]);
    let other = golden("ckpt/tiny_swiglu/hf.safetensors");
    let text = line("{}/data/cloth/test/hole");
    let ours = golden("ckpt/tiny_mlp/hf.safetensors");
    let text = text.replace(&ours.display().to_string(), &other.display().to_string());
    world.run(&text).refuses(&["cloth_prompts.pt"]);
    world
        .run("visualize {}/none.pt {}/broken.png")
        .refuses(&["none.pt"]);
    assert!(
        !world
            .out()
            .join("visualize")
            .join(format!("{CATEGORY}_visualize.json"))
            .exists()
    );
    world.trained("--use-cls --no-ensemble");
    world
        .run(&line("{}/data/cloth/test/hole"))
        .refuses(&["class tokens", "train without --use-cls"]);
}
