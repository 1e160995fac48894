"""One runtime with one workload loaded, run on request: `worker.py PEER FOLDER THREADS`.

Loads and runs once, prints a JSON line {"load_ms", "error", "rss_mb"}; then answers each line `SECONDS` on
standard input with {"ms": median of the runs in that time, "runs"}. Between requests it waits. `error` is
the greatest difference from the reference output over the reference's greatest magnitude, `rss_mb` the peak
of the process until then. Exit 3: the workload is not this peer's.
"""
import ctypes
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

PEER, FOLDER, THREADS = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(THREADS)

import numpy as np  # noqa: E402  (reads the thread counts)

SPEC = json.loads((FOLDER / "spec.json").read_text())
MODEL = str(FOLDER / SPEC["model"])
INPUTS = {i["name"]: np.load(FOLDER / i["file"]) for i in SPEC["inputs"]}
OUTPUTS = [o["name"] for o in SPEC["outputs"]]
# Element codes of silure.h.
ELEMS = {"float32": 14, "int64": 6, "int32": 5, "uint8": 9, "int8": 3, "bool": 0}


class SilureTensor(ctypes.Structure):
    _fields_ = [("elem", ctypes.c_int32), ("rank", ctypes.c_int32), ("dims", ctypes.POINTER(ctypes.c_int64)),
                ("data", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]

    @classmethod
    def over(cls, array):
        dims = (ctypes.c_int64 * array.ndim)(*array.shape)
        return cls(ELEMS[str(array.dtype)], array.ndim, dims, array.ctypes.data, array.nbytes)


def silure():
    """Our runtime by its C interface: SILURE is the compiler, SILURE_LIB the library."""
    engine = FOLDER / "model.silure"
    subprocess.run([os.environ["SILURE"], "compile", MODEL, "-o", str(engine), "-q"], check=True)
    begin = time.perf_counter()
    lib = ctypes.CDLL(os.environ["SILURE_LIB"])
    for f in ("silure_open", "silure_session_new"):
        getattr(lib, f).restype = ctypes.c_void_p
    lib.silure_last_error.restype = ctypes.c_char_p
    lib.silure_input.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]

    def must(ok):
        if not ok:
            raise RuntimeError(lib.silure_last_error().decode())
        return ok

    handle = ctypes.c_void_p(must(lib.silure_open(str(engine).encode())))
    session = ctypes.c_void_p(must(lib.silure_session_new(handle, ctypes.c_size_t(THREADS), ctypes.c_uint64(0))))

    class Port(ctypes.Structure):
        _fields_ = [("name", ctypes.c_char_p), ("elem", ctypes.c_int32), ("rank", ctypes.c_int32)]

    names = []
    for i in range(len(INPUTS)):
        port = Port()
        must(lib.silure_input(handle, 0, i, ctypes.byref(port)) == 0)
        names.append(port.name.decode())
    ins = [np.require(INPUTS[n], requirements="C") for n in names]
    outs = [np.zeros_like(np.load(FOLDER / o["file"])) for o in SPEC["outputs"]]
    inputs = (SilureTensor * len(ins))(*[SilureTensor.over(a) for a in ins])
    outputs = (SilureTensor * len(outs))(*[SilureTensor.over(a) for a in outs])

    def run():
        must(lib.silure_run(session, ctypes.c_size_t(0), inputs, ctypes.c_size_t(len(ins)), outputs,
                            ctypes.c_size_t(len(outs)), ctypes.c_double(0)) == 0)
        return outs

    run.keep = ins
    return begin, run


def onnxruntime():
    import onnxruntime as ort

    begin = time.perf_counter()
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
    return begin, lambda: session.run(OUTPUTS, INPUTS)


