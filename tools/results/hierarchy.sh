#!/usr/bin/env bash
# Hierarchical against shared prompts and zero-shot: the tables of docs/evidence/hierarchy.md.
#
#   tools/results/hierarchy.sh ROOT WEIGHTS OUT [SEEDS]
#
# ROOT holds magnetic_tile in MVTec layout, WEIGHTS is a DINOv2 ViT-S/14 file. Runs that are done are not repeated.
set -euo pipefail
root=$(realpath "${1:?which data sets?}")
weights=$(realpath "${2:?which weights?}")
out=${3:?which folder for the runs?}
seeds=${4:-5}
mkdir -p "$out"
out=$(realpath "$out")
cd "$(dirname "$0")/../.."
flawtune=${FLAWTUNE:-${CARGO_TARGET_DIR:-target}/release/flawtune}

# once METHOD SEED OPTIONS…
once() {
    local folder=$out/$1/magnetic_tile_$2 seed=$2
    shift 2
    if [ -f "$folder/magnetic_tile_scores.csv" ]; then return; fi
    "$flawtune" train --quiet --category magnetic_tile --root-dir "$root" --model-name dinov2_vits14 --weights "$weights" \
        --image-size 112 --layers 8 --seed "$seed" --epoch one --num-epochs 60 --hierarchy type --no-ensemble --no-guard \
        --output-dir "$folder" "$@" >/dev/null
    "$flawtune" evaluate --quiet --category magnetic_tile --root-dir "$root" --no-guard --bootstrap 200 \
        --checkpoint "$folder/magnetic_tile_prompts.pt" --output-dir "$folder" >/dev/null
    echo "$folder" >&2
}
for ((seed = 0; seed < seeds; seed++)); do
    for m in 20 10 5; do once "hierarchy_M$m" "$seed" --num-defect-samples "$m"; done
done
python3 - "$out" <<'PYTHON'
import glob, json, sys, collections
for m in (5, 10, 20):
    runs = [json.load(open(p))["hierarchy"] for p in sorted(glob.glob(f"{sys.argv[1]}/hierarchy_M{m}/*/magnetic_tile_comparison.json"))]
    total = collections.defaultdict(collections.Counter)
    for run in runs:
        for truth, row in run["confusion"].items():
            total[truth].update(row)
    print(f"\nM = {m}, {len(runs)} seeds")
    columns = sorted(k for k in total if k != "good") + ["shared"]
    print("| | " + " | ".join(columns) + " |\n|---" * 1 + "|---" * len(columns) + "|")
    for truth, row in sorted(total.items()):
        print(f"| {truth} | " + " | ".join(str(row[c]) for c in columns) + " |")
    for key in ("named", "named_of_assigned", "unseen_left", "good_left"):
        of = [r[key] for r in runs if r[key]]
        if of:
            print(key, sum(r["count"] for r in of), "of", sum(r["of"] for r in of), [round(r["share"], 3) for r in of])
    for level in ("zero_shot", "flat", "hierarchical"):
        print(level, "pixel AUROC", [round(r["pixels"][level]["auroc"], 4) for r in runs], "AUPRO", [round(r["pixels"][level]["aupro"], 4) for r in runs])
PYTHON
cargo run --quiet --release --locked -p flawtune-lab --example scores_table -- "$out"
