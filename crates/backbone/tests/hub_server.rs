//! Downloads against a hub on this machine: what it serves, cuts, refuses and redirects is up to each test.

#![allow(clippy::unwrap_used)] // a test may stop

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use flawtune_backbone::hub::{HubError, LocateOptions, Progress, locate};
use sha2::{Digest, Sha256};

const REPO: &str = "facebook/dinov2-small";
const GATED: &str = "facebook/dinov3-vits16-pretrain-lvd1689m";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as the server saw it.
#[derive(Debug, Clone)]
struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
}

impl Request {
    /// First byte asked for.
    fn from(&self) -> usize {
        let range = self
            .headers
            .get("range")
            .map(|r| r.trim_start_matches("bytes=").trim_end_matches('-'));
        range.map_or(0, |r| r.parse().unwrap())
    }
}

/// What the server does with it.
#[derive(Clone)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Close the connection after this many bytes of the body.
    cut: Option<usize>,
}

fn answer(status: u16) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: Vec::new(),
        cut: None,
    }
}

/// The value of a header.
struct Header(String);

impl From<&str> for Header {
    fn from(s: &str) -> Self {
        Self(s.to_owned())
    }
}

impl From<String> for Header {
    fn from(s: String) -> Self {
        Self(s)
    }
}

impl From<usize> for Header {
    fn from(n: usize) -> Self {
        Self(n.to_string())
    }
}

impl Answer {
    fn with(mut self, name: &str, value: impl Into<Header>) -> Self {
        self.headers.push((name.into(), value.into().0));
        self
    }
}

struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, handler) = (Arc::clone(&requests), Arc::new(handler));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, handler) = (Arc::clone(&seen), Arc::clone(&handler));
                thread::spawn(move || serve(stream, &seen, handler.as_ref()));
            }
        });
        Self { address, requests }
    }

    fn requests(&self, method: &str, ending: &str) -> Vec<Request> {
        let all = self.requests.lock().unwrap();
        all.iter()
            .filter(|r| r.method == method && r.path.ends_with(ending))
            .cloned()
            .collect()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Request>>, handler: &dyn Fn(&Request) -> Answer) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split_whitespace();
    let (method, path) = (
        words.next().unwrap().to_owned(),
        words.next().unwrap().to_owned(),
    );
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let request = Request {
        method,
        path,
        headers,
    };
    seen.lock().unwrap().push(request.clone());
    let answer = handler(&request);
    let mut out = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", answer.status);
    if !answer.headers.iter().any(|(k, _)| k == "Content-Length") {
        let _ = write!(out, "Content-Length: {}\r\n", answer.body.len());
    }
    for (name, value) in &answer.headers {
        let _ = write!(out, "{name}: {value}\r\n");
    }
    out.push_str("\r\n");
    let mut stream = reader.into_inner();
    let _ = stream.write_all(out.as_bytes());
    if request.method != "HEAD" {
        let _ = stream.write_all(&answer.body[..answer.cut.unwrap_or(answer.body.len())]);
    }
    let _ = stream.flush();
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |hex, b| format!("{hex}{b:02x}"))
}

/// Bytes that no compression and no repetition explain away.
fn content(n: usize) -> Vec<u8> {
    let mut noise = flawtune_testing::SmallNoise(1);
    (0..n).map(|_| (noise.word() >> 24) as u8).collect()
}

/// A well-behaved hub with these files: LFS files redirect to storage, ranges are honoured.
fn hub(files: Vec<(&'static str, Vec<u8>)>) -> impl Fn(&Request) -> Answer + Send + Sync {
    move |r| {
        let Some((_, body)) = files
            .iter()
            .find(|(name, _)| r.path.ends_with(&format!("/{name}")))
        else {
            return answer(404);
        };
        if r.path.starts_with("/storage/") {
            return ranged(r, body);
        }
        let a = answer(302)
            .with("Location", format!("/storage{}", r.path))
            .with("X-Repo-Commit", COMMIT)
            .with("X-Linked-Size", body.len())
            .with("X-Linked-ETag", format!("\"{}\"", hex(body)));
        Answer {
            body: b"Found. Redirecting".to_vec(),
            ..a
        }
    }
}

fn ranged(r: &Request, body: &[u8]) -> Answer {
    if r.method == "HEAD" {
        return answer(200).with("Content-Length", body.len());
    }
    let from = r.from();
    if from == 0 {
        return Answer {
            body: body.to_vec(),
            ..answer(200)
        };
    }
    let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
    Answer {
        body: body[from..].to_vec(),
        ..answer(206)
    }
    .with("Content-Range", range)
}

struct Place {
    dir: tempfile::TempDir,
    options: LocateOptions,
}

fn place(endpoint: &str) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let options = LocateOptions {
        weights: None,
        model_folders: vec![dir.path().join("models")],
        cache: dir.path().join("hub"),
        endpoint: endpoint.to_owned(),
        token: None,
        offline: false,
        attempts: 3,
        pause: Duration::from_millis(1),
        patience: Duration::from_secs(10),
    };
    Place { dir, options }
}

