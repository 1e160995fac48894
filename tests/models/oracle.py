"""Makes inputs and reference outputs for the models that `fetch.py` fetches.

    python tests/models/oracle.py [FOLDER] [--only MODEL] [--f64-cases N]

FOLDER is $SILURE_MODELS, or target/models. Inputs are seeded and realistic: token ids with an
attention mask, audio with its context and a state handed from step to step, images with dark marks
on paper, the byte features of files. References come from onnxruntime with graph optimisation off
and one thread, so they are the model as written.

How far the reference itself is from the truth is measured where it can be: the model is rewritten
to float64 (every float tensor, constant, cast and declared type) and run by the `onnx` package's
reference evaluator, which is plain numpy. That is slow, so only the first N cases of a model (by
default 12) get it, and a model whose rewritten form the evaluator cannot run has none, with the
reason in the index.

Writes FOLDER/cases/MODEL/CASE/{in_NAME,out_I,f64_I}.npy and FOLDER/cases/index.json:

    {"models": {"NAME": {"file": "NAME.onnx", "inputs": [..], "outputs": [..], "cases": [
        {"name": "..", "inputs": {"x": "path.npy"}, "outputs": [
            {"name": "y", "path": "path.npy", "f64": "path.npy" | null,
             "error_max": 1e-7 | null, "error_rms": 1e-8 | null, "scale": 0.9}],
         "chain": null | {"after": "case before", "state": {"input": "output of that case"}}}]}}}

error_max and error_rms are the reference's distance from float64, scale the largest magnitude of
the output; all paths are relative to FOLDER/cases.
"""

import argparse
import json
import os

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper

SEED = 20240607


def session(path):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


# --- inputs: each yields (case name, feeds) ---------------------------------------------------


def tokens(rng):
    """Sentences of a BERT tokenizer: [CLS] words [SEP] and padding."""
    for batch, length in [(1, 8), (3, 17), (1, 1), (2, 64), (4, 33), (1, 128)]:
        ids = np.zeros((batch, length), np.int64)
        mask = np.zeros((batch, length), np.int64)
        for row in range(batch):
            n = length if row == 0 else int(rng.integers(min(3, length), length + 1))
            words = 1000 + rng.zipf(1.3, n) % 29000
            ids[row, :n], mask[row, :n] = words, 1
            ids[row, 0] = 101
            if n > 1:
                ids[row, n - 1] = 102
        feeds = dict(input_ids=ids, attention_mask=mask, token_type_ids=np.zeros_like(ids))
        yield f"b{batch}_s{length}", feeds


