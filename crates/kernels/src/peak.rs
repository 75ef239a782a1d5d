//! What this machine can do: the yardsticks that throughput is compared with.
//!
//! [`fma_peak`] is a loop of multiply-adds on registers; no product of matrices reaches it, because operands have to be
//! loaded. [`attainable`] is the register tile of the kernels on operands that stay in the first-level cache: the most
//! that any product here can reach. Both measure all threads of the current rayon pool at once, since clocks drop when
//! more cores work.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::buffer::Buffer;
use crate::dispatch;
use crate::simd::Simd;
use crate::tile::tile;

/// Independent accumulators of the register loop: more than latency × units on every machine, and no more than the
/// sixteen registers of AVX2 hold.
const CHAINS: usize = 12;

/// Summed GFLOP/s of all threads in a register-only loop of multiply-adds, measured for about `time`.
pub fn fma_peak(time: Duration) -> f64 {
    let kernels = dispatch::active();
    let turns = 20_000;
    let flops = 2.0 * (CHAINS * kernels.lanes * turns) as f64;
    // SAFETY: `dispatch` hands out only kernels of an instruction set that is present.
    measure(time, flops, || unsafe { (kernels.fma_loop)(turns) })
}

/// Summed GFLOP/s of all threads in the register tile on operands in the first-level cache, measured for about `time`.
pub fn attainable(time: Duration) -> f64 {
    let kernels = dispatch::active();
    // 4 B · k · (rows + 3·lanes) = 28 KiB with AVX-512: inside 32 KiB
    let k = 128;
    let (rows, width) = (kernels.rows, 3 * kernels.lanes);
    let (mut a, mut b) = (Buffer::zeroed(k * rows), Buffer::zeroed(k * width));
    a.fill(0.5);
    b.fill(0.25);
    let turns = 200;
    let flops = 2.0 * (rows * width * k * turns) as f64;
    // SAFETY: as in `fma_peak`; the operands hold `k` times a tile's rows and columns.
    measure(time, flops, || unsafe {
        (kernels.tile_loop)(turns, k, &a, &b)
    })
}

/// GFLOP/s summed over the threads that call `work` again and again.
fn measure(time: Duration, flops: f64, work: impl Fn() -> f32 + Sync) -> f64 {
    rayon::broadcast(|_| {
        let start = Instant::now();
        let mut calls = 0;
        // once at least: a thread may be put aside for longer than `time` before its first look at the clock
        while calls == 0 || start.elapsed() < time {
            black_box(work());
            calls += 1;
        }
        f64::from(calls) * flops / start.elapsed().as_secs_f64() / 1e9
    })
    .iter()
    .sum()
}

/// `turns` rounds of [`CHAINS`] independent multiply-adds.
///
/// # Safety
/// `S` must be available.
#[inline(always)]
pub(crate) unsafe fn fma_loop<S: Simd>(turns: usize) -> f32 {
    // SAFETY: the caller vouches for the instruction set; `out` holds LANES (≤ 16) numbers.
    unsafe {
        let mut acc = [S::splat(0.0); CHAINS];
        let (x, y) = (S::splat(black_box(0.5)), S::splat(black_box(1e-3)));
        for _ in 0..turns {
            for a in &mut acc {
                *a = S::fma(*a, x, y);
            }
        }
        let mut out = [0.0f32; 16];
        for a in acc {
            S::store(out.as_mut_ptr(), S::add(a, S::load(out.as_ptr())));
        }
        out[0]
    }
}

/// `turns` register tiles of depth `k` on the same operands.
///
/// # Safety
/// `S` must be available, `M = S::ROWS`, `a` holds `k·M` and `b` `k·3·LANES` numbers.
#[inline(always)]
pub(crate) unsafe fn tile_loop<S: Simd, const M: usize>(
    turns: usize,
    k: usize,
    a: &[f32],
    b: &[f32],
) -> f32 {
    // SAFETY: passed on from the caller.
    unsafe {
        let mut total = [S::splat(0.0); 3];
        for _ in 0..turns {
            let acc = tile::<S, M, 3>(k, black_box(a.as_ptr()), M, b.as_ptr(), 3 * S::LANES);
            for row in acc {
                for (t, x) in total.iter_mut().zip(row) {
                    *t = S::max(*t, x);
                }
            }
        }
        let mut out = [0.0f32; 16];
        S::store(
            out.as_mut_ptr(),
            S::add(S::add(total[0], total[1]), total[2]),
        );
        out[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Isa;

    #[test]
    fn the_yardsticks_do_the_work_that_is_counted() {
        for kernels in Isa::available().filter_map(Isa::kernels) {
            // SAFETY: `available` lists only sets that are present.
            let sum = unsafe { (kernels.fma_loop)(3) };
            let one = (0..3).fold(0.0f32, |a, _| a.mul_add(0.5, 1e-3));
            assert!(
                (sum - CHAINS as f32 * one).abs() < 1e-6,
                "{}: {sum}",
                kernels.isa
            );
            let (k, width) = (5, 3 * kernels.lanes);
            let (a, b) = (vec![0.5; k * kernels.rows], vec![0.25; k * width]);
            // SAFETY: as above; the operands hold `k` times a tile's rows and columns.
            let sum = unsafe { (kernels.tile_loop)(2, k, &a, &b) };
            assert_eq!(sum, 3.0 * 0.5 * 0.25 * k as f32, "{}", kernels.isa);
        }
    }

    #[cfg(not(miri))]
    #[test]
    fn peaks_are_positive() {
        let time = Duration::from_millis(1);
        for peak in [fma_peak(time), attainable(time)] {
            assert!(peak.is_finite() && peak > 0.0, "{peak}");
        }
    }
}
