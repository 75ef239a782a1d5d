#!/usr/bin/env bash
# Meta-learned first values against random ones on a category left out: the table of docs/evidence/meta-learning.md.
#
#   tools/results/meta.sh ROOT WEIGHTS OUT [SEEDS]
#
# ROOT holds elpv_mono, elpv_poly and magnetic_tile in MVTec layout, WEIGHTS is a DINOv2 ViT-S/14 file. First values are
# learned from the others of the category's domain (within) or from all other domains (across). Studies go on where they were.
set -euo pipefail
root=$(realpath "${1:?which data sets?}")
weights=$(realpath "${2:?which weights?}")
out=${3:?which folder for the runs?}
seeds=${4:-5}
mkdir -p "$out"
out=$(realpath "$out")
cd "$(dirname "$0")/../.."
flawtune=${FLAWTUNE:-${CARGO_TARGET_DIR:-target}/release/flawtune}
tools/results/tasks.sh "$root" "$out/tasks"
backbone=(--root-dir "$out/tasks" --model-name dinov2_vits14 --weights "$weights" --image-size 112 --layers 8)

# study NAME CATEGORY [--set init=…]
study() {
    local name=$1 category=$2
    shift 2
    "$flawtune" ablate "${backbone[@]}" --quiet --category "$category" --grid num-defect-samples=1,5,10 --seeds "$seeds" \
        --set epoch=one --set num-epochs=60 --output-dir "$out/studies/$category/$name" "$@" >/dev/null
    local m seed
    for m in 1 5 10; do
        for ((seed = 0; seed < seeds; seed++)); do
            mkdir -p "$out/runs/${name}_M$m/${category}_$seed"
            cp "$out/studies/$category/$name/runs/$category/num-defect-samples=$m/seed-$seed/${category}_scores.csv" \
                "$out/runs/${name}_M$m/${category}_$seed/"
        done
    done
    echo "$category $name" >&2
}

mt=mt_blowhole,mt_break,mt_fray,mt_uneven
declare -A within=([elpv_mono]=elpv_poly [mt_crack]=$mt)
declare -A across=([elpv_mono]="$mt,mt_crack,flange,gravel" [mt_crack]="elpv_mono,elpv_poly,flange,gravel")
for category in elpv_mono mt_crack; do
    study xavier "$category"
done
for start in fomaml_within maml_within reptile_within fomaml_across; do
    method=${start%_*}
    # a Hessian product costs as much as fifteen gradients: fewer of them
    effort=(--iterations 30 --tasks-per-iteration 4 --inner-steps 3)
    [ "$method" != maml ] || effort=(--iterations 20 --tasks-per-iteration 2 --inner-steps 1)
    for category in elpv_mono mt_crack; do
        list=${within[$category]}
        [ "${start#*_}" = within ] || list=${across[$category]}
        file=$out/${category}_$start.pt
        [ -f "$file" ] || "$flawtune" meta-train "${backbone[@]}" --quiet --categories "$list" --method "$method" \
            "${effort[@]}" --output "$file" --json >"${file%.pt}.json"
        study "$start" "$category" --set "init=$file"
    done
done
cargo run --quiet --release --locked -p flawtune-lab --example scores_table -- "$out/runs" --against xavier