fn repo_folder(p: &Place, repo: &str) -> PathBuf {
    p.options
        .cache
        .join(format!("models--{}", repo.replace('/', "--")))
}

fn quiet() -> impl FnMut(Progress<'_>) {
    |_| {}
}

#[test]
fn a_download_lands_in_the_cache_and_is_found_there() {
    let body = content(3 << 20);
    let server = Server::start(hub(vec![
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", body.clone()),
    ]));
    let p = place(&server.address);
    let mut reports = Vec::new();
    let path = locate("dinov2_vits14", &p.options, &mut |progress| {
        if let Progress::Bytes {
            file: "model.safetensors",
            done,
            total,
        } = progress
        {
            reports.push((done, total));
        }
    })
    .unwrap();
    assert_eq!(
        path,
        repo_folder(&p, REPO)
            .join("snapshots")
            .join(COMMIT)
            .join("model.safetensors")
    );
    assert_eq!(fs::read(&path).unwrap(), body);
    assert!(path.with_file_name("config.json").exists());
    assert_eq!(
        fs::read_to_string(repo_folder(&p, REPO).join("refs/main")).unwrap(),
        COMMIT
    );
    assert!(
        repo_folder(&p, REPO)
            .join("blobs")
            .join(hex(&body))
            .is_file()
    );
    assert!(
        reports.len() >= 3 && reports.windows(2).all(|w| w[0].0 <= w[1].0),
        "{reports:?}"
    );
    assert_eq!(
        *reports.last().unwrap(),
        (body.len() as u64, Some(body.len() as u64))
    );

    let before = server.requests.lock().unwrap().len();
    assert_eq!(
        locate("facebook/dinov2-small", &p.options, &mut quiet()).unwrap(),
        path
    );
    assert_eq!(
        server.requests.lock().unwrap().len(),
        before,
        "found in the cache without a request"
    );
    let offline = LocateOptions {
        offline: true,
        ..p.options.clone()
    };
    assert_eq!(locate("vits14", &offline, &mut quiet()).unwrap(), path);
}

#[test]
fn a_cut_transfer_is_continued() {
    let body = content(1 << 20);
    let whole = hub(vec![("model.safetensors", body.clone())]);
    let cuts = AtomicUsize::new(0);
    let server = Server::start(move |r| {
        let a = whole(r);
        let data = r.method == "GET" && r.path.starts_with("/storage/");
        if data && cuts.fetch_add(1, Ordering::SeqCst) < 2 {
            return Answer {
                cut: Some(300_000),
                ..a
            };
        }
        a
    });
    let p = place(&server.address);
    let mut retries = 0;
    let path = locate("dinov2_vits14", &p.options, &mut |progress| {
        retries += usize::from(matches!(progress, Progress::Retrying { .. }));
    })
    .unwrap();
    assert_eq!(fs::read(path).unwrap(), body);
    assert_eq!(retries, 2);
    let starts: Vec<usize> = server
        .requests("GET", "model.safetensors")
        .iter()
        .filter(|r| r.path.starts_with("/storage"))
        .map(Request::from)
        .collect();
    assert_eq!(
        starts,
        [0, 300_000, 600_000],
        "each attempt continues where the last ended"
    );
}

