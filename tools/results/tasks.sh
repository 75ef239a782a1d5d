#!/usr/bin/env bash
# Tasks that transfer is measured on: the categories of ROOT, magnetic_tile split by defect type into mt_<type> (they share
# its good images), and two drawn categories. Links, but for those.
#
#   tools/results/tasks.sh ROOT TASKS                     # with flawtune on the PATH
set -euo pipefail
root=$(realpath "${1:?which data sets?}")
tasks=${2:?which folder for the tasks?}
mkdir -p "$tasks"
for category in elpv_mono elpv_poly; do
    ln -sfn "$root/$category" "$tasks/$category"
done
for category in flange gravel; do
    [ -d "$tasks/$category" ] || flawtune synth --category "$category" --output-dir "$tasks"
done
for type in blowhole break crack fray uneven; do
    task=$tasks/mt_$type
    mkdir -p "$task/train" "$task/test" "$task/ground_truth"
    ln -sfn "$root/magnetic_tile/train/good" "$task/train/good"
    ln -sfn "$root/magnetic_tile/test/good" "$task/test/good"
    ln -sfn "$root/magnetic_tile/test/$type" "$task/test/$type"
    ln -sfn "$root/magnetic_tile/ground_truth/$type" "$task/ground_truth/$type"
done
