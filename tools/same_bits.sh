#!/usr/bin/env bash
# Do two builds of flawtune give the same bits?
#
#   tools/same_bits.sh OLD NEW [OUT]
#
# Runs a fixed set of jobs with the binary OLD and with the binary NEW, each in a folder of its own with a cache of its
# own, and compares what they print and write: cells of score tables, numbers of JSON files, tensors of checkpoints and
# of fitted files, maps. What may be called otherwise, and where NEW wants other arguments, is listed in
# tools/same_bits/renamed.txt and nowhere else. One line a job, then a total; exit code 1 on any difference.
#
# OUT (default: a temporary folder that is removed) keeps both sides to look at.
# FLAWTUNE_ASSETS: a folder with mvtec_like/elpv_poly and dinov2_vits14.safetensors adds jobs on real images.
# FLAWTUNE_GOLDEN: the folder of golden files, default golden/ beside tools/.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 2 ] || { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
old=$(realpath "$1")
new=$(realpath "$2")
for binary in "$old" "$new"; do
    [ -x "$binary" ] || { echo "error: $binary is not a program" >&2; exit 2; }
done
if [ $# -ge 3 ]; then
    mkdir -p "$3"
    out=$(realpath "$3")
    rm -rf "${out:?}/old" "${out:?}/new"
else
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi
golden=$(realpath "${FLAWTUNE_GOLDEN:-$here/../golden}")
tiny=$golden/ckpt/tiny_mlp/hf.safetensors
compare=("${PYTHON:-python3}" "$here/same_bits/compare.py" "$here/same_bits/renamed.txt")

# nothing of the machine decides
for name in $(compgen -v FLAWTUNE_); do
    [ "$name" = FLAWTUNE_ASSETS ] || unset "$name"
done
export HF_HUB_OFFLINE=1

total=0 different=0 values=0

# side FOLDER BINARY NAME ARGUMENT…: one job; what it prints is kept beside what it writes
side() {
    local folder=$out/$1 binary=$2 name=$3 code=0
    shift 3
    mkdir -p "$folder/$name"
    (cd "$folder" && FLAWTUNE_CACHE_DIR="$folder/cache" "$binary" "$@" --no-config) \
        >"$folder/$name/stdout" 2>"$folder/$name/stderr" || code=$?
    echo "$code" >"$folder/$name/exit_code"
}

# job NAME ARGUMENT…: the same command line on both sides, or what renamed.txt says for NEW; {} is the job's folder
job() {
    local name=$1 line got
    shift
    line=$(printf '%s\n' "${@//\{\}/$name}")
    mapfile -t arguments <<<"$line"
    side old "$old" "$name" "${arguments[@]}"
    if ! line=$("${compare[@]}" arguments "$name" "${arguments[@]}"); then exit 2; fi
    mapfile -t arguments <<<"$line"
    side new "$new" "$name" "${arguments[@]}"
    verdict "$name"
}

verdict() {
    local name=$1 got
    total=$((total + 1))
    if got=$("${compare[@]}" job "$name" "$out/old/$name" "$out/new/$name"); then
        values=$((values + $(sed -n '1s/.*: same, \([0-9]*\) values.*/\1/p' <<<"$got")))
    else
        different=$((different + 1))
    fi
    echo "$got"
}

# measured NAME FILE ARGUMENT…: `evaluate` of a fitted file, which NEW may take without --bundle
measured() {
    local name=$1 file=$2 line
    shift 2
    set -- "${@//\{\}/$name}"
    side old "$old" "$name" evaluate --bundle "$file" "$@"
    if ! line=$("${compare[@]}" arguments "$name" "$@"); then exit 2; fi
    mapfile -t arguments <<<"$line"
    side new "$new" "$name" evaluate "$file" "${arguments[@]}"
    if [ "$(cat "$out/new/$name/exit_code")" = 2 ]; then
        rm -r "$out/new/$name"
        side new "$new" "$name" evaluate --bundle "$file" "${arguments[@]}"
    fi
    verdict "$name"
}

# --- drawn images, a backbone of two blocks -------------------------------------------------------------------------
job synth synth --output-dir {} --size 64 --train-good 12 --test-good 8 --test-per-type 5 -q
on_drawn=(--root-dir synth --weights "$tiny" --image-size 64 -q)
trained=("${on_drawn[@]}" --num-epochs 3 --num-prompts 3)

job train train "${trained[@]}" --category flange --num-defect-samples 4 --output-dir {} --json
job train-original train "${trained[@]}" --preset original --category gravel --num-defect-samples 4 --output-dir {} --json
for kind in per_patch learned_transform; do
    job "train-$kind" train "${trained[@]}" --category twill --modulation-type $kind --num-defect-samples 6 \
        --output-dir {} --json
done
job train-global train "${trained[@]}" --category twill --modulation-type global --loss-type contrastive \
    --num-defect-samples 6 --seed 1 --output-dir {} --json
job train-ranking train "${trained[@]}" --category flange --loss-type ranking --num-defect-samples 6 --output-dir {} --json
job train-inside train "${on_drawn[@]}" --num-epochs 2 --num-prompts 2 --category flange --use-adapters --prompt-depth deep --num-defect-samples 3 --output-dir {} --json
job evaluate evaluate "${on_drawn[@]}" --category flange --checkpoint train/flange_prompts.pt --scorers all \
    --output-dir {} --json
job evaluate-table evaluate "${on_drawn[@]}" --category flange --checkpoint train/flange_prompts.pt --no-guard --output-dir {}
job evaluate-original evaluate "${on_drawn[@]}" --category gravel --checkpoint train-original/gravel_prompts.pt \
    --k-neighbors 3 --output-dir {} --json
job evaluate-inside evaluate "${on_drawn[@]}" --category flange --checkpoint train-inside/flange_prompts.pt --no-guard \
    --output-dir {} --json
job baseline baseline "${on_drawn[@]}" --category gravel --k-neighbors 2 --seed 1 --output-dir {} --json
job baseline-table baseline "${on_drawn[@]}" --category twill --output-dir {}

job fit fit "${on_drawn[@]}" --category flange --scorer patch-bank -o {}/part.flaw --json
job fit-pair fit "${on_drawn[@]}" --category gravel --scorer image-pair --k-neighbors 2 --bank-precision f32 -o {}/part.flaw --json
job fit-coreset fit "${on_drawn[@]}" --category twill --scorer patch-bank --coreset 0.5 --augment rotations --mask auto \
    --seed 2 -o {}/part.flaw --json
job fit-wide fit "${on_drawn[@]}" --category twill --scorer patch-bank --neighbourhood 3 --index approximate --index-probes 2 \
    --tile-size 32 -o {}/part.flaw --json
job fit-checkpoint fit "${on_drawn[@]}" --category flange --checkpoint train/flange_prompts.pt --no-guard -o {}/part.flaw --json
job predict predict fit/part.flaw synth/flange/test --weights "$tiny" -q --json
job predict-table predict fit-pair/part.flaw synth/gravel/test --weights "$tiny" -q
job predict-maps predict fit-coreset/part.flaw synth/twill/test --weights "$tiny" -q --format csv --maps {}/maps --map-format npy
job predict-wide predict fit-wide/part.flaw synth/twill/test --weights "$tiny" -q --json
job predict-checkpoint predict fit-checkpoint/part.flaw synth/flange/test --weights "$tiny" -q --json
measured evaluate-bundle fit/part.flaw --root-dir synth --category flange --weights "$tiny" -q --output-dir {} --json
measured evaluate-bundle-table fit-coreset/part.flaw --root-dir synth --category twill --weights "$tiny" -q --output-dir {}

job ablate ablate "${on_drawn[@]}" --category flange,gravel --grid num-prompts=2,3 --set num-epochs=2 --set num-defect-samples=3 \
    --seeds 2 --jobs 1 --output-dir {} --json
job meta-train meta-train "${on_drawn[@]}" --categories flange,gravel --iterations 2 --tasks-seeds 2 --shots 1,3 --modulation-type per_patch \
    --num-prompts 3 -o {}/meta.pt --json
job train-init train "${on_drawn[@]}" --category twill --num-epochs 2 --num-prompts 3 --num-defect-samples 3 --modulation-type per_patch --init meta-train/meta.pt \
    --output-dir {} --json
job merge merge train-per_patch/twill_prompts.pt train-init/twill_prompts.pt --how aligned -o {}/both.pt -q --json
job analyze analyze "${on_drawn[@]}" --category flange --output-dir {} --json

# --- real images, a real backbone, small ----------------------------------------------------------------------------
assets=${FLAWTUNE_ASSETS:-}
if [ -n "$assets" ] && [ -d "$assets/mvtec_like/elpv_poly" ]; then
    assets=$(realpath "$assets")
    real=$assets/dinov2_vits14.safetensors
    on_cells=(--root-dir "$assets/mvtec_like" --category elpv_poly --weights "$real" --image-size 112 -q)
    job cells-train train "${on_cells[@]}" --num-epochs 2 --num-prompts 5 --num-defect-samples 5 --output-dir {} --json
    job cells-evaluate evaluate "${on_cells[@]}" --checkpoint cells-train/elpv_poly_prompts.pt --no-guard --output-dir {} --json
    job cells-baseline baseline "${on_cells[@]}" --layers 5,8,11 --output-dir {} --json
    job cells-fit fit "${on_cells[@]}" --scorer patch-bank --layers 8 --support-shots 64 -o {}/cells.flaw --json
    measured cells-evaluate-bundle cells-fit/cells.flaw --root-dir "$assets/mvtec_like" --category elpv_poly \
        --weights "$real" -q --output-dir {} --json
else
    echo "cells: not run (FLAWTUNE_ASSETS names no folder with mvtec_like/elpv_poly)"
fi

if [ $different = 0 ]; then
    echo "$total jobs, all the same: $values values compared"
else
    echo "$total jobs, $different differ"
    exit 1
fi
