use super::*;
use crate::adapt::{AdaptationOptions, BatchPass, Gradients};
use flawtune::random::{Purpose, Stream};

const DIM: usize = 6;
const ROWS: usize = 3;

struct Case {
    adaptation: Adaptation,
    images: Vec<Vec<f32>>,
}

impl Case {
    fn new(modulation: ModulationType) -> Self {
        let options = AdaptationOptions {
            modulation,
            num_prompts: 2,
            scaling_factor: 0.8,
            seed: 7,
            ..AdaptationOptions::default()
        };
        let mut stream = Stream::new(3, Purpose::Init);
        let mut values = |n: usize| {
            (0..n)
                .map(|_| 2.0 * stream.uniform() as f32 - 1.0)
                .collect::<Vec<f32>>()
        };
        let mut adaptation = Adaptation::new(options, DIM).unwrap();
        for t in adaptation.modulation_mut().parameters_mut() {
            t.data = values(t.data.len());
        }
        Self {
            adaptation,
            images: (0..5).map(|_| values(ROWS * DIM)).collect(),
        }
    }

    fn images(&self) -> Vec<&[f32]> {
        self.images.iter().map(Vec::as_slice).collect()
    }
}

fn cases() -> impl Iterator<Item = (Case, Loss)> {
    let losses = [Loss::Separability, Loss::Contrastive { margin: 0.1 }];
    [ModulationType::PerPatch, ModulationType::LearnedTransform]
        .into_iter()
        .flat_map(move |m| losses.into_iter().map(move |l| (Case::new(m), l)))
}

fn directions(of: &[Vec<f64>], seed: u64) -> Vec<Vec<f64>> {
    let mut stream = Stream::new(seed, Purpose::Init);
    of.iter()
        .map(|t| t.iter().map(|_| 2.0 * stream.uniform() - 1.0).collect())
        .collect()
}

fn inner(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    a.iter()
        .flatten()
        .zip(b.iter().flatten())
        .map(|(a, b)| a * b)
        .sum()
}

/// The fast path rounds to f32: 1e-5 of the largest value.
#[test]
fn loss_and_gradient_are_those_of_training() {
    for (case, loss) in cases() {
        let (images, a) = (case.images(), &case.adaptation);
        let batch = FixedBatch::new(a, &images, 3);
        let (found, gradient) = slopes(
            Formula::of(a, loss).unwrap(),
            &batch,
            &values(a.parameters()),
        );
        let mut pass = BatchPass::new();
        let expected = pass
            .forward(Some(a.modulation()), &images, 3, DIM, loss)
            .unwrap()
            .loss;
        let mut fast = Gradients::zeros_for(a.parameters());
        pass.backward(a.modulation(), &images, &mut fast, None);
        assert!(
            (found - expected).abs() < 1e-5 * expected.abs().max(1.0),
            "{loss}: {found} {expected}"
        );
        for (t, ours) in fast.parameters.iter().zip(&gradient) {
            let top = t.data.iter().fold(1e-3f32, |top, v| top.max(v.abs()));
            for (fast, exact) in t.data.iter().zip(ours) {
                let error = (f64::from(*fast) - exact).abs();
                assert!(
                    error < 2e-5 * f64::from(top),
                    "{loss} {}: {fast} {exact}",
                    t.name
                );
            }
        }
    }
}

/// Central differences of the f64 gradient with a step of 1e-5 (matches held): error around 1e-8.
#[test]
fn hessian_products_agree_with_finite_differences_and_are_symmetric() {
    const STEP: f64 = 1e-5;
    for (case, loss) in cases() {
        let a = &case.adaptation;
        let at = values(a.parameters());
        let formula = Formula::of(a, loss).unwrap();
        let batch = FixedBatch::new(a, &case.images(), 3);
        let (u, v) = (directions(&at, 11), directions(&at, 12));
        let found = hessian_product(formula, &batch, a.parameters(), &v);
        let moved = |step: f64| -> Vec<Vec<f64>> {
            let step_along = |(t, d): (&Vec<f64>, &Vec<f64>)| {
                t.iter().zip(d).map(|(t, d)| t + step * d).collect()
            };
            let to: Vec<Vec<f64>> = at.iter().zip(&v).map(step_along).collect();
            slopes(formula, &batch, &to).1
        };
        let (plus, minus) = (moved(STEP), moved(-STEP));
        let top = found
            .iter()
            .flatten()
            .fold(0.0f64, |top, v| top.max(v.abs()));
        assert!(top > 1e-3, "{loss}: the product is nothing");
        for ((found, plus), minus) in found
            .iter()
            .flatten()
            .zip(plus.iter().flatten())
            .zip(minus.iter().flatten())
        {
            let slope = (plus - minus) / (2.0 * STEP);
            assert!(
                (found - slope).abs() < 1e-6 * top.max(1.0),
                "{loss}: {found} {slope}"
            );
        }
        let other = hessian_product(formula, &batch, a.parameters(), &u);
        let (uhv, vhu) = (inner(&u, &found), inner(&v, &other));
        assert!(
            (uhv - vhu).abs() < 1e-9 * uhv.abs().max(1.0),
            "{loss}: {uhv} {vhu}"
        );
    }
}

#[test]
fn what_has_no_second_derivative_is_refused() {
    let refused = |case: &Case, loss| Formula::of(&case.adaptation, loss).unwrap_err().to_string();
    let global = Case::new(ModulationType::Global);
    assert!(refused(&global, Loss::Separability).contains("maml with global"));
    let ranking: Loss = "ranking".parse().unwrap();
    assert!(refused(&Case::new(ModulationType::PerPatch), ranking).contains("maml with ranking"));
}