#[test]
fn what_an_earlier_run_left_is_continued() {
    let body = content(1 << 20);
    let server = Server::start(hub(vec![("model.safetensors", body.clone())]));
    let p = place(&server.address);
    let blobs = repo_folder(&p, REPO).join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    let incomplete = blobs.join(format!("{}.incomplete", hex(&body)));
    fs::write(&incomplete, &body[..500_000]).unwrap();
    let path = locate("dinov2_vits14", &p.options, &mut quiet()).unwrap();
    assert_eq!(fs::read(path).unwrap(), body);
    assert!(
        server
            .requests("GET", "model.safetensors")
            .iter()
            .all(|r| r.from() == 500_000)
    );
    assert!(!incomplete.exists());

    // rubbish left behind: the checksum finds it and the transfer starts over, once
    let p = place(&server.address);
    let blobs = repo_folder(&p, REPO).join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(
        blobs.join(format!("{}.incomplete", hex(&body))),
        vec![0u8; 500_000],
    )
    .unwrap();
    let path = locate("dinov2_vits14", &p.options, &mut quiet()).unwrap();
    assert_eq!(fs::read(path).unwrap(), body);
}

#[test]
fn a_server_without_ranges_starts_over() {
    let body = content(1 << 20);
    let whole = hub(vec![("model.safetensors", body.clone())]);
    let cuts = AtomicUsize::new(0);
    let server = Server::start(move |r| {
        let mut plain = r.clone();
        plain.headers.remove("range");
        let a = whole(&plain);
        let data = r.method == "GET" && r.path.starts_with("/storage/");
        if data && cuts.fetch_add(1, Ordering::SeqCst) == 0 {
            Answer {
                cut: Some(1000),
                ..a
            }
        } else {
            a
        }
    });
    let p = place(&server.address);
    assert_eq!(
        fs::read(locate("dinov2_vits14", &p.options, &mut quiet()).unwrap()).unwrap(),
        body
    );
}

#[test]
fn a_server_that_cuts_for_ever_is_given_up_and_the_part_kept() {
    let body = content(1 << 20);
    let whole = hub(vec![("model.safetensors", body.clone())]);
    let server = Server::start(move |r| {
        let a = whole(r);
        if r.path.starts_with("/storage/") {
            Answer {
                cut: Some(a.body.len().min(1000)),
                ..a
            }
        } else {
            a
        }
    });
    let p = place(&server.address);
    let e = locate("dinov2_vits14", &p.options, &mut quiet()).unwrap_err();
    assert!(matches!(e, HubError::Network { attempts: 3, .. }), "{e}");
    assert!(e.to_string().contains("run it again to continue"), "{e}");
    let left = repo_folder(&p, REPO)
        .join("blobs")
        .join(format!("{}.incomplete", hex(&body)));
    assert_eq!(fs::read(left).unwrap(), body[..3000]);
}

