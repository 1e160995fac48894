"""Writes score.json: the mean −log p of tokens that transformers gives, over windows that overlap, in f64.

    python3 tests/language/score.py     (with transformers >= 5.23, torch, numpy, safetensors)

The model is the case `llama` of make.py. The loop is the usual one for models of a fixed length: all tokens of a window but
those that the window before had are targets, and the model's own loss is their mean.
"""

import json
import os
import tempfile

import torch
from transformers import AutoModelForCausalLM

import weights
from make import HERE

CASE = "llama"
TOKENS = [(7 * i * i + 3 * i) % 160 for i in range(150)]
CUTS = [(100, 50), (64, 16), (32, 31)]


def main():
    folder = os.path.join(HERE, "cases", CASE)
    listed = json.load(open(os.path.join(folder, "case.json")))["tensors"]
    with tempfile.TemporaryDirectory() as made:
        values = weights.values(listed).items()
        weights.save(os.path.join(made, "model.safetensors"), [(n, "F32", v.shape, v.tobytes()) for n, v in values])
        with open(os.path.join(made, "config.json"), "wb") as out:
            out.write(open(os.path.join(folder, "config.json"), "rb").read())
        model = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float64).eval()
    ids, results = torch.tensor([TOKENS]), []
    for window, stride in CUTS:
        total, count, before = 0.0, 0, 0
        for begin in range(0, len(TOKENS), stride):
            end = min(begin + window, len(TOKENS))
            part = ids[:, begin:end]
            labels = part.clone()
            labels[:, : -(end - before)] = -100
            with torch.no_grad():
                loss = model(part, labels=labels).loss.item()
            # The labels move by one inside.
            n = int((labels[:, 1:] != -100).sum())
            total, count, before = total + loss * n, count + n, end
            if end == len(TOKENS):
                break
        results.append({"window": window, "stride": stride, "tokens": count, "nll": total / count})
    with open(os.path.join(HERE, "score.json"), "w") as out:
        json.dump({"case": CASE, "tokens": TOKENS, "results": results}, out)
        out.write("\n")
    print(results)


main()
