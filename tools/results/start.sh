# shellcheck shell=bash disable=SC2034
# Sourced by scripts beside it: reads ROOT WEIGHTS OUT [SEEDS], makes their paths absolute, goes to the root of the repository and
# builds what measures. Leaves $root, $weights, $out, $seeds and $bin, the folder of the release build, with $flawtune in it.
root=$(realpath "${1:?which data sets?}")
weights=$(realpath "${2:?which weights?}")
mkdir -p "${3:?which folder for the runs?}"
out=$(realpath "$3")
seeds=${4:-5}
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
cargo build --release --locked -p flawtune-cli
bin=$(realpath "${CARGO_TARGET_DIR:-target}/release")
flawtune=$bin/flawtune
