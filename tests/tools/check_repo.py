"""Checks what no compiler checks: who depends on whom, what the build needs, what files may say.

    python3 tests/tools/check_repo.py

* The arrows between crates are those of ARROWS, which is the table of docs/architecture.md.
* The default build of the command needs no LLVM, CUDA, cmake or C compiler.
* Crates have the same features in the command's build as in that of the workspace's tests: it is built once for both.
* No file names a path of somebody's machine.
* Source files stay below 1,000 lines (generated ones and test data aside).
"""

import json
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

COMPILER = {
    "silure-types", "silure-images", "silure-ir", "silure-target", "silure-engine", "silure-kernels-cpu",
    "silure-passes", "silure-onnx", "silure-hf", "silure-launch", "silure-cpu", "silure-tile", "silure-simt",
    "silure-cuda",
}
# Crate: what it may use, directly or through others. Tests' own dependencies are not looked at.
ARROWS = {
    "silure-types": set(),
    "silure-images": set(),
    "silure-ir": {"silure-types", "silure-images"},
    "silure-target": {"silure-types"},
    "silure-engine": {"silure-types"},
    "silure-kernels-cpu": {"silure-types", "silure-images"},
    "silure-runtime": {"silure-types", "silure-images", "silure-engine", "silure-kernels-cpu"},
    "silure-capi": {"silure-types", "silure-images", "silure-engine", "silure-kernels-cpu", "silure-runtime"},
    "silure-generate": {"silure-types", "silure-images", "silure-engine", "silure-kernels-cpu", "silure-runtime"},
    "silure-passes": {"silure-types", "silure-images", "silure-ir", "silure-target"},
    "silure-onnx": {"silure-types", "silure-images", "silure-ir"},
    "silure-onnx-proto": set(),
    "silure-hf": {"silure-types", "silure-images", "silure-ir"},
    "silure-launch": {"silure-types", "silure-images", "silure-ir", "silure-target", "silure-passes", "silure-engine"},
    "silure-cpu": COMPILER - {"silure-cpu", "silure-onnx", "silure-hf", "silure-tile", "silure-simt", "silure-cuda"},
    "silure-tile": {"silure-types", "silure-images", "silure-ir"},
    "silure-simt": {"silure-types", "silure-images", "silure-ir", "silure-target"},
    "silure-cuda": {
        "silure-types", "silure-images", "silure-ir", "silure-target", "silure-passes", "silure-engine", "silure-launch",
        "silure-tile", "silure-simt",
    },
    "silure-ascend": {"silure-types", "silure-images", "silure-ir", "silure-target"},
    "silure-cuda-device": {"silure-types", "silure-images", "silure-engine", "silure-kernels-cpu", "silure-runtime"},
    "silure-ptx-emulator": set(),
    "silure-libcuda": {"silure-ptx-emulator"},
    "silure-plan": {"silure-types", "silure-images", "silure-engine", "silure-kernels-cpu", "silure-target"},
    "silure": COMPILER,
    "silure-cli": None,
    "silure-tests": None,
    "silure-tutorial": None,
}
# `cudarc` loads the driver while running, and needs nothing of CUDA to build.
FORBIDDEN = re.compile(
    r"^(llvm.*|mlir.*|inkwell|melior|cuda-.*|cuda_.*|cust|nvml.*|cmake|cc|bindgen|clang-sys|pkg-config"
    r"|openssl-sys|nasm-rs)$"
)
MACHINE = re.compile(rb"(?<![\w.])/(?:home|root|Users)/[\w.]+|(?<![\w./])/work/[\w.]+")
GENERATED = {"frontends/onnx/proto/onnx.rs"}
MOST_LINES = 1000


def cargo(*args):
    return subprocess.run(["cargo", *args], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def arrows(problems):
    meta = json.loads(cargo("metadata", "--format-version", "1", "--no-deps"))
    direct = {}
    for p in meta["packages"]:
        deps = {d["name"] for d in p["dependencies"] if d["kind"] != "dev"}
        direct[p["name"]] = {d for d in deps if d.startswith("silure")}
    for name in direct:
        if name not in ARROWS:
            problems.append(f"crate {name} is not in the table of arrows")
            continue
        reached, todo = set(), list(direct[name])
        while todo:
            d = todo.pop()
            if d not in reached:
                reached.add(d)
                todo += direct.get(d, ())
        if ARROWS[name] is not None and (extra := reached - ARROWS[name]):
            problems.append(f"crate {name} may not use {', '.join(sorted(extra))}")
    for name in ARROWS.keys() - direct.keys():
        problems.append(f"crate {name} of the table of arrows is not there")


def build_needs(problems):
    # Normal and build dependencies of the command, on every platform it is for.
    tree = cargo("tree", "-p", "silure-cli", "-e", "normal,build", "--prefix", "none", "--format", "{p}")
    names = {line.split()[0] for line in tree.splitlines() if line.strip()}
    if len(names) < 20:
        problems.append(f"cargo tree lists {len(names)} crates only: the check cannot be right")
    for n in sorted(n for n in names if FORBIDDEN.match(n)):
        problems.append(f"the default build depends on {n}")


def features(problems):
    def tree(*args):
        listed = cargo("tree", *args, "--no-dedupe", "--prefix", "none", "--format", "{p}|{f}")
        sets = {}
        for line in filter(None, listed.splitlines()):
            crate, _, names = line.partition("|")
            if names or "|" in line:
                sets.setdefault(" ".join(crate.split()[:2]), set()).add(names)
        return sets

    command = tree("-p", "silure-cli", "-e", "normal,build")
    tests = tree("--workspace", "-e", "normal,build,dev")
    if len(command) < 20:
        problems.append(f"cargo tree lists {len(command)} crates with features only: the check cannot be right")
    for crate in sorted(command):
        if not command[crate] <= tests.get(crate, set()):
            problems.append(f"{crate} has the features {command[crate]} in the command, {tests.get(crate)} in the tests")


def files(problems):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        path = os.path.join(ROOT, name)
        if not os.path.isfile(path) or name == "tests/tools/check_repo.py":
            continue
        with open(path, "rb") as f:
            data = f.read()
        if b"\0" in data[:4096]:
            continue
        for n, line in enumerate(data.splitlines(), 1):
            if m := MACHINE.search(line):
                problems.append(f"{name}:{n}: a path of one machine: {m.group().decode()}")
        lines = data.count(b"\n")
        if name.endswith((".rs", ".py")) and name not in GENERATED and lines > MOST_LINES:
            problems.append(f"{name} has {lines} lines; {MOST_LINES} are the most")


def main():
    problems = []
    arrows(problems)
    build_needs(problems)
    features(problems)
    files(problems)
    for p in problems:
        print(p, file=sys.stderr)
    if problems:
        sys.exit(f"{len(problems)} problems")
    print("structure: fine")


if __name__ == "__main__":
    main()
