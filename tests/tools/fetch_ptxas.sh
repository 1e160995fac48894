#!/bin/sh
# Puts NVIDIA's assembler and disassembler into target/tools for the tests that use them. They are proprietary:
# they are fetched at test time from their packages, never committed or shipped. Does nothing if they are there.
set -eu
version=13.5.37
root=$(cd "$(dirname "$0")/../.." && pwd)
tools="$root/target/tools"
mkdir -p "$tools"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# tool, package
fetch() {
    if [ -x "$tools/$1" ]; then
        return
    fi
    python3 -m pip download --quiet --no-deps --dest "$scratch/$1" "$2==$version"
    python3 - "$scratch/$1" "$tools" "$1" <<'PY'
import glob, os, sys, zipfile
scratch, tools, tool = sys.argv[1:]
(wheel,) = glob.glob(os.path.join(scratch, "*.whl"))
with zipfile.ZipFile(wheel) as z:
    (name,) = [n for n in z.namelist() if n.endswith("bin/" + tool)]
    partial = os.path.join(tools, tool + ".partial")
    with z.open(name) as src, open(partial, "wb") as dst:
        dst.write(src.read())
os.chmod(partial, 0o755)
os.rename(partial, os.path.join(tools, tool))
PY
    "$tools/$1" --version
}

fetch ptxas nvidia-cuda-nvcc
fetch nvdisasm nvidia-cuda-nvdisasm
