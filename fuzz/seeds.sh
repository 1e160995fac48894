#!/usr/bin/env bash
# Collects a corpus to start from: fuzz/seeds.sh [FOLDER]   (default fuzz/corpus)
#
# fuzz/seeds, which earlier runs found; and small real files. What the repository has: the demo's model, module texts, an
# engine made of the demo's model, configurations; GGUF files and weights that seeds.py makes; and, if `./test` has exported
# them, small cases of ONNX's backend suite.
set -euo pipefail
cd "$(dirname "$0")/.."
corpus=${1:-fuzz/corpus}
mkdir -p "$corpus"
# What earlier runs found, reduced (README.md).
cp -r fuzz/seeds/* "$corpus"
cargo build -q -p silure-cli
silure=${CARGO_TARGET_DIR:-target}/debug/silure
cp cli/demo/digits.onnx "$corpus/onnx/digits"
for f in passes/tests/filetests/*.sir tests/kernels/*.sir tests/modules/*.sir; do
    [[ -f $f ]] && cp "$f" "$corpus/text/$(basename "$f" .sir)"
done
mkdir -p "$corpus/config"
python3 fuzz/seeds.py "$corpus"
for f in tests/language/cases/*/config.json; do
    cp "$f" "$corpus/config/$(basename "$(dirname "$f")")"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$silure" compile -q cli/demo/digits.onnx -o "$work/digits.silure"
{ printf '\0' && cat "$work/digits.silure"; } >"$corpus/engine/digits"
i=0
# One small case of each operator is plenty: every 20th of the newest release.
for case in target/conformance/1.23.2/cases/*/; do
    i=$((i + 1))
    ((i % 20 == 0)) || continue
    name=$(basename "$case")
    if [[ $(stat -c %s "$case/model.onnx") -lt 4096 ]]; then cp "$case/model.onnx" "$corpus/onnx/$name"; fi
    f=$case/set0/in_0.npy
    if ((i % 200 == 0)) && [[ -f $f && $(stat -c %s "$f") -lt 2048 ]]; then cp "$f" "$corpus/npy/$name"; fi
done
du -sh "$corpus"/*
