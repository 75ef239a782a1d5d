//! Verdicts arrive at servers, in files and in folders, also where these are slow, away or torn.

#![allow(clippy::unwrap_used)] // a test may stop

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use flawtune_server::receivers::{Counted, ReceiverOptions, Receivers};
use flawtune_server::verdict::{Label, Part, Place, Source};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const PATIENCE: Duration = Duration::from_secs(8);

fn part(id: i64, name: &str) -> Arc<Part> {
    Arc::new(Part {
        part: id,
        detector: "lids".into(),
        version: 3,
        content: "00".into(),
        name: name.into(),
        source: Source::Post,
        at: 1_700_000_000_123,
        size: (40, 60),
        score: 0.875,
        probability: 0.25,
        flaw: id % 2 == 0,
        verdict: if id % 2 == 0 {
            Label::Flaw
        } else {
            Label::Good
        },
        kind: (id % 4 == 0).then(|| "scratch".into()),
        drift: 0.0,
        doubt: 0.5,
        threshold: 0.75,
        regions: vec![Place {
            left: 1,
            top: 2,
            width: 3,
            height: 4,
            area: 5,
            peak: 6.0,
        }],
        judgement: None,
        kept: true,
    })
}

fn image() -> Arc<[u8]> {
    b"bytes of an image"[..].into()
}

fn only(receivers: &Receivers) -> Counted {
    let mut counts = receivers.counts();
    assert_eq!(counts.len(), 1, "{counts:?}");
    counts.remove(0)
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what} took too long");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A request as it came.
#[derive(Debug)]
struct Request {
    head: String,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut request = Request {
        head,
        body: String::new(),
    };
    let length = request.header("content-length")?.parse().ok()?;
    reader.take(length).read_to_string(&mut request.body).ok()?;
    Some(request)
}

/// A server that gives these answers one after the other, and the last from then on.
fn serve(listener: TcpListener, answers: &[&str]) -> Receiver<Request> {
    let answers: Vec<String> = answers.iter().map(|a| (*a).to_owned()).collect();
    let (send, requests) = channel();
    thread::spawn(move || {
        let mut answers = answers.into_iter();
        let mut last = None;
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let Some(request) = read_request(&stream) else {
                continue;
            };
            last = answers.next().or(last);
            let answer = last.as_deref().unwrap_or("204 No Content");
            if let Some(pause) = answer.strip_prefix("after ") {
                let (pause, _) = pause.split_once(' ').expect("a pause");
                thread::sleep(Duration::from_millis(pause.parse().expect("milliseconds")));
            }
            let answer = answer
                .rsplit_once("ms ")
                .map_or(answer, |(_, answer)| answer);
            let text =
                format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            drop(stream.write_all(text.as_bytes()));
            if send.send(request).is_err() {
                return;
            }
        }
    });
    requests
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!(
        "http://{}/hook?key=1",
        listener.local_addr().expect("bound")
    );
    (listener, url)
}

fn hook(url: &str) -> ReceiverOptions {
    ReceiverOptions {
        webhook: vec![url.into()],
        ..ReceiverOptions::default()
    }
}

#[test]
fn a_webhook_is_signed_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "wrench\n").unwrap();
    let (listener, url) = listen();
    let requests = serve(listener, &["500 No", "200 OK"]);
    let receivers = Receivers::start(&ReceiverOptions {
        webhook_secret_file: Some(secret),
        ..hook(&url.replace("http://", "http://me:p%40ss@"))
    })
    .unwrap();
    let told = part(7, "a.png");
    receivers.tell(&told, &image());
    let mut keys = Vec::new();
    for _ in 0..2 {
        let request = requests.recv_timeout(PATIENCE).unwrap();
        assert!(
            request.head.starts_with("POST /hook?key=1 HTTP/1.1\r\n"),
            "{}",
            request.head
        );
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("authorization"), Some("Basic bWU6cEBzcw=="));
        assert_eq!(serde_json::from_str::<Part>(&request.body).unwrap(), *told);
        let signed = request.header("x-flawtune-signature").unwrap();
        let (time, signature) = signed
            .strip_prefix("t=")
            .unwrap()
            .split_once(",v1=")
            .unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(b"wrench").unwrap();
        mac.update(format!("{time}.{}", request.body).as_bytes());
        let wanted = mac.finalize().into_bytes();
        let given: Vec<u8> = (0..64)
            .step_by(2)
            .map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(given, wanted[..]);
        keys.push(request.header("idempotency-key").unwrap().to_owned());
    }
    assert_eq!(keys, ["lids-7", "lids-7"], "it stays the same");
    wait("the count", || only(&receivers).sent == 1);
    receivers.stop(PATIENCE);
    assert!(requests.try_recv().is_err(), "it was sent once more");
}

