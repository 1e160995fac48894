"""Runs exported backend cases with `silure run` and compares.

    python run.py DIR SILURE [--only TEXT] [--jobs N] [--report FILE] [--least PERCENT]

Every case is passed, refused (exit code 5: the operator, its version and types are named), excluded
(excluded.txt: its outputs are random), disputed (disputed.txt: its data are wrong in that release, with
the reason; it runs too, and counts as not passed unless it passes), wrong, or failed (anything else: a defect). The rule is that of
onnx's own runner, |have - want| <= atol + rtol * |want| with an absolute floor of 1e-5, and for bfloat16
an rtol of two units in the last place; types, shapes and whatever is not a float are equal.
"""
import argparse
import collections
import concurrent.futures
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

FLOOR = 1e-5
HERE = pathlib.Path(__file__).parent


def names(file):
    """The names in a list, without comments."""
    return {line.split("#")[0].strip() for line in (HERE / file).read_text().splitlines()}


EXCLUDED, DISPUTED = names("excluded.txt"), names("disputed.txt")


def small_float(bits, exp, mantissa, bias, special):
    """Values of all codes of a float of up to 8 bits."""
    out = []
    for code in range(1 << bits):
        sign = -1.0 if exp + mantissa < bits and code >> (exp + mantissa) else 1.0
        e, m = code >> mantissa & ((1 << exp) - 1), code & ((1 << mantissa) - 1)
        v = m / (1 << mantissa) * 2.0 ** (1 - bias) if e == 0 else (1 + m / (1 << mantissa)) * 2.0 ** (e - bias)
        out.append(special(code, e, m, sign * v))
    return np.array(out)


def top(e_max, m_max):
    def f(_, e, m, v):
        if e == e_max:
            if m_max is None:
                return np.copysign(np.inf, v) if m == 0 else np.nan
            if m == m_max:
                return np.nan
        return v
    return f


TABLES = {
    "FLOAT8E4M3FN": small_float(8, 4, 3, 7, top(15, 7)),
    "FLOAT8E5M2": small_float(8, 5, 2, 15, top(31, None)),
    "FLOAT8E4M3FNUZ": small_float(8, 4, 3, 8, lambda c, e, m, v: np.nan if c == 128 else v),
    "FLOAT8E5M2FNUZ": small_float(8, 5, 2, 16, lambda c, e, m, v: np.nan if c == 128 else v),
    "FLOAT4E2M1": small_float(4, 2, 1, 1, lambda c, e, m, v: v),
    "FLOAT8E8M0": np.array([2.0 ** (c - 127) for c in range(255)] + [np.nan]),
}


def values(a, name):
    """An array as it travels, as numbers that compare."""
    if name == "BFLOAT16":
        return (a.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if name in TABLES:
        return TABLES[name][a]
    return a


def differs(have, want, name, case):
    """Why an array is not what was wanted, or nothing."""
    if have.shape != want.shape:
        return f"shape {list(have.shape)} instead of {list(want.shape)}"
    if name == "STRING":
        return None if (have.astype(str) == want.astype(str)).all() else "other strings"
    if have.dtype != want.dtype:
        return f"type {have.dtype} instead of {want.dtype}"
    h, w = values(have, name), values(want, name)
    if w.dtype.kind not in "fc":
        if w.dtype.kind == "b":
            return None if (h == w).all() else "other values"
    h, w = (x.astype(np.complex128 if w.dtype.kind == "c" else np.float64) for x in (h, w))
    atol = max(FLOOR, case["atol"])
    rtol = max(case["rtol"], 2**-6) if name == "BFLOAT16" else case["rtol"]
    close = np.isclose(h, w, rtol=rtol, atol=atol, equal_nan=True)
    if close.all():
        return None
    i = int(np.argmin(close.ravel()))
    return f"{(~close).sum()} of {close.size} values, first [{i}] {h.ravel()[i]} instead of {w.ravel()[i]}"


def run_set(silure, folder, s, info, case):
    names = [f"in_{i}.npy" if k == "tensor" else f"in_{i}.npz" for i, (k, _) in enumerate(info["inputs"])]
    with tempfile.TemporaryDirectory() as out:
        cmd = [silure, "run", folder / "model.onnx", "--timeout", "20", "--threads", "1", "--out-dir", out]
        if names:
            cmd += ["--inputs", *[folder / s / n for n in names]]
        try:
            r = subprocess.run(cmd, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            return "failed", "took more than 60 s"
        if r.returncode == 5:
            return "refused", r.stderr.strip()
        if r.returncode:
            return "failed", f"exit {r.returncode}: {r.stderr.strip()}"
        for i, (kind, name) in enumerate(info["outputs"]):
            f = f"out_{i}.npy" if kind == "tensor" else f"out_{i}.npz"
            path = pathlib.Path(out) / f
            if not path.exists():
                return "wrong", f"{f} was not written"
            have, want = np.load(path, allow_pickle=False), np.load(folder / s / f, allow_pickle=False)
            if kind == "tensor":
                pairs = [(have, want)]
            elif sorted(have.keys()) != sorted(want.keys()):
                return "wrong", f"output {i} has {len(have.keys())} parts instead of {len(want.keys())}"
            else:
                pairs = [(have[k], want[k]) for k in want.keys()]
            for h, w in pairs:
                if why := differs(h, w, name, case):
                    return "wrong", f"output {i}: {why}"
    return "passed", ""


def run_case(silure, root, name, case, release):
    if name in EXCLUDED:
        return "excluded", ""
    if not case["sets"]:
        return "failed", "no data"
    for i, info in enumerate(case["sets"]):
        if "cannot" in info:
            return "refused", "data: " + info["cannot"]
        state, why = run_set(silure, root / "cases" / name, f"set{i}", info, case)
        # Other values, or inputs refused because they contradict the model; nothing else is in dispute.
        refused = why.startswith("exit 1: error: input")
        if (state == "wrong" or refused) and f"{name}@{release}" in DISPUTED:
            return "disputed", why
        if state != "passed":
            return state, why
    return "passed", ""


def main():
    p = argparse.ArgumentParser()
    p.add_argument("root", type=pathlib.Path)
    p.add_argument("silure", type=pathlib.Path)
    p.add_argument("--only", default="")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--report", type=pathlib.Path)
    p.add_argument("--least", type=float, default=0.0, help="percent that must pass")
    a = p.parse_args()
    index = json.loads((a.root / "index.json").read_text())
    cases = {n: c for n, c in index["cases"].items() if a.only in n}
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        jobs = {n: pool.submit(run_case, a.silure.resolve(), a.root, n, c, index["onnx"]) for n, c in cases.items()}
        results = {n: j.result() for n, j in jobs.items()}
    count = collections.Counter(state for state, _ in results.values())
    if a.report:
        a.report.write_text("".join(f"{s}\t{n}\t{' | '.join(w.splitlines())}\n" for n, (s, w) in results.items()))
    for n, (state, why) in results.items():
        if state in ("wrong", "failed"):
            print(f"{state}: {n}: {' '.join(why.split())[:300]}")
    counted = len(results) - count["excluded"]
    share = 100 * count["passed"] / max(1, counted)
    print(f"onnx {index['onnx']}: {dict(count)}; {share:.1f} % of {counted} passed")
    if count["wrong"] or count["failed"] or share < a.least:
        sys.exit(1)


main()
