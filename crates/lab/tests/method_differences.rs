//! The hand-derived gradients against finite differences of a plain f64 reading of the formulas, on sizes that the
//! golden vectors do not have: one prompt, one row (the class token), α of either sign, uneven counts.

#![allow(clippy::unwrap_used)] // a test may stop

use flawtune::random::{Purpose, Stream};
use flawtune_lab::adapt::{
    Adaptation, AdaptationOptions, BatchPass, Gradients, Loss, ModulationType, Parameters,
    ScoreComparison, ScoreLoss, Similarities, SimilarityStats,
};

/// Step of the differences; their error is about its square.
const STEP: f64 = 1e-6;
/// Of the tensor's largest absolute value. f32 gradients of ill-conditioned ratios (σ of a handful of similarities)
/// on unfavourable random inputs need more than the goldens, which were chosen with care.
const TOLERANCE: f64 = 1e-4;
const MARGIN: f64 = 0.3;

#[derive(Clone)]
struct Case {
    modulation: ModulationType,
    alpha: f64,
    rows: usize,
    dim: usize,
    normals: usize,
    /// Tensors by position: prompts, scales, then the MLP's.
    parameters: Vec<Vec<f64>>,
    images: Vec<Vec<f64>>,
}

fn unit(x: &[f64]) -> Vec<f64> {
    let norm = x.iter().map(|v| v * v).sum::<f64>().sqrt();
    x.iter().map(|v| v / (norm + 1e-8)).collect()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn softmax(logits: impl Iterator<Item = f64>) -> Vec<f64> {
    let e: Vec<f64> = logits.map(f64::exp).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|v| v / sum).collect()
}

fn weighted(weights: &[f64], rows: &[Vec<f64>]) -> Vec<f64> {
    (0..rows[0].len())
        .map(|i| weights.iter().zip(rows).map(|(w, r)| w * r[i]).sum())
        .collect()
}

/// `x · Wᵀ + b`, W `[out, in]`.
fn linear(x: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
    w.chunks(x.len())
        .zip(b)
        .map(|(w, b)| dot(w, x) + b)
        .collect()
}

impl Case {
    fn modulate(&self, image: &[f64]) -> Vec<Vec<f64>> {
        let p = &self.parameters;
        let x: Vec<Vec<f64>> = image.chunks(self.dim).map(<[f64]>::to_vec).collect();
        let scaled = |(s, scale): (&[f64], &f64)| s.iter().map(|v| v * scale).collect();
        let s: Vec<Vec<f64>> = p[0].chunks(self.dim).zip(&p[1]).map(scaled).collect();
        let cos = |a: &[f64], b: &[f64]| dot(&unit(a), &unit(b));
        let added: Vec<Vec<f64>> = match self.modulation {
            ModulationType::Global => {
                let seen: Vec<Vec<f64>> = s
                    .iter()
                    .map(|s| weighted(&softmax(x.iter().map(|x| cos(s, x))), &x))
                    .collect();
                let e = weighted(&vec![1.0 / s.len() as f64; s.len()], &seen);
                vec![e; x.len()]
            }
            ModulationType::PerPatch => x
                .iter()
                .map(|x| weighted(&softmax(s.iter().map(|s| cos(x, s))), &s))
                .collect(),
            ModulationType::LearnedTransform => x
                .iter()
                .map(|x| {
                    let mix = weighted(&softmax(s.iter().map(|s| cos(x, s))), &s);
                    let hidden = linear(&[x.clone(), mix].concat(), &p[2], &p[3]);
                    let gelu = |v: &f64| 0.5 * v * (1.0 + libm::erf(v / 2f64.sqrt()));
                    linear(&hidden.iter().map(gelu).collect::<Vec<_>>(), &p[4], &p[5])
                })
                .collect(),
        };
        let add = |(x, e): (&Vec<f64>, &Vec<f64>)| {
            x.iter().zip(e).map(|(x, e)| x + self.alpha * e).collect()
        };
        x.iter().zip(&added).map(add).collect()
    }

