//! Image and pixel metrics against scikit-learn's numbers and the exact AUPRO of the golden files.

#![allow(clippy::unwrap_used)] // a test may stop

use flawtune::evaluate::metrics::{
    PixelImage, aupro, auroc, average_precision, f1_max, pixel_metrics, pr_curve, pro_curve,
    roc_curve, roc_curve_corners,
};
use flawtune_testing::{Golden, golden_json};
use serde_json::Value;

/// Both sides are f64 sums of at most a few thousand terms of size one.
const ROUNDING: f64 = 1e-12;
/// The reference averages regions in another order.
const AUPRO_ROUNDING: f64 = 1e-10;

/// A number, or "nan" / "inf" spelled out.
fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn close(name: &str, got: f64, want: f64, tolerance: f64) {
    let same = got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= tolerance;
    assert!(same, "{name}: {got} for {want}");
}

fn all_close(name: &str, got: &[f64], want: &Value) {
    let want = numbers(want);
    assert_eq!(got.len(), want.len(), "{name}: points");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        close(&format!("{name}[{i}]"), *g, w, ROUNDING);
    }
}

#[test]
fn image_metrics_equal_scikit_learn() {
    let file = golden_json("metrics/image_metrics.json");
    let cases = file["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let labels: Vec<bool> = numbers(&case["labels"])
            .into_iter()
            .map(|l| l == 1.0)
            .collect();
        let scores = numbers(&case["scores"]);

        let got = auroc(&labels, &scores).unwrap();
        close(
            &format!("{name} AUROC"),
            got.unwrap_or(f64::NAN),
            number(&case["auroc"]),
            ROUNDING,
        );
        let got = average_precision(&labels, &scores).unwrap();
        close(
            &format!("{name} AP"),
            got,
            number(&case["average_precision"]),
            ROUNDING,
        );

        let point = f1_max(&labels, &scores).unwrap();
        close(
            &format!("{name} F1"),
            point.f1,
            number(&case["f1_max"]),
            ROUNDING,
        );
        close(
            &format!("{name} threshold"),
            point.threshold,
            number(&case["f1_max_threshold"]),
            0.0,
        );
        close(
            &format!("{name} precision"),
            point.precision,
            number(&case["f1_max_precision"]),
            ROUNDING,
        );
        close(
            &format!("{name} recall"),
            point.recall,
            number(&case["f1_max_recall"]),
            ROUNDING,
        );

        for (key, curve) in [
            ("roc", roc_curve(&labels, &scores).unwrap()),
            (
                "roc_drop_intermediate",
                roc_curve_corners(&labels, &scores).unwrap(),
            ),
        ] {
            all_close(&format!("{name} {key} fpr"), &curve.fpr, &case[key]["fpr"]);
            all_close(&format!("{name} {key} tpr"), &curve.tpr, &case[key]["tpr"]);
            all_close(
                &format!("{name} {key} thresholds"),
                &curve.thresholds,
                &case[key]["thresholds"],
            );
        }
        let curve = pr_curve(&labels, &scores).unwrap();
        all_close(
            &format!("{name} precision"),
            &curve.precision,
            &case["pr_curve"]["precision"],
        );
        all_close(
            &format!("{name} recall"),
            &curve.recall,
            &case["pr_curve"]["recall"],
        );
        all_close(
            &format!("{name} thresholds"),
            &curve.thresholds,
            &case["pr_curve"]["thresholds"],
        );
    }
}

#[test]
fn pixel_metrics_and_aupro_equal_the_exact_reference() {
    let golden = Golden::open("metrics/aupro.safetensors");
    let tensors = golden.tensors();
    let file = golden_json("metrics/aupro.json");
    let cases = file["cases"].as_object().unwrap();
    assert!(!cases.is_empty());
    for (name, case) in cases {
        let mask = tensors.tensor(&format!("{name}.mask")).unwrap();
        let map = tensors.tensor(&format!("{name}.score")).unwrap();
        let &[count, height, width] = map.shape() else {
            panic!("{name}: maps are [images, height, width]")
        };
        assert_eq!(mask.shape(), map.shape());
        let scores: Vec<f32> = map
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        let pixels = height * width;
        let images: Vec<PixelImage<'_>> = (0..count)
            .map(|i| {
                let mask = &mask.data()[i * pixels..][..pixels];
                PixelImage {
                    width,
                    height,
                    // a normal image may come without a mask: both must mean the same
                    mask: mask.iter().any(|m| *m != 0).then_some(mask),
                    map: &scores[i * pixels..][..pixels],
                }
            })
            .collect();

        for (key, want) in case.as_object().unwrap() {
            let name = format!("{name} {key}");
            if let Some(limit) = key.strip_prefix("aupro_") {
                let got = aupro(&images, limit.parse().unwrap()).unwrap();
                assert_eq!(got.is_none(), want.is_null(), "{name}: defined or not");
                if let Some(got) = got {
                    close(&name, got, number(want), AUPRO_ROUNDING);
                }
            }
        }
        let pixel = pixel_metrics(&images).unwrap();
        if let Some(want) = case.get("pixel_auroc").filter(|v| !v.is_null()) {
            close(
                &format!("{name} pixel AUROC"),
                pixel.auroc.unwrap(),
                number(want),
                ROUNDING,
            );
        }
        if let Some(want) = case.get("pixel_ap").filter(|v| !v.is_null()) {
            close(
                &format!("{name} pixel AP"),
                pixel.average_precision,
                number(want),
                ROUNDING,
            );
        }
        if let Ok(want) = tensors.tensor(&format!("{name}.curve_fpr")) {
            let curve = pro_curve(&images).unwrap().unwrap();
            let pro = tensors.tensor(&format!("{name}.curve_pro")).unwrap();
            for (what, got, want) in [("fpr", &curve.fpr, want), ("pro", &curve.pro, pro)] {
                let want = floats(want.dtype(), want.data());
                assert_eq!(got.len(), want.len(), "{name} {what}: points");
                let widest = got
                    .iter()
                    .zip(&want)
                    .map(|(g, w)| (g - w).abs())
                    .fold(0.0, f64::max);
                // the curve may be stored in f32
                assert!(widest < 1e-7, "{name} {what}: differs by {widest}");
            }
        }
    }
}

fn floats(dtype: safetensors::Dtype, data: &[u8]) -> Vec<f64> {
    match dtype {
        safetensors::Dtype::F64 => data
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
            .collect(),
        safetensors::Dtype::F32 => data
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
            .collect(),
        other => panic!("curves are floats, not {other:?}"),
    }
}
