//! The loop over episodes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::Method;
use super::episode::{self, MetaTask};
use super::exact::Formula;
use super::inner::{Inner, Rows};
use crate::adapt::{Adam, AdaptError, Adaptation, BatchPass, Loss, Parameters, rows_of};
use flawtune::features::TokenSet;

/// How to meta-train.
#[derive(Debug, Clone, PartialEq)]
pub struct MetaOptions {
    /// How the start is moved.
    pub method: Method,
    /// Times the start is moved.
    pub iterations: usize,
    /// Tasks that an iteration takes the mean of.
    pub tasks_per_iteration: usize,
    /// Steps of gradient descent on the support.
    pub inner_steps: usize,
    /// Their rate.
    pub inner_rate: f64,
    /// Rate of the start: for Reptile the part of the way, falling linearly to 0 as its authors do; otherwise that of Adam.
    pub outer_rate: f64,
    /// Images of each kind in support and query, at most.
    pub batch_size: usize,
    /// The loss of support and query.
    pub loss: Loss,
    /// Seed of the order of tasks and of what is drawn from them.
    pub seed: u64,
}

impl MetaOptions {
    /// Rate of the start where nothing else is said.
    pub fn default_outer_rate(method: Method) -> f64 {
        match method {
            Method::Reptile => 0.5,
            Method::Fomaml | Method::Maml => 1e-3,
        }
    }
}

/// What one iteration showed: means over its tasks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IterationReport {
    /// Iteration, from 1.
    pub iteration: usize,
    /// Iterations in all.
    pub iterations: usize,
    /// Query loss before the inner steps.
    pub before: f64,
    /// Query loss after them.
    pub after: f64,
}

/// How meta-training ended.
#[derive(Debug, Clone, PartialEq)]
pub struct MetaOutcome {
    /// One report an iteration.
    pub history: Vec<IterationReport>,
    /// Whether the cancellation flag was raised; the adaptation then holds the start after the last whole iteration.
    pub interrupted: bool,
    /// Wall-clock time.
    pub seconds: f64,
}

