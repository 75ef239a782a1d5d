//! From good images to a detector that was taught, and back.

use std::fs;
use std::path::Path;

use flawtune::{Detector, Image};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Server, images};

/// A white square in the middle, as large as a person may draw it: smaller than the image, in its shape.
fn mask() -> String {
    use base64::Engine as _;
    let mut mask = image::GrayImage::new(64, 64);
    for (x, y) in (24..40).flat_map(|x| (24..40).map(move |y| (x, y))) {
        mask.put_pixel(x, y, image::Luma([255]));
    }
    let mut bytes = std::io::Cursor::new(Vec::new());
    mask.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    base64::engine::general_purpose::STANDARD.encode(bytes.into_inner())
}

#[test]
fn a_detector_is_made_taught_and_taken_back_and_outlives_the_server() {
    let data = TempDir::new().unwrap();
    let server = Server::start(data.path());
    server.fitted(16);
    let detail = server.get("/api/detectors/gravel").is(200);
    assert_eq!(
        (&detail["state"], &detail["version"]),
        (&json!("ready"), &json!(1))
    );
    assert!(!detail["about"].as_array().unwrap().is_empty());
    assert!(!detail["oddest"].as_array().unwrap().is_empty());

    // what the server says is what the file says, to the last bit
    let flawed = images("test/hole", 6);
    let said = server.predict(&flawed);
    let file = data.path().join("file.flaw");
    fs::write(&file, server.get("/api/detectors/gravel/file").body).unwrap();
    let detector = Detector::open(&file).unwrap();
    for (path, said) in flawed.iter().zip(&said) {
        let found = detector.predict(&Image::open(path).unwrap()).unwrap();
        assert_eq!(said["score"].as_f64(), Some(found.score));
        assert_eq!(said["probability"].as_f64(), Some(found.probability));
        assert_eq!(said["flaw"], found.flaw);
        let places = said["regions"].as_array().unwrap();
        assert_eq!(places.len(), found.regions.len());
        for (place, region) in places.iter().zip(&found.regions) {
            assert_eq!(place["left"], region.left);
            assert_eq!(place["area"], region.area);
        }
    }

    // what it was compared with is a good image that lies here
    let alike = server
        .get(&format!("/api/parts/{}/nearest", said[0]["part"]))
        .is(200);
    assert_eq!(alike["kept"], true, "{alike}");
    let good = server.get("/api/detectors/gravel/good").is(200);
    let good = good["images"].as_array().unwrap();
    assert!(
        good.iter()
            .any(|image| image["content"] == alike["content"])
    );
    let there = &alike["there"];
    let right = there["left"].as_f64().unwrap() + there["width"].as_f64().unwrap();
    assert!(
        right <= alike["size"][1].as_f64().unwrap() + 1e-6,
        "{alike}"
    );

    // judged: flaws with a kind, one of them drawn, and a good part; then one is said otherwise
    for part in &said[..3] {
        server.judge(part, Some("hole"));
    }
    let body = json!({"part": said[3]["part"], "label": "flaw", "kind": "hole", "mask": mask()});
    let drawn = server
        .post("/api/detectors/gravel/judgements", body)
        .is(201);
    assert_eq!(drawn["judgement"]["mask"], true);
    let good = server.predict(&images("test/good", 2));
    assert_eq!(server.judge(&good[0], None)["pending"], 5);
    assert_eq!(server.judge(&said[0], Some("dent"))["pending"], 5);
    let scores = server.get("/api/detectors/gravel/threshold").is(200);
    assert_eq!(scores["judged"]["flaw"].as_array().unwrap().len(), 4);

    let job = server
        .post("/api/detectors/gravel/learn", json!({"force": true}))
        .is(202);
    let job = server.job(job);
    assert_eq!(job["state"], "done", "{job}");
    assert_eq!(job["result"]["version"], 2);
    assert_eq!(
        (&job["result"]["good"], &job["result"]["defects"]),
        (&json!(1), &json!(4))
    );
    let detail = server.get("/api/detectors/gravel").is(200);
    assert_eq!(detail["pending"], 0);
    assert_eq!(detail["defects"], 4);
    assert_eq!(detail["kinds"], json!(["dent", "hole"]));
    // the table counts what the version that learned it says
    let part = server
        .get(&format!("/api/parts/{}", said[1]["part"]))
        .is(200);
    assert_eq!(part["judgement"]["learned"], 2);
    assert_eq!(part["judgement"]["kind"], "hole");

    another_threshold(&server, &flawed[0], &said[0]);

    // a judgement that was learned is withdrawn: the next lesson begins at the first version
    let id = &drawn["judgement"]["id"];
    let left = server
        .send("DELETE", &format!("/api/judgements/{id}"), "", b"")
        .is(200);
    assert_eq!(left["pending"], 1);
    let job = server
        .post("/api/detectors/gravel/learn", json!({"force": true}))
        .is(202);
    let job = server.job(job);
    assert_eq!(job["result"]["defects"], 3, "{job}");
    let again = server.get("/api/detectors/gravel/versions").is(200);
    server.end();

    // everything is there after the next start
    let server = Server::start(data.path());
    assert_eq!(server.get("/api/detectors/gravel/versions").is(200), again);
    let parts = server.get("/api/detectors/gravel/parts?limit=100").is(200);
    assert_eq!(parts["counts"]["parts"], 11);
    assert_eq!(parts["parts"].as_array().unwrap().len(), 11);
    exported(&server);
}

