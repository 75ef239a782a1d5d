//! Inner steps, and the outer gradient of an episode.

use super::Method;
use super::exact::{FixedBatch, Formula, hessian_product, values};
use crate::adapt::{AdaptError, Adaptation, BatchPass, Gradients, Loss, Parameters};

/// Rows of the images of a batch, normals first, and how many of them are normals.
pub(super) type Rows<'a> = (Vec<&'a [f32]>, usize);

/// What an episode says of the start.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Query loss before the inner steps.
    pub(super) before: f64,
    /// Query loss after them.
    pub(super) after: f64,
    /// For Reptile the way from the start to the end of the inner steps, otherwise the gradient of the query's loss.
    pub(super) direction: Vec<Vec<f64>>,
}

/// How inner steps are taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inner {
    pub(super) method: Method,
    pub(super) steps: usize,
    pub(super) rate: f64,
    pub(super) loss: Loss,
}

impl Inner {
    /// Takes the steps on `support` from the adaptation's parameters and looks at `query`. The adaptation is as before afterwards.
    ///
    /// # Errors
    /// Too few images; for MAML formulas without a second derivative; numbers that are no longer finite.
    pub(super) fn run(
        &self,
        adaptation: &mut Adaptation,
        support: &Rows<'_>,
        query: &Rows<'_>,
        pass: &mut BatchPass,
    ) -> Result<Verdict, AdaptError> {
        let formula = (self.method == Method::Maml)
            .then(|| Formula::of(adaptation, self.loss))
            .transpose()?;
        let start = adaptation.parameters().clone();
        let mut gradients = Gradients::zeros_for(&start);
        let before = self.gradient(adaptation, query, pass, &mut gradients)?;
        let mut passed: Vec<(Parameters, FixedBatch)> = Vec::new();
        for _ in 0..self.steps {
            self.gradient(adaptation, support, pass, &mut gradients)?;
            if formula.is_some() {
                let fixed = FixedBatch::new(adaptation, &support.0, support.1);
                passed.push((adaptation.parameters().clone(), fixed));
            }
            step(adaptation, &gradients.parameters, self.rate);
        }
        let after = self.gradient(adaptation, query, pass, &mut gradients)?;
        if !(before.is_finite() && after.is_finite()) {
            return Err(AdaptError::NotFinite {
                what: "loss of an episode".into(),
                epoch: 1,
                step: self.steps,
            });
        }
        let mut direction: Vec<Vec<f64>> = match self.method {
            Method::Reptile => {
                let way = |(end, start): (&f32, &f32)| f64::from(*end) - f64::from(*start);
                adaptation
                    .parameters()
                    .iter()
                    .zip(&start)
                    .map(|(end, start)| end.data.iter().zip(&start.data).map(way).collect())
                    .collect()
            }
            _ => values(&gradients.parameters),
        };
        if let Some(formula) = formula {
            for (at, fixed) in passed.iter().rev() {
                back(formula, fixed, at, self.rate, &mut direction);
            }
        }
        adaptation
            .modulation_mut()
            .parameters_mut()
            .copy_from(&start)?;
        Ok(Verdict {
            before,
            after,
            direction,
        })
    }

    /// Loss of a batch, and its gradient in place of what `gradients` held.
    fn gradient(
        &self,
        adaptation: &Adaptation,
        (images, normals): &Rows<'_>,
        pass: &mut BatchPass,
        gradients: &mut Gradients,
    ) -> Result<f64, AdaptError> {
        let modulation = adaptation.modulation();
        let found = pass.forward(
            Some(modulation),
            images,
            *normals,
            adaptation.dim(),
            self.loss,
        )?;
        gradients.clear();
        pass.backward(modulation, images, gradients, None);
        Ok(found.loss)
    }
}

/// One step of gradient descent.
fn step(adaptation: &mut Adaptation, gradient: &Parameters, rate: f64) {
    for (to, by) in adaptation
        .modulation_mut()
        .parameters_mut()
        .iter_mut()
        .zip(gradient)
    {
        for (p, g) in to.data.iter_mut().zip(&by.data) {
            *p = (f64::from(*p) - rate * f64::from(*g)) as f32;
        }
    }
}

/// Brings a gradient back through one inner step: `v ← v − a H v`.
fn back(
    formula: Formula,
    fixed: &FixedBatch,
    at: &Parameters,
    rate: f64,
    direction: &mut [Vec<f64>],
) {
    let product = hessian_product(formula, fixed, at, direction);
    for (v, h) in direction.iter_mut().flatten().zip(product.iter().flatten()) {
        *v -= rate * h;
    }
}

#[cfg(test)]
mod tests {
    use super::super::exact::slopes;
    use super::*;
    use crate::adapt::{AdaptationOptions, ModulationType};
    use flawtune::random::{Purpose, Stream};

    const DIM: usize = 6;
    const ROWS: usize = 3;

    struct World {
        adaptation: Adaptation,
        support: Vec<Vec<f32>>,
        query: Vec<Vec<f32>>,
    }

    impl World {
        fn new(modulation: ModulationType) -> Self {
            let mut stream = Stream::new(9, Purpose::Init);
            let mut values = |n: usize| {
                (0..n)
                    .map(|_| 2.0 * stream.uniform() as f32 - 1.0)
                    .collect::<Vec<f32>>()
            };
            let options = AdaptationOptions {
                modulation,
                num_prompts: 2,
                scaling_factor: 0.8,
                seed: 3,
                ..AdaptationOptions::default()
            };
            let mut adaptation = Adaptation::new(options, DIM).unwrap();
            for t in adaptation.modulation_mut().parameters_mut() {
                t.data = values(t.data.len());
            }
            let mut images = |n: usize| (0..n).map(|_| values(ROWS * DIM)).collect::<Vec<_>>();
            Self {
                adaptation,
                support: images(5),
                query: images(6),
            }
        }

