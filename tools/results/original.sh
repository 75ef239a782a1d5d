#!/usr/bin/env bash
# The original recipe under both protocols, at every number of shots: the table of docs/evidence/results.md.
#
#   tools/results/original.sh ROOT WEIGHTS OUT [SEEDS]
#
# ROOT holds elpv_mono, elpv_poly and magnetic_tile in MVTec layout, WEIGHTS is a DINOv2 ViT-S/14 file. Runs that are done are
# not repeated, so it may be interrupted; once the features are cached a run takes seconds.
set -euo pipefail
# shellcheck source=tools/results/start.sh
. "$(dirname "$0")/start.sh"

for protocol in held-out leaky; do
    for category in elpv_mono elpv_poly magnetic_tile; do
        for ((seed = 0; seed < seeds; seed++)); do
            for shots in 1 5 10 20; do
                folder=$out/${protocol}_M$shots/${category}_$seed
                if [ -f "$folder/${category}_scores.csv" ]; then continue; fi
                echo "$folder" >&2
                data=(--quiet --category "$category" --root-dir "$root" --output-dir "$folder" --model-name dinov2_vits14
                    --weights "$weights")
                "$flawtune" train "${data[@]}" --preset original --protocol "$protocol" --seed "$seed" \
                    --num-defect-samples "$shots" --no-guard >/dev/null
                "$flawtune" evaluate "${data[@]}" --checkpoint "$folder/${category}_prompts.pt" --no-guard --bootstrap 200 \
                    >/dev/null
            done
        done
    done
done
cargo run --quiet --release --locked -p flawtune-lab --example scores_table -- "$out"
