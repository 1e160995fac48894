"""The main loops of our kernels beside Triton's, in machine code of sm_80: what `nvdisasm` shows of both.

    python3 benches/sass/compare.py SILURE PTXAS NVDISASM [--keep FOLDER] [--docs]

Needs Triton (`pip install triton==3.9.0`; no GPU, no torch), whose package has both tools of CUDA. Nothing is run: the table
says how many instructions, bytes and registers the loops have, not how fast they are.
"""

import argparse
import datetime
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
# Of a multiprocessor of sm_80: registers, bytes of shared memory, warps, blocks. Source: CUDA C++ Programming Guide.
REGISTERS, SHARED, WARPS, BLOCKS = 65536, 167936, 64, 32
# Of a matrix instruction m16n8k16.
FLOPS = 2 * 16 * 8 * 16


def instructions(text):
    """(address, label before it, words) of every instruction of a disassembly."""
    out, label = [], None
    for line in text.splitlines():
        if m := re.match(r"\s*(\.L_\w+):", line):
            label = m[1]
        elif m := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", line):
            out.append((int(m[1], 16), label, m[2]))
            label = None
    return out


def loops(code):
    """The innermost loops as lists of instructions: from the target of a branch back to that branch."""
    places = {label: i for i, (_, label, _) in enumerate(code) if label}
    found = []
    for i, (_, _, text) in enumerate(code):
        m = re.search(r"\bBRA(?:\.\w+)?\s.*?\((\.L_\w+)\)", text)
        if m and m[1] in places and places[m[1]] <= i:
            found.append((places[m[1]], i))
    inner = [f for f in found if not any(g != f and f[0] <= g[0] and g[1] <= f[1] for g in found)]
    return [[t for _, _, t in code[a : b + 1]] for a, b in inner]


def opcode(text):
    return re.sub(r"^@!?U?P\w+\s+", "", text).split()[0]


