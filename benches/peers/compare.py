"""Our runtime beside its peers, in turns: `compare.py --silure BIN --lib LIB MODELS`.

Each row of ROWS names a workload (a folder that workloads.py made) and its peers. Both runtimes
load the workload in processes of their own and then run alternately, `--rounds` times for
`--seconds` each, the order changing from round to round. Printed per row and number of threads: the
medians, the mean of ln(peer ÷ ours) over the rounds as a ratio with its 95 % bounds (Student's t), our
greatest error and both times from file to first answer. At the end the geometric mean over the rows. What the
machine can do at best is said first, by `silure probe`.
"""
import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys

# Workload: peers.
ROWS = {
    "gemm_1024": ["numpy"],
    "gemm_gelu": ["onnxruntime"],
    "gemv_f32": ["mnn"],
    "gemv_q8": ["ggml"],
    "gemv_q4": ["ggml"],
    "mlp_b1": ["mnn", "onnxruntime"],
    "mlp_b64": ["mnn", "onnxruntime"],
    "bert_b1": ["openvino"],
    "bert_b8": ["openvino"],
    "bert_int8": ["onnxruntime"],
    "resnet50": ["onnxruntime"],
    "squeezenet": ["onnxruntime"],
    "mobilenetv2": ["onnxruntime"],
    "resnet50_qdq": ["onnxruntime"],
    "ocr_det": ["onnxruntime"],
    "ocr_rec": ["onnxruntime"],
    "silero_vad": ["onnxruntime"],
    "minilm_int8": ["onnxruntime"],
    "softmax_4096": ["onnxruntime"],
    "layernorm_4096": ["onnxruntime"],
    "gelu_16m": ["onnxruntime"],
}
# Two-sided 95 % points of Student's t, by degrees of freedom.
T95 = {2: 4.303, 3: 3.182, 4: 2.776, 6: 2.447, 9: 2.262, 14: 2.145, 19: 2.093, 24: 2.064, 29: 2.045, 39: 2.023}


def t95(n):
    """The point for n rounds, or the wider one of the next smaller number that is listed."""
    return T95[max(d for d in T95 if d <= n - 1)]


class Worker:
    """A process of worker.py."""

    def __init__(self, python, peer, folder, threads, env):
        script = pathlib.Path(__file__).with_name("worker.py")
        self.process = subprocess.Popen([python, script, peer, folder, str(threads)], env=env, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ready = self.answer()

    def answer(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"exit {self.process.wait()}")

    def run(self, seconds):
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return self.answer()["ms"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def row(a, env, name, peer, threads):
    folder = str(a.models / name)
    pair = [Worker(a.python, "silure", folder, threads, env)]
    try:
        pair.append(Worker(a.python, peer, folder, threads, env))
        times = [[], []]
        for r in range(a.rounds):
            for i in ((0, 1), (1, 0))[r % 2]:
                times[i].append(pair[i].run(a.seconds))
    finally:
        for w in pair:
            w.close()
    logs = [math.log(p / o) for o, p in zip(*times)]
    mean = statistics.fmean(logs)
    half = t95(len(logs)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return {"workload": name, "peer": peer, "threads": threads, "ours_ms": statistics.median(times[0]),
            "peer_ms": statistics.median(times[1]), "ratio": math.exp(mean), "low": math.exp(mean - half),
            "high": math.exp(mean + half), "ours": pair[0].ready, "theirs": pair[1].ready, "times": times}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("models", type=pathlib.Path)
    ap.add_argument("--silure", required=True, help="the program")
    ap.add_argument("--lib", required=True, help="libsilure_capi.so")
    ap.add_argument("--python", default=sys.executable, help="of the environment that has the peers")
    ap.add_argument("--rounds", type=int, default=20)
    ap.add_argument("--seconds", type=float, default=0.5)
    ap.add_argument("--threads", default="1,2")
    ap.add_argument("--only", default=",".join(ROWS))
    ap.add_argument("--peer", help="this one in place of the row's")
    ap.add_argument("--json", type=pathlib.Path, help="append the rows to this file")
    a = ap.parse_args()
    if a.rounds < 3:
        ap.error("--rounds: at least 3, or there are no bounds")
    env = dict(os.environ, SILURE=a.silure, SILURE_LIB=a.lib)
    logs = []
    print(subprocess.run([a.silure, "probe"], check=True, capture_output=True, text=True).stdout)
    print(f"{'workload':15} {'peer':12} t {'ours ms':>9} {'peer ms':>9} {'ratio':>6} {'95 % bounds':>13} {'error':>8}"
          f" {'load ms':>8} {'(peer)':>7}")
    for name in a.only.split(","):
        if not (a.models / name / "spec.json").exists():
            print(f"{name:15} not made: see workloads.py")
            continue
        for peer in [a.peer] if a.peer else ROWS[name]:
            for threads in map(int, a.threads.split(",")):
                try:
                    r = row(a, env, name, peer, threads)
                except RuntimeError as e:
                    print(f"{name:15} {peer:12} {threads} FAILED: {e}", flush=True)
                    continue
                logs.append(math.log(r["ratio"]))
                print(f"{name:15} {peer:12} {threads} {r['ours_ms']:9.3f} {r['peer_ms']:9.3f} {r['ratio']:6.3f}"
                      f" {r['low']:6.3f}-{r['high']:6.3f} {r['ours']['error']:8.1e} {r['ours']['load_ms']:8.1f}"
                      f" {r['theirs']['load_ms']:7.1f}", flush=True)
                if a.json:
                    with a.json.open("a") as f:
                        f.write(json.dumps(r) + "\n")
    if logs:
        print(f"geometric mean of {len(logs)}: {math.exp(statistics.fmean(logs)):.3f}")


main()
