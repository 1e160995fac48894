"""Goldens of the block types of GGUF files: random blocks and what ggml makes of them.

    python3 ir/tests/goldens/ggml.py LIBGGML_BASE.so > ir/tests/goldens/ggml.txt

LIBGGML_BASE.so is the library of an installed llama.cpp or of its Python package. A line is the type, the
bytes of two rows of blocks, and the f32 values, both in hexadecimal.
"""

import ctypes
import random
import struct
import sys

# Type: elements and bytes of a block, where its f16 numbers are, the function's suffix.
FORMS = {
    "q8_0": (32, 34, [0], "q8_0"),
    "q4_0": (32, 18, [0], "q4_0"),
    "q4_1": (32, 20, [0, 2], "q4_1"),
    "q4_k": (256, 144, [0, 2], "q4_K"),
    "q6_k": (256, 210, [208], "q6_K"),
}


def main():
    lib = ctypes.CDLL(sys.argv[1])
    rng = random.Random(9)
    for name, (elements, size, halves, suffix) in FORMS.items():
        blocks = 2 if elements == 256 else 6
        raw = bytearray(rng.randbytes(blocks * size))
        for b in range(blocks):
            for h in halves:
                raw[b * size + h : b * size + h + 2] = struct.pack("<e", rng.uniform(-2, 2))
        n = blocks * elements
        out = (ctypes.c_float * n)()
        f = getattr(lib, f"dequantize_row_{suffix}")
        f.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_float), ctypes.c_int64]
        f.restype = None
        f(bytes(raw), out, n)
        print(name, raw.hex(), bytes(out).hex())


if __name__ == "__main__":
    main()
