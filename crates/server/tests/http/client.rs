//! A server of a test, and who talks to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use flawtune_server::{ServeError, ServeOptions, serve};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Drawn gravel, that is part of the program: `train/good`, `test/good`, `test/<type>`.
pub(crate) fn gravel() -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        flawtune::synth::embedded::unpack(&folder.path().join("data")).unwrap();
        folder
    });
    folder.path().join("data/gravel")
}

/// The first images of a folder, by name.
pub(crate) fn images(folder: &str, most: usize) -> Vec<PathBuf> {
    let all = fs::read_dir(gravel().join(folder)).unwrap();
    let mut all: Vec<PathBuf> = all.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all.truncate(most);
    all
}

/// A server, which ends with the value.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    stop: &'static AtomicBool,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

/// An answer: status, headers and body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}: {}", self.status, self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The JSON of an answer that must be of this status.
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        if self.body.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }
}

impl Server {
    /// With a data folder and defaults.
    pub(crate) fn start(data: &Path) -> Self {
        Self::with(ServeOptions {
            data: data.to_owned(),
            ..ServeOptions::default()
        })
    }

    /// On a free port.
    pub(crate) fn with(options: ServeOptions) -> Self {
        let stop: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
        let (started, starts) = mpsc::channel();
        let options = ServeOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..options
        };
        let thread = thread::spawn(move || {
            serve(options, stop, |listening| {
                started.send(listening.url.clone()).unwrap();
            })
        });
        let url = starts.recv_timeout(Duration::from_secs(30)).unwrap();
        Self {
            url: url.trim_end_matches('/').to_owned(),
            headers: Vec::new(),
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)))
            .build()
            .into();
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut response = agent.run(request.body(body).unwrap()).unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response
                .body_mut()
                .with_config()
                .limit(1 << 30)
                .read_to_vec()
                .unwrap(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", b"")
    }

    #[allow(clippy::needless_pass_by_value)]
    pub(crate) fn post(&self, path: &str, body: Value) -> Answer {
        let body = serde_json::to_vec(&body).unwrap();
        self.send("POST", path, "application/json", &body)
    }

    pub(crate) fn form(&self, path: &str, files: &[PathBuf]) -> Answer {
        let mut body = Vec::new();
        for file in files {
            let name = file.file_name().unwrap().to_string_lossy();
            let head = format!(
                "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\r\n"
            );
            body.extend(head.as_bytes());
            body.extend(fs::read(file).unwrap());
            body.extend(b"\r\n");
        }
        body.extend(b"--XX--\r\n");
        self.send("POST", path, "multipart/form-data; boundary=XX", &body)
    }

    /// Waits for the end of a job.
    #[track_caller]
    pub(crate) fn job(&self, mut job: Value) -> Value {
        let begun = Instant::now();
        while job["state"] == "running" {
            assert!(begun.elapsed() < Duration::from_secs(240), "{job}");
            sleep(Duration::from_millis(50));
            job = self.get(&format!("/api/jobs/{}", job["id"])).is(200);
        }
        job
    }

    /// A detector of gravel, fitted to so many good images.
    pub(crate) fn fitted(&self, good: usize) {
        self.post("/api/detectors", json!({"name": "gravel"}))
            .is(201);
        let added = self.form("/api/detectors/gravel/good", &images("train/good", good));
        assert_eq!(added.is(200)["added"], good);
        let job = self.post("/api/detectors/gravel/fit", json!({})).is(202);
        let job = self.job(job);
        assert_eq!(job["state"], "done", "{job}");
    }

    /// Has images looked at; what is said of each.
    #[track_caller]
    pub(crate) fn predict(&self, files: &[PathBuf]) -> Vec<Value> {
        let found = self.form("/api/detectors/gravel/predict", files).is(200);
        found["results"].as_array().unwrap().clone()
    }

    /// Judges a part.
    #[track_caller]
    pub(crate) fn judge(&self, part: &Value, kind: Option<&str>) -> Value {
        let label = if kind.is_some() { "flaw" } else { "good" };
        let body = json!({"part": part["part"], "label": label, "kind": kind});
        self.post("/api/detectors/gravel/judgements", body).is(201)
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
