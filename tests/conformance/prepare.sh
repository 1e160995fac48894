#!/usr/bin/env bash
# Exports the backend cases of one onnx release into target/conformance/RELEASE.
#
#   tests/conformance/prepare.sh RELEASE PACKAGE...     (what its environment needs besides onnx)
set -euo pipefail
cd "$(dirname "$0")/../.."
release=$1
shift
root=$PWD/target/conformance
venv=$root/venv-$release
if ! [[ -f $venv/ready ]]; then
    rm -rf "$venv"
    mkdir -p "$root"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check "onnx==$release" "$@"
    touch "$venv/ready"
fi
if [[ tests/conformance/export.py -nt $root/$release/index.json ]]; then
    "$venv/bin/python" tests/conformance/export.py "$root/$release"
fi
