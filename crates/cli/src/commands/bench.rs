//! `flawtune bench`

use flawtune_lab::bench::{BenchError, BenchOptions, BenchReport, run as measure};

use crate::Context;
use crate::args::BenchArgs;
use crate::console::{out, out_json};
use crate::failure::Failure;
use crate::interrupt;

pub(crate) fn run(args: &BenchArgs, context: Context) -> Result<(), Failure> {
    let sizes = |list: &[u32]| list.iter().map(|&n| n as usize).collect();
    let options = BenchOptions {
        models: args.model_name.clone(),
        image_sizes: sizes(&args.image_size),
        batches: sizes(&args.batch),
        precisions: args.precision.clone(),
        rounds: args
            .rounds
            .map_or(if args.quick { 1 } else { 7 }, |r| r as usize),
        quick: args.quick,
    };
    let report = measure(&options, interrupt::cancel(), &mut |case| {
        context.console.note(&format!("measuring: {case}"));
    })
    .map_err(|e| match e {
        BenchError::Cancelled => Failure::Interrupted(e.to_string()),
        e => Failure::from_error(&e),
    })?;
    if context.json {
        return out_json(&report);
    }
    print(&report);
    Ok(())
}

fn print(r: &BenchReport) {
    let m = &r.machine;
    out(&format!(
        "{}, {} processors, {}; kernels {}, {} threads, medians of {} rounds",
        m.cpu.as_deref().unwrap_or(m.architecture),
        m.processors,
        if m.caches.is_empty() {
            "caches unknown".to_owned()
        } else {
            m.caches.join(", ")
        },
        m.kernels,
        r.threads,
        r.rounds
    ));
    out(&format!(
        "yardsticks: multiply-add loop {:.1} GFLOP/s, attainable (operands in the first-level cache) {:.1} GFLOP/s",
        r.yardsticks.fma_gflops, r.yardsticks.attainable_gflops
    ));
    out(
        "\nforward pass                  px   batch   images/s    GFLOP/s   of peak   of attainable  weights MiB",
    );
    for f in &r.forward {
        out(&format!(
            "{:<19} {:<5} {:>6} {:>7} {:>10.2} {:>10.1} {:>9.3} {:>15.3} {:>12.1}",
            f.model,
            f.precision,
            f.image_size,
            f.batch,
            f.images_per_s,
            f.gflops,
            f.peak_fraction,
            f.attainable_fraction,
            f.weights_mib
        ));
    }
    let mut precision = "";
    for o in &r.operators {
        if o.precision != precision {
            precision = o.precision;
            let Some(first) = r.forward.iter().find(|f| f.precision == precision) else {
                continue;
            };
            out(&format!(
                "\noperators of {} {precision} at {} px, batch {} ({}): milliseconds summed over threads, rates of one thread",
                first.model, first.image_size, first.batch, first.kernels
            ));
        }
        let rate = o.gflops.zip(o.attainable_fraction);
        let rate = rate.map_or_else(String::new, |(g, a)| {
            format!("{g:>10.1} GFLOP/s {a:>7.3} of attainable")
        });
        out(&format!(
            "{:<12} {:>10.2} ms {:>6.1} % {rate}",
            o.operator,
            o.milliseconds,
            100.0 * o.share
        ));
    }
    let m = &r.matching;
    out(&format!(
        "\nmatching {} × {} images of {} × {}: {:.1} GFLOP/s, {:.0} pairs/s, {:.3} of attainable",
        m.tests, m.support, m.patches, m.dim, m.gflops, m.pairs_per_s, m.attainable_fraction
    ));
    let t = &r.training;
    out(&format!(
        "training step, {} + {} images, {} prompts, per_patch: {:.1} ms",
        t.normals, t.defects, t.prompts, t.milliseconds_per_step
    ));
    if let Some(mib) = r.memory.peak_resident_mib {
        out(&format!(
            "peak resident memory of this process: {mib:.0} MiB"
        ));
    }
}
