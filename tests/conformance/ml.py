"""Compares operators of ai.onnx.ml on random small models with onnxruntime.

    python ml.py SILURE [--count N] [--seed N] [--only TEXT]

Needs onnx, onnxruntime and numpy. A model that Silure refuses (exit code 5) is counted, one that
gives another answer is a failure. Scores agree within 1e-5 relative and absolute; labels are equal.
"""
import argparse
import collections
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper as h

F32, I64, STR = T.FLOAT, T.INT64, T.STRING


def model(op, inputs, outputs, version=3, **attrs):
    node = h.make_node(op, [i[0] for i in inputs], [o[0] for o in outputs], domain="ai.onnx.ml", **attrs)
    ports = [[h.make_tensor_value_info(n, t, s) for n, t, s in p] for p in (inputs, outputs)]
    opsets = [h.make_opsetid("", 17), h.make_opsetid("ai.onnx.ml", version)]
    return h.make_model(h.make_graph([node], "g", *ports), opset_imports=opsets, ir_version=8)


def floats(r, *shape):
    return r.normal(size=shape).astype(np.float32)


def trees(r, features, ids, count):
    """Attributes of random trees, and the leaves as (tree, node, target id)."""
    a, leaves = collections.defaultdict(list), []
    modes = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"]
    mode = r.choice(modes)
    mixed = r.random() < 0.3

    def node(tree, depth, numbers):
        me = next(numbers)
        at = len(a["nodes_nodeids"])
        leaf = depth == 0 or r.random() < 0.2
        values = dict(nodeids=me, treeids=tree, featureids=0 if leaf else int(r.integers(features)),
                      modes="LEAF" if leaf else str(r.choice(modes) if mixed else mode), truenodeids=0, falsenodeids=0,
                      values=0.0 if leaf else float(np.float32(r.normal())), missing_value_tracks_true=int(r.random() < 0.5))
        for k, v in values.items():
            a["nodes_" + k].append(v)
        if leaf:
            leaves.append((tree, me, int(r.choice(ids))))
        else:
            a["nodes_truenodeids"][at] = node(tree, depth - 1, numbers)
            a["nodes_falsenodeids"][at] = node(tree, depth - 1, numbers)
        return me

    for t in range(count):
        node(t, int(r.integers(1, 5)), iter(range(1000)))
    return dict(a), leaves


def ensemble(r, kind):
    features, n = int(r.integers(1, 6)), int(r.integers(1, 5))
    labels = int(r.integers(2, 5)) if kind == "Classifier" else int(r.integers(1, 4))
    ids = [0] if kind == "Classifier" and labels == 2 else range(labels)
    attrs, leaves = trees(r, features, ids, n)
    if len(ids) > 1:
        # Where no leaf reached votes for a target, onnxruntime leaves the base value out.
        leaves = [(t, i, c) for t, i, _ in leaves for c in ids]
    prefix = "class" if kind == "Classifier" else "target"
    w = r.random(len(leaves)) / n if r.random() < 0.5 else r.normal(size=len(leaves))
    attrs |= {f"{prefix}_treeids": [x[0] for x in leaves], f"{prefix}_nodeids": [x[1] for x in leaves],
              f"{prefix}_ids": [x[2] for x in leaves], f"{prefix}_weights": [float(np.float32(v)) for v in w]}
    x = floats(r, 7, features)
    x[r.random(x.shape) < 0.1] = np.nan
    ins = [("x", F32, ["n", features])]
    attrs["post_transform"] = str(r.choice(["NONE", "NONE", "SOFTMAX", "LOGISTIC"]))
    if kind == "Regressor":
        attrs |= {"n_targets": labels, "aggregate_function": str(r.choice(["SUM", "AVERAGE"]))}
        if r.random() < 0.5:
            attrs["base_values"] = floats(r, labels).tolist()
        return model("TreeEnsembleRegressor", ins, [("y", F32, ["n", labels])], **attrs), [x]
    strings = r.random() < 0.5
    attrs["classlabels_strings" if strings else "classlabels_int64s"] = (
        [f"label {i}" for i in range(labels)] if strings else list(range(10, 10 + labels)))
    outs = [("y", STR if strings else I64, ["n"]), ("z", F32, ["n", labels])]
    return model("TreeEnsembleClassifier", ins, outs, **attrs), [x]


