"""One engine for all shapes: is it right, and what does it cost against an engine for one shape?

    python benches/dynamic.py SILURE [--models DIR] [--shapes 200] [--timed 12] [--rounds 5] [--only NAME]

For each dynamic real model (tests/models/fetch.py): one engine with symbolic dims runs on random shapes,
the least and the greatest among them, and is compared with onnxruntime on the same inputs. For some of
the shapes an engine with fixed dims is compiled too; the two run in turns, one thread, and of the rounds' ratios the
median counts: printed are the median and the greatest of the shapes. Needs numpy and onnxruntime.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import numpy as np
import onnxruntime as ort

# Difference from onnxruntime, relative to the largest magnitude of the output. Both sum in f32.
ALLOWED = 2e-4
# Sigmoids far below one: onnxruntime computes them to about 1e-7 absolute.
FLOOR = 1e-6


def words(rng, batch, length):
    ids = rng.integers(1000, 30000, (batch, length))
    mask = np.ones((batch, length), np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": 0 * mask}


def image(rng, batch, height, width):
    return {"x": rng.standard_normal((batch, 3, height, width)).astype(np.float32)}


def audio(rng, batch):
    x = 0.1 * rng.standard_normal((batch, 576)).astype(np.float32)
    return {"input": x, "state": np.zeros((2, batch, 128), np.float32), "sr": np.array(16000)}


def pitch(rng, samples):
    x = 0.3 * np.sin(np.arange(samples) * rng.uniform(0.02, 0.3)) + 0.02 * rng.standard_normal(samples)
    return {"audio": x[None].astype(np.float32), "fmin": np.array(40, np.float32), "fmax": np.array(2000, np.float32)}


def picture(rng, batch):
    return {"input:0": rng.standard_normal((batch, 224, 224, 3)).astype(np.float32)}


def bytes_of(rng, batch):
    return {"bytes": rng.integers(0, 257, (batch, 2048)).astype(np.int32)}


# Inputs whose shapes are not fixed: silero's branches for 8 and 16 kHz want different ones.
FREE = {("silero-vad", "input")}

# Model: what makes inputs, and (least, greatest, multiple) of each argument.
MODELS = {
    "minilm-int8": (words, [(1, 4, 1), (1, 128, 1)]),
    "ocr-det": (image, [(1, 1, 1), (32, 320, 32), (32, 320, 32)]),
    "ocr-rec": (image, [(1, 2, 1), (48, 48, 1), (16, 320, 1)]),
    "ocr-cls": (image, [(1, 4, 1), (48, 48, 1), (192, 192, 1)]),
    "silero-vad": (audio, [(1, 8, 1)]),
    "silero-vad-16k-op15": (audio, [(1, 8, 1)]),
    "silero-vad-op18-ifless": (audio, [(1, 8, 1)]),
    "magika": (bytes_of, [(1, 16, 1)]),
    "swift-f0": (pitch, [(256, 40000, 1)]),
    "open-nsfw": (picture, [(1, 3, 1)]),
}


def shapes(rng, ranges, count):
    out = [[r[0] for r in ranges], [r[1] for r in ranges]]
    while len(out) < count:
        out.append([int(rng.integers((lo + m - 1) // m, hi // m + 1)) * m for lo, hi, m in ranges])
    return out


def silure(program, *args):
    r = subprocess.run([program, *map(str, args)], capture_output=True, text=True)
    if r.returncode:
        raise SystemExit(f"{' '.join(map(str, args))}\n{r.stderr}")
    return r.stdout


class Files:
    """Inputs of one case as .npy files."""

    def __init__(self, folder, feeds):
        self.args = []
        for name, a in feeds.items():
            path = folder / f"{name}.npy"
            np.save(path, a)
            self.args += ["--input", f"{name}=@{path}"]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("silure")
    p.add_argument("--models", type=pathlib.Path, default=pathlib.Path("target/models"))
    p.add_argument("--shapes", type=int, default=200)
    p.add_argument("--timed", type=int, default=12)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--only")
    a = p.parse_args()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    for name, (make, ranges) in MODELS.items():
        if a.only and name != a.only:
            continue
        rng = np.random.default_rng(7)
        model = a.models / f"{name}.onnx"
        reference = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        worst, ratios = 0.0, []
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            engine = folder / "dynamic.silure"
            silure(a.silure, "compile", "-q", model, "-o", engine)
            for i, shape in enumerate(shapes(rng, ranges, a.shapes)):
                feeds = make(rng, *shape)
                files = Files(folder, feeds)
                silure(a.silure, "run", "-q", engine, *files.args, "--out-dir", folder / "out", "--threads", 1)
                for o, want in enumerate(reference.run(None, feeds)):
                    have = np.load(folder / "out" / f"out_{o}.npy")
                    if have.shape != want.shape:
                        raise SystemExit(f"{name} {shape}: shape {have.shape}, onnxruntime {want.shape}")
                    scale = max(1e-30, float(np.abs(want).max(initial=0)))
                    off = float(np.abs(have - want).max(initial=0)) - FLOOR
                    worst = max(worst, off / scale)
                if i < a.timed:
                    fixed = folder / "fixed.silure"
                    sizes = [f"--shape={k}={'x'.join(map(str, v.shape))}" for k, v in feeds.items()
                             if v.ndim and (name, k) not in FREE]
                    silure(a.silure, "compile", "-q", model, "-o", fixed, *sizes)
                    times = {engine: [], fixed: []}
                    for r in range(a.rounds):
                        for e in [engine, fixed][:: 1 if r % 2 else -1]:
                            said = silure(a.silure, "run", e, *files.args, "--threads", 1, "--repeat", 9, "--json")
                            times[e].append(statistics.median(json.loads(said)["seconds"][2:]))
                    ratio = statistics.median(d / f for d, f in zip(times[engine], times[fixed]))
                    ratios.append((ratio, shape))
        verdict = "equal" if worst <= ALLOWED else "DIFFERENT"
        timed = "not timed"
        if ratios:
            greatest, at = max(ratios)
            timed = f"median {statistics.median(r for r, _ in ratios):.3f}, greatest {greatest:.3f} (sizes {at}) of {len(ratios)}"
        print(f"{name}: {a.shapes} shapes {verdict} (worst {worst:.1e} of the scale); dynamic ÷ fixed: {timed}", flush=True)


main()