def facts(cubin, threads, shared, nvdisasm, usage):
    code = instructions(subprocess.run([nvdisasm, cubin], check=True, capture_output=True, text=True).stdout)
    ops = lambda loop: [opcode(t) for t in loop]
    main = max(loops(code), key=lambda l: sum(o.startswith("HMMA") for o in ops(l)))
    ops = ops(main)
    products = sum(o.startswith("HMMA.16816") for o in ops)
    matrices = sum(int(re.search(r"M\w*88\.?(\d?)", o)[1] or 1) for o in ops if o.startswith("LDSM"))
    copied = 16 * 32 * sum(o.startswith("LDGSTS") for o in ops)
    registers = int(re.search(r"Used (\d+) registers", usage)[1])
    spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill", usage))
    warps = threads // 32
    granted = -(-registers * 32 // 256) * 256 * warps
    blocks = min(REGISTERS // granted, SHARED // (shared + 1024), WARPS // warps, BLOCKS)
    waits = [int(m[1], 16) for t in main if (m := re.search(r"DEPBAR\.LE SB0, (0x[0-9a-f]+)", t))]
    return {
        "instructions": len(ops), "products": products, "per product": len(ops) / products,
        "copied": copied / (products * FLOPS), "read": matrices * 128 / products,
        "barriers": sum(o.startswith("BAR") for o in ops), "ahead": max(waits, default=0),
        "registers": registers, "spilled": spilled, "shared": shared, "occupancy": blocks * warps / WARPS,
        "code": main,
    }


def assembled(name, ptx, shared, threads, tools, keep):
    ptxas, nvdisasm = tools
    text, cubin = os.path.join(keep, name + ".ptx"), os.path.join(keep, name + ".cubin")
    with open(text, "w") as f:
        f.write(ptx)
    out = subprocess.run([ptxas, "-arch=sm_80", "-v", text, "-o", cubin], check=True, capture_output=True, text=True)
    found = facts(cubin, threads, shared, nvdisasm, out.stderr + out.stdout)
    with open(os.path.join(keep, name + ".loop"), "w") as f:
        f.write("\n".join(found.pop("code")) + "\n")
    return found


def ours(silure, path):
    """PTX, bytes of shared memory and threads of a tile kernel."""
    out = subprocess.run([silure, "kernel", "emit", path, "--target", "cuda:sm_80"], check=True, capture_output=True,
                         text=True)
    return launch(out.stdout)


def launch(text):
    threads = int(re.search(r"\.reqntid (\d+)", text)[1])
    shared = int(re.search(r"(\d+) bytes of shared memory are given", text)[1])
    return text, shared, threads


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("tools", nargs=3, metavar=("SILURE", "PTXAS", "NVDISASM"))
    p.add_argument("--keep", help="leave texts, objects and loops here")
    p.add_argument("--docs", action="store_true", help="write the table into docs/cuda.md")
    p.add_argument("--only", default="", help="problems whose names begin so")
    a = p.parse_args()
    sys.path.insert(0, HERE)
    import kernels as t

    known = {"m": 4096, "n": 4096, "k": 4096}
    tile = lambda bm, bn, bk: {"BM": bm, "BN": bn, "BK": bk}
    head = lambda bm, bn, d: {"BM": bm, "BN": bn, "D": d}
    problems = [
        ("matmul 128x128x32", t.matmul_known, known | tile(128, 128, 32), 4, 4),
        ("matmul 128x256x64", t.matmul_known, known | tile(128, 256, 64), 8, 3),
        ("matmul of any size 128x128x32", t.matmul, tile(128, 128, 32), 4, 4),
        ("attention 64", t.attention, head(128, 64, 64), 4, 3),
        ("attention 128", t.attention, head(128, 64, 128), 8, 3),
        ("attention without mask 64", t.attention_whole, head(128, 64, 64), 4, 3),
        ("attention without mask 128", t.attention_whole, head(128, 64, 128), 8, 3),
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        keep = a.keep or folder
        os.makedirs(keep, exist_ok=True)
        for name, fn, sizes, warps, stages in problems:
            if not name.startswith(a.only):
                continue
            file = name.replace(" ", "_")
            text, shared, threads = t.ptx(fn, sizes, warps, stages)
            theirs = assembled(file + "_triton", text, shared, threads, a.tools[1:], keep)
            path = os.path.join(HERE, file + ".sir")
            mine = None
            if os.path.exists(path):
                text, shared, threads = ours(a.tools[0], path)
                mine = assembled(file + "_silure", text, shared, threads, a.tools[1:], keep)
            rows.append((name, mine, theirs))
    lines = [
        "| problem | | instructions / HMMA | copied bytes / FLOP | LDSM bytes / HMMA | waits: groups open | barriers "
        "| registers | spilled | shared | occupancy |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, mine, theirs in rows:
        for who, f in (("silure", mine), ("Triton", theirs)):
            if f:
                lines.append(
                    f"| {name} | {who} | {f['instructions']} / {f['products']} = {f['per product']:.3f} "
                    f"| {f['copied']:.5f} | {f['read']:.0f} | {f['ahead']} | {f['barriers']} | {f['registers']} "
                    f"| {f['spilled']} | {f['shared']} | {f['occupancy'] * 100:.0f} % |"
                )
        if mine:
            ratio = mine["per product"] / theirs["per product"]
            lines.append(
                f"| | ratio | {ratio:.3f} | {mine['copied'] / theirs['copied']:.3f} "
                f"| {mine['read'] / theirs['read']:.3f} | | | | | | |"
            )
    said = subprocess.run([a.tools[1], "--version"], capture_output=True, text=True).stdout
    version = re.search(r"V([\d.]+)", said)[1]
    note = f"Triton {t.triton.__version__}, ptxas {version}, {datetime.date.today()}."
    text = "\n".join(lines) + "\n\n" + note + "\n"
    print(text, end="")
    if a.docs:
        path = os.path.join(HERE, "../../docs/cuda.md")
        with open(path) as f:
            old = f.read()
        begin, end = "<!-- triton -->\n", "<!-- end of triton -->"
        with open(path, "w") as f:
            f.write(old[: old.index(begin) + len(begin)] + text + old[old.index(end) :])


if __name__ == "__main__":
    main()