def openvino():
    import openvino as ov

    begin = time.perf_counter()
    compiled = ov.Core().compile_model(MODEL, "CPU", {
        "INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    return begin, lambda: list(request.infer(INPUTS, share_inputs=True, share_outputs=True).values())


def mnn():
    from MNN import expr, nn

    converted = FOLDER / "model.mnn"
    if not converted.exists():
        tool = pathlib.Path(sys.executable).with_name("mnnconvert")
        subprocess.run([tool, "-f", "ONNX", "--modelFile", MODEL, "--MNNModel", converted, "--bizCode", "x"],
                       check=True, stdout=subprocess.DEVNULL)
    begin = time.perf_counter()
    manager = nn.create_runtime_manager(({"backend": "CPU", "numThread": THREADS, "precision": "high"},))
    net = nn.load_module_from_file(str(converted), list(INPUTS), OUTPUTS, runtime_manager=manager)
    args = [expr.const(np.ascontiguousarray(v), list(v.shape), expr.data_format.NCHW, expr.float)
            for v in INPUTS.values()]
    return begin, lambda: [net.forward(args)[0].read()]


def numpy():
    if SPEC["name"] != "gemm_1024":
        sys.exit(3)
    import onnx

    weight = onnx.numpy_helper.to_array(onnx.load(MODEL).graph.initializer[0])
    (a,) = INPUTS.values()
    out = np.empty((a.shape[0], weight.shape[1]), np.float32)
    return time.perf_counter(), lambda: [np.matmul(a, weight, out=out)]


def ggml():
    """llama.cpp's kernels (the libraries of llama-cpp-python): the chain of products with blocks of 32 as q8_0 or q4_0,
    repacked as it does for models."""
    import llama_cpp
    import onnx

    graph = onnx.load(MODEL).graph
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    if any(n.op_type != "MatMulNBits" for n in graph.node):
        sys.exit(3)
    folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
    libs = [ctypes.CDLL(str(folder / f"lib{n}.so"), ctypes.RTLD_GLOBAL) for n in ("ggml-base", "ggml-cpu", "ggml")]

    def call(name, *args, result=ctypes.c_void_p):
        f = next(getattr(lib, name) for lib in libs if hasattr(lib, name))
        f.restype = result
        return f(*[ctypes.c_void_p(a) if isinstance(a, int) and a > 1 << 31 else a for a in args])

    class Params(ctypes.Structure):
        _fields_ = [("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]

    def place(no_alloc, size=64 << 20):
        return call("ggml_init", Params(size, None, no_alloc))

    def tensor(place, kind, *sizes):
        return call(f"ggml_new_tensor_{len(sizes)}d", place, kind, *map(ctypes.c_int64, sizes))

    begin = time.perf_counter()
    bits = next(a.i for n in graph.node for a in n.attribute if a.name == "bits")
    kind = 8 if bits == 8 else 2
    (x,) = INPUTS.values()
    n = x.shape[1]
    inside, outside = place(True), place(False)
    stored = [tensor(inside, kind, n, n) for _ in graph.node]
    device = call("ggml_backend_dev_by_type", 0)
    registry = call("ggml_backend_dev_backend_reg", device)
    address = call("ggml_backend_reg_get_proc_address", registry, b"ggml_backend_dev_get_extra_bufts")
    types = []
    if address:
        several = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)(device)
        while several and several[len(types)]:
            types.append(several[len(types)])
    names = [call("ggml_backend_buft_name", t, result=ctypes.c_char_p) for t in types]
    # Of the two it repacks 4 bits alone.
    chosen = [t for t, name in zip(types, names) if bits == 4 and b"REPACK" in name]
    buffer_type = chosen[0] if chosen else call("ggml_backend_cpu_buffer_type")
    if not call("ggml_backend_alloc_ctx_tensors_from_buft", inside, buffer_type):
        raise RuntimeError("no memory for the weights")
    for t, node in zip(stored, graph.node):
        q, scale = weights[node.input[1]], weights[node.input[2]].reshape(n, -1, 1).astype(np.float16)
        if bits == 8:
            values = (q.astype(np.int16) - 128).astype(np.int8).view(np.uint8)
        else:
            # Element i beside element i + 16.
            low, high = q & 15, q >> 4
            flat = np.stack([low, high], -1).reshape(n, -1, 32)
            values = flat[..., :16] | flat[..., 16:] << 4
        data = np.ascontiguousarray(np.concatenate([scale.view(np.uint8), values], -1))
        call("ggml_backend_tensor_set", t, data.ctypes.data, ctypes.c_size_t(0), ctypes.c_size_t(data.nbytes), result=None)
    first = at = tensor(outside, 0, n, 1)
    for t in stored:
        at = call("ggml_mul_mat", outside, t, at)
    plan = call("ggml_new_graph", outside)
    call("ggml_build_forward_expand", plan, at, result=None)
    backend = call("ggml_backend_cpu_init")
    call("ggml_backend_cpu_set_n_threads", backend, THREADS, result=None)
    ctypes.memmove(call("ggml_get_data", first), x.ctypes.data, x.nbytes)
    out = np.ctypeslib.as_array((ctypes.c_float * n).from_address(call("ggml_get_data", at)))

    def run():
        if call("ggml_backend_graph_compute", backend, plan, result=ctypes.c_int):
            raise RuntimeError("ggml_backend_graph_compute")
        return [out.reshape(1, n)]

    return begin, run


def error(got):
    worst = 0.0
    for o, value in zip(SPEC["outputs"], got):
        want = np.load(FOLDER / o["file"]).astype(np.float64)
        value = np.asarray(value, dtype=np.float64).reshape(want.shape)
        worst = max(worst, float(np.abs(value - want).max() / np.abs(want).max()))
    return worst


def main():
    begin, run = globals()[PEER]()
    got = run()
    load = (time.perf_counter() - begin) * 1e3
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"load_ms": load, "error": error(got), "rss_mb": rss}), flush=True)
    for line in sys.stdin:
        times, end = [], time.perf_counter() + float(line)
        while len(times) < 3 or time.perf_counter() < end:
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
        times.sort()
        print(json.dumps({"ms": times[len(times) // 2] * 1e3, "runs": len(times)}), flush=True)
    os._exit(0)  # some runtimes linger while the interpreter ends


main()
