//! Modulations, similarities, losses and gradients against the f64 reference vectors, and the optimiser against their
//! training traces. Sizes come from the tensors, so another set of the same layout runs unchanged.

#![allow(clippy::unwrap_used)] // a test may stop

use flawtune_lab::adapt::{
    Adam, AdaptError, Adaptation, AdaptationOptions, BatchPass, Gradients, Loss, Modulation,
    ModulationType, Parameters, Tape, cosine_rate,
};
use flawtune_testing::Golden;

/// Gradients: of the tensor's largest absolute value (f32 against f64; PyTorch's own f32 needs 1.5e-6).
const GRADIENT: f64 = 2e-5;
/// Tokens after a modulation and similarities: absolute, values are of size 1 to 10.
const TOKEN: f64 = 1e-5;
/// Losses: absolute, as for the traces.
const LOSS: f64 = 1e-5;
/// Parameters after 25 steps: absolute.
const PARAMETER: f64 = 1e-6;
/// Mode `global` sees the prompt scales only through the 1e-8 beside a norm: their gradient is rounding noise in f32.
const NOISE: (ModulationType, &str) = (ModulationType::Global, "prompt_scales");

struct Inputs {
    normals: Vec<f32>,
    defects: Vec<f32>,
    n: usize,
    size: usize,
    dim: usize,
}

impl Inputs {
    fn read(file: &Golden, normals: &str, defects: &str) -> Self {
        let (shape, normals) = file.f32s(normals);
        let (_, defects) = file.f32s(defects);
        Self {
            normals,
            defects,
            n: shape[0],
            size: shape[1] * shape[2],
            dim: shape[2],
        }
    }

    fn all(&self) -> Vec<&[f32]> {
        self.normals
            .chunks(self.size)
            .chain(self.defects.chunks(self.size))
            .collect()
    }
}

/// Their name of one of our tensors.
fn golden_name(ours: &str) -> &str {
    if ours == "prompt_scales" {
        "scales"
    } else {
        ours
    }
}

fn build(file: &Golden, modulation: ModulationType) -> Adaptation {
    let mut p = Parameters::new();
    for name in [
        "prompts",
        "prompt_scales",
        "mlp.0.weight",
        "mlp.0.bias",
        "mlp.2.weight",
        "mlp.2.bias",
    ] {
        let (shape, data) = file.f32s(&format!("in.{}", golden_name(name)));
        p.push(name, &shape, data).unwrap();
    }
    let scaling_factor = file.number("in.alpha") as f32;
    Adaptation::from_parameters(
        AdaptationOptions {
            modulation,
            scaling_factor,
            ..Default::default()
        },
        &p,
    )
    .unwrap()
}

fn close(what: &str, found: &[f32], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let worst = found
        .iter()
        .zip(wanted)
        .map(|(&f, w)| (f64::from(f) - w).abs())
        .fold(0.0, f64::max);
    assert!(
        worst <= tolerance,
        "{what}: differs by {worst:.3e}, tolerance {tolerance:.1e}"
    );
}

fn close_to_max(what: &str, found: &[f32], wanted: &[f64]) {
    let max = wanted.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    close(what, found, wanted, GRADIENT * max);
}

fn number(what: &str, found: f64, wanted: f64, tolerance: f64) {
    assert!(
        (found - wanted).abs() <= tolerance,
        "{what}: {found} against {wanted}"
    );
}

