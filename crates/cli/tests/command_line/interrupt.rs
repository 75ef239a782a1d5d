//! Ctrl-C and going on afterwards.
#![cfg(unix)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use flawtune_backbone::torch_file;

use crate::world::World;

/// More lines than a pipe holds, so that the run cannot end before the interrupt, however late that comes.
const EPOCHS: u32 = 1500;

/// Starts the training, interrupts it once `epoch` has been shown, and returns its exit code and messages.
pub(crate) fn interrupted(w: &World, rest: &str, epoch: usize) -> (Option<i32>, String) {
    let mut child = w
        .command(&World::job_line("train", rest))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while text.matches("\nepoch ").count() < epoch {
        assert!(
            stderr.read_line(&mut text).unwrap() > 0,
            "ended before epoch {epoch}: {text}"
        );
    }
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    stderr.read_to_string(&mut text).unwrap();
    (child.wait().unwrap().code(), text)
}

#[test]
fn an_interrupted_training_resumes_to_the_same_parameters() {
    let w = World::new();
    let options = format!(
        "--num-epochs {EPOCHS} --patience 0 --epoch one --num-prompts 2 --modulation-type global \
         --num-defect-samples 4 --batch-size 2"
    );
    let first = format!("{options} --output-dir {{}}/out");
    w.job("train", &format!("{first} --resume"))
        .refuses(&["cloth_resume.pt", "nothing to resume"]);
    assert!(w.written().is_empty(), "{:?}", w.written());

    let (code, text) = interrupted(&w, &first, 5);
    assert_eq!(code, Some(130), "{text}");
    assert!(text.contains("--resume"), "{text}");
    assert_eq!(w.written(), ["cloth_resume.pt"]);

    // other options than the interrupted run's
    let other = first.replace("--num-prompts 2", "--num-prompts 3");
    w.job("train", &format!("{other} --resume"))
        .refuses(&["cloth_resume.pt", "other images or options"]);
    assert_eq!(w.written(), ["cloth_resume.pt"]);

    let resumed = w.job("train", &format!("{first} --resume")).succeeds();
    assert!(
        resumed.stderr.contains("going on after epoch"),
        "{}",
        resumed.stderr
    );
    assert_eq!(
        w.written(),
        ["cloth_history.json", "cloth_prompts.pt"],
        "the state is replaced"
    );

    w.job(
        "train",
        &format!("{options} --quiet --output-dir {{}}/whole"),
    )
    .succeeds();
    let read = |folder: &str| torch_file::read(&w.path(folder).join("cloth_prompts.pt")).unwrap();
    let (resumed, whole) = (read("out"), read("whole"));
    for key in ["prompts", "prompt_scales", "history"] {
        assert!(whole.get(key).is_some());
        // as text: a history may hold NaN, which equals nothing
        let text = |file: &torch_file::Value| format!("{:?}", file.get(key));
        assert!(
            text(&resumed) == text(&whole),
            "{key} differs from that of a run in one go"
        );
    }
}

#[test]
fn an_interrupt_after_any_epoch_leaves_no_checkpoint() {
    let w = World::new();
    let (code, text) = interrupted(
        &w,
        "--num-epochs 100000 --patience 0 --output-dir {}/out",
        1,
    );
    assert_eq!(code, Some(130), "{text}");
    assert_eq!(w.written(), ["cloth_resume.pt"]);
    let info = w.run("info {}/out/cloth_resume.pt").succeeds();
    assert!(info.stdout.contains("cloth_resume.pt"), "{}", info.stdout);
}

#[test]
fn training_inside_the_transformer_resumes_to_the_same_file() {
    let w = World::new();
    // enough steps that the interrupt finds it at work, however late it comes
    let options = "--num-epochs 400 --patience 0 --num-prompts 2 --prompt-depth deep --prompt-dropout 0.3 \
                   --use-adapters --num-defect-samples 4 --batch-size 2";
    let first = format!("{options} --output-dir {{}}/out");
    let (code, text) = interrupted(&w, &first, 3);
    assert_eq!(code, Some(130), "{text}");
    assert_eq!(w.written(), ["cloth_resume.pt"]);
    let other = first.replace("--prompt-dropout 0.3", "--prompt-dropout 0.2");
    w.job("train", &format!("{other} --resume"))
        .refuses(&["cloth_resume.pt", "other images or options"]);
    let output_only =
        "--num-epochs 400 --num-prompts 2 --num-defect-samples 4 --output-dir {}/out --resume";
    w.job("train", output_only)
        .refuses(&["cloth_resume.pt", "other images or options"]);

    w.job("train", &format!("{first} --resume")).succeeds();
    assert_eq!(w.written(), ["cloth_history.json", "cloth_prompts.pt"]);
    w.job(
        "train",
        &format!("{options} --quiet --output-dir {{}}/whole"),
    )
    .succeeds();
    let read = |folder: &str| std::fs::read(w.path(folder).join("cloth_prompts.pt")).unwrap();
    assert!(
        read("out") == read("whole"),
        "the file differs from that of a run in one go"
    );
}
