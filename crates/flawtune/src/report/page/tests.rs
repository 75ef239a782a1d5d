use super::numbers::{number, plain};
use super::{
    Cell, Comparison, Estimate, Example, Gallery, Page, Picture, RunReport, SplitPart, Table,
    TypeResult,
};
use crate::report::plot::{Line, Plot, Population};

fn full() -> RunReport {
    let nasty = "<script>alert('x')</script> & \"quotes\" https://example.org/x.png".to_owned();
    RunReport {
        title: nasty.clone(),
        summary: nasty.clone(),
        warnings: vec![nasty.clone()],
        headline: vec![Comparison {
            metric: "AUROC".to_owned(),
            zero_shot: Estimate::with_interval(0.714, 0.62, 0.79),
            adapted: Estimate {
                value: Some(0.889),
                interval: Some([0.82, 0.94]),
                deviation: Some(0.012),
            },
            difference: Estimate::with_interval(0.175, 0.09, 0.26),
            p_value: Some(0.0004),
            method: "95 % paired bootstrap".to_owned(),
        }],
        per_type: vec![
            TypeResult {
                defect_type: "scratch".to_owned(),
                images: 12,
                seen: Some(true),
                zero_shot: Estimate::new(0.6),
                adapted: Estimate::new(f64::NAN),
                found: "2 of 12".to_owned(),
                ..TypeResult::default()
            },
            TypeResult {
                defect_type: nasty.clone(),
                images: 9,
                seen: Some(false),
                zero_shot: Estimate::new(0.6),
                adapted: Estimate::new(0.8),
                ..TypeResult::default()
            },
        ],
        tables: vec![Table {
            title: "T".to_owned(),
            note: nasty.clone(),
            columns: vec!["a".to_owned(), "b".to_owned()],
            rows: vec![
                vec![Cell::Number(1.5)],
                vec![Cell::Number(-2.0), Cell::Text(nasty.clone())],
            ],
        }],
        looks: vec![Gallery {
            title: nasty.clone(),
            note: nasty.clone(),
            examples: vec![],
        }],
        findings: vec![Gallery {
            title: "Found".to_owned(),
            note: String::new(),
            examples: vec![Example {
                path: nasty.clone(),
                verdict: "defect".to_owned(),
                score: Some(0.41),
                pictures: vec![
                    Picture::png("image", b"bytes"),
                    Picture {
                        caption: "bad".to_owned(),
                        data_uri: "https://example.org/x.png".to_owned(),
                    },
                    Picture {
                        caption: "bad".to_owned(),
                        data_uri: "data:image/png;base64,AA\" onload=\"x".to_owned(),
                    },
                ],
            }],
        }],
        curves: vec![Plot::roc(
            nasty.clone(),
            vec![Line::new(nasty.clone(), vec![[0.0, 0.0], [1.0, 1.0]])],
        )],
        histograms: vec![Plot::scores(
            "Scores",
            vec![Population {
                name: "good".to_owned(),
                values: vec![0.1, 0.4],
            }],
            Some(0.3),
        )],
        errors: vec![Gallery {
            title: "Missed".to_owned(),
            ..Gallery::default()
        }],
        protocol: "held-out".to_owned(),
        split: vec![SplitPart {
            name: "test".to_owned(),
            images: 2,
            hash: "abc".to_owned(),
            files: vec![nasty.clone()],
        }],
        command: nasty.clone(),
        facts: vec![("seed".to_owned(), "7".to_owned())],
        notes: vec![nasty],
        ..RunReport::default()
    }
}

#[test]
fn nothing_of_the_data_becomes_markup_or_an_address() {
    let page = full().to_html();
    assert_eq!(page.matches("<script>").count(), 1);
    // as text, which no quotation mark ends: attributes stand in double ones
    let shown = "&lt;script&gt;alert('x')&lt;/script&gt; &amp; &quot;quotes&quot;";
    assert_eq!(
        page.matches("alert('x')").count(),
        page.matches(shown).count()
    );
    assert!(!page.contains("onload=\""));
    for attribute in ["src=\"", "href=\""] {
        for rest in page.split(attribute).skip(1) {
            assert!(
                rest.starts_with("data:") || rest.starts_with('#'),
                "{}",
                &rest[..40.min(rest.len())]
            );
        }
    }
    assert_eq!(page.matches("<img ").count(), 1);
    assert_eq!(page.matches("no image").count(), 2);
    assert!(!page.contains("url(") && !page.contains("@import"));
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn numbers_are_shown_with_their_uncertainty() {
    let page = full().to_html();
    for text in [
        "0.889",
        "± 0.012 [0.820, 0.940]",
        "+0.175",
        "p &lt; 0.001",
        "unseen",
        "data-value=\"-2\"",
        "−2",
        "held-out",
        "1.5",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("NaN"));
    assert_eq!(number(-0.0001, 3), "0.000");
    assert_eq!(plain(12.0), "12");
    assert_eq!(plain(100.0), "100");
    assert_eq!(plain(f64::NAN), "–");
}

#[test]
fn elements_are_balanced_and_empty_parts_left_out() {
    for report in [full(), RunReport::default()] {
        let page = report.to_html();
        for element in [
            "div", "section", "table", "figure", "p", "ul", "li", "details", "svg", "tr", "td",
            "th", "code", "main", "header",
        ] {
            let open = page.matches(&format!("<{element} ")).count()
                + page.matches(&format!("<{element}>")).count();
            assert_eq!(
                open,
                page.matches(&format!("</{element}>")).count(),
                "{element}"
            );
        }
        assert_eq!(page, report.to_html());
    }
    assert!(!RunReport::default().to_html().contains("<section"));
}

#[test]
fn reports_round_trip_through_json() {
    let mut report = full();
    // JSON has no NaN: an absent value is `None`
    report.per_type[0].adapted.value = None;
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<RunReport>(&text).unwrap(), report);
    assert_eq!(
        serde_json::from_str::<RunReport>("{}").unwrap(),
        RunReport::default()
    );
}

#[test]
fn several_runs_have_ids_of_their_own_and_leaky_numbers_are_marked() {
    let marked = RunReport {
        mark: "leaky".to_owned(),
        ..full()
    };
    let page = Page {
        title: "2 runs".to_owned(),
        runs: vec![full(), marked],
        ..Page::default()
    }
    .to_html();
    let ids: Vec<&str> = page
        .split(" id=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    let distinct: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(distinct.len(), ids.len(), "{ids:?}");
    assert!(ids.contains(&"run-1-result") && ids.contains(&"run-2-repeat"));
    assert_eq!(page.matches("<h1>").count(), 1);
    // of the second run only: three numbers in its tile, one and three of its types (of the first only one is a number),
    // the score of its example
    let marks = |page: &str| page.matches("<span class=\"mark\">leaky</span>").count();
    let second = &page[page.find("id=\"run-2\"").unwrap()..];
    assert_eq!((marks(&page), marks(second)), (3 + 4 + 1, 3 + 4 + 1));
    // a scorer without a baseline is not compared with one
    let comparison = Comparison {
        metric: "AUROC".to_owned(),
        adapted: Estimate::with_interval(0.9, 0.8, 0.95),
        ..Comparison::default()
    };
    let alone = RunReport {
        headline: vec![comparison],
        ..RunReport::default()
    }
    .to_html();
    assert!(alone.contains("[0.800, 0.950]") && !alone.contains("zero-shot"));
}
