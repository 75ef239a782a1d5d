#!/usr/bin/env bash
# All of what docs/evidence/results.md says of learning from a handful of defects, in one command: the original recipe, heads on
# frozen tokens, prompts and adapters inside the transformer, and what their guards decide.
#
#   tools/results/evidence.sh ROOT WEIGHTS OUT [SEEDS]
#
# ROOT holds elpv_mono, elpv_poly and magnetic_tile in MVTec layout, WEIGHTS is a DINOv2 ViT-S/14 file. What is done is not
# repeated, so it may be interrupted; hours of two cores.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
root=${1:?which data sets?} weights=${2:?which weights?} out=${3:?which folder for the runs?} seeds=${4:-5}
"$here/original.sh" "$root" "$weights" "$out/original" "$seeds"
"$here/heads.sh" "$root" "$weights" "$out/heads" "$seeds"
"$here/inside.sh" "$root" "$weights" "$out/inside" "$seeds"
"$here/inside.sh" "$root" "$weights" "$out/inside_224" "$seeds" 224
"$here/guard.sh" "$root" "$weights" "$out/guard" "$seeds"
