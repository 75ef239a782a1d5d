//! The Open Inference Protocol.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flawtune::Image;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Server, images};

#[test]
fn every_way_of_sending_an_image_says_the_same() {
    let data = TempDir::new().unwrap();
    let server = Server::start(data.path());
    server.fitted(6);
    server.get("/v2/health/live").is(200);
    server.get("/v2/health/ready").is(200);
    let model = server.get("/v2/models/gravel").is(200);
    assert_eq!(model["inputs"][0]["name"], "image");
    server.get("/v2/models/gravel/ready").is(200);
    server.get("/v2/models/gone").is_refused(404);

    let paths = images("test/hole", 2);
    let expected: Vec<Value> = server
        .predict(&paths)
        .iter()
        .map(|p| p["score"].clone())
        .collect();
    let files: Vec<Vec<u8>> = paths.iter().map(|p| fs::read(p).unwrap()).collect();
    let infer = "/v2/models/gravel/infer";
    let scores = |answer: &Value| {
        let outputs = answer["outputs"].as_array().unwrap();
        let score = outputs.iter().find(|o| o["name"] == "score").unwrap();
        score["data"].as_array().unwrap().clone()
    };

    let texts: Vec<String> = files.iter().map(|f| STANDARD.encode(f)).collect();
    let body = json!({"id": "7", "inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": texts}]});
    let answer = server.post(infer, body).is(200);
    assert_eq!(
        (scores(&answer), &answer["id"]),
        (expected.clone(), &json!("7"))
    );

    // files as they are, behind the JSON; the score comes back the same way
    let mut bytes = Vec::new();
    for file in &files {
        bytes.extend((file.len() as u32).to_le_bytes());
        bytes.extend(file);
    }
    let header = json!({
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": bytes.len()}}],
        "outputs": [{"name": "score", "parameters": {"binary_data": true}}, {"name": "map"}],
    });
    let header = serde_json::to_vec(&header).unwrap();
    let mut server = server;
    server.headers = vec![(
        "inference-header-content-length".into(),
        header.len().to_string(),
    )];
    let answer = server.send(
        "POST",
        infer,
        "application/octet-stream",
        &[header, bytes].concat(),
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    let length = answer.headers["inference-header-content-length"]
        .to_str()
        .unwrap();
    let (head, tail) = answer.body.split_at(length.parse().unwrap());
    let head: Value = serde_json::from_slice(head).unwrap();
    assert_eq!(head["outputs"].as_array().unwrap().len(), 2);
    let came: Vec<Value> = tail
        .chunks_exact(8)
        .map(|b| json!(f64::from_le_bytes(b.try_into().unwrap())))
        .collect();
    assert_eq!(came, expected);
    server.headers.clear();

    // pixels
    let image = Image::open(&paths[0]).unwrap();
    let shape = [1, image.height(), image.width(), 3];
    let body = json!({"inputs": [{"name": "image", "datatype": "UINT8", "shape": shape, "data": image.pixels()}],
                      "outputs": [{"name": "score"}]});
    assert_eq!(
        scores(
            &server
                .send(
                    "POST",
                    infer,
                    "application/json",
                    &serde_json::to_vec(&body).unwrap()
                )
                .is(200)
        )[0],
        expected[0]
    );

    for body in [
        json!({}),
        json!({"inputs": []}),
        json!({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["bm8="]}]}),
        json!({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [texts[0]]}], "outputs": [{"name": "other"}]}),
    ] {
        let answer = server.post(infer, body);
        assert!((400..500).contains(&answer.status), "{}", answer.text());
    }
}

#[test]
fn what_is_offered_is_described() {
    let data = TempDir::new().unwrap();
    let server = Server::start(data.path());
    let described = server.get("/api/openapi.json").is(200);
    let paths = described["paths"].as_object().unwrap();
    assert!(paths.len() > 20, "{}", paths.len());
    assert!(paths.contains_key("/api/detectors/{name}/predict"));
}
