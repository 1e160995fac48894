"""Random graphs of mixed operators beside onnxruntime.

    python random_graphs.py SILURE [--graphs N] [--seed N] [--nodes N] [--only OP,…] [--jobs N] [--keep DIR]

Each seed is a graph of up to eight nodes (random_ops.py), half of them with symbols for sizes and then run with other
sizes too. `--only conv,pool --nodes 1` gives single operators. Where answers differ, every value of the graph is made a
result, and the first node whose result differs is named: that is the cause by which disagreements are grouped. A node
on which onnx's reference gives our answer is counted apart, what random_known.txt lists with its reason is too;
anything else is printed with its seed and ends the program with an error. `--keep` writes those graphs as files.
"""
import argparse
import collections
import concurrent.futures
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

import numpy as np
from onnx.reference import ReferenceEvaluator

import random_nn  # noqa: F401: registers operators
import random_ops as ops
import random_shapes  # noqa: F401: registers operators

HERE = pathlib.Path(__file__).parent
# Relative and absolute; sums in other orders and functions of other libraries differ by less.
RTOL, ATOL = 1e-3, 1e-5
HALF = 4e-3
AT_ONCE = 20


def known():
    """Patterns of disagreements that are explained, with the reason of each."""
    lines = [line for line in (HERE / "random_known.txt").read_text().splitlines() if line and line[0] != "#"]
    return [(re.compile(pattern), reason) for pattern, reason in (line.split("  # ") for line in lines)]


def differs(have, want):
    """Why an array is not the one wanted, or nothing."""
    if have.shape != want.shape:
        return f"shape {list(have.shape)} instead of {list(want.shape)}"
    if have.dtype != want.dtype:
        return f"type {have.dtype} instead of {want.dtype}"
    if want.dtype.kind != "f":
        i = np.flatnonzero(have != want)
        return f"{i.size} of {have.size}: {have.flat[i[0]]} instead of {want.flat[i[0]]}" if i.size else None
    half = want.dtype == np.float16
    close = np.isclose(have.astype(np.float64), want.astype(np.float64), rtol=HALF if half else RTOL,
                       atol=HALF if half else ATOL, equal_nan=True)
    i = np.flatnonzero(~close)
    return f"{i.size} of {have.size}: {have.flat[i[0]]:.6g} instead of {want.flat[i[0]]:.6g}" if i.size else None


def bindings(g, model):
    """The graph's own inputs, and the same with other sizes."""
    own = {n: g.at[n] for n in g.needed(g.nodes) if n not in g.inits}
    r = np.random.default_rng(g.r.integers(1 << 32))
    free = [(i.name, k) for i in model.graph.input for k, d in enumerate(i.type.tensor_type.shape.dim) if d.dim_param]
    out = [own]
    for _ in range(4 if free else 0):
        feeds = dict(own)
        for _ in range(int(r.integers(1, 3))):
            name, k = free[int(r.integers(len(free)))]
            v = feeds[name]
            d = v.shape[k]
            new = int(r.choice([0, 1, 2, d + 1, 2 * d, 3, 17]))
            empty = np.zeros(v.shape[:k] + (new,) + v.shape[k + 1:], v.dtype)
            feeds[name] = np.take(v, np.arange(new) % d, axis=k) if d else empty
        out.append(feeds)
    return out


def silure(programs, model, sets):
    """What our programs make of a model for each set of inputs: arrays, or (state, words)."""
    with tempfile.TemporaryDirectory() as d:
        d = pathlib.Path(d)
        (d / "m.onnx").write_bytes(model.SerializeToString())

        def call(*cmd):
            try:
                r = subprocess.run(cmd, capture_output=True, text=True, timeout=60)
            except subprocess.TimeoutExpired:
                return "failed", "took more than 60 s"
            words = " ".join(r.stderr.split())[:400]
            return None if r.returncode == 0 else ("refused" if r.returncode == 5 else "failed", words)
        if bad := call(programs / "silure", "compile", "-q", d / "m.onnx", "-o", d / "e"):
            return [bad] * len(sets)
        out = []
        for k, feeds in enumerate(sets):
            cmd = [programs / "silure-run", d / "e", "--threads", "1", "--out-dir", d / f"o{k}"]
            for i, (name, v) in enumerate(feeds.items()):
                np.save(d / f"i{k}_{i}.npy", v)
                cmd += ["--input", f"{name}=@{d / f'i{k}_{i}.npy'}"]
            outputs = range(len(model.graph.output))
            out.append(call(*cmd) or [np.load(d / f"o{k}" / f"out_{j}.npy") for j in outputs])
        return out


def first_wrong(have, want):
    return next(((j, why) for j, (h, w) in enumerate(zip(have, want)) if (why := differs(h, w))), None)


def too_long(*_):
    raise TimeoutError("took too long")


