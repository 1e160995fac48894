"""Cases of the operators of `com.microsoft` whose weights are quantised in blocks of a few bits, for contrib.py."""

import ml_dtypes
import numpy as np
from contrib_quantised import Cases


class Blocks(Cases):
    """Weights with a scale for each block."""

    def groups(self):
        return [self.nbits, self.bnb4, self.gather]

    def nbits(self):
        for bits in (2, 4, 8):
            for block in (16, 32):
                for k in (32, 64, 40):
                    n, blocks = 6, -(-k // block)
                    b = self.ints(np.uint8, n, blocks, block * bits // 8)
                    s = self.scales((n, blocks), 0.05)
                    packed = self.ints(np.uint8, n, (blocks * bits + 7) // 8)
                    # The runtime may quantise the operand to 8 bits only if it is asked to.
                    name, attrs = f"nbits_{bits}_{block}_{k}", {"K": k, "N": n, "bits": bits, "block_size": block}
                    a = self.f32(2, 3, k)
                    loose = {"rtol": 1e-3, "atol": 2e-3}
                    self.case(
                        f"{name}", "MatMulNBits", [a, b, s], known=(1, 2), dims={2: "b", 3: "s"}, **loose, **attrs
                    )
                    self.case(
                        f"{name}_flat",
                        "MatMulNBits",
                        [a[0], b, s.reshape(-1), packed.reshape(-1)],
                        known=(1, 2, 3),
                        **loose,
                        **attrs,
                    )
                    self.case(
                        f"{name}_zeros",
                        "MatMulNBits",
                        [a, b, s, packed, None, self.f32(n)],
                        known=(1, 2, 3, 5),
                        **loose,
                        **attrs,
                    )
                    self.case(f"{name}_late", "MatMulNBits", [a, b, s, packed], **loose, **attrs)
                    self.case(
                        f"{name}_float_zeros",
                        "MatMulNBits",
                        [a, b, s, self.f32(n, blocks, scale=2 ** (bits - 1))],
                        known=(1, 2, 3),
                        **loose,
                        **attrs,
                    )
                    half = [v.astype(np.float16) for v in (a, s)]
                    self.case(
                        f"{name}_f16",
                        "MatMulNBits",
                        [half[0], b, half[1], packed],
                        known=(1, 2, 3),
                        rtol=4e-3,
                        atol=2e-2,
                        **attrs,
                    )
                    if bits == 4 and k % block == 0:
                        groups = np.repeat(np.arange(blocks)[::-1], block).astype(np.int32)
                        self.case(
                            f"{name}_groups", "MatMulNBits", [a, b, s, None, groups], known=(1, 2, 4), **loose, **attrs
                        )
                        mixed = self.rng.integers(0, blocks, k).astype(np.int32)
                        self.case(
                            f"{name}_groups_mixed",
                            "MatMulNBits",
                            [a, b, s, None, mixed],
                            known=(1, 2, 4),
                            **loose,
                            **attrs,
                        )
                        self.case(
                            f"{name}_groups_float",
                            "MatMulNBits",
                            [a, b, s, self.f32(n, blocks, scale=9), groups],
                            known=(1, 2, 3, 4),
                            **loose,
                            **attrs,
                        )
        # Large enough to be a weight of its own in the engine.
        k, n, block = 512, 320, 32
        b, s = self.ints(np.uint8, n, k // block, block // 2), self.scales((n, k // block), 0.05)
        zeros = self.ints(np.uint8, n, k // block // 2)
        self.case(
            "nbits_large",
            "MatMulNBits",
            [self.f32(4, k), b, s, zeros],
            known=(1, 2, 3),
            K=k,
            N=n,
            bits=4,
            block_size=block,
            rtol=1e-3,
            atol=2e-2,
        )

    def bnb4(self):
        for kind in (0, 1):
            for k, n, block in [(32, 6, 16), (10, 7, 16), (64, 3, 64)]:
                b, most = self.ints(np.uint8, (k * n + 1) // 2), self.scales(-(-k * n // block), 1.0)
                self.case(
                    f"bnb4_{kind}_{k}_{n}",
                    "MatMulBnb4",
                    [self.f32(2, 3, k), b, most],
                    known=(1, 2),
                    K=k,
                    N=n,
                    block_size=block,
                    quant_type=kind,
                    dims={2: "b", 3: "s"},
                )

    def gather(self):
        at = np.array([[1, 0, 4], [-1, 2, 4]], np.int64)
        for bits in (2, 4, 8):
            for columns in (32, 48):
                each = 8 // bits
                data, blocks = self.ints(np.uint8, 5, columns // each), columns // 16
                s, zeros = self.scales((5, blocks), 0.05), self.ints(np.uint8, 5, -(-blocks // each))
                attrs = {"bits": bits, "block_size": 16, "gather_axis": 0, "quantize_axis": 1, "known": (0, 2, 3)}
                name = f"gather_blocks_{bits}_{columns}"
                self.case(name, "GatherBlockQuantized", [data, at, s], dims={2: "b", 3: "s"}, **attrs)
                self.case(f"{name}_zeros", "GatherBlockQuantized", [data, at.astype(np.int32), s, zeros], **attrs)
                self.case(f"{name}_outside", "GatherBlockQuantized", [data, np.array([7, 1, -9, 4]), s, zeros], **attrs)
                self.case(
                    f"{name}_f16", "GatherBlockQuantized", [data, at, s.astype(np.float16), zeros], rtol=2e-3, **attrs
                )
                self.case(f"{name}_one", "GatherBlockQuantized", [data, np.array(2), s, zeros], **attrs)
        for t in (ml_dtypes.int4, ml_dtypes.uint4):
            low = -8 if t is ml_dtypes.int4 else 0
            data = self.rng.integers(low, low + 16, (5, 32, 4)).astype(t)
            for g, q in [(0, 1), (1, 1), (2, 1), (0, 2), (1, 0)]:
                shape = list(data.shape)
                shape[q] = -(-shape[q] // 16)
                s, zeros = self.scales(shape, 0.05), self.rng.integers(low, low + 16, shape).astype(t)
                attrs = {"block_size": 16, "gather_axis": g, "quantize_axis": q, "known": (0, 2, 3)}
                name = f"gather_blocks_{np.dtype(t).name}_{g}{q}"
                at = self.rng.integers(-data.shape[g], data.shape[g], (2, 3)).astype(np.int64)
                self.case(name, "GatherBlockQuantized", [data, at, s], **attrs)
                self.case(f"{name}_zeros", "GatherBlockQuantized", [data, at, s, zeros], **attrs, dims={2: "b"})
