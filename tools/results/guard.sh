#!/usr/bin/env bash
# Does the guard hold? Adapters cross-validated over the shots, then tested whatever the guard decided: a table of verdicts.
#
#   tools/results/guard.sh ROOT WEIGHTS OUT [SEEDS]
#
# ROOT holds elpv_mono, elpv_poly and magnetic_tile in MVTec layout, WEIGHTS is a DINOv2 ViT-S/14 file. Runs that are done are
# not repeated, so it may be interrupted; minutes a run on two cores.
set -euo pipefail
# shellcheck source=tools/results/start.sh
. "$(dirname "$0")/start.sh"

for ((seed = 0; seed < seeds; seed++)); do
    for category in elpv_mono elpv_poly magnetic_tile; do
        folder=$out/${category}_$seed
        if [ -f "$folder/${category}_scores.csv" ]; then continue; fi
        echo "$folder" >&2
        mkdir -p "$folder"
        data=(--quiet --category "$category" --root-dir "$root" --output-dir "$folder")
        "$flawtune" train "${data[@]}" --json --model-name dinov2_vits14 --weights "$weights" --image-size 112 --layers 8 \
            --seed "$seed" --num-defect-samples 10 --num-epochs 30 --loss-type ranking --use-adapters --learning-rate 0.005 \
            --no-ensemble --guard-folds 3 >"$folder/train.json"
        "$flawtune" evaluate "${data[@]}" --checkpoint "$folder/${category}_prompts.pt" --no-guard --bootstrap 200 >/dev/null
    done
done
cargo run --quiet --release --locked -p flawtune-lab --example guard_table -- "$out"
