"""Writes the backend test cases of the installed `onnx` as files that `silure run` takes.

    python export.py DIR

DIR/cases/NAME/model.onnx, SET/in_I.npy and SET/out_I.npy (a sequence or an optional is an .npz), and
DIR/index.json: for each case its kind, tolerances, and the element types of its outputs. Types that
NumPy lacks travel as raw bits in an integer of the same width or one byte.
"""
import importlib.util
import json
import pathlib
import shutil
import sys
import warnings

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test import loader

RAW = {"BFLOAT16": np.uint16, "INT4": np.int8, "INT2": np.int8}
RAW |= {n: np.uint8 for n in ["UINT4", "UINT2", "FLOAT4E2M1", "FLOAT8E8M0"]}
RAW |= {n: np.uint8 for n in ["FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"]}
OURS = {"bfloat16": "BFLOAT16", "int4": "INT4", "int2": "INT2", "uint4": "UINT4", "uint2": "UINT2",
        "float4_e2m1fn": "FLOAT4E2M1", "float8_e8m0fnu": "FLOAT8E8M0", "float8_e4m3fn": "FLOAT8E4M3FN",
        "float8_e4m3fnuz": "FLOAT8E4M3FNUZ", "float8_e5m2": "FLOAT8E5M2",
        "float8_e5m2fnuz": "FLOAT8E5M2FNUZ"}


class Raw(tuple):
    """(array as it travels, element type)."""


