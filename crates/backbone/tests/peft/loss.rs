//! The separability loss on plain patch tokens with its gradient, in f64.

/// Loss and its gradient with respect to the patches of each image, normals first.
pub(crate) struct Separability {
    pub(crate) loss: f64,
    pub(crate) gradients: Vec<Vec<f32>>,
}

const EPSILON: f64 = 1e-8;

struct Unit {
    rows: Vec<f64>,
    norms: Vec<f64>,
}

fn unit(patches: &[f32], dim: usize) -> Unit {
    let mut rows = Vec::new();
    let mut norms = Vec::new();
    for p in patches.chunks_exact(dim) {
        let n = p.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        rows.extend(p.iter().map(|&v| f64::from(v) / (n + EPSILON)));
        norms.push(n);
    }
    Unit { rows, norms }
}

/// Mean over the patches of `a` of the largest cosine with a patch of `b`, and which patch that was.
fn sim(a: &Unit, b: &Unit, dim: usize) -> (f64, Vec<usize>) {
    let mut total = 0.0;
    let mut index = Vec::new();
    for p in a.rows.chunks_exact(dim) {
        let (mut best, mut at) = (f64::NEG_INFINITY, 0);
        for (q, row) in b.rows.chunks_exact(dim).enumerate() {
            let s = p.iter().zip(row).map(|(x, y)| x * y).sum::<f64>();
            if s > best {
                (best, at) = (s, q);
            }
        }
        total += best;
        index.push(at);
    }
    (total / index.len() as f64, index)
}

/// Mean, unbiased deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (
        mean,
        (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt(),
    )
}

/// `−(μ_nn − μ_nd) / (σ_nn + σ_nd + ε)` and its gradient.
pub(crate) fn separability(normals: &[&[f32]], defects: &[&[f32]], dim: usize) -> Separability {
    let units: Vec<Unit> = normals
        .iter()
        .chain(defects)
        .map(|p| unit(p, dim))
        .collect();
    let n = normals.len();
    let nn: Vec<(usize, usize)> = (0..n)
        .flat_map(|i| (0..n).filter(move |j| *j != i).map(move |j| (i, j)))
        .collect();
    let nd: Vec<(usize, usize)> = (0..n)
        .flat_map(|i| (n..units.len()).map(move |j| (i, j)))
        .collect();
    let all = |pairs: &[(usize, usize)]| {
        pairs
            .iter()
            .map(|&(i, j)| sim(&units[i], &units[j], dim))
            .collect::<Vec<_>>()
    };
    let (nn_sims, nd_sims) = (all(&nn), all(&nd));
    let values = |s: &[(f64, Vec<usize>)]| s.iter().map(|x| x.0).collect::<Vec<_>>();
    let (mu_nn, sd_nn) = moments(&values(&nn_sims));
    let (mu_nd, sd_nd) = moments(&values(&nd_sims));
    let spread = sd_nn + sd_nd + EPSILON;
    let loss = -(mu_nn - mu_nd) / spread;
    let mut grads: Vec<Vec<f64>> = units.iter().map(|u| vec![0.0; u.rows.len()]).collect();
    for (pairs, sims, mu, sd, sign) in [
        (&nn, &nn_sims, mu_nn, sd_nn, -1.0),
        (&nd, &nd_sims, mu_nd, sd_nd, 1.0),
    ] {
        let m = sims.len() as f64;
        for (&(i, j), (s, index)) in pairs.iter().zip(sims) {
            // d loss / d sim, through the mean and through the deviation
            let d = sign / (m * spread) - loss / spread * (s - mu) / ((m - 1.0) * sd);
            let d = d / index.len() as f64;
            for (p, &q) in index.iter().enumerate() {
                for c in 0..dim {
                    grads[i][p * dim + c] += d * units[j].rows[q * dim + c];
                    grads[j][q * dim + c] += d * units[i].rows[p * dim + c];
                }
            }
        }
    }
    let gradients = grads
        .iter()
        .zip(&units)
        .map(|(g, u)| {
            let rows = g
                .chunks_exact(dim)
                .zip(u.rows.chunks_exact(dim))
                .zip(&u.norms);
            rows.flat_map(|((g, row), n)| {
                // row = x / (n + ε): d x = (g − row · (g·row) · (n + ε) / n) / (n + ε)
                let along = g.iter().zip(row).map(|(a, b)| a * b).sum::<f64>() * (n + EPSILON) / n;
                g.iter()
                    .zip(row)
                    .map(|(g, r)| ((g - r * along) / (n + EPSILON)) as f32)
                    .collect::<Vec<_>>()
            })
            .collect()
        })
        .collect();
    Separability { loss, gradients }
}
