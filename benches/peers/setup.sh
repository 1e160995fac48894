#!/bin/sh
# Installs the peers and what makes the workloads: setup.sh DIR
set -eu
dir=$1
mkdir -p "$dir"
python3 -m venv "$dir/v"
"$dir/v/bin/python" -m pip install -q onnx==1.23.2 onnxruntime==1.31.1 openvino==2026.4.1 mnn==3.6.1 numpy==2.4.6
# Built from source for this machine; the rows of small integers need it.
CMAKE_ARGS=-DGGML_NATIVE=ON "$dir/v/bin/python" -m pip install -q llama-cpp-python==0.3.36
# Several GB: torch's package for Linux brings its libraries for GPUs.
python3 -m venv "$dir/torch"
"$dir/torch/bin/python" -m pip install -q torch==2.9.1 torchvision==0.24.1 transformers==4.46.3 \
    onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.31.1 numpy
