//! Who comes in, and how much at once.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use flawtune_server::{ServeError, ServeOptions, serve};
use serde_json::json;
use tempfile::TempDir;

use crate::client::{Server, images};

/// Of a server that must not start.
static STOP: AtomicBool = AtomicBool::new(true);
const SECRET: &str = "a secret of many characters";

/// What the server says to bytes as they are.
fn raw(server: &Server, request: &str) -> String {
    let address = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn other_pages_of_the_same_browser_stay_outside() {
    let data = TempDir::new().unwrap();
    let mut server = Server::start(data.path());
    let foreign = "GET /api/state HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert!(raw(&server, foreign).starts_with("HTTP/1.1 403"));
    let page = server.get("/");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("script-src 'self'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(page.headers["x-content-type-options"], "nosniff");

    // a program needs no header, a page of another site has none
    server.headers = vec![("origin".into(), "https://evil.example".into())];
    server
        .post("/api/detectors", json!({"name": "a"}))
        .is_refused(403);
    server.headers.push(("x-flawtune".into(), "local".into()));
    server.post("/api/detectors", json!({"name": "a"})).is(201);
    server.headers.clear();
    server.post("/api/detectors", json!({"name": "b"})).is(201);
    assert_eq!(server.get("/page/../../Cargo.toml").status, 404);
    assert_eq!(server.get("/page/%2e%2e/%2e%2e/Cargo.toml").status, 404);
    assert_eq!(
        server
            .get("/api/images/..%2f..%2fflawtune.db/picture")
            .status,
        404
    );
}

#[test]
fn without_a_secret_only_this_machine_is_listened_to() {
    let data = TempDir::new().unwrap();
    let options = ServeOptions {
        listen: "0.0.0.0:0".parse().unwrap(),
        data: data.path().to_owned(),
        ..ServeOptions::default()
    };
    let refused = serve(options.clone(), &STOP, |_| ()).unwrap_err();
    assert!(matches!(&refused, ServeError::Input(text) if text.contains("--token-file")));
    let token = data.path().join("token");
    fs::write(&token, "short").unwrap();
    let options = ServeOptions {
        token_file: Some(token),
        ..options
    };
    let refused = serve(options, &STOP, |_| ()).unwrap_err();
    assert!(refused.to_string().contains("16"), "{refused}");
}

#[test]
fn people_log_in_and_may_do_what_their_role_says() {
    let data = TempDir::new().unwrap();
    let token = data.path().join("token");
    fs::write(&token, format!("{SECRET}\n")).unwrap();
    let mut server = Server::with(ServeOptions {
        data: data.path().join("data"),
        token_file: Some(token),
        ..ServeOptions::default()
    });
    let state = server.get("/api/state").is(200);
    assert_eq!(
        (&state["login"], &state["detectors"]),
        (&json!(true), &json!([]))
    );
    server.get("/api/users").is_refused(401);
    server.get("/api/events").is_refused(401);
    server.get("/metrics").is_refused(401);

    // a program has the token
    server.headers = vec![("authorization".into(), format!("Bearer {SECRET}"))];
    server
        .post("/api/detectors", json!({"name": "parts"}))
        .is(201);
    let ann = json!({"name": "ann", "password": "ann's long password", "role": "operator"});
    server.post("/api/users", ann).is(204);
    let weak = json!({"name": "bob", "password": "short", "role": "admin"});
    server.post("/api/users", weak).is_refused(400);
    server.headers = vec![("authorization".into(), "Bearer wrong".into())];
    server.get("/api/users").is_refused(401);

    // a person has a session, and what changes something needs its page's header
    server.headers.clear();
    let log_in = |server: &Server, name: &str, password: &str| {
        server.post("/api/login", json!({"name": name, "password": password}))
    };
    let answer = log_in(&server, "ann", "ann's long password");
    let state = answer.is(200);
    assert_eq!(state["user"], json!({"name": "ann", "role": "operator"}));
    let cookie = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let cookie = cookie.split(';').next().unwrap().to_owned();
    server.headers = vec![("cookie".into(), cookie)];
    server.get("/api/detectors/parts").is(200);
    server
        .post("/api/detectors/parts/fit", json!({}))
        .is_refused(403);
    let csrf = state["csrf"].as_str().unwrap().to_owned();
    server.headers.push(("x-flawtune".into(), csrf));
    let why = server
        .post("/api/detectors/parts/fit", json!({}))
        .is_refused(403);
    assert!(why.contains("engineer"), "{why}");
    server.get("/api/audit").is_refused(403);
    server
        .send("DELETE", "/api/detectors/parts", "", b"")
        .is_refused(403);
    server.post("/api/logout", json!({})).is(204);
    server.get("/api/detectors/parts").is_refused(401);

    // the admin's first password is the secret; guessing is slowed
    server.headers.clear();
    assert_eq!(
        log_in(&server, "admin", SECRET).is(200)["user"]["role"],
        "admin"
    );
    for _ in 0..5 {
        log_in(&server, "ann", "a wrong password").is_refused(401);
    }
    let late = log_in(&server, "ann", "ann's long password");
    late.is_refused(429);
    assert!(late.headers.contains_key("retry-after"));
}

#[test]
fn more_than_is_taken_is_refused_and_half_a_request_hurts_nobody() {
    let data = TempDir::new().unwrap();
    let server = Server::with(ServeOptions {
        data: data.path().to_owned(),
        max_upload: 1,
        queue: 1,
        ..ServeOptions::default()
    });
    server.fitted(6);
    let path = "/api/detectors/gravel/predict";
    let large = vec![0; 1_100_000];
    server
        .send("POST", path, "image/png", &large)
        .is_refused(413);

    // a PNG of 60,000 times 60,000 pixels, as its header says
    let mut bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bomb.extend(60_000_u32.to_be_bytes());
    bomb.extend(60_000_u32.to_be_bytes());
    bomb.extend([8, 2, 0, 0, 0]);
    let sum = crc32fast::hash(&bomb[12..]);
    bomb.extend(sum.to_be_bytes());
    bomb.extend(b"\0\0\0\0IDAT");
    bomb.extend(crc32fast::hash(b"IDAT").to_be_bytes());
    let why = server
        .send("POST", path, "image/png", &bomb)
        .is_refused(422);
    assert!(why.contains("pixels"), "{why}");

    // half a request, and one that never ends
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut half = TcpStream::connect(&address).unwrap();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 100000\r\n\r\nabc");
    half.write_all(head.as_bytes()).unwrap();
    let mut silent = TcpStream::connect(&address).unwrap();
    silent.write_all(b"GET / HT").unwrap();
    let garbage = raw(&server, "\0\0\0\r\n\r\n");
    assert!(
        garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"),
        "{garbage}"
    );

    // one place in the queue: of many at once some are told to come back, and none is lost
    let image = fs::read(&images("test/good", 1)[0]).unwrap();
    let statuses: Vec<(u16, bool)> = thread::scope(|scope| {
        let all: Vec<_> = (0..12)
            .map(|_| {
                scope.spawn(|| {
                    let answer = server.send("POST", path, "image/jpeg", &image);
                    (answer.status, answer.headers.contains_key("retry-after"))
                })
            })
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(
        statuses
            .iter()
            .all(|(s, later)| *s == 200 || (*s == 429 && *later)),
        "{statuses:?}"
    );
    let taken = statuses.iter().filter(|(s, _)| *s == 200).count();
    assert!(taken > 0);
    drop((half, silent));
    let counts = server.get("/api/detectors/gravel/parts").is(200);
    assert_eq!(counts["counts"]["parts"], taken);
    let figures = server.get("/metrics").text();
    assert!(figures.contains("flawtune_parts_total"), "{figures}");
}

#[test]
fn two_servers_do_not_share_a_folder() {
    let data = TempDir::new().unwrap();
    let _first = Server::start(data.path());
    let options = ServeOptions {
        data: data.path().to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        ..ServeOptions::default()
    };
    let refused = serve(options, &STOP, |_| ()).unwrap_err();
    assert!(
        refused.to_string().contains("another flawtune serve"),
        "{refused}"
    );
}
