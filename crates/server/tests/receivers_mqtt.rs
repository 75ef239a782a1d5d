//! Verdicts arrive at a broker, also where it goes away and comes back.

#![allow(clippy::unwrap_used)] // a test may stop
#![allow(clippy::print_stdout)] // a skipped check says so by name

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use flawtune_server::receivers::{ReceiverOptions, Receivers};
use flawtune_server::verdict::{Label, Part, Source};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

const PATIENCE: Duration = Duration::from_secs(8);

fn part(id: i64) -> Arc<Part> {
    Arc::new(Part {
        part: id,
        detector: "lids".into(),
        version: 3,
        content: "00".into(),
        // larger than what a client of MQTT sends by default
        name: "a".repeat(20_000),
        source: Source::Post,
        at: 0,
        size: (40, 60),
        score: 0.875,
        probability: 0.25,
        flaw: false,
        verdict: Label::Good,
        kind: None,
        drift: 0.0,
        doubt: 0.5,
        threshold: 0.75,
        regions: Vec::new(),
        judgement: None,
        kept: true,
    })
}

/// A broker on this machine.
struct Broker {
    process: Child,
    port: u16,
}

impl Broker {
    fn start(folder: &Path, port: u16, extra: &str) -> Self {
        let configuration = folder.join("mosquitto.conf");
        let text = format!("listener {port} 127.0.0.1\nmax_inflight_messages 5\n{extra}\n");
        std::fs::write(&configuration, text).expect("a file");
        let process = Command::new(program().expect("looked for before"))
            .arg("-c")
            .arg(&configuration)
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto starts");
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < PATIENCE, "mosquitto does not listen");
            thread::sleep(Duration::from_millis(10));
        }
        Self { process, port }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn program() -> Option<&'static str> {
    // Debian keeps it where only root's PATH leads
    ["mosquitto", "/usr/sbin/mosquitto"]
        .into_iter()
        .find(|name| {
            let mut program = Command::new(name);
            program
                .arg("-h")
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            program.status().is_ok()
        })
}

