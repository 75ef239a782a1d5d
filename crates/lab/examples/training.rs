//! Training steps and whole trainings on features from files.
//!
//! ```text
//! training NORMALS.safetensors DEFECTS.safetensors [--threads N] [--modulation NAME] [--prompts K]
//! ```
//!
//! The files are those of `flawtune features`. Answers each line on standard input with one line of seconds: `step` is the mean
//! of five steps on the first 16 normals and 16 defects, `forward` that of their forward passes alone, `steps N` trains N steps on
//! these images as a training does (matches are kept from step to step), and `epochs N` trains N
//! full-pass epochs on all images. So that `bench/peers/training.py` can take turns with another engine.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{self, BufRead as _, Write as _};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use flawtune::features::{ImageTokens, TokenSet};
use flawtune_lab::adapt::{
    Adam, Adaptation, AdaptationOptions, BatchPass, Gradients, Loss, ModulationType, TrainData,
    TrainOptions, rows_of, train,
};
use safetensors::SafeTensors;

/// Normals, and defects, in a batch.
const BATCH: usize = 16;
/// Steps of one measurement.
const STEPS: usize = 5;

fn load(path: &str) -> Result<TokenSet, Box<dyn Error>> {
    let bytes = std::fs::read(path)?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let tokens = tensors.tensor("patch_tokens")?;
    let &[_, patches, dim] = tokens.shape() else {
        return Err("patch_tokens are [images, patches, dim]".into());
    };
    let image = |image: &[u8]| {
        let mut values = vec![0.0; dim];
        values.extend(
            image
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        );
        ImageTokens::owned(values, patches, dim)
    };
    let images = tokens
        .data()
        .chunks_exact(patches * dim * 4)
        .map(image)
        .collect();
    Ok(TokenSet {
        grid: (1, patches),
        dim,
        images,
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [normals, defects, ..] = &args[..] else {
        return Err("training NORMALS.safetensors DEFECTS.safetensors".into());
    };
    let option = |name: &str| {
        args.iter()
            .position(|a| a == name)
            .and_then(|i| args.get(i + 1))
    };
    let threads = option("--threads").map_or(Ok(2), |v| v.parse())?;
    let num_prompts = option("--prompts").map_or(Ok(20), |v| v.parse())?;
    let modulation = option("--modulation").map_or(Ok(ModulationType::PerPatch), |v| v.parse())?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;
    let (normals, defects) = (load(normals)?, load(defects)?);
    let dim = normals.dim;
    let options = AdaptationOptions {
        modulation,
        num_prompts,
        ..Default::default()
    };
    let mut adaptation = Adaptation::new(options.clone(), dim)?;
    let mut adam = Adam::new(adaptation.parameters());
    let mut gradients = Gradients::zeros_for(adaptation.parameters());
    let mut pass = BatchPass::new();
    let batch: Vec<&[f32]> = normals
        .images
        .iter()
        .take(BATCH)
        .chain(defects.images.iter().take(BATCH))
        .map(|i| rows_of(i, false))
        .collect();
    println!("ready");
    for line in io::stdin().lock().lines() {
        let line = line?;
        let start = Instant::now();
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["step" | "forward"] => {
                for _ in 0..STEPS {
                    let m = adaptation.modulation();
                    pass.forward(Some(m), &batch, BATCH, dim, Loss::Separability)?;
                    if line == "step" {
                        gradients.clear();
                        pass.backward(m, &batch, &mut gradients, None);
                        adam.step(
                            adaptation.modulation_mut().parameters_mut(),
                            &gradients.parameters,
                            1e-3,
                        )?;
                    }
                }
                println!("{}", start.elapsed().as_secs_f64() / STEPS as f64);
            }
            [work @ ("epochs" | "steps"), epochs] => {
                let mut adaptation = Adaptation::new(options.clone(), dim)?;
                let limit = if work == "steps" { BATCH } else { usize::MAX };
                let all: Vec<usize> = (0..normals.images.len().min(limit)).collect();
                let shots: Vec<usize> = (0..defects.images.len().min(limit)).collect();
                let data = TrainData {
                    normals: &normals,
                    normal_indices: &all,
                    defects: &defects,
                    defect_indices: &shots,
                    masks: &[],
                };
                let settings = TrainOptions {
                    epochs: epochs.parse()?,
                    ..Default::default()
                };
                train(
                    &mut adaptation,
                    &data,
                    &settings,
                    None,
                    &AtomicBool::new(false),
                    &mut |_| {},
                )?;
                println!("{}", start.elapsed().as_secs_f64());
            }
            _ => return Err(format!("no such work: {line:?}").into()),
        }
        io::stdout().flush()?;
    }
    Ok(())
}
