#!/usr/bin/env bash
# Heads on frozen tokens and the default ensemble against zero-shot, at equal shots: tables of docs/evidence/results.md.
#
#   tools/results/heads.sh ROOT WEIGHTS OUT [SEEDS]
#
# ROOT holds elpv_mono, elpv_poly and magnetic_tile in MVTec layout, WEIGHTS is a DINOv2 ViT-S/14 file. Tokens and tables that
# are there already are not made again.
set -euo pipefail
# shellcheck source=tools/results/start.sh
. "$(dirname "$0")/start.sh"
cargo build --release --locked -p flawtune-lab --example heads_study

# study TABLE CATEGORY OPTIONS…
study() {
    local table=$out/$1.md tokens=$out/$2.safetensors ids=$out/$2.txt
    shift 2
    if [ ! -f "$table" ]; then
        "$bin/examples/heads_study" "$tokens" "$ids" --seeds "$seeds" "$@" >"$table.part"
        mv "$table.part" "$table"
    fi
    printf '\n### %s\n\n' "$(basename "$table" .md)"
    cat "$table"
}

for category in elpv_poly elpv_mono magnetic_tile; do
    cd "$root/$category"
    find train test -type f | LC_ALL=C sort >"$out/$category.txt"
    [ -f "$out/$category.safetensors" ] ||
        xargs -a "$out/$category.txt" -d '\n' "$flawtune" features --quiet --model-name dinov2_vits14 --weights "$weights" \
            --layers 8 -o "$out/$category.safetensors" >/dev/null
    masks=()
    [ ! -d ground_truth ] || masks=(--masks ground_truth)
    study "$category" "$category" "${masks[@]}"
    [ $category != magnetic_tile ] || study magnetic_tile_by_type "$category" "${masks[@]}" --hard
done
