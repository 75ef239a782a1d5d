//! A folder that is watched, as a service.

#![cfg(unix)]

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value as Json;

use crate::world::World;

struct Service {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Service {
    fn start(w: &World, more: &str) -> Self {
        let mut child = w
            .command(&format!(
                "predict {{}}/m.flaw --watch {{}}/camera --json {more}"
            ))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Name and verdict of the next image.
    fn next(&mut self) -> (String, String) {
        let line: Json = serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap();
        let name = line["path"].as_str().unwrap().rsplit('/').next();
        (
            name.unwrap().to_owned(),
            line["verdict"].as_str().unwrap().to_owned(),
        )
    }

    /// Ctrl-C; what is left on standard output, and standard error.
    fn end(self) -> (Vec<String>, String) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &id])
                .status()
                .unwrap()
                .success()
        );
        let rest = self.lines.map(Result::unwrap).collect();
        let output = self.child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        (rest, String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn a_restart_judges_nothing_again_and_copies_lie_sorted() {
    let w = World::new();
    w.job("fit", "-o {}/m.flaw").succeeds();
    let camera = w.path("camera");
    fs::create_dir(&camera).unwrap();
    let put = |from: &str, name: &str| {
        fs::copy(w.sample(from), camera.join(name)).unwrap();
    };
    put("test/good/000.png", "a.png");
    put("test/hole/000.png", "b.png");
    let more = "--journal {}/judged.jsonl --sort-into {}/camera/sorted --heartbeat 1";
    let mut service = Service::start(&w, more);
    let first = [service.next(), service.next()];
    assert_eq!([&first[0].0, &first[1].0], ["a.png", "b.png"]);
    std::thread::sleep(Duration::from_millis(1500));
    let (rest, said) = service.end();
    assert!(rest.is_empty(), "sorted copies are no input: {rest:?}");
    assert!(said.contains("watching: 2 judged, "), "{said}");
    for (name, verdict) in &first {
        let copy = camera.join("sorted").join(verdict).join(name);
        assert_eq!(
            fs::read(copy).unwrap(),
            fs::read(camera.join(name)).unwrap()
        );
    }

    put("test/good/001.png", "c.png");
    let mut service = Service::start(&w, more);
    assert_eq!(service.next().0, "c.png");
    let (rest, _) = service.end();
    assert!(rest.is_empty(), "{rest:?}");
    w.run("predict {}/m.flaw {}/camera --journal {}/j")
        .refuses(&["--watch"]);
}

#[test]
fn what_cannot_be_read_is_put_aside() {
    let w = World::new();
    w.job("fit", "-o {}/m.flaw").succeeds();
    let parts = w.path("parts");
    fs::create_dir_all(parts.join("day")).unwrap();
    fs::copy(w.sample("test/good/000.png"), parts.join("day/a.png")).unwrap();
    let half = fs::read(w.sample("test/good/001.png")).unwrap();
    fs::write(parts.join("day/b.png"), &half[..half.len() / 2]).unwrap();
    let run = w
        .run("predict {}/m.flaw {}/parts --sort-into {}/sorted --skip-bad-images --json")
        .succeeds();
    // after the last verdict it has a line of its own
    let last: Json = serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap();
    assert!(last["path"].is_null(), "{last}");
    assert_eq!(last["intake"][0]["oddity"], "unreadable", "{last}");
    assert!(w.path("sorted/unreadable/day/b.png").exists());
    let judged = ["good", "flaw"].map(|v| w.path(&format!("sorted/{v}/day/a.png")).exists());
    assert!(judged[0] != judged[1]);
}