fn losses(file: &Golden) -> [(&'static str, Loss); 2] {
    [
        ("sep", Loss::Separability),
        (
            "con",
            Loss::Contrastive {
                margin: file.number("in.margin"),
            },
        ),
    ]
}

#[test]
fn values_and_gradients_of_every_mode_and_loss() {
    let file = Golden::open("method/method.safetensors");
    let input = Inputs::read(&file, "in.normals", "in.defects");
    let images = input.all();
    for mode in [None].into_iter().chain(ModulationType::ALL.map(Some)) {
        let name = mode.map_or("none", ModulationType::name);
        let adaptation = mode.map(|m| build(&file, m));
        let modulation: Option<&dyn Modulation> = adaptation.as_ref().map(Adaptation::modulation);
        let golden = |key: &str| file.f64s(&format!("{name}.f64.{key}")).1;
        if let Some(m) = modulation {
            let mut out = vec![0.0; images.len() * input.size];
            m.forward(&images, &mut out, &mut Tape::default());
            let (a, b) = out.split_at(input.normals.len());
            close(&format!("{name} normals"), a, &golden("mod_normals"), TOKEN);
            close(&format!("{name} defects"), b, &golden("mod_defects"), TOKEN);
        }
        for (short, loss) in losses(&file) {
            let mut pass = BatchPass::new();
            let found = pass
                .forward(modulation, &images, input.n, input.dim, loss)
                .unwrap();
            number(
                &format!("{name} {short}"),
                found.loss,
                golden(short)[0],
                LOSS,
            );
            let stats = found.stats;
            for (key, value) in [
                ("mu_nn", stats.mu_nn),
                ("mu_nd", stats.mu_nd),
                ("sd_nn", stats.sd_nn),
                ("sd_nd", stats.sd_nd),
            ] {
                number(&format!("{name} {key}"), value, golden(key)[0], TOKEN);
            }
            let (nn, nd) = (golden("nn"), golden("nd"));
            for (i, &wanted) in nn
                .iter()
                .enumerate()
                .filter(|(i, _)| i / input.n != i % input.n)
            {
                number(
                    &format!("{name} nn {i}"),
                    pass.similarities().nn[i],
                    wanted,
                    TOKEN,
                );
            }
            for (i, &wanted) in nd.iter().enumerate() {
                number(
                    &format!("{name} nd {i}"),
                    pass.similarities().nd[i],
                    wanted,
                    TOKEN,
                );
            }
            let mut grad_in = vec![0.0; images.len() * input.size];
            if let Some(m) = modulation {
                let mut g = Gradients::zeros_for(m.parameters());
                pass.backward(m, &images, &mut g, Some(&mut grad_in));
                let alpha = golden(&format!("{short}.grad.alpha"))[0];
                number(
                    &format!("{name} {short} alpha"),
                    g.scaling_factor,
                    alpha,
                    GRADIENT * alpha.abs(),
                );
                for t in &g.parameters {
                    let what = format!("{name} {short} {}", t.name);
                    assert!(t.data.iter().any(|&v| v != 0.0), "{what} is all zero");
                    if mode == Some(NOISE.0) && t.name == NOISE.1 {
                        // both are of the size of the epsilon
                        assert!(t.data.iter().all(|v| v.abs() < 1e-6), "{what}");
                    } else {
                        close_to_max(
                            &what,
                            &t.data,
                            &golden(&format!("{short}.grad.{}", golden_name(&t.name))),
                        );
                    }
                }
            } else {
                pass.token_gradient(&mut grad_in);
            }
            let (a, b) = grad_in.split_at(input.normals.len());
            close_to_max(
                &format!("{name} {short} normals"),
                a,
                &golden(&format!("{short}.grad.normals")),
            );
            close_to_max(
                &format!("{name} {short} defects"),
                b,
                &golden(&format!("{short}.grad.defects")),
            );
        }
    }
}

#[test]
fn twenty_five_steps_of_training() {
    const EPOCHS: usize = 5;
    const RATE: f64 = 1e-3;
    let file = Golden::open("method/method.safetensors");
    let trace = Golden::open("method/trace.safetensors");
    let input = Inputs::read(&file, "in.normals", "in.defects");
    let all = input.all();
    let (shape, batch_normals) = trace.f64s("batch_normals");
    let (other, batch_defects) = trace.f64s("batch_defects");
    let (steps, bn, bm) = (shape[0], shape[1], other[1]);
    for mode in ModulationType::ALL {
        for (short, loss) in losses(&file) {
            let prefix = format!("{mode}.{short}.f64");
            if !trace.has(&format!("{prefix}.loss")) {
                continue;
            }
            let mut adaptation = build(&file, mode);
            let mut adam = Adam::new(adaptation.parameters());
            let mut gradients = Gradients::zeros_for(adaptation.parameters());
            let mut pass = BatchPass::new();
            let wanted = trace.f64s(&format!("{prefix}.loss")).1;
            let rates = trace.f64s(&format!("{prefix}.lr")).1;
            let separabilities = trace.f64s(&format!("{prefix}.separability")).1;
            for step in 0..steps {
                let epoch = step / (steps / EPOCHS);
                if step % (steps / EPOCHS) == 0 {
                    let m = adaptation.modulation();
                    let all = BatchPass::new()
                        .forward(Some(m), &all, input.n, input.dim, loss)
                        .unwrap();
                    number(
                        &format!("{prefix} epoch {epoch}"),
                        all.stats.separability(),
                        separabilities[epoch],
                        LOSS,
                    );
                }
                let pick = |list: &[f64], width: usize, offset: usize| {
                    list[step * width..][..width]
                        .iter()
                        .map(|&i| all[offset + i as usize])
                        .collect::<Vec<_>>()
                };
                let mut images = pick(&batch_normals, bn, 0);
                images.extend(pick(&batch_defects, bm, input.n));
                let found = pass
                    .forward(Some(adaptation.modulation()), &images, bn, input.dim, loss)
                    .unwrap();
                number(
                    &format!("{prefix} step {step}"),
                    found.loss,
                    wanted[step],
                    LOSS,
                );
                gradients.clear();
                pass.backward(adaptation.modulation(), &images, &mut gradients, None);
                let rate = cosine_rate(RATE, epoch, EPOCHS);
                number(&format!("{prefix} rate {step}"), rate, rates[step], 1e-15);
                adam.step(
                    adaptation.modulation_mut().parameters_mut(),
                    &gradients.parameters,
                    rate,
                )
                .unwrap();
                if step == 0 || step == steps - 1 {
                    let when = if step == 0 { "after_step1" } else { "final" };
                    for t in adaptation.parameters() {
                        if (mode, t.name.as_str()) != NOISE {
                            let key = format!("{prefix}.{when}.{}", golden_name(&t.name));
                            close(&key, &t.data, &trace.f64s(&key).1, PARAMETER);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn degenerate_batches() {
    let file = Golden::open("method/method.safetensors");
    let odd = Golden::open("method/degenerate.safetensors");
    // two normals of one patch: σ_NN is exactly 0 and its gradient taken as 0
    let input = Inputs::read(&odd, "sd0.normals", "sd0.defects");
    let mut pass = BatchPass::new();
    let found = pass
        .forward(None, &input.all(), input.n, input.dim, Loss::Separability)
        .unwrap();
    assert_eq!(found.stats.sd_nn, 0.0);
    number(
        "sd0 sd_nd",
        found.stats.sd_nd,
        odd.number("sd0.sd_nd"),
        TOKEN,
    );
    number("sd0 sep", found.loss, odd.number("sd0.sep"), LOSS);
    let mut grad = vec![0.0; input.normals.len() + input.defects.len()];
    pass.token_gradient(&mut grad);
    close_to_max(
        "sd0 normals",
        &grad[..input.normals.len()],
        &odd.f64s("sd0.sep.grad.normals").1,
    );
    close_to_max(
        "sd0 defects",
        &grad[input.normals.len()..],
        &odd.f64s("sd0.sep.grad.defects").1,
    );

    // a prompt of zeros: unit() has the slope 1e8 there
    let input = Inputs::read(&file, "in.normals", "in.defects");
    let mut adaptation = build(&file, ModulationType::PerPatch);
    let (shape, prompts) = odd.f32s("zero_prompt.prompts");
    adaptation
        .modulation_mut()
        .parameters_mut()
        .get_mut("prompts")
        .unwrap()
        .data = prompts;
    let mut gradients = Gradients::zeros_for(adaptation.parameters());
    let m = adaptation.modulation();
    let found = pass
        .forward(
            Some(m),
            &input.all(),
            input.n,
            input.dim,
            Loss::Separability,
        )
        .unwrap();
    number(
        "zero prompt sep",
        found.loss,
        odd.number("zero_prompt.sep"),
        LOSS,
    );
    pass.backward(adaptation.modulation(), &input.all(), &mut gradients, None);
    let found = &gradients.parameters.get("prompts").unwrap().data;
    let wanted = odd.f64s("zero_prompt.sep.grad.prompts").1;
    // rows apart: the first is eight orders of magnitude larger
    for (row, (f, w)) in found
        .chunks(shape[1])
        .zip(wanted.chunks(shape[1]))
        .enumerate()
    {
        close_to_max(&format!("zero prompt row {row}"), f, w);
    }
    let wanted = odd.f64s("zero_prompt.sep.grad.scales").1;
    close_to_max(
        "zero prompt scales",
        &gradients.parameters.get("prompt_scales").unwrap().data,
        &wanted,
    );
}

#[test]
fn one_normal_is_a_typed_error() {
    let file = Golden::open("method/method.safetensors");
    let input = Inputs::read(&file, "in.normals", "in.defects");
    let images = input.all();
    let found = BatchPass::new().forward(
        None,
        &images[input.n - 1..],
        1,
        input.dim,
        Loss::Separability,
    );
    assert!(matches!(
        found,
        Err(AdaptError::TooFewImages {
            found: 1,
            wanted: 2,
            ..
        })
    ));
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let file = Golden::open("method/method.safetensors");
    let input = Inputs::read(&file, "in.normals", "in.defects");
    for mode in ModulationType::ALL {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let a = build(&file, mode);
                let mut gradients = Gradients::zeros_for(a.parameters());
                let mut grad_in = vec![0.0; input.normals.len() + input.defects.len()];
                let mut pass = BatchPass::new();
                let images = input.all();
                let m = a.modulation();
                let found = pass
                    .forward(Some(m), &images, input.n, input.dim, Loss::Separability)
                    .unwrap();
                pass.backward(a.modulation(), &images, &mut gradients, Some(&mut grad_in));
                (found, gradients, grad_in)
            })
        };
        let one = run(1);
        for threads in [2, 3, 8] {
            assert_eq!(one, run(threads), "{mode}, {threads} threads");
        }
    }
}
