#!/usr/bin/env bash
# Prompts and adapters inside the transformer against heads and zero-shot, at equal shots: the table of docs/evidence/results.md.
#
#   tools/results/inside.sh ROOT WEIGHTS OUT [SEEDS] [SIZE]
#
# ROOT holds elpv_mono, elpv_poly and magnetic_tile in MVTec layout, WEIGHTS is a DINOv2 ViT-S/14 file. Runs that are done are
# not repeated, so it may be interrupted; about a minute a run on one thread at 112 pixels, where all of the table is made, five at 224,
# where only adapters with ten shots are.
set -euo pipefail
# shellcheck source=tools/results/start.sh
. "$(dirname "$0")/start.sh"
size=${5:-112}
common=(--model-name dinov2_vits14 --weights "$weights" --image-size "$size" --layers 8 --num-epochs 30
    --loss-type ranking --no-ensemble --holdout-fraction 0 --no-guard)

# once FOLDER CATEGORY SEED SHOTS OPTIONS…
once() {
    local folder=$out/$1 category=$2 seed=$3 shots=$4
    shift 4
    if [ -f "$folder/${category}_scores.csv" ]; then return; fi
    echo "$folder" >&2
    "$flawtune" train --quiet --category "$category" --root-dir "$root" --seed "$seed" \
        --num-defect-samples "$shots" --output-dir "$folder" "${common[@]}" "$@" >/dev/null
    "$flawtune" evaluate --quiet --category "$category" --root-dir "$root" --no-guard --bootstrap 200 \
        --checkpoint "$folder/${category}_prompts.pt" --output-dir "$folder" >/dev/null
}

adapters=(--use-adapters --learning-rate 0.005)
for ((seed = 0; seed < seeds; seed++)); do
    for category in elpv_mono elpv_poly magnetic_tile; do
        once "adapters_M10/${category}_$seed" "$category" "$seed" 10 "${adapters[@]}"
        if ((size > 112)); then continue; fi
        for shots in 1 5 20; do
            once "adapters_M$shots/${category}_$seed" "$category" "$seed" "$shots" "${adapters[@]}"
        done
        for shots in 1 5 10 20; do
            once "deep_M$shots/${category}_$seed" "$category" "$seed" "$shots" --prompt-depth deep --learning-rate 0.001
            once "shallow_M$shots/${category}_$seed" "$category" "$seed" "$shots" --prompt-depth shallow --learning-rate 0.02
        done
    done
    if ((size > 112)); then continue; fi
    once "adapters_masked_M10/magnetic_tile_$seed" magnetic_tile "$seed" 10 "${adapters[@]}" --shot-masks auto
    for type in blowhole break crack fray uneven; do
        once "adapters_unseen_M10/magnetic_tile_${type}_$seed" magnetic_tile "$seed" 10 "${adapters[@]}" \
            --protocol hard --defect-type "$type" --pool-size 20
    done
done
cargo run --quiet --release --locked -p flawtune-lab --example scores_table -- "$out"
