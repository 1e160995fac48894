#!/bin/sh
# Fetches the Ascend compiler's package (161 MB) and unpacks its tools to target/tools/ascend.
# The tests of backends/ascend look there, or in $SILURE_BISHENGIR_DIR.
set -eu
version=1.2.0
cd "$(dirname "$0")/../.."
to=target/tools/ascend
if [ -f "$to/version" ] && [ "$(cat "$to/version")" = "$version" ]; then
  echo "ascendnpu-ir $version is in $to"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.11 \
  --implementation cp --abi cp311 --platform manylinux_2_28_x86_64 \
  -d "$work" "ascendnpu-ir==$version"
python3 -m zipfile -e "$work"/ascendnpu_ir-*.whl "$work/unpacked"
mkdir -p "$to"
rm -rf "$to/bin" "$to/lib" "$to/version"
mv "$work/unpacked/ascendnpuir/bin" "$work/unpacked/ascendnpuir/lib" "$to"
chmod +x "$to"/bin/*
echo "$version" > "$to/version"
echo "ascendnpu-ir $version unpacked to $to"