#[test]
fn a_wrong_checksum_is_an_error_and_leaves_nothing() {
    let body = content(100_000);
    let announced = hex(b"something else");
    let whole = hub(vec![("model.safetensors", body)]);
    let tag = announced.clone();
    let server = Server::start(move |r| {
        let mut a = whole(r);
        for (name, value) in &mut a.headers {
            if name == "X-Linked-ETag" {
                value.clone_from(&tag);
            }
        }
        a
    });
    let p = place(&server.address);
    let e = locate("dinov2_vits14", &p.options, &mut quiet()).unwrap_err();
    assert!(
        matches!(&e, HubError::Checksum { wanted, .. } if *wanted == announced),
        "{e}"
    );
    let left: Vec<_> = fs::read_dir(repo_folder(&p, REPO).join("blobs"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_gate_explains_what_to_do() {
    for (status, token, wanted) in [
        (401, None, "accept the licence"),
        (401, Some("hf_bad"), "token was not accepted"),
        (403, Some("hf_ok"), "has no access"),
    ] {
        let server = Server::start(move |_| answer(status));
        let mut p = place(&server.address);
        p.options.token = token.map(str::to_owned);
        let e = locate("dinov3_vits16", &p.options, &mut quiet()).unwrap_err();
        assert!(
            matches!(&e, HubError::Denied { status: s, .. } if *s == status),
            "{e}"
        );
        let text = e.to_string();
        for part in [
            wanted,
            GATED,
            "HF_TOKEN",
            "`model_name` dinov2_vits14",
            "`weights`",
        ] {
            // a token that works is not asked for again
            if part != "HF_TOKEN" || status == 401 {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
        assert_eq!(
            server.requests.lock().unwrap().len(),
            1,
            "a refusal is not tried again"
        );
    }
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let body = content(5000);
    let storage = Server::start({
        let body = body.clone();
        move |r| ranged(r, &body)
    });
    let (elsewhere, sum) = (storage.address.clone(), hex(&body));
    let server = Server::start(move |r| {
        if !r.path.ends_with("model.safetensors") {
            return answer(404);
        }
        answer(302)
            .with(
                "Location",
                format!("{elsewhere}/signed/model.safetensors?key=1"),
            )
            .with("X-Repo-Commit", COMMIT)
            .with("X-Linked-ETag", format!("\"{sum}\""))
            .with("X-Linked-Size", 5000usize)
    });
    let mut p = place(&server.address);
    p.options.token = Some("hf_secret".into());
    assert_eq!(
        fs::read(locate("vits16", &p.options, &mut quiet()).unwrap()).unwrap(),
        body
    );
    let asked = server.requests("HEAD", "model.safetensors");
    assert_eq!(asked[0].headers["authorization"], "Bearer hf_secret");
    let fetched = storage.requests.lock().unwrap();
    assert!(
        !fetched.is_empty()
            && fetched
                .iter()
                .all(|r| !r.headers.contains_key("authorization")),
        "{fetched:?}"
    );
}

#[test]
fn shards_are_all_fetched() {
    let parts = [content(2000), content(3000)];
    let index = br#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    let server = Server::start(hub(vec![
        ("model.safetensors.index.json", index.to_vec()),
        ("model-00001-of-00002.safetensors", parts[0].clone()),
        ("model-00002-of-00002.safetensors", parts[1].clone()),
    ]));
    let p = place(&server.address);
    let path = locate("dinov2_vitg14", &p.options, &mut quiet()).unwrap();
    assert_eq!(path.file_name().unwrap(), "model.safetensors.index.json");
    for (i, part) in parts.iter().enumerate() {
        let shard = path.with_file_name(format!("model-0000{}-of-00002.safetensors", i + 1));
        assert_eq!(fs::read(&shard).unwrap(), *part);
    }
    let offline = LocateOptions {
        offline: true,
        ..p.options.clone()
    };
    assert_eq!(
        locate("dinov2_vitg14", &offline, &mut quiet()).unwrap(),
        path
    );
    fs::remove_file(path.with_file_name("model-00002-of-00002.safetensors")).unwrap();
    let e = locate("dinov2_vitg14", &offline, &mut quiet()).unwrap_err();
    assert!(
        matches!(e, HubError::Offline { .. }),
        "half of the shards are not a model: {e}"
    );
}

#[test]
fn an_index_cannot_reach_outside() {
    let index = br#"{"weight_map": {"a": "../../../evil"}}"#;
    let server = Server::start(hub(vec![("model.safetensors.index.json", index.to_vec())]));
    let p = place(&server.address);
    let e = locate("dinov2_vitg14", &p.options, &mut quiet()).unwrap_err();
    assert!(matches!(e, HubError::Index(_)), "{e}");
}

#[test]
fn absent_and_broken_servers_are_told_apart() {
    let server = Server::start(|_| answer(404));
    let e = locate("vits14", &place(&server.address).options, &mut quiet()).unwrap_err();
    assert!(matches!(e, HubError::NotFound { .. }), "{e}");

    let server = Server::start(|_| answer(503));
    let e = locate("vits14", &place(&server.address).options, &mut quiet()).unwrap_err();
    assert!(
        matches!(
            e,
            HubError::Status {
                status: 503,
                attempts: 3,
                ..
            }
        ),
        "{e}"
    );
    assert_eq!(server.requests.lock().unwrap().len(), 3);

    let calm = Mutex::new(2);
    let body = content(10);
    let whole = hub(vec![("model.safetensors", body.clone())]);
    let server = Server::start(move |r| {
        let mut left = calm.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return answer(429);
        }
        whole(r)
    });
    let p = place(&server.address);
    assert_eq!(
        fs::read(locate("vits14", &p.options, &mut quiet()).unwrap()).unwrap(),
        body,
        "busy at first"
    );

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let e = locate("vits14", &place(&address).options, &mut quiet()).unwrap_err();
    assert!(matches!(e, HubError::Network { .. }), "{e}");
    assert!(
        e.to_string().contains("HF_ENDPOINT") && e.to_string().contains("`weights`"),
        "{e}"
    );

    let server = Server::start(|r| answer(307).with("Location", r.path.as_str()));
    let e = locate("vits14", &place(&server.address).options, &mut quiet()).unwrap_err();
    assert!(matches!(e, HubError::Answer { .. }), "{e}");

    let server = Server::start(|_| {
        thread::sleep(Duration::from_secs(5));
        answer(200)
    });
    let mut p = place(&server.address);
    (p.options.patience, p.options.attempts) = (Duration::from_millis(200), 1);
    let e = locate("vits14", &p.options, &mut quiet()).unwrap_err();
    assert!(
        matches!(e, HubError::Network { .. }),
        "a silent server: {e}"
    );
}

#[test]
fn local_files_come_first() {
    let server = Server::start(|_| answer(500));
    let p = place(&server.address);
    let explicit = p.dir.path().join("mine.safetensors");
    let mut options = LocateOptions {
        weights: Some(explicit.clone()),
        ..p.options.clone()
    };
    let e = locate("vits14", &options, &mut quiet()).unwrap_err();
    assert!(
        matches!(&e, HubError::NoSuchWeights(path) if *path == explicit),
        "{e}"
    );
    fs::write(&explicit, b"x").unwrap();
    assert_eq!(
        locate("whatever", &options, &mut quiet()).unwrap(),
        explicit,
        "the name does not matter then"
    );

    options.weights = None;
    let models = p.dir.path().join("models");
    for (file, name) in [
        (
            "dinov3_vits16_pretrain_lvd1689m-08c60483.pth",
            "dinov3_vits16",
        ),
        (
            "dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth",
            "dinov3_vitl16_sat",
        ),
        ("dinov2_vits14.safetensors", "dinov2-vits14"),
        ("dinov2_vits14_reg4_pretrain.pth", "dinov2_vits14_reg"),
        ("facebook--no", ""),
        (
            "dinov3-vitb16-pretrain-lvd1689m/model.safetensors",
            "vitb16",
        ),
        (
            "vit_large_patch16_dinov3.lvd1689m/model.safetensors",
            "vitl16",
        ),
    ] {
        let path = models.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"x").unwrap();
        if !name.is_empty() {
            let wanted = if file.contains('/') {
                path.parent().unwrap().to_owned()
            } else {
                path
            };
            assert_eq!(
                locate(name, &options, &mut quiet()).unwrap(),
                wanted,
                "{name}"
            );
        }
    }
    fs::create_dir_all(models.join("dinov3_vith16plus")).unwrap();
    options.offline = true;
    let e = locate("vith16plus", &options, &mut quiet()).unwrap_err();
    assert!(
        matches!(e, HubError::Offline { .. }),
        "an empty folder is not a model: {e}"
    );
    assert!(e.to_string().contains(models.to_str().unwrap()), "{e}");
    assert!(matches!(
        locate("vits61", &options, &mut quiet()).unwrap_err(),
        HubError::Model(_)
    ));
    assert!(server.requests.lock().unwrap().is_empty());
}