    fn loss(&self, loss: Loss) -> f64 {
        let tokens: Vec<Vec<Vec<f64>>> = self
            .images
            .iter()
            .map(|i| self.modulate(i).iter().map(|x| unit(x)).collect())
            .collect();
        let sim = |a: &[Vec<f64>], b: &[Vec<f64>]| {
            let best = |p: &Vec<f64>| {
                b.iter()
                    .map(|q| dot(p, q))
                    .fold(f64::NEG_INFINITY, f64::max)
            };
            a.iter().map(best).sum::<f64>() / a.len() as f64
        };
        let (n, m) = (self.normals, self.images.len() - self.normals);
        if let Loss::Scores(loss) = loss {
            return self.ranking(loss, &tokens);
        }
        let mut s = Similarities::zeros(n, m);
        for i in 0..n {
            for j in (0..n).filter(|&j| j != i) {
                s.nn[i * n + j] = sim(&tokens[i], &tokens[j]);
            }
            for j in 0..m {
                s.nd[i * m + j] = sim(&tokens[i], &tokens[n + j]);
            }
        }
        let stats = SimilarityStats::of(&s).unwrap();
        loss.evaluate(&s, &stats, &mut Similarities::default())
            .unwrap()
    }

    /// The ranking loss as its documentation reads.
    fn ranking(&self, loss: ScoreLoss, tokens: &[Vec<Vec<f64>>]) -> f64 {
        let score = |image: usize| {
            let bank = (0..self.normals)
                .filter(|&b| b != image)
                .flat_map(|b| &tokens[b]);
            let distance = |p| {
                1.0 - bank
                    .clone()
                    .map(|q| dot(p, q))
                    .fold(f64::NEG_INFINITY, f64::max)
            };
            let mut distances: Vec<f64> = tokens[image].iter().map(|p| distance(p)).collect();
            distances.sort_by(|a, b| b.total_cmp(a));
            let count = ((loss.top_fraction * distances.len() as f64).round() as usize).max(1);
            distances[..count].iter().sum::<f64>() / count as f64
        };
        let (normals, defects) = (0..self.normals, self.normals..self.images.len());
        let pairs = (normals.len() * defects.len()) as f64;
        let cost = |i, j| ((score(i) - score(j)) / loss.temperature).exp().ln_1p();
        normals
            .flat_map(|i| defects.clone().map(move |j| (i, j)))
            .map(|(i, j)| cost(i, j))
            .sum::<f64>()
            / pairs
    }
}

fn case(modulation: ModulationType, alpha: f64, sizes: [usize; 5], seed: u64) -> Case {
    let [prompts, rows, dim, normals, defects] = sizes;
    let mut stream = Stream::new(seed, Purpose::Init);
    // values that f32 holds exactly, so that both start from the same numbers
    let mut draw = |count: usize, size: f64| -> Vec<f64> {
        (0..count)
            .map(|_| f64::from((size * (2.0 * stream.uniform() - 1.0)) as f32))
            .collect()
    };
    let mut parameters = vec![
        draw(prompts * dim, 1.0),
        draw(prompts, 1.0).iter().map(|v| v + 1.5).collect(),
    ];
    if modulation == ModulationType::LearnedTransform {
        parameters.extend([
            draw(2 * dim * dim, 0.4),
            draw(dim, 0.2),
            draw(dim * dim, 0.4),
            draw(dim, 0.2),
        ]);
    }
    parameters[1]
        .iter_mut()
        .for_each(|v| *v = f64::from(*v as f32));
    let base = draw(rows * dim, 1.0);
    let mut image = |size: f64| -> Vec<f64> {
        base.iter()
            .zip(draw(rows * dim, size))
            .map(|(b, v)| f64::from((b + v) as f32))
            .collect()
    };
    let images = (0..normals + defects)
        .map(|i| image(if i < normals { 0.7 } else { 1.1 }))
        .collect();
    Case {
        modulation,
        alpha,
        rows,
        dim,
        normals,
        parameters,
        images,
    }
}

