"""What converting a model takes: memory and time, beside the file's size.

    python benches/memory.py SILURE [--models DIR] [--only NAME] [--most 3.0]

For each real model (tests/models/fetch.py) of at least 1 MB, then for the smaller ones, `silure compile` as a process of
its own, three times, watched through /proc (Linux): the greatest resident set, the part of it that is the process's own
(anonymous), and the least time. The rest of a resident set is pages of the program's file: the system's, shared, droppable,
more or fewer as the page cache has them, and about the same for every model. A model of one node says what the process
takes alone; a model takes what it has of its own beyond that. Exits with 1 if a model of at least 1 MB takes more than
`--most` times its file. Needs the package onnx.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import onnx
from onnx import TensorProto, helper

MB = 1e6


def watched(command):
    """Bytes resident and anonymous at most, and seconds. The kernel keeps the first; the second is sampled."""
    begin = time.perf_counter()
    p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    most = {"VmHWM": 0, "RssAnon": 0}
    while p.poll() is None:
        try:
            status = pathlib.Path(f"/proc/{p.pid}/status").read_text()
        except OSError:
            break
        for key, kib in re.findall(r"^(VmHWM|RssAnon):\s+(\d+) kB", status, re.M):
            most[key] = max(most[key], 1024 * int(kib))
    error = p.stderr.read()
    if p.wait():
        sys.exit(f"{' '.join(map(str, command))}: {error}")
    return most["VmHWM"], most["RssAnon"], time.perf_counter() - begin


def smallest(path):
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in "xy")
    g = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(g, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("silure", type=pathlib.Path)
    p.add_argument("--models", type=pathlib.Path, default=pathlib.Path("target/models"))
    p.add_argument("--only", default="")
    p.add_argument("--most", type=float, default=3.0)
    a = p.parse_args()
    files = [f for f in a.models.rglob("*.onnx") if a.only in f.stem and "cases" not in f.parts]
    files.sort(key=lambda f: (f.stat().st_size < MB, f.stem))
    if not files:
        sys.exit(f"no models in {a.models}")
    bad = []
    with tempfile.TemporaryDirectory() as d:
        d = pathlib.Path(d)

        def convert(model):
            return [max(v) if i < 2 else min(v) for i, v in enumerate(zip(*(
                watched([a.silure, "compile", "-q", model, "-o", d / "out.silure"]) for _ in range(3))))]

        smallest(d / "one.onnx")
        alone, own, seconds = convert(d / "one.onnx")
        print(f"alone: resident {alone / MB:.1f} MB, own {own / MB:.1f} MB, {seconds:.2f} s\n")
        print("| model | file, MB | resident, MB | own, MB | own, × file | own − alone, × file | resident − alone, × file | s |")
        print("|---|---|---|---|---|---|---|---|")
        for f in files:
            size = f.stat().st_size
            peak, mine, seconds = convert(f)
            ratio = (mine - own) / size
            print(f"| {f.stem} | {size / MB:.2f} | {peak / MB:.1f} | {mine / MB:.1f} | {mine / size:.2f} | {ratio:.2f} |"
                  f" {(peak - alone) / size:.2f} | {seconds:.2f} |", flush=True)
            if size >= MB and ratio >= a.most:
                bad.append(f.stem)
    if bad:
        sys.exit(f"more than {a.most} times the file: {', '.join(bad)}")


main()
