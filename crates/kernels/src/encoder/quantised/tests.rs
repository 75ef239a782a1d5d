use super::*;
use crate::buffer::Buffer;
use crate::encoder::linear::Rows;
use crate::encoder::pointer::Pointer;
use crate::encoder::weight::{Precision, Source};

fn numbers(n: usize, seed: u32, size: f32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| {
            ((i.wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(97)) >> 8) as f32 / 8_388_608.0
                - 1.0
        })
        .map(|x| x * x * x * size)
        .collect()
}

/// A layer in the words of `bytes`.
fn layer(
    kernels: &Kernels,
    bytes: &ByteKernels,
    source: Source<'_>,
    inputs: usize,
) -> PackedLinear {
    let outputs = source.bias.len();
    let tiles = outputs.div_ceil(kernels.rows);
    let mut layer = PackedLinear::pack(kernels, Precision::F32, inputs, tiles, |i| {
        (i < outputs).then_some((source, i, 1.0))
    });
    let Weight::F32(weight) = &layer.weight else {
        unreachable!("it was packed in f32")
    };
    let packed = Bytes::pack(
        weight,
        kernels.rows,
        inputs,
        bytes.group,
        source.norm.is_some(),
    );
    layer.weight = Weight::Bytes(packed);
    layer
}

/// `[columns, outputs]` of row-major `x` through a byte layer, optionally normed first.
fn run(
    kernels: &Kernels,
    bytes: &ByteKernels,
    x: &[f32],
    inputs: usize,
    source: Source<'_>,
    norm: Option<f32>,
) -> Vec<f32> {
    let layer = layer(kernels, bytes, source, inputs);
    let Weight::Bytes(weight) = &layer.weight else {
        unreachable!("it holds bytes")
    };
    let lanes = Lanes::panels_of(x.len() / inputs, kernels.lanes);
    let mut packed = Buffer::zeroed(lanes.padded() * inputs);
    lanes.pack_rows(x, inputs, &mut packed);
    let mut words: Buffer<u32> = Buffer::zeroed(lanes.padded() * weight.groups);
    let (mut scale, mut offset) = (
        Buffer::zeroed(lanes.padded()),
        Buffer::zeroed(lanes.padded()),
    );
    let outputs = source.bias.len();
    let mut out = Buffer::zeroed(lanes.padded() * outputs);
    for p in 0..lanes.panels() {
        let panel = lanes.panel(p);
        let first = panel.first * lanes.width;
        let args = Quantise {
            x: packed[lanes.offset(panel, inputs)..].as_ptr(),
            features: inputs,
            vectors: panel.vectors,
            norm,
            balance: &weight.balance,
            words: words[lanes.offset(panel, weight.groups)..].as_mut_ptr(),
            scale: scale[first..].as_mut_ptr(),
            offset: offset[first..].as_mut_ptr(),
        };
        // SAFETY: the buffers hold all panels; `all_bytes` lists only what this machine has.
        unsafe { (bytes.quantise)(args) };
    }
    let args = ByteLinear {
        layer: &layer,
        tiles: 0..layer.tiles,
        lanes,
        panels: 0..lanes.panels(),
        words: words.as_ptr(),
        scale: scale.as_ptr(),
        offset: offset.as_ptr(),
        epilogue: Epilogue::Residual(Rows {
            out: Pointer::new(&mut out),
            features: outputs,
        }),
    };
    // SAFETY: as above.
    unsafe { (bytes.linear)(args) };
    let mut rows = vec![];
    for column in 0..lanes.columns {
        let (start, step) = lanes.column(outputs, column);
        rows.extend(out[start..].iter().step_by(step).take(outputs));
    }
    rows
}

fn variants() -> Vec<(&'static Kernels, &'static ByteKernels)> {
    let sets = Isa::available().filter_map(Isa::kernels);
    sets.flat_map(|k| k.all_bytes().map(move |b| (k, b)))
        .collect()
}

const COLUMNS: usize = if cfg!(miri) { 5 } else { 67 };

