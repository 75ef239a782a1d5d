//! Limited-memory BFGS, one point at a time, so that several minimisations can ask for their points together.

use super::HeadError;
use super::logistic::{LinearHead, LogisticOptions, Solution};

/// Pairs of steps and gradient changes the solver remembers.
const MEMORY: usize = 10;

/// Loss and its gradient (bias last) at a point.
pub(super) type Sums = (f64, Vec<f64>);

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn largest(v: &[f64]) -> f64 {
    v.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// One remembered step: change of position, change of gradient, and 1 / (their product).
type Step = (Vec<f64>, Vec<f64>, f64);

/// The limited-memory BFGS direction (Nocedal, Mathematics of Computation 35, 1980).
fn direction(gradient: &[f64], memory: &[Step]) -> Vec<f64> {
    let mut d: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(memory.len());
    for (s, y, rho) in memory.iter().rev() {
        let alpha = rho * inner(s, &d);
        d.iter_mut().zip(y).for_each(|(d, y)| *d -= alpha * y);
        alphas.push(alpha);
    }
    if let Some((s, y, _)) = memory.last() {
        let scale = inner(s, y) / inner(y, y);
        for v in &mut d {
            *v *= scale;
        }
    }
    for ((s, y, rho), alpha) in memory.iter().zip(alphas.into_iter().rev()) {
        let beta = rho * inner(y, &d);
        d.iter_mut()
            .zip(s)
            .for_each(|(d, s)| *d += (alpha - beta) * s);
    }
    d
}

/// One minimisation, which asks for loss and gradient point by point.
pub(super) struct Solver {
    at: Vec<f64>,
    loss: f64,
    gradient: Vec<f64>,
    memory: Vec<Step>,
    steps: usize,
    /// The point that is asked about; none at the end.
    pub(super) asks: Option<Vec<f64>>,
    /// Where the line search goes, how steeply the loss falls there, and how far it went.
    direction: Vec<f64>,
    slope: f64,
    length: f64,
}

impl Solver {
    pub(super) fn new(width: usize) -> Self {
        Self {
            at: Vec::new(),
            loss: 0.0,
            gradient: Vec::new(),
            memory: Vec::new(),
            steps: 0,
            asks: Some(vec![0.0; width + 1]),
            direction: Vec::new(),
            slope: 0.0,
            length: 0.0,
        }
    }

    /// Hears loss and gradient of the point it asked about.
    pub(super) fn hear(
        &mut self,
        (loss, gradient): Sums,
        options: &LogisticOptions,
    ) -> Result<(), HeadError> {
        let Some(next) = self.asks.take() else {
            return Ok(());
        };
        if self.at.is_empty() {
            if !loss.is_finite() || gradient.iter().any(|g| !g.is_finite()) {
                return Err(HeadError::NotFinite);
            }
            (self.at, self.loss, self.gradient) = (next, loss, gradient);
        } else if loss <= self.loss + 1e-4 * self.length * self.slope {
            self.accept(next, loss, gradient);
        } else {
            self.length *= 0.5;
            // no lower point along a descent direction: the f32 rows allow no better answer
            if self.length >= 1e-10 {
                self.ask();
            }
            return Ok(());
        }
        if self.steps < options.max_steps && largest(&self.gradient) > options.tolerance {
            self.direction = direction(&self.gradient, &self.memory);
            self.slope = inner(&self.direction, &self.gradient);
            self.length = if self.memory.is_empty() {
                (1.0 / largest(&self.gradient)).min(1.0)
            } else {
                1.0
            };
            self.ask();
        }
        Ok(())
    }

    fn ask(&mut self) {
        let along = self.at.iter().zip(&self.direction);
        self.asks = Some(along.map(|(x, d)| x + self.length * d).collect());
    }

    fn accept(&mut self, next: Vec<f64>, loss: f64, gradient: Vec<f64>) {
        let difference = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect();
        let s: Vec<f64> = difference(&next, &self.at);
        let y: Vec<f64> = difference(&gradient, &self.gradient);
        let curvature = inner(&s, &y);
        if curvature > 1e-12 * inner(&y, &y) {
            if self.memory.len() == MEMORY {
                self.memory.remove(0);
            }
            self.memory.push((s, y, 1.0 / curvature));
        }
        (self.at, self.loss, self.gradient) = (next, loss, gradient);
        self.steps += 1;
    }

    pub(super) fn solution(self) -> Solution {
        let width = self.at.len() - 1;
        Solution {
            head: LinearHead {
                weight: self.at[..width].iter().map(|w| *w as f32).collect(),
                bias: self.at[width] as f32,
            },
            loss: self.loss,
            gradient: largest(&self.gradient),
            steps: self.steps,
        }
    }
}