def audio(rng, rate, n):
    """Voiced speech in little: harmonics of a moving pitch under an envelope, with noise."""
    t = np.arange(n) / rate
    pitch = 120 + 30 * np.sin(2 * np.pi * 1.5 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    wave = sum(np.sin(k * phase) / k for k in range(1, 12))
    envelope = np.clip(np.sin(2 * np.pi * 2 * t + 0.3), 0, 1)
    return (0.25 * wave * envelope + 0.01 * rng.standard_normal(n)).astype(np.float32)


def image(rng, height, width):
    """Dark marks in lines on paper, normalised to -1..1, channels first."""
    paper = np.full((height, width, 3), 235.0) + rng.normal(0, 4, (height, width, 3))
    ink = rng.integers(0, 90, 3)
    y = 4
    while y + 10 < height:
        size = int(rng.integers(8, 24))
        x = int(rng.integers(2, 20))
        while x + size < width:
            for _ in range(3):
                a, b = rng.integers(0, size, 2)
                if rng.random() < 0.5:
                    paper[y + a : y + a + 2, x : x + size] = ink
                else:
                    paper[y : y + size, x + b : x + b + 2] = ink
            x += size + int(rng.integers(2, 8))
        y += size + int(rng.integers(4, 12))
    pixels = np.clip(paper, 0, 255).round() / 255
    return ((pixels - 0.5) / 0.5).astype(np.float32).transpose(2, 0, 1)


def det_images(rng):
    sizes = [(64, 96), (32, 32), (480, 640)]
    while len(sizes) < 50:
        sizes.append(tuple(int(32 * v) for v in rng.integers(1, 13, 2)))
    for i, (h, w) in enumerate(sizes):
        yield f"{i:02}_{h}x{w}", dict(x=image(rng, h, w)[None])


def rec_images(rng):
    sizes = [(1, 64), (2, 100), (1, 320)]
    while len(sizes) < 50:
        sizes.append((int(rng.integers(1, 4)), int(rng.integers(16, 480))))
    for i, (batch, w) in enumerate(sizes):
        yield f"{i:02}_{batch}x{w}", dict(x=np.stack([image(rng, 48, w) for _ in range(batch)]))


def cls_images(rng):
    for batch in (1, 2, 6):
        yield f"b{batch}", dict(x=np.stack([image(rng, 48, 192) for _ in range(batch)]))


def files(rng):
    """Magika's features: the first and last 1,024 bytes, 256 where the file is shorter."""
    words = b"def class return import int main void for while if the of and to in".split()

    def text(n):
        return b"".join(words[i] + b" \n({;"[i % 5 : i % 5 + 1] for i in rng.integers(0, len(words), n))

    def feature(data):
        begin, end = data[:1024].lstrip(), data[-1024:].rstrip()
        row = np.full(2048, 256, np.int32)
        row[: len(begin)] = np.frombuffer(begin, np.uint8)
        if end:
            row[2048 - len(end) :] = np.frombuffer(end, np.uint8)
        return row

    elf = b"\x7fELF\x02\x01\x01" + bytes(9) + rng.bytes(5000)
    samples = [text(2000), elf, rng.bytes(4096), b"{\"a\": [1, 2, 3]}\n", b"%PDF-1.4\n" + rng.bytes(900)]
    rows = np.stack([feature(s) for s in samples])
    yield "text", dict(bytes=rows[:1])
    yield "two", dict(bytes=rows[1:3])
    yield "five", dict(bytes=rows)


def tables(rng):
    """Pages as the reader of tables takes them, and of other sizes."""
    for h, w in [(488, 488), (96, 160), (256, 320)]:
        yield f"{h}x{w}", dict(x=image(rng, h, w)[None])


def pictures(rng):
    """Pixels from 0 to 255, channels last and blue first, without their means."""
    for batch in (1, 2):
        pixels = np.stack([image(rng, 224, 224) for _ in range(batch)]).transpose(0, 2, 3, 1)
        x = (pixels[..., ::-1] / 2 + 0.5) * 255 - np.array([104, 117, 123])
        yield f"b{batch}", {"input:0": np.ascontiguousarray(x, np.float32)}


def voices(rng):
    """Gliding tones with harmonics and some noise: every frame has a pitch. Lengths of no multiple."""
    widest = (46.875, 2093.75)
    for n, (low, high) in [(16000, widest), (5000, widest), (2817, (80, 400)), (255, widest), (48001, (60, 1000))]:
        t = np.arange(n) / 16000
        phase = 2 * np.pi * np.cumsum(180 + 60 * np.sin(2 * np.pi * 0.7 * t)) / 16000
        wave = sum(np.sin(k * phase + k) / k for k in range(1, 9)) * (0.6 + 0.4 * np.cos(2 * np.pi * 3 * t))
        x = 0.2 * wave + 0.002 * rng.standard_normal(n)
        low, high = np.array(low, np.float32), np.array(high, np.float32)
        yield f"n{n}", dict(audio=x[None].astype(np.float32), fmin=low, fmax=high)


# --- running -----------------------------------------------------------------------------------


def to_f64(model):
    """The same model with every float32 made float64."""
    model = onnx.ModelProto.FromString(model.SerializeToString())

    def tensor(t):
        if t.data_type == TensorProto.FLOAT:
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float64), t.name))

    def graph(g):
        for t in g.initializer:
            tensor(t)
        for v in [*g.input, *g.output, *g.value_info]:
            if v.type.tensor_type.elem_type == TensorProto.FLOAT:
                v.type.tensor_type.elem_type = TensorProto.DOUBLE
        for node in g.node:
            if node.op_type == "ConstantOfShape" and not node.attribute:
                zero = numpy_helper.from_array(np.zeros(1))
                node.attribute.append(onnx.helper.make_attribute("value", zero))
            for a in node.attribute:
                if a.HasField("t"):
                    tensor(a.t)
                if a.HasField("g"):
                    graph(a.g)
                if node.op_type == "Cast" and a.name == "to" and a.i == TensorProto.FLOAT:
                    a.i = TensorProto.DOUBLE
                if node.op_type == "Constant" and a.name in ("value_float", "value_floats"):
                    values = a.f if a.name == "value_float" else list(a.floats)
                    a.Clear()
                    a.name, a.type = "value", onnx.AttributeProto.TENSOR
                    a.t.CopyFrom(numpy_helper.from_array(np.array(values, np.float64)))

    graph(model.graph)
    return model


