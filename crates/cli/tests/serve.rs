//! `flawtune serve` as a process: what it prints, how it ends, and that nothing it confirmed is lost when it is killed.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use flawtune_testing::Noise;
use serde_json::{Value, json};

/// How often it is killed; `FLAWTUNE_KILLS` asks for more.
const KILLS: usize = 6;

struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(data: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_flawtune"))
            .args(["serve", "--quiet", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .env("FLAWTUNE_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "{url:?}");
        let url = url.trim().trim_end_matches('/').to_owned();
        Self { process, url }
    }

    /// Status and JSON; `None` where the server is gone.
    fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Option<(u16, Value)> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", kind)
            .body(body)
            .unwrap();
        let mut response = agent.run(request).ok()?;
        let status = response.status().as_u16();
        let body = response.body_mut().read_to_vec().ok()?;
        Some((status, serde_json::from_slice(&body).ok()?))
    }

    fn get(&self, path: &str) -> Value {
        let (status, value) = self.send("GET", path, "", b"").unwrap();
        assert_eq!(status, 200, "{value}");
        value
    }

    #[allow(clippy::needless_pass_by_value)]
    fn post(&self, path: &str, body: Value) -> Option<(u16, Value)> {
        let body = serde_json::to_vec(&body).unwrap();
        self.send("POST", path, "application/json", &body)
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let status = Command::new("kill").args([name, &id]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Images of drawn gravel, and a detector that knows what is good.
fn fitted(data: &Path, images: &Path) -> Vec<Vec<u8>> {
    flawtune::synth::embedded::unpack(images).unwrap();
    let read = |folder: &str, most: usize| {
        let files = fs::read_dir(images.join("gravel").join(folder)).unwrap();
        let mut paths: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.truncate(most);
        paths
            .iter()
            .map(|p| fs::read(p).unwrap())
            .collect::<Vec<_>>()
    };
    let server = Server::start(data);
    let (status, _) = server
        .post("/api/detectors", json!({"name": "gravel"}))
        .unwrap();
    assert_eq!(status, 201);
    for image in read("train/good", 6) {
        let added = server.send("POST", "/api/detectors/gravel/good", "image/jpeg", &image);
        assert_eq!(added.unwrap().0, 200);
    }
    let (_, job) = server.post("/api/detectors/gravel/fit", json!({})).unwrap();
    let begun = Instant::now();
    while server.get(&format!("/api/jobs/{}", job["id"]))["state"] == "running" {
        assert!(begun.elapsed() < Duration::from_secs(120));
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(server.get("/api/detectors/gravel")["version"], 1);
    server.signal("-TERM");
    let mut all = read("test/good", 8);
    all.extend(read("test/hole", 8));
    all
}

/// A number below `most`; the upper bits are the good ones.
fn drawn(noise: &mut Noise, most: usize) -> usize {
    (noise.uniform() * most as f64) as usize
}

/// What was confirmed.
#[derive(Default)]
struct Confirmed {
    /// Scores of parts.
    parts: BTreeMap<i64, Value>,
    /// Labels by the content of images.
    judgements: BTreeMap<String, String>,
    versions: Vec<i64>,
}

/// Has images looked at, judges them and lets the detector learn, until the server is gone.
fn work(server: &Server, images: &[Vec<u8>], noise: &mut Noise, confirmed: &Mutex<Confirmed>) {
    loop {
        let image = &images[drawn(noise, images.len())];
        let path = "/api/detectors/gravel/predict";
        let Some((200, found)) = server.send("POST", path, "image/jpeg", image) else {
            return;
        };
        let part = &found["results"][0];
        let number = part["part"].as_i64().unwrap();
        confirmed
            .lock()
            .unwrap()
            .parts
            .insert(number, part["score"].clone());
        let label = ["good", "flaw"][drawn(noise, 2)];
        let content = part["content"].as_str().unwrap().to_owned();
        // until it is confirmed, either may hold
        confirmed.lock().unwrap().judgements.remove(&content);
        let body = json!({"part": number, "label": label});
        let Some((201, _)) = server.post("/api/detectors/gravel/judgements", body) else {
            return;
        };
        confirmed
            .lock()
            .unwrap()
            .judgements
            .insert(content, label.to_owned());
        if drawn(noise, 4) == 0 && !learn(server, confirmed) {
            return;
        }
    }
}

/// Whether the server is still there.
fn learn(server: &Server, confirmed: &Mutex<Confirmed>) -> bool {
    let Some((status, mut job)) =
        server.post("/api/detectors/gravel/learn", json!({"force": true}))
    else {
        return false;
    };
    if status != 202 {
        return true;
    }
    while job["state"] == "running" {
        thread::sleep(Duration::from_millis(20));
        let path = format!("/api/jobs/{}", job["id"]);
        match server.send("GET", &path, "", b"") {
            Some((_, now)) => job = now,
            None => return false,
        }
    }
    assert_eq!(job["state"], "done", "{job}");
    let version = job["result"]["version"].as_i64().unwrap();
    confirmed.lock().unwrap().versions.push(version);
    true
}

/// Everything that was confirmed is there.
fn check(server: &Server, confirmed: &Confirmed) {
    let mut parts = BTreeMap::new();
    let mut before = i64::MAX;
    loop {
        let path = format!("/api/detectors/gravel/parts?limit=500&before={before}");
        let page = server.get(&path);
        let page = page["parts"].as_array().unwrap();
        for part in page {
            parts.insert(part["part"].as_i64().unwrap(), part.clone());
        }
        let Some(last) = page.last() else { break };
        before = last["part"].as_i64().unwrap();
    }
    for (number, score) in &confirmed.parts {
        assert_eq!(&parts[number]["score"], score, "part {number}");
    }
    for (content, label) in &confirmed.judgements {
        let part = parts.values().find(|p| p["content"] == content.as_str());
        assert_eq!(
            part.unwrap()["judgement"]["label"],
            label.as_str(),
            "{content}"
        );
        let image = server.send(
            "GET",
            &format!("/api/parts/{}", part.unwrap()["part"]),
            "",
            b"",
        );
        assert_eq!(image.unwrap().1["kept"], true);
    }
    let versions = server.get("/api/detectors/gravel/versions");
    let versions: Vec<i64> = versions["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["version"].as_i64().unwrap())
        .collect();
    assert!(confirmed.versions.iter().all(|v| versions.contains(v)));
    // what is in force opens
    assert!(server.get("/api/detectors/gravel")["threshold"].is_number());
}

#[test]
fn nothing_that_was_confirmed_is_lost_when_it_is_killed() {
    let kills = std::env::var("FLAWTUNE_KILLS").ok();
    let kills = kills.map_or(KILLS, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let images = fitted(&data, &folder.path().join("images"));
    let mut noise = Noise(7);
    let confirmed = Mutex::new(Confirmed::default());
    for kill in 0..kills {
        let server = Server::start(&data);
        check(&server, &confirmed.lock().unwrap());
        let life = Duration::from_millis(100 + drawn(&mut noise, 1900) as u64);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(life);
                server.signal("-KILL");
            });
            work(&server, &images, &mut noise, &confirmed);
        });
        if kill % 50 == 49 {
            let known = confirmed.lock().unwrap();
            eprintln!(
                "{} kills: {} parts, {} judgements, {} versions confirmed",
                kill + 1,
                known.parts.len(),
                known.judgements.len(),
                known.versions.len()
            );
        }
    }
    let server = Server::start(&data);
    let confirmed = confirmed.into_inner().unwrap();
    check(&server, &confirmed);
    assert!(!confirmed.parts.is_empty() && !confirmed.judgements.is_empty());
}

#[test]
fn it_ends_when_it_is_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(&folder.path().join("data"));
    server.signal("-INT");
    let begun = Instant::now();
    let status = server.process.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}
