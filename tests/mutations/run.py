#!/usr/bin/env python3
"""Checks that the tests notice faults: each mutation below is applied to a copy of the tree and the
test named beside it must fail. Changes nothing in the tree itself.

    python3 tests/mutations/run.py [NAME …]        all, or those named
    MUTATION_TARGET=DIR                            build folder (default: target/mutations)

Ends with code 1 if a mutation survives, or does not apply, or a test fails without one.
"""
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
TARGET = os.environ.get("MUTATION_TARGET", os.path.join(ROOT, "target", "mutations"))

PROPERTY = (["-p", "silure-tests", "--test", "property"], "random_graphs_give_what_the_oracle_gives")
STATE = (["-p", "silure-tests", "--test", "state"], "states_entries_and_variants_follow_the_interpreter")
DIGITS = (["-p", "silure-tests", "--test", "digits"],
          "the_compiled_classifier_agrees_with_the_oracle_and_knows_digits")

# name, file, old text (once in the file), new text, test
MUTATIONS = [
    ("transpose-perm", "backends/cpu/src/lower/matmul.rs",
     "let strides = perm.iter().map(|&p| inner.strides[p as usize].clone()).collect();",
     "let strides = (0..perm.len() as i64).map(|i| inner.strides[perm.iter().position(|&p| p == i).unwrap_or(0)].clone()).collect();",
     PROPERTY),
    ("dropped-bias", "backends/cpu/src/lower/anchor.rs",
     "if c.bias.is_some() {", "if c.bias.is_some() && c.residual.is_some() {", PROPERTY),
    ("dropped-residual", "backends/cpu/src/lower/anchor.rs",
     "c.epilogue.residual = true;", "c.epilogue.residual = false;", PROPERTY),
    ("slice-offset", "backends/cpu/src/lower/movement.rs",
     "offset = offset + start * own[a].clone();",
     "offset = offset + (start + Dim::Const(1)) * own[a].clone();", PROPERTY),
    ("pad-mode", "backends/cpu/src/lower/movement.rs",
     '"reflect" => pad::mode::REFLECT,', '"reflect" => pad::mode::EDGE,', PROPERTY),
    ("cse-attributes", "passes/src/cse.rs",
     "&& same_attrs(&x.attrs, &y.attrs)", "&& x.attrs.iter().count() == y.attrs.iter().count()", PROPERTY),
    ("fold-times-zero", "passes/src/rewrites/arith.rs",
     "(is_int(m, m.operand(0)?) && m.is(m.operand(1)?, 0.0)).then(|| splat(m, 0))?",
     "(m.is(m.operand(1)?, 0.0)).then(|| splat(m, 0))?", PROPERTY),
    ("fusion-cycle", "passes/src/fusion/map.rs",
     "if !fits || graph.would_cycle(&both) {", "if !fits {", PROPERTY),
    ("early-free", "backends/cpu/src/encode/ops.rs",
     "self.scope.frees.entry((home, last)).or_default().push(b);",
     "self.scope.frees.entry((home, last.saturating_sub(1))).or_default().push(b);", PROPERTY),
    ("relu-nan", "backends/cpu/src/codegen/ops.rs",
     "Ok(above(e, x[0], zero))", "Ok(above(e, zero, x[0]))", PROPERTY),
    ("gemm-trans-b", "frontends/onnx/src/import/linalg.rs",
     "    if tb {\n", "    if tb && ta {\n", DIGITS),
    ("variant-order", "backends/cpu/src/encode/mod.rs",
     "for (v, guard) in f.variants.iter().zip(guards) {",
     "for (v, guard) in f.variants.iter().zip(guards).rev() {", STATE),
]


def test(tree, which):
    env = dict(os.environ, CARGO_TARGET_DIR=TARGET, RUST_BACKTRACE="0")
    run = subprocess.run(["cargo", "test", *which[0]], cwd=tree, env=env, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    built = "error: could not compile" not in run.stdout
    failed = re.search(rf"^test {which[1]}\b.*FAILED$|^    {which[1]}$", run.stdout, re.M)
    died = re.search(r"signal: \d+", run.stdout)
    why = (re.search(r"^seed \d+ fails: (.*)$", run.stdout, re.M)
           or re.search(r"^thread .* panicked at .*\n(.+)$", run.stdout, re.M))
    return run.returncode, built, bool(failed or died), (why.group(1) if why else died and died.group(0) or "")[:110]


def main():
    names = sys.argv[1:]
    todo = [m for m in MUTATIONS if not names or m[0] in names]
    tree = os.path.join(tempfile.mkdtemp(prefix="mutations-"), "tree")
    subprocess.run(["git", "worktree", "add", "--detach", "-q", tree, "HEAD"], cwd=ROOT, check=True)
    bad = 0
    try:
        for which in {id(m[4]): m[4] for m in todo}.values():
            code, *_ = test(tree, which)
            if code:
                print(f"{which[1]} fails without a mutation")
                return 1
        for name, file, old, new, which in todo:
            path = os.path.join(tree, file)
            text = open(path).read()
            if text.count(old) != 1:
                print(f"{name:18} does not apply: {text.count(old)} places", flush=True)
                bad += 1
                continue
            open(path, "w").write(text.replace(old, new))
            code, built, failed, why = test(tree, which)
            open(path, "w").write(text)
            if not built:
                verdict = "does not compile"
            elif failed:
                verdict = f"caught by {which[1]}: {why}"
            else:
                verdict = "SURVIVED" if code == 0 else "failed elsewhere"
            bad += not (built and failed)
            print(f"{name:18} {verdict}", flush=True)
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