#[test]
fn a_refusal_is_final_and_a_later_is_honoured() {
    let (listener, url) = listen();
    let answers = [
        "422 No",
        "302 Found\r\nLocation: /x",
        "429 Slow\r\nRetry-After: 2",
        "204 Yes",
    ];
    let requests = serve(listener, &answers);
    let receivers = Receivers::start(&hook(&url)).unwrap();
    for id in 1..=3 {
        receivers.tell(&part(id, "a.png"), &image());
    }
    let next = || requests.recv_timeout(PATIENCE).unwrap();
    for id in 1..=3 {
        assert_eq!(
            next().header("idempotency-key"),
            Some(&*format!("lids-{id}"))
        );
    }
    let start = Instant::now();
    assert_eq!(next().header("idempotency-key"), Some("lids-3"));
    assert!(
        start.elapsed() > Duration::from_millis(1900),
        "{:?}",
        start.elapsed()
    );
    wait("the count", || only(&receivers).sent == 1);
    let counted = only(&receivers);
    assert_eq!(
        (counted.failed, counted.waiting, counted.dropped),
        (2, 0, 0)
    );
}

#[test]
fn a_slow_server_holds_nobody_up() {
    let (slow, slow_url) = listen();
    let (quick, quick_url) = listen();
    let slow = serve(slow, &["after 700 ms 200 OK"]);
    let quick = serve(quick, &["200 OK"]);
    let receivers = Receivers::start(&ReceiverOptions {
        webhook: vec![slow_url.as_str().into(), quick_url.as_str().into()],
        ..ReceiverOptions::default()
    })
    .unwrap();
    let start = Instant::now();
    for id in 0..20 {
        receivers.tell(&part(id, "a.png"), &image());
    }
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "telling waits"
    );
    for _ in 0..20 {
        quick.recv_timeout(PATIENCE).unwrap();
    }
    assert!(slow.try_iter().count() < 10);
    let start = Instant::now();
    let counts = receivers.stop(Duration::from_millis(300));
    assert!(start.elapsed() < Duration::from_secs(3), "stopping waits");
    assert_eq!((counts[1].sent, counts[1].dropped), (20, 0));
    assert_eq!(counts[0].sent + counts[0].dropped, 20);
    assert!(counts[0].dropped > 10, "{counts:?}");
}

#[test]
fn a_server_that_comes_later_gets_all() {
    let (listener, url) = listen();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let receivers = Receivers::start(&hook(&url)).unwrap();
    for id in 0..5 {
        receivers.tell(&part(id, "a.png"), &image());
    }
    thread::sleep(Duration::from_millis(700));
    assert_eq!(only(&receivers).waiting, 5);
    let requests = serve(TcpListener::bind(address).unwrap(), &["200 OK"]);
    // what waits is told before the end
    let counts = receivers.stop(PATIENCE);
    assert_eq!((counts[0].sent, counts[0].dropped), (5, 0), "{counts:?}");
    let keys: Vec<String> = requests
        .try_iter()
        .map(|r| r.header("idempotency-key").unwrap().to_owned())
        .collect();
    assert_eq!(keys, ["lids-0", "lids-1", "lids-2", "lids-3", "lids-4"]);
}

#[test]
fn a_verdict_that_is_too_old_is_given_up() {
    let (listener, url) = listen();
    drop(listener);
    let receivers = Receivers::start(&ReceiverOptions {
        webhook_patience: Duration::from_millis(600),
        ..hook(&url)
    })
    .unwrap();
    receivers.tell(&part(1, "a.png"), &image());
    wait("giving up", || only(&receivers).failed == 1);
    let mut most = Vec::new();
    for id in 0..10_050 {
        receivers.tell(&part(id, "a.png"), &image());
        most.push(only(&receivers).waiting);
    }
    assert!(most.into_iter().max().unwrap() <= 10_001);
}

#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn table(path: &Path) -> Receivers {
    Receivers::start(&ReceiverOptions {
        verdicts: Some(path.to_owned()),
        ..ReceiverOptions::default()
    })
    .unwrap()
}