def blame(programs, g, feeds, symbol, words):
    """The first node whose result differs when all are results: (state, cause)."""
    values = [o for n in g.nodes for o in n.output if isinstance(g.at.get(o), np.ndarray)]
    model = g.model(g.nodes, values, symbol)
    want, have = ops.run(ops.session(model), feeds), silure(programs, model, [feeds])[0]
    if isinstance(have, tuple):
        return have
    wrong = first_wrong(have, want)
    if wrong is None:
        return "wrong", f"only as a whole: {','.join(g.made)}: {words}"
    node = next(n for n in g.nodes if values[wrong[0]] in n.output)
    cause = f"{node.op_type}-{g.opset}: {wrong[1]}"
    try:
        inner = dict(zip(values, want)) | feeds
        alone = g.model([node], list(node.output))
        for value in alone.graph.input:
            value.type.tensor_type.ClearField("shape")
        # It mirrors places step by step, and never comes to an end on an axis of one element.
        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(10)
        theirs = ReferenceEvaluator(alone).run(None, {i.name: inner[i.name] for i in alone.graph.input})
        k = list(node.output).index(values[wrong[0]])
        if differs(have[wrong[0]], np.asarray(theirs[k])) is None:
            return "reference", cause
    except Exception as e:  # noqa: BLE001: whatever it cannot do leaves the matter open
        return "wrong", f"{cause} (onnx's reference: {type(e).__name__})"
    finally:
        signal.alarm(0)
    return "wrong", cause


def one(programs, seed, only, nodes, keep):
    """A line for the report: (state, cause, operators)."""
    g = ops.build(seed, only, nodes)
    used = {i for n in g.nodes for i in n.input}
    values = [o for n in g.nodes for o in n.output if isinstance(g.at[o], np.ndarray)]
    results = [o for o in values if o not in used or g.p(0.15)]
    if not results:
        return "empty", "", ""
    symbols, named = g.p(0.5), {}

    def symbol(name, axis, size):
        """Sizes of 1 stay: one that becomes 1 in a run is not repeated (docs/ops.md). So do those of parameters."""
        if (name, axis) not in named:
            named[name, axis] = f"{name}_{axis}" if symbols and size != 1 and name[0] == "x" and g.p(0.7) else size
        return named[name, axis]
    model = g.model(g.nodes, results, symbol)
    made = ",".join(g.made)
    try:
        session = ops.session(model)
    except ops.Refused as e:
        return "theirs", str(e)[:200], made
    sets, wants = [], []
    for feeds in bindings(g, model):
        try:
            wants.append(ops.run(session, feeds))
            sets.append(feeds)
        except ops.Refused:
            continue
    for k, have in enumerate(silure(programs, model, sets)):
        if isinstance(have, tuple):
            state, cause = have
        elif wrong := first_wrong(have, wants[k]):
            state, cause = blame(programs, g, sets[k], symbol, wrong[1])
        else:
            continue
        if keep:
            (keep / f"{seed}.onnx").write_bytes(model.SerializeToString())
            np.savez(keep / f"{seed}.npz", **sets[k])
        return state, cause, f"set {k} of {made}"
    return "ok", "", ""


def worker(a):
    for seed in range(a.seed, a.seed + a.graphs):
        print(json.dumps([seed]), flush=True)
        print(json.dumps([seed, *one(a.programs, seed, a.only, a.nodes, a.keep)]), flush=True)


def share(argv, seed, graphs):
    """Seeds in processes of their own, since some nodes end ONNX Runtime; lines (seed, state, cause, operators)."""
    out, end = [], seed + graphs
    while seed < end:
        cmd = [sys.executable, __file__, *argv, "--worker", "--seed", str(seed), "--graphs", str(end - seed)]
        r = subprocess.run(cmd, capture_output=True, text=True)
        lines = [json.loads(line) for line in r.stdout.splitlines() if line.startswith("[")]
        out += [line for line in lines if len(line) > 1]
        if r.returncode == 0:
            return out
        seed = lines[-1][0] + 1 if lines else end
        killed = r.returncode < 0
        out.append([seed - 1, "theirs" if killed else "failed", r.stderr[-300:] or f"signal {-r.returncode}", ""])
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("silure", type=pathlib.Path)
    p.add_argument("--graphs", type=int, default=1000)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--nodes", type=int, default=8)
    p.add_argument("--only", default="")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--keep", type=pathlib.Path)
    p.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    a.programs = a.silure.resolve().parent
    a.only = [n for n in a.only.split(",") if n]
    if unknown := set(a.only) - set(ops.OPS):
        sys.exit(f"no such operators: {', '.join(sorted(unknown))}; there are {', '.join(sorted(ops.OPS))}")
    if a.keep:
        a.keep.mkdir(parents=True, exist_ok=True)
    if a.worker:
        worker(a)
        return
    argv = [str(a.silure), "--nodes", str(a.nodes), "--only", ",".join(a.only)]
    argv += ["--keep", str(a.keep)] if a.keep else []
    starts = range(a.seed, a.seed + a.graphs, AT_ONCE)
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        shares = [pool.submit(share, argv, s, min(AT_ONCE, a.seed + a.graphs - s)) for s in starts]
        lines = [line for s in shares for line in s.result()]
    count, groups, patterns = collections.Counter(), collections.defaultdict(list), known()
    for seed, state, cause, made in lines:
        reason = next((why for pattern, why in patterns if pattern.search(f"{state}: {cause}")), None)
        if state in ("wrong", "failed", "refused") and reason:
            state = "known"
        count[state] += 1
        if state in ("wrong", "failed", "refused"):
            head = re.sub(r"\d+", "N", re.split(r"(?<=[a-z]): ", cause)[0]) if state != "wrong" else cause.split("-")[0]
            groups[state, head].append(f"    {seed} ({made}): {cause[:300]}")
    for (state, head), of in sorted(groups.items(), key=lambda g: -len(g[1])):
        print(f"{state}: {head}: {len(of)}", *of[:8], sep="\n")
    print(f"random graphs: {dict(count)}")
    if groups or not count["ok"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
