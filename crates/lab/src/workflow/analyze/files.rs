//! The table of categories as files, ranked by how much room there is.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use flawtune_backbone::atomic_file;

use super::super::{WorkflowError, writable, write_json};
use super::{Analysis, SimilaritySpread};
use flawtune::report::plot::{Axis, Bar, BarSeries, Chart, Plot, Population, Theme};

/// Bins of a histogram.
const BINS: usize = 40;

/// Most room first; equals by name.
pub fn rank(analyses: &mut [Analysis]) {
    analyses.sort_by(|a, b| {
        b.room()
            .total_cmp(&a.room())
            .then_with(|| a.category.cmp(&b.category))
    });
}

/// The table as Markdown: a row a category, a second one with adaptation.
pub fn markdown(analyses: &[Analysis]) -> String {
    let mut out = String::from(
        "| category | | room | AUROC | separability | μ_NN ± σ | μ_ND ± σ | overlap | normal, defect images |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for analysis in analyses {
        let mut row = |name: &str, which: &str, room: String, s: &SimilaritySpread| {
            let _ = writeln!(
                out,
                "| {name} | {which} | {room} | {:.4} | {:.3} | {:.4} ± {:.4} | {:.4} ± {:.4} | {:.3} | {}, {} |",
                s.auroc,
                s.separability,
                s.mu_nn,
                s.sigma_nn,
                s.mu_nd,
                s.sigma_nd,
                s.overlap,
                analysis.normals,
                analysis.defects
            );
        };
        row(
            &analysis.category,
            "zero-shot",
            format!("{:.4}", analysis.room()),
            &analysis.zero_shot,
        );
        if let Some(adapted) = &analysis.adapted {
            row("", "adapted", String::new(), adapted);
        }
    }
    out.push_str(
        "\nTest images outside the pool. Room: 1 − AUROC of the untouched model, each normal image against the other \
         normal ones. Overlap: share of pairs in which a normal–defect similarity is the larger. The table describes test \
         images: a method chosen by it needs other images to be measured on.\n",
    );
    out
}

/// Writes `similarity.json`, `similarity.csv`, `similarity.md` and into `plots/` a histogram a category and the room of
/// all; returns what was written.
///
/// # Errors
/// A folder that cannot be written.
pub fn write_analyses(folder: &Path, analyses: &[Analysis]) -> Result<Vec<PathBuf>, WorkflowError> {
    let plots = folder.join("plots");
    writable(&plots)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| WorkflowError::Io {
            path,
            source,
            hint: "choose another `output_dir` or make room",
        }
    };
    let json = folder.join("similarity.json");
    write_json(&json, &analyses)?;
    let csv = folder.join("similarity.csv");
    let rows = table(analyses).map_err(failed(&csv))?;
    atomic_file::write(&csv, &rows).map_err(failed(&csv))?;
    let text = folder.join("similarity.md");
    atomic_file::write(&text, markdown(analyses).as_bytes()).map_err(failed(&text))?;
    let mut written = vec![json, csv, text];
    let mut draw = |name: String, plot: &Plot| {
        let path = plots.join(name);
        plot.save(&path, Theme::Light).map_err(failed(&path))?;
        written.push(path);
        Ok::<(), WorkflowError>(())
    };
    for analysis in analyses {
        draw(
            format!("{}_similarities.svg", analysis.category),
            &histogram(analysis, "zero-shot", &analysis.zero_shot),
        )?;
        if let Some(adapted) = &analysis.adapted {
            draw(
                format!("{}_similarities_adapted.svg", analysis.category),
                &histogram(analysis, "adapted", adapted),
            )?;
        }
    }
    draw("room.svg".to_owned(), &room(analyses))?;
    Ok(written)
}

fn table(analyses: &[Analysis]) -> std::io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "category",
        "features",
        "room",
        "auroc",
        "separability",
        "mu_nn",
        "sigma_nn",
        "mu_nd",
        "sigma_nd",
        "overlap",
        "normals",
        "defects",
        "seed",
    ])?;
    for a in analyses {
        let adapted = a.adapted.as_ref().map(|s| ("adapted", s));
        for (which, s) in std::iter::once(("zero_shot", &a.zero_shot)).chain(adapted) {
            let numbers = [
                1.0 - s.auroc,
                s.auroc,
                s.separability,
                s.mu_nn,
                s.sigma_nn,
                s.mu_nd,
                s.sigma_nd,
                s.overlap,
            ];
            let row = [a.category.clone(), which.to_owned()].into_iter();
            let row = row.chain(numbers.map(|v| v.to_string()));
            let counts = [
                a.normals.to_string(),
                a.defects.to_string(),
                a.seed.to_string(),
            ];
            writer.write_record(row.chain(counts))?;
        }
    }
    writer.into_inner().map_err(csv::IntoInnerError::into_error)
}

fn histogram(analysis: &Analysis, which: &str, spread: &SimilaritySpread) -> Plot {
    let population = |name: &str, values: &[f64]| Population {
        name: name.to_owned(),
        values: values.to_vec(),
    };
    Plot::new(
        format!(
            "{}: image similarities, {which} (separability {:.2})",
            analysis.category, spread.separability
        ),
        Axis::new("similarity of two images"),
        Axis::new("share of pairs").unit("%"),
        Chart::Histogram {
            populations: vec![
                population("normal to normal", &spread.nn),
                population("normal to defect", &spread.nd),
            ],
            bins: BINS,
            threshold: None,
        },
    )
}

fn room(analyses: &[Analysis]) -> Plot {
    let series = |name: &str, of: &dyn Fn(&Analysis) -> Option<f64>| BarSeries {
        name: name.to_owned(),
        bars: analyses
            .iter()
            .map(|a| {
                of(a).map(|value| Bar {
                    value,
                    interval: None,
                })
            })
            .collect(),
    };
    let mut all = vec![series("zero-shot", &|a| Some(a.room()))];
    if analyses.iter().any(|a| a.adapted.is_some()) {
        all.push(series("adapted", &|a| {
            a.adapted.as_ref().map(|s| 1.0 - s.auroc)
        }));
    }
    Plot::new(
        "Room: what the nearest normal image leaves unseen",
        Axis::new("1 − AUROC"),
        Axis::new("category"),
        Chart::Bars {
            labels: analyses.iter().map(|a| a.category.clone()).collect(),
            series: all,
            guide: None,
        },
    )
}
