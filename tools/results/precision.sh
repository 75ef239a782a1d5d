#!/usr/bin/env bash
# What 16-bit and 8-bit weights change: cosines of features with those of f32, and AUROC of every zero-shot scorer.
#
#   tools/results/precision.sh ROOT WEIGHTS OUT
#
# ROOT holds elpv_mono, elpv_poly and magnetic_tile in MVTec layout, WEIGHTS is a DINOv2 ViT-S/14 file. Runs that are done are
# not repeated. Held-out protocol, seed 0, 224 px, all of train/good as support; block 9 in every precision, the last
# block in f32 and int8. Needs python3 for the table. About ten minutes on two cores.
set -euo pipefail
root=$(realpath "${1:?which data sets?}")
weights=$(realpath "${2:?which weights?}")
out=${3:?which folder for the runs?}
cd "$(dirname "$0")/../.."
cargo build --release --locked --workspace --examples --bins
release=${CARGO_TARGET_DIR:-target}/release
categories=(elpv_mono elpv_poly magnetic_tile)

for layer in 8 11; do
    for precision in f32 int8 f16 bf16; do
        if [ $layer = 11 ] && [[ $precision == *f16 ]]; then continue; fi
        for category in "${categories[@]}"; do
            folder=$out/$layer/$precision
            [ -f "$folder/${category}_baseline.json" ] && continue
            "$release/flawtune" baseline --quiet --no-cache --category "$category" --root-dir "$root" \
                --weights "$weights" --layers $layer --precision $precision --output-dir "$folder" >/dev/null
        done
    done
done

for category in "${categories[@]}"; do
    echo "$category, 30 test images, block 9"
    find "$root/$category/test" -name '*.png' -o -name '*.jpg' | LC_ALL=C sort | awk 'NR % 7 == 0' | head -30 |
        xargs "$release/examples/precision" "$weights" 224 8
done
python3 - "$out" <<'PYTHON'
import json, pathlib, sys

out = pathlib.Path(sys.argv[1])
print("| category | block | precision | " + "image pair | class token | bank, top 1 % | bank, mean | largest change |")
print("|---|---|---|---|---|---|---|---|")
for layer in ("8", "11"):
    for category in ("elpv_mono", "elpv_poly", "magnetic_tile"):
        def scores(precision):
            path = out / layer / precision / f"{category}_baseline.json"
            return [s["auroc"] for s in json.loads(path.read_text())["scorers"]] if path.exists() else None
        plain = scores("f32")
        for precision in ("f32", "f16", "bf16", "int8"):
            found = scores(precision)
            if found:
                change = max(abs(a - b) for a, b in zip(found, plain))
                cells = " | ".join(f"{a:.4f}" for a in found)
                print(f"| {category} | {int(layer) + 1} | {precision} | {cells} | {change:.4f} |")
PYTHON