fn installed(test: &str) -> bool {
    let found = program().is_some();
    if !found {
        println!("skipped: {test} (mosquitto not installed)");
    }
    found
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// What a client that listens to all is told: topic, payload, whether it was kept for it.
fn listen(options: MqttOptions) -> (Client, Receiver<(String, String, bool)>) {
    let (client, mut connection) = Client::new(options, 10);
    let (send, told) = channel();
    let (ready, is_ready) = channel();
    client
        .subscribe("line/#", QoS::AtLeastOnce)
        .expect("asked for");
    thread::spawn(move || {
        for event in connection.iter() {
            match event {
                Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.send(())),
                Ok(Event::Incoming(Packet::Publish(p))) => {
                    let text = String::from_utf8_lossy(&p.payload).into_owned();
                    if send.send((p.topic, text, p.retain)).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    });
    is_ready.recv_timeout(PATIENCE).expect("a subscription");
    (client, told)
}

fn plain(port: u16) -> MqttOptions {
    let mut options = MqttOptions::new("listener", "127.0.0.1", port);
    options.set_max_packet_size(1 << 20, 1 << 20);
    options
}

fn tell(port: u16) -> ReceiverOptions {
    ReceiverOptions {
        mqtt: Some(format!("mqtt://127.0.0.1:{port}/line/1").as_str().into()),
        ..ReceiverOptions::default()
    }
}

fn next(told: &Receiver<(String, String, bool)>) -> (String, String) {
    let (topic, text, _) = told.recv_timeout(PATIENCE).expect("a message");
    (topic, text)
}

fn status(told: &Receiver<(String, String, bool)>, wanted: &str) {
    assert_eq!(next(told), ("line/1/status".into(), wanted.into()));
}

fn verdict(told: &Receiver<(String, String, bool)>) -> Part {
    let (topic, text) = next(told);
    assert_eq!(topic, "line/1/verdicts", "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_broker_is_told_and_knows_who_is_there() {
    if !installed("a_broker_is_told_and_knows_who_is_there") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), free_port(), "allow_anonymous true");
    let (_client, told) = listen(plain(broker.port));
    let receivers = Receivers::start(&tell(broker.port)).unwrap();
    status(&told, "online");
    // more than there is room for on the way, and the broker confirms five at a time
    for id in 0..300 {
        receivers.tell(&part(id), &Arc::from(&b""[..]));
    }
    for id in 0..300 {
        assert_eq!(verdict(&told), *part(id));
    }
    let counts = receivers.stop(PATIENCE);
    assert_eq!((counts[0].sent, counts[0].dropped), (300, 0));
    status(&told, "offline");
    assert_eq!(
        told.recv_timeout(Duration::from_millis(200)),
        Err(RecvTimeoutError::Timeout),
        "the last will came too"
    );
    let mut late = plain(broker.port);
    late.set_client_id("late".into());
    let (_late, late) = listen(late);
    let kept = late.recv_timeout(PATIENCE).unwrap();
    assert_eq!(kept, ("line/1/status".into(), "offline".into(), true));
}

#[test]
fn a_broker_that_goes_and_comes_misses_nothing() {
    if !installed("a_broker_that_goes_and_comes_misses_nothing") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let receivers = Receivers::start(&tell(port)).unwrap();
    receivers.tell(&part(0), &Arc::from(&b""[..]));
    // it comes later than the server
    let broker = Broker::start(folder.path(), port, "allow_anonymous true");
    let start = Instant::now();
    while receivers.counts()[0].sent == 0 {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(10));
    }
    drop(broker);
    for id in 1..=50 {
        receivers.tell(&part(id), &Arc::from(&b""[..]));
    }
    let broker = Broker::start(folder.path(), port, "allow_anonymous true");
    let (_client, told) = listen(plain(broker.port));
    status(&told, "online");
    for id in 1..=50 {
        assert_eq!(verdict(&told).part, id);
    }
    let counts = receivers.stop(PATIENCE);
    assert_eq!((counts[0].sent, counts[0].dropped), (51, 0));
    status(&told, "offline");
}

#[test]
fn a_broker_that_is_away_holds_nobody_up() {
    let receivers = Receivers::start(&tell(free_port())).unwrap();
    for id in 0..3 {
        receivers.tell(&part(id), &Arc::from(&b""[..]));
    }
    let start = Instant::now();
    let counts = receivers.stop(Duration::from_millis(300));
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!((counts[0].sent, counts[0].dropped), (0, 3));
}

#[test]
fn who_knows_no_password_is_not_let_in() {
    if !installed("who_knows_no_password_is_not_let_in") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("passwords");
    let made = Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&passwords)
        .args(["me", "p@ss"])
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    let mode = Command::new("chmod").arg("644").arg(&passwords).status();
    assert!(mode.unwrap().success());
    let reach = Command::new("chmod").arg("755").arg(folder.path()).status();
    assert!(reach.unwrap().success());
    let extra = format!(
        "allow_anonymous false\npassword_file {}",
        passwords.display()
    );
    let broker = Broker::start(folder.path(), free_port(), &extra);
    let start = |login: &str| {
        let url = format!("mqtt://{login}127.0.0.1:{}/line/1", broker.port);
        let receivers = Receivers::start(&ReceiverOptions {
            mqtt: Some(url.as_str().into()),
            ..ReceiverOptions::default()
        })
        .unwrap();
        receivers.tell(&part(1), &Arc::from(&b""[..]));
        receivers
    };
    assert_eq!(start("me:p%40ss@").stop(PATIENCE)[0].sent, 1);
    assert_eq!(start("").stop(Duration::from_millis(500))[0].sent, 0);
    assert_eq!(start("me:no@").stop(Duration::from_millis(500))[0].sent, 0);
}

#[test]
fn a_broker_is_known_by_its_certificate() {
    if !installed("a_broker_is_known_by_its_certificate") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args([
            "-subj",
            "/CN=broker",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(at("key.pem"))
        .arg("-out")
        .arg(at("cert.pem"))
        .stderr(Stdio::null())
        .status();
    if made.is_err() {
        println!("skipped: a_broker_is_known_by_its_certificate (openssl not installed)");
        return;
    }
    for path in [at("."), at("key.pem")] {
        let reach = Command::new("chmod").arg("755").arg(path).status();
        assert!(reach.unwrap().success());
    }
    let extra = format!(
        "allow_anonymous true\ncertfile {}\nkeyfile {}",
        at("cert.pem").display(),
        at("key.pem").display()
    );
    let broker = Broker::start(folder.path(), free_port(), &extra);
    let start = |ca| {
        let url = format!("mqtts://127.0.0.1:{}/line/1", broker.port);
        let receivers = Receivers::start(&ReceiverOptions {
            mqtt: Some(url.as_str().into()),
            mqtt_ca: ca,
            ..ReceiverOptions::default()
        })
        .unwrap();
        receivers.tell(&part(1), &Arc::from(&b""[..]));
        receivers
    };
    assert_eq!(start(Some(at("cert.pem"))).stop(PATIENCE)[0].sent, 1);
    let stranger = start(None).stop(Duration::from_millis(500));
    assert_eq!(stranger[0].sent, 0, "the system does not trust it");
}