#[test]
fn every_variant_gives_the_same_bits() {
    // widths that fill no group, no tile and no panel
    let sizes = [(1, 1), (6, 3), (31, 13), (64, 24)];
    for (inputs, outputs) in sizes.into_iter().take(if cfg!(miri) { 2 } else { 4 }) {
        let x = numbers(COLUMNS * inputs, 1, 9.0);
        let (weight, bias) = (numbers(outputs * inputs, 2, 0.7), numbers(outputs, 3, 1.0));
        let (gain, beta) = (numbers(inputs, 4, 2.0), numbers(inputs, 5, 0.3));
        for norm in [None, Some((&gain[..], &beta[..]))] {
            let source = Source {
                weight: &weight,
                bias: &bias,
                norm,
            };
            let eps = norm.map(|_| 1e-5);
            let wanted = run(&crate::kernels::SCALAR, &SCALAR, &x, inputs, source, eps);
            for (kernels, bytes) in variants() {
                let found = run(kernels, bytes, &x, inputs, source, eps);
                assert!(
                    wanted
                        .iter()
                        .zip(&found)
                        .all(|(a, b)| a.to_bits() == b.to_bits()),
                    "{} differs, {inputs} inputs, {outputs} outputs, normed {}",
                    bytes.name,
                    norm.is_some()
                );
            }
        }
    }
}

#[test]
fn the_error_is_that_of_rounding_once_to_bytes() {
    let (inputs, outputs) = if cfg!(miri) { (16, 4) } else { (64, 24) };
    let x = numbers(COLUMNS * inputs, 7, 9.0);
    let (weight, bias) = (numbers(outputs * inputs, 8, 0.7), numbers(outputs, 9, 1.0));
    let source = Source {
        weight: &weight,
        bias: &bias,
        norm: None,
    };
    for (kernels, bytes) in variants() {
        let found = run(kernels, bytes, &x, inputs, source, None);
        for (x, found) in x.chunks_exact(inputs).zip(found.chunks_exact(outputs)) {
            let top = x.iter().copied().fold(f32::MIN, f32::max);
            let low = x.iter().copied().fold(f32::MAX, f32::min);
            for ((w, b), &found) in weight.chunks_exact(inputs).zip(&bias).zip(found) {
                let exact: f64 = x
                    .iter()
                    .zip(w)
                    .map(|(x, w)| f64::from(*x) * f64::from(*w))
                    .sum();
                // half a step of either side times the sum of the other's sizes
                let steps = f64::from(w.iter().fold(0.0f32, |m, w| m.max(w.abs()))) / 127.0;
                let size = |v: &[f32]| v.iter().map(|v| f64::from(v.abs())).sum::<f64>();
                let step = f64::from(top - low) / 255.0;
                let bound = 0.5 * (step * size(w) + steps * size(x))
                    + 0.25 * inputs as f64 * step * steps
                    + 1e-4;
                let error = (f64::from(found) - f64::from(*b) - exact).abs();
                assert!(error <= bound, "{}: {error} > {bound}", bytes.name);
            }
        }
    }
}

#[test]
fn constant_and_zero_tokens_come_through() {
    let (inputs, outputs) = (12, 4);
    let mut x = vec![0.0; 2 * inputs];
    x[inputs..].fill(-3.25);
    let (weight, bias) = (vec![0.5; outputs * inputs], vec![1.0; outputs]);
    let source = Source {
        weight: &weight,
        bias: &bias,
        norm: None,
    };
    for (kernels, bytes) in variants() {
        let found = run(kernels, bytes, &x, inputs, source, None);
        assert_eq!(found[..outputs], [1.0; 4], "{}", bytes.name);
        // 12 · 0.5 · -3.25 + 1, to the rounding of 0.5/127 and of 127 · 0.5/127
        assert!(
            found[outputs..].iter().all(|y| (y + 18.5).abs() < 1e-5),
            "{}: {found:?}",
            bytes.name
        );
    }
}