#[test]
fn a_snapshot_of_python_is_found() {
    let p = place("http://127.0.0.1:9");
    let repo = repo_folder(&p, "timm/vit_small_patch16_dinov3.lvd1689m");
    let snapshot = repo.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repo.join("refs")).unwrap();
    fs::write(repo.join("refs/main"), COMMIT).unwrap();
    fs::write(snapshot.join("model.safetensors"), b"x").unwrap();
    let offline = LocateOptions {
        offline: true,
        ..p.options.clone()
    };
    let found = locate("dinov3_vits16", &offline, &mut quiet()).unwrap();
    assert_eq!(
        found,
        snapshot.join("model.safetensors"),
        "timm's files will do where the authors' are absent"
    );
}

#[test]
fn two_at_once_fetch_once() {
    let body = content(1 << 20);
    let whole = hub(vec![("model.safetensors", body.clone())]);
    let server = Server::start(move |r| {
        if r.method == "GET" && r.path.starts_with("/storage/") {
            thread::sleep(Duration::from_millis(300));
        }
        whole(r)
    });
    let p = place(&server.address);
    let run = |options: LocateOptions| {
        thread::spawn(move || locate("vits14", &options, &mut |_| {}).unwrap())
    };
    let both = [run(p.options.clone()), run(p.options.clone())].map(|t| t.join().unwrap());
    for path in &both {
        assert_eq!(fs::read(path).unwrap(), body);
    }
    let fetched = server
        .requests("GET", "model.safetensors")
        .iter()
        .filter(|r| r.path.starts_with("/storage"))
        .count();
    assert_eq!(fetched, 1, "the second waits for the first");
    assert!(Path::new(&both[0]).exists());
}
