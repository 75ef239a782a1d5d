//! Work that takes longer than an answer may: fitting and learning.

mod fit;
mod learn;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use flawtune::workflow::Event;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::{App, Notice};
use crate::refusal::{Refusal, Said};
use crate::store::DetectorRow;

pub(crate) use fit::Fit;
pub(crate) use fit::WEIGHT_FILE;
pub(crate) use learn::Learn;

/// Finished jobs that are remembered.
const REMEMBERED: usize = 100;
/// Things that a job notices, at most.
const NOTES: usize = 50;
/// How often progress is told.
const OFTEN: Duration = Duration::from_millis(150);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobKind {
    /// Fitting to good images.
    Fit,
    /// Learning from judgements.
    Learn,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobState {
    /// At work.
    Running,
    /// Done.
    Done,
    /// It ended without a result.
    Failed,
}

/// A job.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Job {
    /// Its number.
    pub(crate) id: u64,
    /// What is done.
    pub(crate) kind: JobKind,
    /// For which detector.
    pub(crate) detector: String,
    /// How far it is.
    pub(crate) state: JobState,
    /// What is done just now.
    pub(crate) stage: String,
    /// How much of the stage is done.
    pub(crate) done: usize,
    /// How much it has; 0 where that is not known.
    pub(crate) total: usize,
    /// Seconds since the job began.
    pub(crate) seconds: f64,
    /// Seconds until the stage ends, where that can be told.
    pub(crate) eta: Option<f64>,
    /// Why it failed.
    pub(crate) error: Option<Said>,
    /// What it came to.
    #[schema(value_type = Option<Object>)]
    pub(crate) result: Option<serde_json::Value>,
    /// What was noticed on the way.
    pub(crate) notes: Vec<String>,
    #[serde(skip)]
    begun: Times,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    job: Instant,
    stage: Instant,
    told: Option<Instant>,
}

impl Job {
    /// With the seconds of now.
    fn timed(mut self) -> Self {
        if self.state == JobState::Running {
            self.seconds = self.begun.job.elapsed().as_secs_f64();
            let left = self.total.saturating_sub(self.done) as f64;
            let stage = self.begun.stage.elapsed().as_secs_f64();
            self.eta = (self.done > 0 && self.total > 0).then(|| stage * left / self.done as f64);
        }
        self
    }

    fn begins(&mut self, stage: &str) {
        if self.stage != stage {
            stage.clone_into(&mut self.stage);
            self.begun.stage = Instant::now();
            (self.done, self.total) = (0, 0);
        }
    }

    /// What a workflow tells.
    fn hear(&mut self, event: &Event<'_>) {
        match event {
            Event::Images(progress) => {
                self.begins(stage_name(progress.stage));
                (self.done, self.total) = (progress.done, progress.total);
            }
            Event::Download { file, done, total } => {
                self.begins(&format!("fetching {file}"));
                self.done = *done as usize;
                self.total = total.unwrap_or_default() as usize;
            }
            Event::Scoring(what) => self.begins(what),
            Event::PartBegins(name) => self.begins(name),
            Event::Warning(text) | Event::Note(text) if self.notes.len() < NOTES => {
                self.notes.push(text.clone());
            }
            _ => {}
        }
    }
}

fn stage_name(stage: flawtune::features::Stage) -> &'static str {
    use flawtune::features::Stage;
    match stage {
        Stage::Reading => "reading images",
        Stage::Extracting => "looking at images",
        Stage::Comparing => "comparing good images",
    }
}

/// All jobs.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    all: Mutex<BTreeMap<u64, Job>>,
    /// One works at a time.
    turn: Mutex<()>,
}

/// Work for a job.
pub(crate) trait Work: Send + 'static {
    /// What it is.
    const KIND: JobKind;
    /// Does it.
    ///
    /// # Errors
    /// Why there is no result.
    fn run(
        self,
        app: &App,
        detector: &DetectorRow,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<serde_json::Value, Refusal>;
}