#[test]
fn a_table_has_one_header_and_a_line_for_each_part() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("verdicts.csv");
    for start in 0..2 {
        let receivers = table(&path);
        receivers.tell(&part(2 * start, "a,\"b\"\n.png"), &image());
        receivers.tell(&part(2 * start + 1, "a.png"), &image());
        assert_eq!(receivers.stop(PATIENCE)[0].sent, 2);
    }
    let lines = lines(&path);
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(lines[0].starts_with("part,detector,version,content,name,source,at,score,"));
    assert_eq!(
        lines[1],
        "0,lids,3,00,\"a,\"\"b\"\" .png\",post,2023-11-14T22:13:20.123Z,0.875,0.25,flaw,scratch,0,0.5,0.75,1,2,3,4"
    );
    assert!(lines[2].contains(",good,,"), "{}", lines[2]);
}

#[test]
fn a_torn_line_is_ended_and_a_moved_file_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    for (ending, torn, ended) in [
        ("csv", "1,lids,3,00,\"a, b", "1,lids,3,00,\"a, b\""),
        ("csv", "1,lids,3,00,\"a\"", "1,lids,3,00,\"a\""),
        ("jsonl", "{\"part\": 1, \"na", "{\"part\": 1, \"na"),
    ] {
        let path = folder.path().join(format!("verdicts.{ending}"));
        std::fs::write(&path, torn).unwrap();
        let receivers = table(&path);
        receivers.tell(&part(5, "a.png"), &image());
        wait("a line", || only(&receivers).sent == 1);
        let before = lines(&path);
        assert_eq!(before.len(), 2, "{before:?}");
        assert_eq!(before[0], ended);
        // as logrotate does
        let moved = folder.path().join("moved");
        std::fs::rename(&path, &moved).unwrap();
        receivers.tell(&part(6, "b.png"), &image());
        wait("a line", || only(&receivers).sent == 2);
        assert_eq!(lines(&moved), before);
        let header = usize::from(ending == "csv");
        assert_eq!(lines(&path).len(), 1 + header);
        // as logrotate does with copytruncate
        std::fs::write(&path, "").unwrap();
        receivers.tell(&part(7, "b.png"), &image());
        wait("a line", || only(&receivers).sent == 3);
        let after = lines(&path);
        assert_eq!(after.len(), 1 + header);
        if ending == "jsonl" {
            assert_eq!(
                serde_json::from_str::<Part>(&after[0]).unwrap(),
                *part(7, "b.png")
            );
        }
        receivers.stop(PATIENCE);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn images_are_sorted_by_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let sorted = folder.path().join("in/sorted");
    let receivers = Receivers::start(&ReceiverOptions {
        sorted: Some(sorted.clone()),
        ..ReceiverOptions::default()
    })
    .unwrap();
    for (id, name, content) in [
        (1, "../../../escaped.png", "one"),
        (2, "day/a.png", "two"),
        (4, "a.png", "four"),
        (8, "a.png", "eight"),
    ] {
        receivers.tell(&part(id, name), &Arc::from(content.as_bytes()));
    }
    let counts = receivers.stop(PATIENCE);
    assert_eq!((counts[0].sent, counts[0].failed), (4, 0));
    let read = |name: &str| std::fs::read_to_string(sorted.join(name)).unwrap();
    assert_eq!(read("good/__/__/__/escaped.png"), "one");
    assert_eq!(read("flaw/unknown/day/a.png"), "two");
    assert_eq!(read("flaw/scratch/a.png"), "four");
    assert_eq!(read("flaw/scratch/a~2.png"), "eight");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn no_secret_is_logged() {
    let (listener, url) = listen();
    let (nobody, _) = listen();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let requests = serve(listener, &["500 No", "401 No"]);
    let said = Said::default();
    let theirs = said.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || theirs.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let options = ReceiverOptions {
        mqtt: Some(format!("mqtt://me:s3cret@{address}/line").as_str().into()),
        ..hook(
            &url.replace("http://", "http://me:s3cret@")
                .replace("key=1", "key=s3cret"),
        )
    };
    let receivers = Receivers::start(&options).unwrap();
    receivers.tell(&part(1, "a.png"), &image());
    for _ in 0..2 {
        requests.recv_timeout(PATIENCE).unwrap();
    }
    wait("a refusal", || receivers.counts()[0].failed == 1);
    let counts = receivers.stop(Duration::ZERO);
    let said = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
    assert!(said.contains("a verdict is refused"), "{said}");
    for text in [said, format!("{counts:?} {options:?}")] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}