def linear(r, kind):
    f, c = int(r.integers(1, 6)), int(r.integers(1, 5)) + (kind == "Classifier")
    attrs = {"coefficients": floats(r, c * f).tolist(), "intercepts": floats(r, c).tolist(),
             "post_transform": str(r.choice(["NONE", "SOFTMAX", "LOGISTIC"]))}
    ins, x = [("x", F32, ["n", f])], floats(r, 5, f)
    if kind == "Regressor":
        attrs |= {"targets": c, "post_transform": "NONE"}
        return model("LinearRegressor", ins, [("y", F32, ["n", c])], version=1, **attrs), [x]
    strings = r.random() < 0.5
    attrs["classlabels_strings" if strings else "classlabels_ints"] = (
        [f"label {i}" for i in range(c)] if strings else list(range(10, 10 + c)))
    outs = [("y", STR if strings else I64, ["n"]), ("z", F32, ["n", c])]
    return model("LinearClassifier", ins, outs, version=1, **attrs), [x]


def svm(r):
    f, s = int(r.integers(1, 5)), int(r.integers(1, 6))
    attrs = {"coefficients": floats(r, s).tolist(), "support_vectors": floats(r, s * f).tolist(), "n_supports": s,
             "rho": floats(r, 1).tolist(), "kernel_params": [0.5, 0.25, 2.0],
             "kernel_type": str(r.choice(["LINEAR", "POLY", "RBF", "SIGMOID"]))}
    return model("SVMRegressor", [("x", F32, ["n", f])], [("y", F32, ["n", 1])], version=1, **attrs), [floats(r, 5, f)]


def svm_classifier(r):
    f, c = int(r.integers(1, 5)), int(r.integers(2, 5))
    per = [int(r.integers(1, 4)) for _ in range(c)]
    pairs, v = c * (c - 1) // 2, sum(per)
    attrs = {"kernel_params": [0.5, 0.25, 2.0], "kernel_type": str(r.choice(["LINEAR", "POLY", "RBF", "SIGMOID"])),
             "post_transform": str(r.choice(["NONE", "SOFTMAX", "LOGISTIC"])), "classlabels_ints": list(range(10, 10 + c))}
    if r.random() < 0.7:
        attrs |= {"coefficients": floats(r, (c - 1) * v).tolist(), "support_vectors": floats(r, v * f).tolist(),
                  "vectors_per_class": per, "rho": floats(r, pairs).tolist()}
        scores = 2 if c == 2 else pairs
        if r.random() < 0.5:
            attrs |= {"prob_a": (-abs(floats(r, pairs))).tolist(), "prob_b": floats(r, pairs).tolist()}
            scores = c
    else:
        w = floats(r, c * f)
        attrs |= {"coefficients": (abs(w) if r.random() < 0.5 else w).tolist(), "rho": floats(r, 1).tolist(),
                  "kernel_type": "LINEAR"}
        scores = c
    outs = [("y", I64, ["n"]), ("z", F32, ["n", scores])]
    return model("SVMClassifier", [("x", F32, ["n", f])], outs, version=1, **attrs), [floats(r, 9, f)]


def features(r, op):
    f = int(r.integers(1, 6))
    x, same = floats(r, 4, f), [("y", F32, ["n", f])]
    ins = [("x", F32, ["n", f])]
    if op == "Scaler":
        n = f if r.random() < 0.5 else 1
        attrs = {"offset": floats(r, n).tolist(), "scale": floats(r, n).tolist()}
    elif op == "Normalizer":
        x[0] = 0
        attrs = {"norm": str(r.choice(["L1", "L2"]))}
    elif op == "Binarizer":
        attrs = {"threshold": 0.25}
    else:
        x[r.random(x.shape) < 0.3] = np.nan
        attrs = {"imputed_value_floats": floats(r, f).tolist(), "replaced_value_float": float("nan")}
    return model(op, ins, same, version=1, **attrs), [x]