fn compare(what: &str, found: &[f32], wanted: &[f64]) {
    let max = wanted.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    for (i, (&f, w)) in found.iter().zip(wanted).enumerate() {
        assert!(
            (f64::from(f) - w).abs() <= TOLERANCE * max,
            "{what} [{i}]: {f} against {w}, largest {max}"
        );
    }
}

fn check(case: &Case, use_cls: bool, loss: Loss) {
    const NAMES: [&str; 6] = [
        "prompts",
        "prompt_scales",
        "mlp.0.weight",
        "mlp.0.bias",
        "mlp.2.weight",
        "mlp.2.bias",
    ];
    let (k, d) = (case.parameters[1].len(), case.dim);
    let shapes = [
        vec![k, d],
        vec![k],
        vec![d, 2 * d],
        vec![d],
        vec![d, d],
        vec![d],
    ];
    let single = |v: &[f64]| -> Vec<f32> { v.iter().map(|&v| v as f32).collect() };
    let mut parameters = Parameters::new();
    for ((name, shape), values) in NAMES.iter().zip(&shapes).zip(&case.parameters) {
        parameters.push(name, shape, single(values)).unwrap();
    }
    let options = AdaptationOptions {
        modulation: case.modulation,
        num_prompts: k,
        scaling_factor: case.alpha as f32,
        use_cls,
        ..AdaptationOptions::default()
    };
    let adaptation = Adaptation::from_parameters(options, &parameters).unwrap();
    let images: Vec<Vec<f32>> = case.images.iter().map(|i| single(i)).collect();
    let images: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
    let m = adaptation.modulation();
    let mut pass = BatchPass::new();
    let found = pass
        .forward(Some(m), &images, case.normals, d, loss)
        .unwrap();
    let what = format!(
        "{} α {} {loss} {k} prompts {} rows",
        case.modulation, case.alpha, case.rows
    );
    assert!(
        (found.loss - case.loss(loss)).abs() < 1e-5 * found.loss.abs().max(1.0),
        "{what}"
    );
    let mut gradients = Gradients::zeros_for(m.parameters());
    let mut grad_in = vec![0.0; images.len() * case.rows * d];
    pass.backward(m, &images, &mut gradients, Some(&mut grad_in));

    let difference = |change: &dyn Fn(&mut Case, f64)| {
        let at = |delta: f64| {
            let mut c = case.clone();
            change(&mut c, delta);
            c.loss(loss)
        };
        (at(STEP) - at(-STEP)) / (2.0 * STEP)
    };
    compare(
        &format!("{what} α"),
        &[gradients.scaling_factor as f32],
        &[difference(&|c, h| c.alpha += h)],
    );
    for (t, tensor) in gradients.parameters.iter().enumerate() {
        // the scales of `global` act through an epsilon only: nothing to see at this precision
        if case.modulation == ModulationType::Global && tensor.name == "prompt_scales" {
            continue;
        }
        let wanted: Vec<f64> = (0..tensor.data.len())
            .map(|i| difference(&|c: &mut Case, h| c.parameters[t][i] += h))
            .collect();
        compare(&format!("{what} {}", tensor.name), &tensor.data, &wanted);
    }
    let size = case.rows * d;
    let wanted: Vec<f64> = (0..grad_in.len())
        .map(|i| difference(&|c: &mut Case, h| c.images[i / size][i % size] += h))
        .collect();
    compare(&format!("{what} tokens"), &grad_in, &wanted);
}

#[test]
fn gradients_are_those_of_the_formulas() {
    let half = ScoreLoss {
        top_fraction: 0.5,
        temperature: 0.2,
        comparison: ScoreComparison::Ranking,
    };
    let losses = [
        Loss::Separability,
        Loss::Contrastive { margin: MARGIN },
        Loss::Scores(half),
    ];
    for loss in losses {
        for modulation in ModulationType::ALL {
            check(&case(modulation, 0.4, [3, 5, 9, 4, 3], 1), false, loss);
            check(&case(modulation, -0.7, [1, 4, 6, 3, 5], 2), false, loss);
        }
        // the class token: one row an image
        check(
            &case(ModulationType::PerPatch, 0.5, [4, 1, 11, 4, 3], 3),
            true,
            loss,
        );
    }
}
