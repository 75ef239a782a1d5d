//! Teaching a detector what people judged.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use flawtune::workflow::{Event, Tally};
use flawtune::{FeatureCache, Lessons, MoreImages};
use serde_json::json;

use super::fit::file_name;
use super::{JobKind, Work};
use crate::app::App;
use crate::compute::Live;
use crate::files::link;
use crate::refusal::Refusal;
use crate::store::{DetectorRow, JudgedImage, NewVersion, Version, VersionKind};
use crate::verdict::Label;

/// The folder of flaws whose kind nobody named.
const ANY_KIND: &str = "flaw";

/// Learning.
#[derive(Debug)]
pub(crate) struct Learn {
    /// Take it even where known images are told apart worse.
    pub(crate) force: bool,
    /// Who asked.
    pub(crate) by: Option<String>,
}

/// What is to be taught, and to which version.
struct Plan {
    teacher: Arc<Live>,
    base: Version,
    new: Vec<JudgedImage>,
    all: Vec<i64>,
    /// Whether it begins at the version that was fitted: something that was learned was said otherwise or withdrawn.
    anew: bool,
}

impl Work for Learn {
    const KIND: JobKind = JobKind::Learn;

    fn run(
        self,
        app: &App,
        detector: &DetectorRow,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<serde_json::Value, Refusal> {
        let detector = &app.detector(&detector.name)?;
        let plan = plan(app, detector)?;
        if plan.new.is_empty() {
            return forgotten(app, detector, &plan, self.by.as_deref());
        }
        let folder = tempfile::tempdir_in(app.files.tmp())?;
        let mut lessons = Lessons::new(laid_out(app, &plan.new, folder.path())?);
        lessons.force = self.force;
        lessons.cache = Some(FeatureCache::at(app.files.features()));
        let taught = plan.teacher.detector.learn_with(&lessons, on_event)?;
        if !self.force {
            not_worse(taught.before, taught.after)?;
        }

        let number = app.store.next_version(detector.id)?;
        let file = format!("{number}.flaw");
        taught
            .detector
            .save(app.files.detector(&detector.name).join(&file))?;
        let of = |label: Label| plan.new.iter().filter(|j| j.label == label).count();
        let (good, defects) = (of(Label::Good), of(Label::Flaw));
        let from = if plan.anew {
            format!(", anew from version {}", plan.base.number)
        } else {
            String::new()
        };
        let new = NewVersion {
            kind: VersionKind::Learned,
            note: format!(
                "learned {} and {}{from}",
                counted(good, "good part"),
                counted(defects, "flaw")
            ),
            file,
            base: Some(plan.base.number),
            lessons: plan.all,
            threshold: taught.detector.header().threshold.value,
            given: false,
            good: taught.detector.header().support.len(),
            defects: taught.detector.defects(),
            before: serde_json::to_string(&taught.before).ok(),
            after: serde_json::to_string(&taught.after).ok(),
            oddest: None,
        };
        let version = app.store.add_version(detector, &new, self.by.as_deref())?;
        app.in_force(&detector.name)?;
        Ok(json!({
            "version": version,
            "good": taught.good,
            "defects": taught.defects,
            "before": taught.before,
            "after": taught.after,
        }))
    }
}

/// A number and what it counts.
fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Refuses what finds fewer flaws and stops no fewer good parts, or the other way round: a person is to decide on that.
fn not_worse(before: Tally, after: Tally) -> Result<(), Refusal> {
    let finds_fewer = after.found < before.found && after.stopped >= before.stopped;
    let stops_more = after.stopped > before.stopped && after.found <= before.found;
    if !finds_fewer && !stops_more {
        return Ok(());
    }
    let text = |t: Tally| {
        format!(
            "stops {} of {} good parts and finds {} of {} flaws",
            t.stopped, t.good, t.found, t.defects
        )
    };
    let mut refusal = Refusal::conflict(format!(
        "what was learned is worse on parts that it had not seen: it {} now, and would be one that {}; it was not changed",
        text(before),
        text(after)
    ))
    .hint("judge more parts, look whether they are judged right, or take it anyway");
    refusal.said.worse = true;
    Err(refusal)
}

/// Every judgement was withdrawn: the version that was fitted is in force again.
fn forgotten(
    app: &App,
    detector: &DetectorRow,
    plan: &Plan,
    by: Option<&str>,
) -> Result<serde_json::Value, Refusal> {
    if !plan.anew {
        return Err(
            Refusal::conflict(format!("'{}' has nothing new to learn", detector.name))
                .hint("judge some parts first"),
        );
    }
    let new = NewVersion {
        kind: VersionKind::Learned,
        note: format!("unlearned all judgements: as version {}", plan.base.number),
        base: Some(plan.base.number),
        lessons: Vec::new(),
        before: None,
        after: None,
        oddest: None,
        ..plan.base.is.clone()
    };
    let version = app.store.add_version(detector, &new, by)?;
    app.in_force(&detector.name)?;
    Ok(json!({"version": version, "good": 0, "defects": 0, "before": null, "after": null}))
}

/// What is new is taught to the version in force. Where something that it learned does not hold any more, all that holds is taught to
/// the version that was fitted.
fn plan(app: &App, detector: &DetectorRow) -> Result<Plan, Refusal> {
    let teacher = app.live(detector)?;
    let missing = |number: i64| Refusal::missing(format!("version {number} is not there"));
    let version = |number: i64| {
        let found = app.store.version(detector.id, number)?;
        found.ok_or_else(|| missing(number))
    };
    let current = version(teacher.version)?;
    let base = version(current.base)?;
    let judged = app.store.judgements(detector.id)?;
    let all: Vec<i64> = judged.iter().map(|j| j.id).collect();
    let known: HashSet<i64> = current.is.lessons.iter().copied().collect();
    let anew = known.iter().any(|id| !all.contains(id));
    if !anew {
        let new = judged.into_iter().filter(|j| !known.contains(&j.id));
        return Ok(Plan {
            teacher,
            base,
            new: new.collect(),
            all,
            anew,
        });
    }
    let first = Live::open(&app.files, app.registry.weights(), detector, &base)?;
    Ok(Plan {
        teacher: Arc::new(first),
        base,
        new: judged,
        all,
        anew,
    })
}

/// Lays judged images out as the workflow reads them.
fn laid_out(app: &App, judged: &[JudgedImage], folder: &Path) -> Result<MoreImages, Refusal> {
    let mut more = MoreImages::default();
    for image in judged {
        let name = file_name(&image.name, &image.content, &image.extension);
        let from = app.files.image(&image.content, &image.extension);
        let (into, kind) = match image.label {
            Label::Good => (&mut more.good, None),
            Label::Flaw => (
                &mut more.defect,
                Some(image.kind.as_deref().unwrap_or(ANY_KIND)),
            ),
        };
        let part = into.insert(folder.join(match image.label {
            Label::Good => "good",
            Label::Flaw => "defect",
        }));
        let place = kind.map_or_else(|| part.clone(), |kind| part.join(kind));
        fs::create_dir_all(&place)?;
        link(&from, &place.join(&name))?;
        if let (Some(kind), Some(mask)) = (kind, &image.mask) {
            let masks = more.masks.insert(folder.join("masks")).join(kind);
            fs::create_dir_all(&masks)?;
            let name = Path::new(&name).with_extension("png");
            crate::masks::of_size(mask, image.size)?
                .save(masks.join(name))
                .map_err(|error| Refusal::machine(&error))?;
        }
    }
    Ok(more)
}