/// Moves the adaptation's parameters to a good start for tasks like `tasks`.
///
/// Same tasks, options and seed give the same bits on any number of threads. `cancel` is looked at before every task.
///
/// # Errors
/// Tasks without enough images, options without a meaning, for MAML formulas without a second derivative, numbers that are
/// no longer finite.
pub fn meta_train(
    adaptation: &mut Adaptation,
    tasks: &[MetaTask<'_>],
    options: &MetaOptions,
    cancel: &AtomicBool,
    on_iteration: &mut dyn FnMut(&IterationReport),
) -> Result<MetaOutcome, AdaptError> {
    check(adaptation, tasks, options)?;
    let started = Instant::now();
    let mut random = episode::stream(options.seed);
    let mut adam = Adam::new(adaptation.parameters());
    let mut pass = BatchPass::new();
    let inner = Inner {
        method: options.method,
        steps: options.inner_steps,
        rate: options.inner_rate,
        loss: options.loss,
    };
    let mut order: Vec<usize> = Vec::new();
    let mut history = Vec::new();
    let mut interrupted = false;
    'iterations: for iteration in 0..options.iterations {
        let mut mean = adaptation.parameters().zeros_like();
        let mut sums: Vec<Vec<f64>> = mean.iter().map(|t| vec![0.0; t.data.len()]).collect();
        let (mut before, mut after) = (0.0, 0.0);
        for _ in 0..options.tasks_per_iteration {
            if cancel.load(Ordering::Relaxed) {
                interrupted = true;
                break 'iterations;
            }
            if order.is_empty() {
                order = (0..tasks.len()).collect();
                random.shuffle(&mut order);
            }
            let Some(task) = order.pop().map(|i| &tasks[i]) else {
                break;
            };
            let drawn = task.draw(&mut random, options.batch_size);
            let use_cls = adaptation.options().use_cls;
            let support = rows(task, &drawn.support, use_cls);
            let query = rows(task, &drawn.query, use_cls);
            let found = inner.run(adaptation, &support, &query, &mut pass)?;
            before += found.before;
            after += found.after;
            for (to, from) in sums
                .iter_mut()
                .flatten()
                .zip(found.direction.iter().flatten())
            {
                *to += from;
            }
        }
        let count = options.tasks_per_iteration as f64;
        for (to, from) in mean.iter_mut().zip(&sums) {
            to.data
                .iter_mut()
                .zip(from)
                .for_each(|(to, from)| *to = (from / count) as f32);
        }
        let parameters = adaptation.modulation_mut().parameters_mut();
        if options.method == Method::Reptile {
            let left = 1.0 - iteration as f64 / options.iterations as f64;
            go(parameters, &mean, options.outer_rate * left);
        } else {
            adam.step(parameters, &mean, options.outer_rate)?;
        }
        let report = IterationReport {
            iteration: iteration + 1,
            iterations: options.iterations,
            before: before / count,
            after: after / count,
        };
        history.push(report);
        on_iteration(&report);
    }
    Ok(MetaOutcome {
        history,
        interrupted,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn check(
    adaptation: &Adaptation,
    tasks: &[MetaTask<'_>],
    options: &MetaOptions,
) -> Result<(), AdaptError> {
    let wrong = |option, found: String, wanted: &str| {
        Err(AdaptError::Option {
            option,
            found,
            wanted: wanted.to_owned(),
        })
    };
    if tasks.is_empty() {
        return Err(AdaptError::TooFewImages {
            what: "tasks",
            found: 0,
            wanted: 1,
            why: "",
        });
    }
    for task in tasks {
        task.check(adaptation.dim())?;
    }
    for (option, found) in [
        ("iterations", options.iterations),
        ("tasks per iteration", options.tasks_per_iteration),
        ("batch size", options.batch_size.saturating_sub(1)),
    ] {
        if found == 0 {
            return wrong(
                option,
                "too small".to_owned(),
                "at least 1 is needed, and batches of 2",
            );
        }
    }
    for (option, rate) in [
        ("inner rate", options.inner_rate),
        ("outer rate", options.outer_rate),
    ] {
        if !(rate.is_finite() && rate > 0.0) {
            return wrong(
                option,
                rate.to_string(),
                "it is a positive number, such as 0.01",
            );
        }
    }
    if options.method == Method::Maml {
        Formula::of(adaptation, options.loss)?;
    }
    Ok(())
}

fn rows<'a>(
    task: &MetaTask<'a>,
    (normals, defects): &(Vec<usize>, Vec<usize>),
    use_cls: bool,
) -> Rows<'a> {
    let of = |set: &'a TokenSet, i: usize| rows_of(&set.images[i], use_cls);
    let images = normals.iter().map(|&i| of(task.normals, i));
    (
        images
            .chain(defects.iter().map(|&i| of(task.defects, i)))
            .collect(),
        normals.len(),
    )
}

/// Goes `part` of a way.
fn go(parameters: &mut Parameters, way: &Parameters, part: f64) {
    for (to, by) in parameters.iter_mut().zip(way) {
        to.data
            .iter_mut()
            .zip(&by.data)
            .for_each(|(p, w)| *p = (f64::from(*p) + part * f64::from(*w)) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapt::{AdaptationOptions, ModulationType};
    use flawtune::features::ImageTokens;
    use flawtune::random::{Purpose, Stream};

    const DIM: usize = 8;
    const PATCHES: usize = 4;

    /// Images around a direction; in defects one patch leans to an axis that is the same in every task.
    fn images(seed: u64, count: usize, odd: f32) -> TokenSet {
        let mut stream = Stream::new(seed, Purpose::Init);
        let images = (0..count).map(|_| {
            let mut v: Vec<f32> = (0..(1 + PATCHES) * DIM)
                .map(|_| 0.6 * stream.uniform() as f32)
                .collect();
            v.chunks_exact_mut(DIM)
                .for_each(|row| row[seed as usize % 4] += 1.0);
            v[2 * DIM + 6] += odd;
            ImageTokens::owned(v, PATCHES, DIM)
        });
        TokenSet {
            images: images.collect(),
            grid: (2, 2),
            dim: DIM,
        }
    }

    struct World(Vec<(TokenSet, TokenSet)>);

    impl World {
        fn new() -> Self {
            Self(
                (1..4)
                    .map(|s| (images(s, 12, 0.0), images(s + 10, 8, 0.8)))
                    .collect(),
            )
        }

        fn tasks(&self) -> Vec<MetaTask<'_>> {
            self.0
                .iter()
                .enumerate()
                .map(|(i, (normals, defects))| MetaTask {
                    name: format!("task {i}"),
                    normals,
                    defects,
                    shots: 3,
                })
                .collect()
        }
    }

    fn fresh() -> Adaptation {
        let options = AdaptationOptions {
            modulation: ModulationType::LearnedTransform,
            num_prompts: 3,
            scaling_factor: 1.0,
            seed: 2,
            ..Default::default()
        };
        Adaptation::new(options, DIM).unwrap()
    }

    fn options(method: Method) -> MetaOptions {
        MetaOptions {
            method,
            iterations: 30,
            tasks_per_iteration: 3,
            inner_steps: 3,
            inner_rate: 0.01,
            outer_rate: if method == Method::Reptile { 0.5 } else { 0.02 },
            batch_size: 5,
            loss: Loss::Separability,
            seed: 1,
        }
    }

    fn run(
        adaptation: &mut Adaptation,
        tasks: &[MetaTask<'_>],
        options: &MetaOptions,
    ) -> MetaOutcome {
        meta_train(
            adaptation,
            tasks,
            options,
            &AtomicBool::new(false),
            &mut |_| {},
        )
        .unwrap()
    }

    #[test]
    fn every_method_makes_a_start_from_which_few_steps_go_further() {
        let w = World::new();
        // the same episodes for both, with a start that does not move
        let reached = |adaptation: &Adaptation| {
            let still = MetaOptions {
                outer_rate: 1e-12,
                seed: 77,
                ..options(Method::Fomaml)
            };
            let found = run(&mut adaptation.clone(), &w.tasks(), &still);
            found.history.iter().map(|r| r.after).sum::<f64>() / found.history.len() as f64
        };
        let before = reached(&fresh());
        for method in Method::ALL {
            let mut adaptation = fresh();
            run(
                &mut adaptation,
                &w.tasks(),
                &MetaOptions {
                    iterations: 60,
                    ..options(method)
                },
            );
            let after = reached(&adaptation);
            assert!(
                after < before - 0.05 * before.abs(),
                "{method:?}: {before} to {after}"
            );
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bits_on_any_number_of_threads() {
        let w = World::new();
        for method in Method::ALL {
            let options = MetaOptions {
                iterations: 3,
                ..options(method)
            };
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| {
                    let mut adaptation = fresh();
                    run(&mut adaptation, &w.tasks(), &options);
                    adaptation.parameters().clone()
                })
            };
            assert_eq!(on(1), on(3), "{method:?}");
        }
    }

    #[test]
    fn cancelled_it_keeps_whole_iterations() {
        let w = World::new();
        let (mut adaptation, cancel) = (fresh(), AtomicBool::new(false));
        let mut stop = |r: &IterationReport| cancel.store(r.iteration == 2, Ordering::Relaxed);
        let all = options(Method::Fomaml);
        let found = meta_train(&mut adaptation, &w.tasks(), &all, &cancel, &mut stop).unwrap();
        assert!(found.interrupted && found.history.len() == 2);
        let mut two = fresh();
        run(
            &mut two,
            &w.tasks(),
            &MetaOptions {
                iterations: 2,
                ..all
            },
        );
        assert_eq!(adaptation.parameters(), two.parameters());
    }

    #[test]
    fn options_without_a_meaning_are_refused() {
        let w = World::new();
        let refuse = |tasks: &[MetaTask<'_>], options: MetaOptions| {
            let found = meta_train(
                &mut fresh(),
                tasks,
                &options,
                &AtomicBool::new(false),
                &mut |_| {},
            );
            found.unwrap_err().to_string()
        };
        let plain = options(Method::Maml);
        assert!(refuse(&[], plain.clone()).contains("0 tasks"));
        let tasks = w.tasks();
        assert!(
            refuse(
                &tasks,
                MetaOptions {
                    iterations: 0,
                    ..plain.clone()
                }
            )
            .contains("iterations")
        );
        assert!(
            refuse(
                &tasks,
                MetaOptions {
                    inner_rate: 0.0,
                    ..plain.clone()
                }
            )
            .contains("inner rate")
        );
        let ranking = "ranking".parse().unwrap();
        assert!(
            refuse(
                &tasks,
                MetaOptions {
                    loss: ranking,
                    ..plain
                }
            )
            .contains("maml with ranking")
        );
    }
}