impl Jobs {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Job>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job.
    pub(crate) fn get(&self, id: u64) -> Option<Job> {
        self.all().get(&id).cloned().map(Job::timed)
    }

    /// The last job for a detector.
    pub(crate) fn last(&self, detector: &str) -> Option<Job> {
        let all = self.all();
        let last = all.values().rev().find(|job| job.detector == detector);
        last.cloned().map(Job::timed)
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut Job)) -> Option<Job> {
        let mut all = self.all();
        let job = all.get_mut(&id)?;
        change(job);
        Some(job.clone().timed())
    }

    /// Puts a job of a kind on the list, unless one for the same detector is at work.
    fn begin(&self, kind: JobKind, detector: &str) -> Result<Job, Refusal> {
        let mut all = self.all();
        let same = |job: &&Job| job.detector == detector && job.state == JobState::Running;
        if let Some(other) = all.values().find(same) {
            return Err(Refusal::conflict(format!(
                "'{detector}' is at work already: {}",
                other.stage
            ))
            .hint("wait until it is done"));
        }
        while all.len() >= REMEMBERED {
            let done = |job: &Job| job.state != JobState::Running;
            let Some(oldest) = all.values().find(|job| done(job)).map(|job| job.id) else {
                break;
            };
            all.remove(&oldest);
        }
        let id = all.last_key_value().map_or(1, |(id, _)| id + 1);
        let now = Instant::now();
        let job = Job {
            id,
            kind,
            detector: detector.to_owned(),
            state: JobState::Running,
            stage: "waiting".into(),
            done: 0,
            total: 0,
            seconds: 0.0,
            eta: None,
            error: None,
            result: None,
            notes: Vec::new(),
            begun: Times {
                job: now,
                stage: now,
                told: None,
            },
        };
        all.insert(id, job.clone());
        Ok(job)
    }

    /// Starts a job.
    ///
    /// # Errors
    /// Another one for the same detector is at work; a system without threads.
    pub(crate) fn start<W: Work>(
        app: &Arc<App>,
        detector: DetectorRow,
        work: W,
    ) -> Result<Job, Refusal> {
        let job = app.jobs.begin(W::KIND, &detector.name)?;
        let (id, app) = (job.id, Arc::clone(app));
        let run = move || {
            let _turn = app.jobs.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let mut on_event = |event: Event<'_>| app.job_heard(id, &event);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                work.run(&app, &detector, &mut on_event)
            }));
            let result = result.unwrap_or_else(|_| {
                Err(
                    Refusal::conflict("the work ended by a fault of the program")
                        .hint("look into the log; please report it"),
                )
            });
            let ended = app.jobs.change(id, |job| {
                job.seconds = job.begun.job.elapsed().as_secs_f64();
                job.eta = None;
                match result {
                    Ok(value) => {
                        job.state = JobState::Done;
                        job.result = Some(value);
                    }
                    Err(refusal) => {
                        job.state = JobState::Failed;
                        job.error = Some(refusal.said);
                    }
                }
            });
            if let Some(job) = ended {
                tracing::info!(detector = %job.detector, kind = ?job.kind, state = ?job.state, seconds = job.seconds, "job ended");
                app.tell(Notice::Job(Arc::new(job)));
            }
        };
        thread::Builder::new()
            .name("flawtune-job".into())
            .spawn(run)?;
        Ok(job)
    }
}

impl App {
    /// A job's workflow told something.
    fn job_heard(&self, id: u64, event: &Event<'_>) {
        let mut tell = false;
        let job = self.jobs.change(id, |job| {
            job.hear(event);
            tell = job.begun.told.is_none_or(|told| told.elapsed() > OFTEN);
            if tell {
                job.begun.told = Some(Instant::now());
            }
        });
        if let Some(job) = job.filter(|_| tell) {
            self.tell(Notice::Job(Arc::new(job)));
        }
    }
}