def raw_tensor(t):
    """A TensorProto as it travels."""
    name = TensorProto.DataType.Name(t.data_type)
    if name not in RAW:
        return Raw((numpy_helper.to_array(t), name))
    bits = {"BFLOAT16": 16, "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}.get(name, 8)
    count = int(np.prod(t.dims, dtype=np.int64))
    if t.HasField("raw_data"):
        data = np.frombuffer(t.raw_data, np.uint16 if bits == 16 else np.uint8)
    else:
        data = np.array(t.int32_data, np.int64).astype(np.uint16 if bits == 16 else np.uint8)
    if bits < 8:
        per = 8 // bits
        data = np.stack([data >> (bits * i) for i in range(per)], -1).ravel() & ((1 << bits) - 1)
        if RAW[name] == np.int8:
            data = ((data.astype(np.int16) ^ (1 << (bits - 1))) - (1 << (bits - 1)))
    return Raw((data[:count].astype(RAW[name]).reshape(tuple(t.dims)), name))


def raw_array(a):
    """An array of the generator as it travels."""
    if isinstance(a, TensorProto):
        return raw_tensor(a)
    a = np.asarray(a)
    fields = a.dtype.descr[0][0] if a.dtype.names is None and a.dtype.descr else ""
    name = OURS.get(a.dtype.name) or OURS.get(fields)
    if name is None:
        if a.dtype.kind in "OSU":
            return Raw((a.astype(str), "STRING"))
        return Raw((a, TensorProto.DataType.Name(onnx.helper.np_dtype_to_tensor_dtype(a.dtype))))
    bits = 16 if name == "BFLOAT16" else 8
    if name.startswith(("INT", "UINT")):
        return Raw((a.astype(RAW[name]), name))
    return Raw((a.view(np.uint16 if bits == 16 else np.uint8).astype(RAW[name]), name))


def save(path, value):
    """Writes one input or output; gives (kind, element type)."""
    if value is None or isinstance(value, (list, dict)):
        parts = [] if value is None else value
        if isinstance(parts, dict):
            raise ValueError("a map")
        arrays = [p if isinstance(p, Raw) else raw_array(p) for p in parts]
        np.savez(path.with_suffix(".npz"), **{str(i): a for i, (a, _) in enumerate(arrays)})
        return ["none" if value is None else "sequence", arrays[0][1] if arrays else ""]
    a, name = value if isinstance(value, Raw) else raw_array(value)
    np.save(path.with_suffix(".npy"), a.astype(str) if a.dtype.kind == "O" else a)
    return ["tensor", name]


def load(file, kind):
    """A value of a .pb file: (array, type), a list of them, or None."""
    data = file.read_bytes()
    if kind == "sequence_type":
        s = onnx.SequenceProto.FromString(data)
        if s.elem_type != onnx.SequenceProto.TENSOR:
            raise ValueError("a sequence of something else than tensors")
        return [raw_tensor(t) for t in s.tensor_values]
    if kind == "optional_type":
        o = onnx.OptionalProto.FromString(data)
        if o.elem_type == onnx.OptionalProto.TENSOR:
            return raw_tensor(o.tensor_value)
        if o.elem_type == onnx.OptionalProto.SEQUENCE:
            return [raw_tensor(t) for t in o.sequence_value.tensor_values]
        return None
    return raw_tensor(TensorProto.FromString(data))


def write_set(folder, feeds, outputs):
    folder.mkdir(parents=True)
    types = [save(folder / f"in_{i}", v) for i, v in enumerate(feeds)]
    return {"inputs": types, "outputs": [save(folder / f"out_{i}", v) for i, v in enumerate(outputs)]}


def dummy(info):
    shape = tuple(d.dim_value if d.HasField("dim_value") else 1 for d in info.type.tensor_type.shape.dim)
    n = np.prod(shape)
    return (np.arange(n).reshape(shape) / n).astype(np.float32)


def main():
    warnings.simplefilter("ignore")
    root = pathlib.Path(sys.argv[1])
    shutil.rmtree(root, ignore_errors=True)
    index = {"onnx": onnx.__version__, "cases": {}}
    cases = []
    for kind in ["node", "simple", "pytorch-converted", "pytorch-operator"]:
        cases += [(kind, c) for c in loader.load_model_tests(kind=kind)]
    for kind, case in sorted(cases, key=lambda x: x[1].name):
        folder = root / "cases" / case.name
        folder.mkdir(parents=True)
        entry = {"kind": kind, "rtol": case.rtol, "atol": case.atol, "sets": []}
        if case.model is not None:
            (folder / "model.onnx").write_bytes(case.model.SerializeToString())
            model, sets = case.model, case.data_sets
        else:
            source = pathlib.Path(case.model_dir)
            for f in source.iterdir():
                if f.is_file():
                    shutil.copy(f, folder / f.name)
            model = onnx.load(source / "model.onnx")
            # The runner's own way of finding types: by position.
            sets = []
            for s in sorted(source.glob("test_data_set_*")):
                try:
                    names = [model.graph.input[i] for i in range(len(list(s.glob("input_*.pb"))))]
                    feeds = [load(s / f"input_{i}.pb", v.type.WhichOneof("value")) for i, v in enumerate(names)]
                    outs = [load(s / f"output_{i}.pb", v.type.WhichOneof("value"))
                            for i, v in enumerate(model.graph.output[: len(list(s.glob("output_*.pb")))])]
                except Exception as e:
                    raise RuntimeError(f"{case.name}: {e}") from e
                sets.append((feeds, outs))
        for i, (feeds, outs) in enumerate(sets):
            feeds = list(feeds.values()) if isinstance(feeds, dict) else feeds
            try:
                entry["sets"].append(write_set(folder / f"set{i}", feeds, outs))
            except ValueError as e:
                entry["sets"].append({"cannot": str(e)})
        index["cases"][case.name] = entry
    light = pathlib.Path(importlib.util.find_spec("onnx").submodule_search_locations[0])
    for f in sorted((light / "backend/test/data/light").glob("*.onnx")):
        folder = root / "cases" / f.stem
        folder.mkdir(parents=True)
        shutil.copy(f, folder / "model.onnx")
        model = onnx.load(f)
        inits = {i.name for i in model.graph.initializer}
        feeds = [dummy(i) for i in model.graph.input if i.name not in inits]
        want = numpy_helper.to_array(TensorProto.FromString((f.parent / f"{f.stem}_output_0.pb").read_bytes()))
        entry = {"kind": "light", "rtol": 1e-3, "atol": 1e-7, "sets": []}
        entry["sets"].append(write_set(folder / "set0", feeds, [want]))
        index["cases"][f.stem] = entry
    (root / "index.json").write_text(json.dumps(index, indent=0))
    print(f"onnx {onnx.__version__}: {len(index['cases'])} cases")


main()