def encoder(r):
    words = [f"w{i}" for i in range(6)]
    kinds = {"strings": (STR, words), "int64s": (I64, [-3, 0, 7, 8, 9, 11]), "floats": (F32, [0.5, -1.0, 2.0, 0.0, 7.25, 8.0])}
    k, v = r.choice(list(kinds)), r.choice(list(kinds))
    n = int(r.integers(1, 6))
    attrs = {f"keys_{k}": kinds[k][1][:n], f"values_{v}": kinds[v][1][::-1][:n]}
    if r.random() < 0.5:
        attrs[{"strings": "default_string", "int64s": "default_int64", "floats": "default_float"}[v]] = kinds[v][1][0]
    types = {STR: str, I64: np.int64, F32: np.float32}
    x = np.array([kinds[k][1][i] for i in r.integers(0, 6, 8)], dtype=types[kinds[k][0]])
    return model("LabelEncoder", [("x", kinds[k][0], ["n"])], [("y", kinds[v][0], ["n"])], version=2, **attrs), [x]


def zip_map(r):
    c = int(r.integers(1, 5))
    ints = r.random() < 0.5
    keys = list(range(7, 7 + c)) if ints else [f"label {i}" for i in range(c)]
    m = model("ZipMap", [("x", F32, ["n", c])], [("y", F32, ["n", c])], version=1,
              **{"classlabels_int64s" if ints else "classlabels_strings": keys})
    # The standard's output: a map for each row.
    kind = h.make_map_type_proto(I64 if ints else STR, h.make_tensor_type_proto(F32, None))
    m.graph.output[0].type.CopyFrom(h.make_sequence_type_proto(kind))
    return m, [floats(r, 4, c)]


def with_map(op, keys, values, out, **attrs):
    m = model(op, [("x", keys, [])], [("y", out, [1, None])], version=1, **attrs)
    m.graph.input[0].type.CopyFrom(h.make_map_type_proto(keys, h.make_tensor_type_proto(values, [])))
    return m


def random_map(r, keys, values, least=1):
    """A map of some of `keys`, in any order."""
    keys = r.permutation(np.array(keys, dtype=object))[:int(r.integers(least, len(keys) + 1))].tolist()
    make = {F32: lambda: float(np.float32(r.normal() * 9)), T.DOUBLE: lambda: float(r.normal()),
            I64: lambda: int(r.integers(-2**62, 2**62)), STR: lambda: f"{float(r.integers(-999, 999)) / 8}"}
    return {k: make[values]() for k in keys}


def cast_map(r):
    """What onnxruntime's Python takes are maps of floats; those of strings are told by the standard's text."""
    to = str(r.choice(["FLOAT", "INT64", "STRING"]))
    values, sparse = int(r.choice([F32, STR])), r.random() < 0.5
    most = int(r.integers(6, 10))
    x = random_map(r, list(range(6)) if sparse else [-9, -2**60, 0, 3, 7, 2**62], values, least=values == F32)
    attrs = {"cast_to": "TO_" + to, "map_form": "SPARSE" if sparse else "DENSE", "max_map": most}
    cast = {"FLOAT": np.float32, "INT64": lambda v: np.int64(float(v)), "STRING": str}[to]
    empty = {"FLOAT": 0.0, "INT64": 0, "STRING": "0.f"}[to]
    row = [cast(x[k]) if k in x else empty for k in (range(most) if sparse else sorted(x))]
    dtype = {"FLOAT": np.float32, "INT64": np.int64, "STRING": object}[to]
    want = np.array([row], dtype=dtype).reshape(1, -1)
    if values == STR and to == "INT64":
        x = {k: str(int(float(v))) for k, v in x.items()}
    return with_map("CastMap", I64, values, getattr(T, to), **attrs), [x], [want]


def dict_vectorizer(r):
    keys = int(r.choice([I64, STR]))
    values = int(r.choice([v for v in (F32, T.DOUBLE, I64, STR) if v != keys]))
    some = [-9, 0, 3, 2**60] if keys == I64 else ["a", "", "Straße", "b"]
    words = r.permutation(np.array(some + some[:1], dtype=object)).tolist()[:int(r.integers(1, 6))]
    x = random_map(r, some, values, least=values == F32)
    dtype, none = {F32: (np.float32, 0), T.DOUBLE: (np.float64, 0), I64: (np.int64, 0), STR: (object, "")}[values]
    want = np.array([[x.get(w, none) for w in words]], dtype=dtype)
    attrs = {"int64_vocabulary" if keys == I64 else "string_vocabulary": words}
    return with_map("DictVectorizer", keys, values, values, **attrs), [x], [want]