/// Another threshold is a version; an older one comes back.
fn another_threshold(server: &Server, flawed: &Path, said: &Value) {
    let predict = || server.predict(&[flawed.to_owned()]);
    let version = server
        .post("/api/detectors/gravel/threshold", json!({"value": 1e9}))
        .is(200);
    assert_eq!(
        (&version["version"], &version["kind"]),
        (&json!(3), &json!("threshold"))
    );
    assert_eq!(predict()[0]["flaw"], false);
    server
        .post("/api/detectors/gravel/threshold", json!({"value": -1e9}))
        .is(200);
    assert_eq!(predict()[0]["flaw"], true);
    server
        .post("/api/detectors/gravel/rollback", json!({"version": 1}))
        .is(200);
    assert_eq!(predict()[0]["score"], said["score"]);
    server
        .post("/api/detectors/gravel/rollback", json!({"version": 9}))
        .is(404);
    server
        .post("/api/detectors/gravel/rollback", json!({"version": 2}))
        .is(200);
}

/// Judgements leave as folders, as COCO and as a table.
fn exported(server: &Server) {
    let export = |format: &str| {
        let answer = server.get(&format!("/api/detectors/gravel/export?format={format}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    };
    let table = export("csv").text();
    assert_eq!(table.lines().count(), 1 + 4, "{table}");
    let names = |bytes: Vec<u8>| {
        let archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
        let mut names: Vec<String> = archive
            .file_names()
            .map(|name| name.unwrap().into_owned())
            .collect();
        names.sort();
        names
    };
    let folders = names(export("mvtec").body);
    let inside = |start: &str| folders.iter().filter(|n| n.starts_with(start)).count();
    assert_eq!(inside("train/good/"), 16, "{folders:?}");
    assert_eq!(
        (
            inside("test/good/"),
            inside("test/hole/"),
            inside("test/dent/")
        ),
        (1, 2, 1)
    );
    let coco = names(export("coco").body);
    assert!(coco.contains(&"annotations.json".to_owned()), "{coco:?}");
    assert_eq!(coco.len(), 5);
    server
        .get("/api/detectors/gravel/export?format=exe")
        .is_refused(400);
}

#[test]
fn what_cannot_be_done_is_said() {
    let data = TempDir::new().unwrap();
    let server = Server::start(data.path());
    for name in ["", "../up", ".hidden", "a b", "a/b", &"x".repeat(65)] {
        server
            .post("/api/detectors", json!({"name": name}))
            .is_refused(400);
    }
    server
        .post("/api/detectors", json!({"name": "gravel"}))
        .is(201);
    server
        .post("/api/detectors", json!({"name": "gravel"}))
        .is_refused(409);
    server.get("/api/detectors/gone").is_refused(404);
    server
        .form("/api/detectors/gravel/predict", &images("test/good", 1))
        .is_refused(409);
    let job = server.post("/api/detectors/gravel/fit", json!({})).is(202);
    let job = server.job(job);
    assert_eq!(job["state"], "failed");
    assert!(
        job["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("hand in more"),
        "{job}"
    );

    // files that are no images are named, and the others are taken
    let bad = data.path().join("bad.png");
    fs::write(&bad, b"no image").unwrap();
    let mut files = images("train/good", 6);
    files.push(bad.clone());
    let added = server.form("/api/detectors/gravel/good", &files).is(200);
    assert_eq!(
        (&added["added"], &added["refused"][0]["name"]),
        (&json!(6), &json!("bad.png"))
    );
    let again = server.form("/api/detectors/gravel/good", &files).is(200);
    assert_eq!((&again["added"], &again["known"]), (&json!(0), &json!(6)));
    let job = server.post("/api/detectors/gravel/fit", json!({})).is(202);
    assert_eq!(server.job(job)["state"], "done");

    let results = server.predict(&[bad.clone(), files[0].clone()]);
    assert!(results[0]["error"].as_str().unwrap().contains("bad.png"));
    assert!(results[1]["score"].is_number());
    server
        .send(
            "POST",
            "/api/detectors/gravel/predict",
            "image/png",
            b"no image",
        )
        .is_refused(422);
    server
        .post("/api/detectors/gravel/learn", json!({}))
        .is_refused(409);
    let part = &results[1]["part"];
    for body in [
        json!({"part": part, "label": "good", "kind": "dent"}),
        json!({"part": part, "label": "flaw", "kind": "a/b"}),
        json!({"part": part, "label": "flaw", "mask": "?"}),
        json!({"part": part, "label": "flaw", "mask": "bm8="}),
    ] {
        server
            .post("/api/detectors/gravel/judgements", body)
            .is_refused(400);
    }
    let body = json!({"part": 99, "label": "good"});
    server
        .post("/api/detectors/gravel/judgements", body)
        .is_refused(404);
    for body in [
        json!({}),
        json!({"value": 1, "find": 1}),
        json!({"find": 2}),
    ] {
        server
            .post("/api/detectors/gravel/threshold", body)
            .is_refused(400);
    }
    server
        .post("/api/detectors/gravel/threshold", json!({"find": 0.9}))
        .is_refused(409);
    server
        .send("DELETE", "/api/detectors/gravel", "", b"")
        .is(204);
    server.get("/api/detectors/gravel").is_refused(404);
    assert!(!data.path().join("detectors/gravel").exists());
}

impl crate::client::Answer {
    /// An answer of this status that says what is wrong.
    #[track_caller]
    pub(crate) fn is_refused(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(said) => said["error"].as_str().unwrap().to_owned(),
            Err(_) => self.text(),
        }
    }
}
