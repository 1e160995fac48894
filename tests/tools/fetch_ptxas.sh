#!/bin/sh
# Puts NVIDIA's assembler into target/tools for the tests that use it. It is proprietary: it is fetched at
# test time from its package, never committed or shipped. Does nothing if it is there.
set -eu
version=13.5.37
root=$(cd "$(dirname "$0")/../.." && pwd)
tools="$root/target/tools"
if [ -x "$tools/ptxas" ]; then
    exit 0
fi
mkdir -p "$tools"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m pip download --quiet --no-deps --dest "$scratch" "nvidia-cuda-nvcc==$version"
python3 - "$scratch" "$tools" <<'PY'
import glob, os, sys, zipfile
scratch, tools = sys.argv[1:]
(wheel,) = glob.glob(os.path.join(scratch, "*.whl"))
with zipfile.ZipFile(wheel) as z:
    (name,) = [n for n in z.namelist() if n.endswith("bin/ptxas")]
    partial = os.path.join(tools, "ptxas.partial")
    with z.open(name) as src, open(partial, "wb") as dst:
        dst.write(src.read())
os.chmod(partial, 0o755)
os.rename(partial, os.path.join(tools, "ptxas"))
PY
"$tools/ptxas" --version
