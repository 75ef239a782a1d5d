// printed numbers stay as PyTorch prints them
#![allow(clippy::unreadable_literal)]

use super::*;

/// A 6×6 table and what PyTorch 2.15 makes of it:
/// `t = tensor([((i*37)%23)/7-1.5 for i in range(36)]).reshape(1,1,6,6)`,
/// `F.interpolate(t, size=(4,3), mode="bicubic", align_corners=False, antialias=...)`, and `size=(7,9)` (its first row).
const PLAIN_4_3: [f32; 12] = [
    -0.36438, 0.459194, -0.749948, 0.39148, -0.394915, 0.460746, 0.816145, 0.401559, -1.045829,
    0.2436, -0.45255, 0.164865,
];
const ANTIALIAS_4_3: [f32; 12] = [
    -0.353833, 0.354301, -0.413994, 0.477606, 0.075346, -0.040637, 0.519234, 0.109401, -0.513845,
    0.224404, -0.056821, -0.145637,
];
const PLAIN_7_9: [f32; 9] = [
    -1.785769, -0.388331, 0.495913, -0.82782, 0.176961, 1.294295, 0.328025, -0.857917, -1.580907,
];
const ANTIALIAS_7_9: [f32; 9] = [
    -1.707488, -0.496173, 0.466774, -0.784666, 0.191589, 1.234263, 0.225003, -0.84693, -1.517638,
];

/// The numbers above are printed with six decimals.
const PRINTED: f32 = 2e-6;

#[test]
fn resizing_equals_pytorch() {
    let table: Vec<f32> = (0..36)
        .map(|i| ((i * 37) % 23) as f32 / 7.0 - 1.5)
        .collect();
    let cases: [(Bicubic, (usize, usize), &[f32]); 4] = [
        (Bicubic::Plain, (4, 3), &PLAIN_4_3),
        (Bicubic::Plain, (7, 9), &PLAIN_7_9),
        (Bicubic::Antialias, (4, 3), &ANTIALIAS_4_3),
        (Bicubic::Antialias, (7, 9), &ANTIALIAS_7_9),
    ];
    for (filter, grid, wanted) in cases {
        let got = resize(&table, 6, 1, grid, filter);
        assert_eq!(got.len(), grid.0 * grid.1);
        for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
            assert!(
                (g - w).abs() <= PRINTED,
                "{filter:?} {grid:?} [{i}]: {g} instead of {w}"
            );
        }
    }
    assert_eq!(resize(&table, 6, 1, (6, 6), Bicubic::Antialias), table);
}