        fn run(&mut self, method: Method, steps: usize) -> Verdict {
            let inner = Inner {
                method,
                steps,
                rate: 0.05,
                loss: Loss::Separability,
            };
            let support = (self.support.iter().map(Vec::as_slice).collect(), 3);
            let query = (self.query.iter().map(Vec::as_slice).collect(), 3);
            inner
                .run(
                    &mut self.adaptation,
                    &support,
                    &query,
                    &mut BatchPass::new(),
                )
                .unwrap()
        }
    }

    /// The whole computation, inner steps and query, in f64 with the matches of the trajectory held, along one direction: central
    /// differences with a step of 1e-5. The trajectory of `run` is rounded to f32, which moves the gradient by about 1e-5 of its size.
    #[test]
    fn mamls_gradient_is_that_of_the_whole_computation() {
        for modulation in [ModulationType::PerPatch, ModulationType::LearnedTransform] {
            let mut w = World::new(modulation);
            let (steps, rate, loss) = (3, 0.05, Loss::Separability);
            let found = w.run(Method::Maml, steps);
            let first_order = w.run(Method::Fomaml, steps);
            let support: Vec<&[f32]> = w.support.iter().map(Vec::as_slice).collect();
            let query: Vec<&[f32]> = w.query.iter().map(Vec::as_slice).collect();
            let formula = Formula::of(&w.adaptation, loss).unwrap();
            let at = values(w.adaptation.parameters());
            // matches of the unmoved trajectory
            let mut moving = w.adaptation.clone();
            let mut fixed = Vec::new();
            for _ in 0..steps {
                let batch = FixedBatch::new(&moving, &support, 3);
                let gradient = slopes(formula, &batch, &values(moving.parameters())).1;
                for (t, g) in moving
                    .modulation_mut()
                    .parameters_mut()
                    .iter_mut()
                    .zip(&gradient)
                {
                    t.data
                        .iter_mut()
                        .zip(g)
                        .for_each(|(p, g)| *p = (f64::from(*p) - rate * g) as f32);
                }
                fixed.push(batch);
            }
            let last = FixedBatch::new(&moving, &query, 3);
            let whole = |start: Vec<Vec<f64>>| -> f64 {
                let mut now = start;
                for batch in &fixed {
                    let gradient = slopes(formula, batch, &now).1;
                    for (v, g) in now.iter_mut().flatten().zip(gradient.iter().flatten()) {
                        *v -= rate * g;
                    }
                }
                slopes(formula, &last, &now).0
            };
            let mut stream = Stream::new(21, Purpose::Init);
            let along: Vec<Vec<f64>> = at
                .iter()
                .map(|t| t.iter().map(|_| 2.0 * stream.uniform() - 1.0).collect())
                .collect();
            let moved = |step: f64| {
                let to = |(t, d): (&Vec<f64>, &Vec<f64>)| {
                    t.iter().zip(d).map(|(t, d)| t + step * d).collect()
                };
                whole(at.iter().zip(&along).map(to).collect())
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let project = |of: &[Vec<f64>]| -> f64 {
                of.iter()
                    .flatten()
                    .zip(along.iter().flatten())
                    .map(|(a, b)| a * b)
                    .sum()
            };
            let (exact, first) = (project(&found.direction), project(&first_order.direction));
            assert!(
                (exact - slope).abs() < 1e-3 * slope.abs().max(0.1),
                "{modulation}: {exact} {slope}"
            );
            assert!(
                (first - slope).abs() > 10.0 * (exact - slope).abs(),
                "the second-order term does nothing: {first}"
            );
        }
    }

    #[test]
    fn reptile_goes_the_way_of_the_inner_steps_and_nothing_is_left_behind() {
        let mut w = World::new(ModulationType::PerPatch);
        let start = w.adaptation.parameters().clone();
        let one = w.run(Method::Reptile, 1);
        assert_eq!(*w.adaptation.parameters(), start);
        // one step of plain descent, by hand: the way is −rate times the support's gradient
        let images: Vec<&[f32]> = w.support.iter().map(Vec::as_slice).collect();
        let mut pass = BatchPass::new();
        pass.forward(
            Some(w.adaptation.modulation()),
            &images,
            3,
            DIM,
            Loss::Separability,
        )
        .unwrap();
        let mut gradients = Gradients::zeros_for(&start);
        pass.backward(w.adaptation.modulation(), &images, &mut gradients, None);
        for (t, way) in gradients.parameters.iter().zip(&one.direction) {
            for (g, way) in t.data.iter().zip(way) {
                // the end of the way is rounded to f32
                assert!((way + 0.05 * f64::from(*g)).abs() < 2e-7, "{way} {g}");
            }
        }
        // without inner steps FOMAML and MAML are the query's gradient, and Reptile stays
        assert!(
            w.run(Method::Reptile, 0)
                .direction
                .iter()
                .flatten()
                .all(|v| *v == 0.0)
        );
        let (first, second) = (w.run(Method::Fomaml, 0), w.run(Method::Maml, 0));
        assert_eq!(first.direction, second.direction);
        assert_eq!(first.before, first.after);
    }
}
