#!/usr/bin/env bash
# Universal prompts against zero-shot and against prompts of the category's own: the tables of docs/evidence/universal.md.
#
#   tools/results/universal.sh ROOT WEIGHTS OUT [SEEDS] [SLOT SLOTS]
#
# ROOT holds elpv_mono, elpv_poly and magnetic_tile in MVTec layout, WEIGHTS is a DINOv2 ViT-S/14 file. Leave-one-category-out:
# prompts of the others of its domain (within), of all other domains (across). Runs that are done are not repeated.
set -euo pipefail
root=$(realpath "${1:?which data sets?}")
weights=$(realpath "${2:?which weights?}")
out=${3:?which folder for the runs?}
seeds=${4:-5}
slot=${5:-0}
slots=${6:-1}
mkdir -p "$out"
out=$(realpath "$out")
cd "$(dirname "$0")/../.."
flawtune=${FLAWTUNE:-${CARGO_TARGET_DIR:-target}/release/flawtune}
tasks=$out/tasks
[ "$slot" -ne 0 ] || tools/results/tasks.sh "$root" "$tasks"
backbone=(--root-dir "$tasks" --model-name dinov2_vits14 --weights "$weights" --image-size 112 --layers 8)
training=(--num-defect-samples 10 --modulation-type learned_transform --epoch one --num-epochs 60 --no-ensemble --no-guard --quiet)
declare -A domain=([elpv_mono]=elpv [elpv_poly]=elpv [flange]=drawn [gravel]=photograph)
for type in blowhole break crack fray uneven; do domain[mt_$type]=mt; done
categories=(elpv_mono elpv_poly mt_blowhole mt_break mt_crack mt_fray mt_uneven flange gravel)

evaluate() { # METHOD CATEGORY SEED CHECKPOINT
    local folder=$out/$1/$2_$3
    if [ -f "$folder/$2_scores.csv" ]; then return; fi
    "$flawtune" evaluate "${backbone[@]}" --quiet --no-guard --bootstrap 200 --category "$2" --checkpoint "$4" \
        --output-dir "$folder" >/dev/null
    echo "$folder" >&2
}
# The categories of a domain, or of all others, but for one.
others() { # within|across CATEGORY
    local c
    for c in "${categories[@]}"; do
        if [ "$1" = within ]; then
            [ "${domain[$c]}" != "${domain[$2]}" ] || [ "$c" = "$2" ] || echo "$c"
        else
            [ "${domain[$c]}" = "${domain[$2]}" ] || echo "$c"
        fi
    done
}

n=0
for ((seed = 0; seed < seeds; seed++)); do
    for category in "${categories[@]}"; do
        n=$((n + 1))
        ((n % slots == slot)) || continue
        folder=$out/own/${category}_$seed
        if [ ! -f "$folder/${category}_prompts.pt" ]; then
            "$flawtune" train "${backbone[@]}" "${training[@]}" --category "$category" --seed "$seed" \
                --output-dir "$folder" >/dev/null
        fi
        evaluate own "$category" "$seed" "$folder/${category}_prompts.pt"
    done
done
[ "$slots" -eq 1 ] || while [ "$(ls "$out"/own/*/*_scores.csv 2>/dev/null | wc -l)" -lt $((seeds * ${#categories[@]})) ]; do sleep 5; done
n=0
for reach in within across; do
    for ((seed = 0; seed < seeds; seed++)); do
        for category in "${categories[@]}"; do
            mapfile -t of < <(others "$reach" "$category")
            [ ${#of[@]} -gt 0 ] || continue
            n=$((n + 1))
            ((n % slots == slot)) || continue
            checkpoints=()
            for c in "${of[@]}"; do checkpoints+=("$out/own/${c}_$seed/${c}_prompts.pt"); done
            if [ ${#of[@]} -eq 1 ]; then
                # one category: its own prompts, on the other
                evaluate "joint_$reach" "$category" "$seed" "${checkpoints[0]}"
                continue
            fi
            list=$(IFS=,; echo "${of[*]}")
            folder=$out/joint_$reach/${category}_$seed
            if [ ! -f "$folder/universal_prompts.pt" ]; then
                "$flawtune" train "${backbone[@]}" "${training[@]}" --categories "$list" --universal joint --seed "$seed" \
                    --output-dir "$folder" >/dev/null
            fi
            evaluate "joint_$reach" "$category" "$seed" "$folder/universal_prompts.pt"
            # prompts of one seed start alike and stay in correspondence: matched or not is the same ('agreement' in the JSON)
            merged=$out/mean_$reach/${category}_$seed.pt
            mkdir -p "$out/mean_$reach"
            "$flawtune" merge "${checkpoints[@]}" --how mean --output "$merged" --json --quiet >"${merged%.pt}.json"
            evaluate "mean_$reach" "$category" "$seed" "$merged"
        done
    done
done