def own_ops():
    """Ops that the evaluator gets wrong for these models: BatchNormalization before opset 14 takes
    the batch's own statistics, GlobalMaxPool drops the reduced dims, OneHot wants a depth of rank 0,
    GatherElements indices of the data's size."""
    from onnx.reference.op_run import OpRun

    class BatchNormalization(OpRun):
        def _run(self, x, scale, bias, mean, var, epsilon=1e-5, **_):
            shape = [1, -1] + [1] * (x.ndim - 2)
            a = scale / np.sqrt(var + epsilon)
            return (x * a.reshape(shape) + (bias - mean * a).reshape(shape),)

    class GlobalMaxPool(OpRun):
        def _run(self, x, **_):
            return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)

    class OneHot(OpRun):
        def _run(self, indices, depth, values, axis=-1):
            depth = int(np.asarray(depth).reshape(()))
            hot = np.mod(indices, depth)[..., None] == np.arange(depth)
            return (np.moveaxis(np.where(hot, values[1], values[0]), -1, axis),)

    class GatherElements(OpRun):
        def _run(self, x, indices, axis=0):
            at = list(np.indices(indices.shape))
            at[axis] = indices
            return (x[tuple(at)],)

    return [BatchNormalization, GlobalMaxPool, OneHot, GatherElements]


class Run:
    def __init__(self, folder, name, f64_cases):
        self.name, self.folder = name, os.path.join(folder, "cases")
        path = os.path.join(folder, name + ".onnx")
        self.session, self.left, self.why = session(path), f64_cases, None
        self.rng = np.random.default_rng(SEED + sum(name.encode()))
        self.evaluator = None
        if f64_cases:
            from onnx.reference import ReferenceEvaluator

            try:
                model = to_f64(onnx.load(path))
                self.evaluator = ReferenceEvaluator(model, new_ops=own_ops())
            except Exception as e:  # noqa: BLE001 - recorded, not hidden
                self.why = f"{type(e).__name__}: {e}"[:200]
        self.entry = {
            "file": name + ".onnx",
            "inputs": [self.port(p) for p in self.session.get_inputs()],
            "outputs": [self.port(p) for p in self.session.get_outputs()],
            "cases": [],
        }

    @staticmethod
    def port(p):
        return {"name": p.name, "type": p.type, "shape": p.shape}

    def save(self, case, file, array):
        path = os.path.join(self.name, case, file + ".npy")
        os.makedirs(os.path.dirname(os.path.join(self.folder, path)), exist_ok=True)
        np.save(os.path.join(self.folder, path), array)
        return path

    def f64(self, feeds):
        if self.evaluator is None or self.left <= 0:
            return None
        self.left -= 1
        wide = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in feeds.items()}
        try:
            return self.evaluator.run(None, wide)
        except Exception as e:  # noqa: BLE001 - recorded, not hidden
            self.why, self.evaluator = f"{type(e).__name__}: {e}"[:200], None
            return None

    def case(self, name, feeds, chain=None):
        results = self.session.run(None, feeds)
        truth = self.f64(feeds)
        outputs = []
        for i, (port, y) in enumerate(zip(self.entry["outputs"], results)):
            out = {"name": port["name"], "path": self.save(name, f"out_{i}", y)}
            out.update(f64=None, error_max=None, error_rms=None, scale=float(np.abs(y).max(initial=0)))
            if truth is not None:
                d = y.astype(np.float64) - truth[i]
                assert d.shape == y.shape, (self.name, name, y.shape, truth[i].shape)
                out["f64"] = self.save(name, f"f64_{i}", truth[i])
                out["error_max"] = float(np.abs(d).max(initial=0))
                out["error_rms"] = float(np.sqrt(np.mean(d * d))) if d.size else 0.0
            outputs.append(out)
        inputs = {k: self.save(name, "in_" + k, v) for k, v in feeds.items()}
        self.entry["cases"].append(
            {"name": name, "inputs": inputs, "outputs": outputs, "chain": chain}
        )
        return dict(zip((p["name"] for p in self.entry["outputs"]), results))


