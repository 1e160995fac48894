"""A decoder beside llama.cpp and onnxruntime: a prompt of 128 tokens, then steps of one token, interleaved.

    python3 decoder.py ENGINE [--gguf FILE] [--onnx FILE] [--lib libsilure_capi.so] [--threads 1] [--rounds 20]
        [--memory BYTES] [--reference F.npy] [--text IDS.npy]

ENGINE is compiled from the folder that FILE was converted from (to ONNX by decoder_onnx.py). A round is one prompt and STEPS tokens of each
side, whose order changes from round to round; the medians of the rounds are compared, ratios are peer ÷ ours.
`--memory` adds a side that only reads as many bytes as a token has to (`silure generate --stats` says how many), by
memory.c: its ratio is the part of the memory's rate that a token reaches. With
`--reference` (f32 logits of the last tokens of other prompts: PROMPTS of tokens by chance, or all of 128 tokens that the
ids of `--text` hold) the errors of both are printed: root of the mean square, relative to that of the reference.
`--write-reference` writes our own logits, of an f32 engine say.
"""

import argparse
import ctypes
import json
import math
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np

STEPS = 8
PROMPTS = 8


class Tensor(ctypes.Structure):
    _fields_ = [("elem", ctypes.c_int32), ("rank", ctypes.c_int32), ("dims", ctypes.POINTER(ctypes.c_int64)),
                ("data", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]

    @classmethod
    def over(cls, array):
        elem = {"float32": 14, "int64": 6}[str(array.dtype)]
        dims = (ctypes.c_int64 * array.ndim)(*array.shape)
        return cls(elem, array.ndim, dims, array.ctypes.data, array.nbytes)


class Silure:
    """Entries `prefill` and `decode` of docs/language-models.md by the C interface, one sequence from page 0 on."""

    def __init__(self, path, lib, threads):
        self.lib = lib = ctypes.CDLL(lib)
        lib.silure_open.restype = lib.silure_session_new.restype = ctypes.c_void_p
        lib.silure_last_error.restype = ctypes.c_char_p
        self.engine = ctypes.c_void_p(self.must(lib.silure_open(path.encode())))
        self.entries = [lib.silure_entry(self.engine, n) for n in (b"prefill", b"decode")]
        session = lib.silure_session_new(self.engine, ctypes.c_size_t(threads), ctypes.c_uint64(0))
        self.session = ctypes.c_void_p(self.must(session))

    def must(self, ok):
        if not ok:
            raise RuntimeError(self.lib.silure_last_error().decode())
        return ok

    def step(self, tokens, had, page, vocab):
        n = len(tokens)
        at = np.arange(had, had + n, dtype=np.int64)
        pages = np.arange(-(-(had + n) // page), dtype=np.int64)[None]
        ins = [np.array(tokens, np.int64), at, at.copy(), np.array([had + n], np.int64), pages]
        if n > 1:
            ins += [np.array([n], np.int64), np.array([n - 1], np.int64)]
        out = np.empty((1, vocab), np.float32)
        inputs = (Tensor * len(ins))(*[Tensor.over(a) for a in ins])
        outputs = (Tensor * 1)(Tensor.over(out))
        done = self.lib.silure_run(self.session, ctypes.c_size_t(self.entries[n == 1]), inputs,
                                   ctypes.c_size_t(len(ins)), outputs, ctypes.c_size_t(1), ctypes.c_double(0))
        self.must(done == 0)
        return out[0]


class LlamaCpp:
    def __init__(self, path, threads):
        import llama_cpp as l

        self.l = l
        self.quiet = l.llama_log_callback(lambda *a: None)
        l.llama_log_set(self.quiet, ctypes.c_void_p(0))
        l.llama_backend_init()
        p = l.llama_model_default_params()
        # Repacked weights, its fastest. Beside them stand its AMX kernels, which end the process where the system
        # does not grant the registers; such a processor reads weights as the file has them.
        p.use_extra_bufts = "amx_tile" not in open("/proc/cpuinfo").read()
        self.model = l.llama_model_load_from_file(path.encode(), p)
        p = l.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch, p.n_threads, p.n_threads_batch = 1024, 512, 512, threads, threads
        self.context = l.llama_init_from_model(self.model, p)
        self.vocab = l.llama_vocab_n_tokens(l.llama_model_get_vocab(self.model))

    def step(self, tokens, had, *_):
        l = self.l
        if had == 0:
            l.llama_memory_clear(l.llama_get_memory(self.context), True)
        array = (l.llama_token * len(tokens))(*tokens)
        if l.llama_decode(self.context, l.llama_batch_get_one(array, len(tokens))):
            raise RuntimeError("llama_decode")
        return np.ctypeslib.as_array(l.llama_get_logits_ith(self.context, -1), (self.vocab,)).copy()


class OnnxRuntime:
    def __init__(self, path, threads):
        import onnxruntime as ort

        o = ort.SessionOptions()
        o.intra_op_num_threads = threads
        self.session = ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])
        self.pasts = [i for i in self.session.get_inputs() if i.name.startswith("past.")]
        self.names = ["logits"] + ["present" + i.name[4:] for i in self.pasts]

    def step(self, tokens, had, *_):
        if had == 0:
            self.state = [np.empty((1, i.shape[1], 0, i.shape[3]), np.float32) for i in self.pasts]
        end = had + len(tokens)
        feed = {"tokens": np.array([tokens], np.int64), "last": np.array([end - 1], np.int32)}
        feed["total"] = np.array(end, np.int32)
        feed.update({i.name: s for i, s in zip(self.pasts, self.state)})
        logits, *self.state = self.session.run(self.names, feed)
        return logits[0, 0]


class Memory:
    """Reads `bytes` for a token, in huge pages where the system has them, and nothing for a prompt."""

    def __init__(self, bytes, threads):
        with tempfile.TemporaryDirectory() as d:
            command = ["cc", "-O3", "-march=native", "-shared", "-fPIC", "-pthread", "-o", f"{d}/memory.so"]
            subprocess.run([*command, pathlib.Path(__file__).with_name("memory.c")], check=True)
            self.lib = ctypes.CDLL(f"{d}/memory.so")
        self.lib.memory_new.restype = ctypes.c_void_p
        self.bytes, self.threads = ctypes.c_size_t(bytes), ctypes.c_size_t(threads)
        self.at = ctypes.c_void_p(self.lib.memory_new(self.bytes))
        if not self.at:
            raise MemoryError(f"{bytes} bytes to read")

    def step(self, tokens, *_):
        if len(tokens) == 1:
            self.lib.memory_read(self.at, self.bytes, self.threads)


def bounds(ratios):
    """95 % bounds of the median of the ratios' logarithms, by order statistics."""
    r = sorted(ratios)
    half = 0.98 * math.sqrt(len(r))
    low, high = int(max(0, len(r) / 2 - half)), int(min(len(r) - 1, math.ceil(len(r) / 2 + half)))
    return r[low], r[high]


def compare(sides, a):
    """The last logits of PROMPTS prompts beside the reference's."""
    if a.text:
        ids = np.load(a.text)
        prompts = ids[: len(ids) // 128 * 128].reshape(-1, 128).tolist()
    else:
        prompts = np.random.default_rng(6).integers(3, a.vocab, (PROMPTS, 128)).tolist()
    logits = {n: np.array([s.step(p, 0, a.page, a.vocab) for p in prompts]) for n, s in sides.items()}
    if a.write_reference:
        np.save(a.write_reference, logits["silure"])
    if a.reference:
        reference = np.load(a.reference)
        for name, y in logits.items():
            error = np.sqrt(np.mean((y - reference) ** 2) / np.mean(reference**2))
            same = int((y.argmax(-1) == reference.argmax(-1)).sum())
            print(f"{name}: error {error:.4f}, same token of {len(prompts)}: {same}")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("engine")
    p.add_argument("--gguf")
    p.add_argument("--onnx")
    p.add_argument("--lib", default="target/debug/libsilure_capi.so")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--rounds", type=int, default=20)
    p.add_argument("--page", type=int, default=64)
    p.add_argument("--vocab", type=int, default=32000)
    p.add_argument("--memory", type=int, metavar="BYTES")
    p.add_argument("--reference")
    p.add_argument("--text")
    p.add_argument("--write-reference")
    a = p.parse_args()
    sides = {"silure": Silure(a.engine, a.lib, a.threads)}
    if a.gguf:
        sides["llama.cpp"] = LlamaCpp(a.gguf, a.threads)
    if a.onnx:
        sides["onnxruntime"] = OnnxRuntime(a.onnx, a.threads)
    prompt = np.random.default_rng(5).integers(3, a.vocab, 128).tolist()
    if a.reference or a.write_reference:
        compare(sides, a)
    if a.memory:
        sides["memory"] = Memory(a.memory, a.threads)
    times = {name: ([], []) for name in sides}
    for r in range(a.rounds + 1):
        order = list(sides)
        for name in (order[r % len(order) :] + order[: r % len(order)])[:: 1 if r % 2 else -1]:
            # Threads of the side before, which wait for work by turning, have gone to sleep.
            time.sleep(0.1)
            begin = time.perf_counter()
            sides[name].step(prompt, 0, a.page, a.vocab)
            first = time.perf_counter()
            for i in range(STEPS):
                sides[name].step([100 + i], 128 + i, a.page, a.vocab)
            end = time.perf_counter()
            if r == 0:
                continue
            times[name][0].append(first - begin)
            times[name][1].append((end - first) / STEPS)
    for i, what in enumerate(["prompt of 128", "token"]):
        line = {n: round(statistics.median(t[i]) * 1e3, 2) for n, t in times.items() if (n, i) != ("memory", 0)}
        row = {"what": what, "threads": a.threads, "ms": line}
        for peer in list(sides)[1:]:
            if peer == "memory" and i == 0:
                continue
            ratios = [x / y for x, y in zip(times[peer][i], times["silure"][i])]
            row[peer] = {"ratio": round(statistics.median(ratios), 3), "bounds": [round(b, 3) for b in bounds(ratios)]}
        print(json.dumps(row))


if __name__ == "__main__":
    main()