def arrays(m, i, x):
    """A map as two arrays, keys and values; an array as itself."""
    if not isinstance(x, dict):
        return [x]
    t = m.graph.input[i].type.map_type
    types = {F32: np.float32, T.DOUBLE: np.float64, I64: np.int64, STR: np.str_}
    return [np.array(list(x.keys()), dtype=types[t.key_type]),
            np.array(list(x.values()), dtype=types[t.value_type.tensor_type.elem_type])]


MAKERS = {
    "CastMap": cast_map,
    "DictVectorizer": dict_vectorizer,
    "TreeEnsembleRegressor": lambda r: ensemble(r, "Regressor"),
    "TreeEnsembleClassifier": lambda r: ensemble(r, "Classifier"),
    "LinearRegressor": lambda r: linear(r, "Regressor"),
    "LinearClassifier": lambda r: linear(r, "Classifier"),
    "SVMRegressor": svm,
    "ZipMap": zip_map,
    "SVMClassifier": svm_classifier,
    "LabelEncoder": encoder,
    **{op: (lambda r, op=op: features(r, op)) for op in ("Scaler", "Normalizer", "Binarizer", "Imputer")},
}


def number(text):
    try:
        return float(text)
    except ValueError:
        return np.nan


def differs(y, w, written):
    """Why an output is not what was wanted. Numbers `written` as strings may have other digits behind the sixth."""
    if y.shape != w.shape:
        return f"shape {y.shape} instead of {w.shape}"
    if w.dtype.kind == "f":
        good = np.isclose(y, w, rtol=1e-5, atol=1e-5, equal_nan=True)
    else:
        pairs = list(zip(y.astype(str).ravel(), w.astype(str).ravel()))
        good = np.array([a == b or written and bool(np.isclose(number(a), number(b), rtol=1e-5, atol=1e-6))
                         for a, b in pairs])
    return None if good.all() else f"{y.ravel()[:6]} instead of {w.ravel()[:6]}"


def compare(silure, m, xs, stated=None):
    """Beside onnxruntime; where the answer is stated it has to give that too, if its Python takes the inputs."""
    values = [i.type.map_type.value_type.tensor_type.elem_type for i in m.graph.input if i.type.HasField("map_type")]
    written = bool(values) and m.graph.output[0].type.tensor_type.elem_type == STR
    want = stated
    if all(v == F32 for v in values):
        feeds = {i.name: x.astype(object) if not isinstance(x, dict) and x.dtype.kind == "U" else x
                 for i, x in zip(m.graph.input, xs)}
        want = ort.InferenceSession(m.SerializeToString()).run(None, feeds)
        for a, b in zip(want, stated or []):
            assert not (why := differs(a, b, written)), f"onnxruntime: {why}"
    with tempfile.TemporaryDirectory() as d:
        d = pathlib.Path(d)
        onnx.save(m, d / "m.onnx")
        parts = [a for i, x in enumerate(xs) for a in arrays(m, i, x)]
        files = [d / f"in_{i}.npy" for i in range(len(parts))]
        for f, a in zip(files, parts):
            np.save(f, a)
        p = subprocess.run([silure, "run", d / "m.onnx", "--out-dir", d, "--inputs", *files], capture_output=True, text=True)
        if p.returncode == 5:
            return "refused", p.stderr.strip()
        if p.returncode:
            return "failed", p.stderr.strip()
        for i, w in enumerate(want):
            y = np.load(d / f"out_{i}.npy")
            if isinstance(w, list) and isinstance(w[0], dict):
                w = [list(row.values()) for row in w]  # in order of the keys
            w = np.asarray(w)
            if why := differs(y, w, written):
                return "wrong", f"output {i}: {why}"
    return "passed", ""


def main():
    p = argparse.ArgumentParser()
    p.add_argument("silure")
    p.add_argument("--count", type=int, default=20)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--only", default="")
    a = p.parse_args()
    bad = False
    for name, make in MAKERS.items():
        if a.only not in name:
            continue
        seen, reasons = collections.Counter(), collections.Counter()
        for i in range(a.count):
            state, why = compare(a.silure, *make(np.random.default_rng([a.seed, i])))
            seen[state] += 1
            if state != "passed":
                reasons[f"{state}: {why[:300]}"] += 1
            bad |= state in ("wrong", "failed")
        print(f"{name}: {dict(seen)}")
        for reason, n in reasons.most_common(3):
            print(f"  {n} × {reason}")
    sys.exit(bad)


main()