def chained_audio(run, rates):
    """Three steps for each rate: a chunk with the end of the one before, and the state it left."""
    for rate in rates:
        chunk, context = (512, 64) if rate == 16000 else (256, 32)
        for batch in (1, 2):
            wave = np.stack([audio(run.rng, rate, 3 * chunk + context) for _ in range(batch)])
            state, before = np.zeros((2, batch, 128), np.float32), None
            for step in range(3):
                x = wave[:, step * chunk : step * chunk + chunk + context]
                feeds = dict(input=np.ascontiguousarray(x), state=state, sr=np.array(rate, np.int64))
                name = f"{rate // 1000}k_b{batch}_step{step}"
                chain = before and {"after": before, "state": {"state": "stateN"}}
                state, before = run.case(name, feeds, chain)["stateN"], name


MODELS = {
    "minilm-int8": tokens,
    "silero-vad": lambda run: chained_audio(run, (16000, 8000)),
    "silero-vad-16k-op15": lambda run: chained_audio(run, (16000,)),
    "silero-vad-op18-ifless": lambda run: chained_audio(run, (16000, 8000)),
    "ocr-det": det_images,
    "ocr-rec": rec_images,
    "ocr-cls": cls_images,
    "magika": files,
    "table": tables,
    "open-nsfw": pictures,
    "swift-f0": voices,
}

# Models whose float64 evaluation takes long: how many cases get it at most.
F64_CASES = {"open-nsfw": 1}


def main():
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    default = os.environ.get("SILURE_MODELS") or os.path.normpath(os.path.join(root, "target", "models"))
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("folder", nargs="?", default=default)
    args.add_argument("--only", choices=MODELS)
    args.add_argument("--f64-cases", type=int, default=12)
    args = args.parse_args()
    path = os.path.join(args.folder, "cases", "index.json")
    index = {"models": {}}
    if args.only and os.path.exists(path):
        with open(path) as f:
            index = json.load(f)
    index["onnxruntime"], index["numpy"] = ort.__version__, np.__version__
    for name in [args.only] if args.only else MODELS:
        run = Run(args.folder, name, min(args.f64_cases, F64_CASES.get(name, args.f64_cases)))
        if name.startswith("silero"):
            MODELS[name](run)
        else:
            for case, feeds in MODELS[name](run.rng):
                run.case(case, feeds)
        run.entry["no_f64_because"] = run.why
        index["models"][name] = run.entry
        cases = run.entry["cases"]
        outputs = [o for c in cases for o in c["outputs"] if o["error_max"] is not None]
        worst = max((o["error_max"] / max(o["scale"], 1e-30) for o in outputs), default=None)
        print(
            f"{name}: {len(cases)} cases, error of the reference {worst}{'; ' + run.why if run.why else ''}",
            flush=True,
        )
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".part", "w") as f:
        json.dump(index, f, indent=1)
    os.replace(path + ".part", path)


if __name__ == "__main__":
    main()
