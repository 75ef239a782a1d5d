//! One page about finished runs, from the files that the commands left.
//!
//! Reading and formatting only: every number is in those files, or comes from `evaluate`'s functions on their scores.

mod build;
mod files;
mod looks;
mod pictures;
mod read;
mod recorded;
mod scorers;
mod together;

use std::path::{Path, PathBuf};

use serde::Serialize;

use self::files::RunFiles;
use self::pictures::Pictures;
use super::{Event, OnEvent, WorkflowError, folder_of, writable_or};
use flawtune::report::page::{Page, RunReport};
use flawtune::report::plot::{Plot, PlotError, Theme};

/// A page may have at most this many bytes; its images alone at most 8 MiB before base64.
pub const MOST_PAGE_BYTES: usize = 24 << 20;

/// What a page is made from.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct ReportRequest {
    /// Run folders (with all their categories), …_comparison.json files or checkpoints; several are put side by side
    #[cfg_attr(feature = "clap", arg(value_name = "RUN", required = true))]
    pub runs: Vec<PathBuf>,
    /// The page
    #[cfg_attr(
        feature = "clap",
        arg(long, short, value_name = "FILE", default_value = "report.html")
    )]
    pub output: PathBuf,
    /// Heading of the page [default: what it is about]
    #[cfg_attr(feature = "clap", arg(long, value_name = "TEXT"))]
    pub title: Option<String>,
    /// Paragraph below the heading, in place of one that says what the page is about
    #[cfg_attr(feature = "clap", arg(long, value_name = "TEXT"))]
    pub introduction: Option<String>,
    /// Folder that holds the categories now [default: where run.json says they were]
    #[cfg_attr(feature = "clap", arg(long, value_name = "DIR"))]
    pub root_dir: Option<PathBuf>,
    /// Folder of 'predict --maps', for overlays [default: where run.json says, or maps in the run folder]
    #[cfg_attr(feature = "clap", arg(long, value_name = "DIR"))]
    pub maps: Option<PathBuf>,
    /// Images at most in each row of examples
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = 10, value_parser = flawtune::values::count(1..=10)))]
    pub thumbnails: usize,
    /// No images, and none is looked for
    #[cfg_attr(feature = "clap", arg(long, conflicts_with_all = ["thumbnails", "maps", "root_dir"]))]
    pub no_thumbnails: bool,
    /// Write every plot as a file into this folder too
    #[cfg_attr(feature = "clap", arg(long, value_name = "DIR"))]
    pub plots: Option<PathBuf>,
    /// Kind of these files
    #[cfg_attr(
        feature = "clap",
        arg(
            long,
            value_name = "FORMAT",
            value_enum,
            default_value_t,
            requires = "plots"
        )
    )]
    pub plot_format: PlotFormat,
}

impl ReportRequest {
    /// Images at most in a row of examples.
    fn thumbnails(&self) -> usize {
        if self.no_thumbnails {
            0
        } else {
            self.thumbnails
        }
    }
}

/// Kind of plot files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum PlotFormat {
    /// Drawings that scale
    #[default]
    Svg,
    /// Pixels, at twice the drawings' size
    Png,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reported {
    /// The page.
    pub page: PathBuf,
    /// Its size.
    pub bytes: usize,
    /// Categories on it, in order, each with the folder of its run.
    pub runs: Vec<(String, PathBuf)>,
    /// Plots written as files.
    pub plots: Vec<PathBuf>,
}

/// Reads the runs and writes their page, whole or not at all.
///
/// # Errors
/// A run without results, a file of it that is damaged, a page or plot that cannot be written.
pub fn report(request: &ReportRequest, on_event: OnEvent<'_>) -> Result<Reported, WorkflowError> {
    let mut found: Vec<RunFiles> = Vec::new();
    for run in &request.runs {
        for files in files::find(run)? {
            // a run named twice, by its folder and by one of its files, is one run
            if !found.contains(&files) {
                found.push(files);
            }
        }
    }
    if request.output.is_dir() {
        return Err(WorkflowError::Input(format!(
            "{}: is a folder\nhint: name a file in it with `output`",
            request.output.display()
        )));
    }
    let folder = folder_of(&request.output);
    writable_or(folder, "choose a place that can be written with `output`")?;
    let several = found.iter().any(|f| f.category != found[0].category);
    let mut room = pictures::MOST_BYTES;
    let (mut runs, mut data) = (Vec::new(), Vec::new());
    for files in found {
        let read = read::read(files)?;
        let records = recorded::records(&read.files.folder, &read.files.category)?;
        let one = one(request, &read, &records, several, &mut room)?;
        for text in one.warnings.iter().chain(&one.notes) {
            on_event(Event::Warning(text.clone()));
        }
        runs.push(one);
        data.push(read);
    }
    let mut page = together::page(runs, &data)?;
    entitle(&mut page, request);
    if page.runs.len() > 1 {
        for text in &page.warnings {
            on_event(Event::Warning(text.clone()));
        }
    }
    let html = page.to_html();
    if html.len() > MOST_PAGE_BYTES {
        return Err(WorkflowError::Input(format!(
            "the page would have {} MiB, and a page has at most {}\nhint: name fewer runs, or leave images out with \
             `no_thumbnails`",
            html.len() >> 20,
            MOST_PAGE_BYTES >> 20
        )));
    }
    let plots = match &request.plots {
        Some(folder) => save_plots(&page, folder, request.plot_format)?,
        None => Vec::new(),
    };
    let failed = |source| WorkflowError::Io {
        path: request.output.clone(),
        source,
        hint: "choose another place with `output`, or make room",
    };
    flawtune_backbone::atomic_file::write(&request.output, html.as_bytes()).map_err(failed)?;
    Ok(Reported {
        page: request.output.clone(),
        bytes: html.len(),
        runs: data
            .into_iter()
            .map(|d| (d.files.category, d.files.folder))
            .collect(),
        plots,
    })
}

