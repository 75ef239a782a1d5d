#!/usr/bin/env bash
# What defects teach the residual head: a table a category, over five seeds and 1, 5, 10 and 20 shots.
#
#   tools/results/residual.sh ROOT WEIGHTS OUT [CATEGORY ...]
#
# ROOT holds the categories (layout of MVTec AD); further arguments of the study go into STUDY, such as
# STUDY='--image-size 448'. The tables are those of docs/evidence/residual.md.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,8p' "$0"; exit 2; }
root=$(realpath "$1") weights=$(realpath "$2") out=$3
shift 3
cd "$(dirname "$0")/../.."
mkdir -p "$out"
categories=("$@")
[ ${#categories[@]} -gt 0 ] || categories=(screw transistor elpv_poly elpv_mono magnetic_tile)
cargo build --release --locked -p flawtune --example residual_study
read -ra more <<<"${STUDY:-}"
for category in "${categories[@]}"; do
    "${CARGO_TARGET_DIR:-target}/release/examples/residual_study" "$weights" "$root" "$category" "$out/cache" "${more[@]}" |
        tee "$out/$category.md"
done
