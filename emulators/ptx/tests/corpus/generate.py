"""Writes the texts of this folder, or with --check compares them with what the compilers give today.

    python3 generate.py [--check]

Needs Triton 3.9.0 (`pip install --no-deps triton==3.9.0`; no GPU, no torch) and MLIR 22 (`mlir-opt-22`; on
Debian `mlir-22-tools`). Nothing here is run by the tests: they read the texts.
"""

import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"
MLIR = {
    "mlir_elementwise": [],
    "mlir_softmax": [],
    "mlir_matmul": ["--convert-nvgpu-to-nvvm"],
}


def triton_text(name):
    import triton_kernels

    text, shared = triton_kernels.ptx(name)
    # Debug sections name the machine's folders; they are no part of the kernel.
    text = re.sub(r"\n\t?\.section\t?\.debug_\w+\s*\{.*?\n\t?\}", "", text, flags=re.S)
    text = re.sub(r"\n\t?\.file\t[^\n]*", "", text)
    text = re.sub(r"\n\t?\.section\t\.debug_macinfo[^\n]*", "", text)
    return f"// Dynamic shared memory: {shared} bytes.\n{text.strip()}\n"


def mlir_text(name, passes):
    tool = os.environ.get("MLIR_OPT", "mlir-opt-22")
    pipeline = "cubin-chip=sm_80 cubin-features=+ptx70 cubin-format=isa opt-level=3"
    import triton

    with tempfile.TemporaryDirectory() as root:
        # Where mlir-opt looks for the device library of exp and tanh; Triton's package has one.
        os.makedirs(os.path.join(root, "nvvm"))
        library = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "lib")
        os.symlink(library, os.path.join(root, "nvvm", "libdevice"))
        out = subprocess.run(
            [tool, os.path.join(HERE, name + ".mlir"), *passes, f"--gpu-lower-to-nvvm-pipeline={pipeline}"],
            check=True, capture_output=True, text=True, env=os.environ | {"CUDA_ROOT": root},
        ).stdout
    body = re.search(r'assembly = "((?:[^"\\]|\\.)*)"', out).group(1)
    text = re.sub(r"\\([0-9A-Fa-f]{2})", lambda m: chr(int(m.group(1), 16)), body)
    return text.replace('\\"', '"').replace("\\\\", "\\").strip("\0").strip() + "\n"


def main():
    sys.path.insert(0, HERE)
    import triton_kernels

    texts = {n: triton_text(n) for n in triton_kernels.KERNELS}
    texts.update({n: mlir_text(n, p) for n, p in MLIR.items()})
    differ = []
    for name, text in texts.items():
        path = os.path.join(HERE, name + ".ptx")
        if "--check" in sys.argv[1:]:
            with open(path) as f:
                if f.read() != text:
                    differ.append(name)
        else:
            with open(path, "w") as f:
                f.write(text)
    if differ:
        sys.exit(f"not what the compilers give today: {', '.join(differ)}")
    print(f"{len(texts)} texts, {sum(map(len, texts.values()))} bytes")


if __name__ == "__main__":
    main()