/// Heading and first paragraph as asked for; a single run has the page to itself.
fn entitle(page: &mut Page, request: &ReportRequest) {
    let (title, summary) = match &mut page.runs[..] {
        [run] => (&mut run.title, &mut run.summary),
        _ => (&mut page.title, &mut page.summary),
    };
    for (place, text) in [(title, &request.title), (summary, &request.introduction)] {
        if let Some(text) = text {
            place.clone_from(text);
        }
    }
}

fn one(
    request: &ReportRequest,
    data: &read::RunData,
    records: &[flawtune::record::RunRecord],
    several: bool,
    room: &mut usize,
) -> Result<RunReport, WorkflowError> {
    let source = recorded::source(records);
    let mut pictures = Pictures::new(
        &data.files.category,
        source.as_ref(),
        request.root_dir.as_deref(),
        room,
    );
    if request.thumbnails() > 0 {
        let beside = data.files.folder.join("maps");
        let recorded = recorded::maps(records);
        // what `evaluate` drew is of this category alone
        let own = request.maps.is_none() && recorded.as_ref().is_some_and(|r| r.own);
        let maps = request
            .maps
            .clone()
            .or_else(|| recorded.map(|r| r.folder))
            .unwrap_or(beside);
        // a folder that was named has to be there
        if maps.is_dir() || request.maps.is_some() {
            let scores = data.predictions.iter().chain(&data.scores);
            let ids: std::collections::BTreeSet<String> =
                scores.flat_map(|s| s.ids.iter().cloned()).collect();
            let ids: Vec<String> = ids.into_iter().collect();
            pictures.find_overlays(&maps, &ids, several && !own)?;
        }
    }
    build::build(data, records, &mut pictures, request.thumbnails())
}

/// Writes every plot of the page into a folder, named by run and title.
fn save_plots(
    page: &Page,
    folder: &Path,
    format: PlotFormat,
) -> Result<Vec<PathBuf>, WorkflowError> {
    writable_or(folder, "choose a folder that can be written with `plots`")?;
    let mut all: Vec<(String, &Plot)> = Vec::new();
    if page.runs.len() > 1 {
        all.extend(page.curves.iter().map(|plot| ("together".to_owned(), plot)));
    }
    for (i, run) in page.runs.iter().enumerate() {
        let name = if page.runs.len() > 1 {
            format!("{}-{}", i + 1, run.title)
        } else {
            run.title.clone()
        };
        let plots = run
            .curves
            .iter()
            .chain(&run.histograms)
            .chain(&run.training);
        all.extend(plots.map(|plot| (name.clone(), plot)));
    }
    let mut written = Vec::new();
    for (run, plot) in all {
        let name = slug(&format!("{run} {}", plot.title));
        let path = folder.join(format!(
            "{name}.{}",
            if format == PlotFormat::Png {
                "png"
            } else {
                "svg"
            }
        ));
        let result = match format {
            PlotFormat::Svg => plot.save(&path, Theme::Light).map_err(PlotError::from),
            PlotFormat::Png => plot.save_png(&path, Theme::Light),
        };
        result.map_err(|error| match error {
            PlotError::Io(source) => WorkflowError::Io {
                path: path.clone(),
                source,
                hint: "choose another folder with `plots`, or make room",
            },
            other => WorkflowError::Input(format!("{}: {other}", path.display())),
        })?;
        written.push(path);
    }
    Ok(written)
}

/// A title as a file's name: letters and digits of any script, everything else a hyphen.
fn slug(title: &str) -> String {
    let mut name = String::new();
    for c in title.chars() {
        if c.is_alphanumeric() || c == '_' {
            name.extend(c.to_lowercase());
        } else if !name.ends_with('-') && !name.is_empty() {
            name.push('-');
        }
    }
    name.trim_end_matches('-').chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_become_names() {
        assert_eq!(slug("flange (out) ROC: prompts"), "flange-out-roc-prompts");
        assert_eq!(slug("../a\\b/<script> ε"), "a-b-script-ε");
    }
}
