"""What one GPU does with the pieces of a forward pass, and how exact our kernels are on it.

    python -m benchmarks.kernels

Needs a CUDA GPU, torch, transformers and this checkout. Sizes are Qwen3-Embedding's, 32,768 tokens.
Errors are |got - true| / |true| against the same formula in fp64, beside torch's own operators on
the same inputs. Rates are medians of 20 runs timed by events. Each line is JSON and stands by
itself. Writes ``benchmarks/results/kernels-cuda.json``.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

from benchmarks.machine import RESULTS, about
from embedding_core.encoder.bench.flops import matrix_rate, sustained_rate
from embedding_core.encoder.local import attention
from embedding_core.encoder.local.attention import Rule, layout
from embedding_core.encoder.local.layers import elementwise, fp8

TOKENS = 32_768
HEAD_DIM, KEY_HEADS = 128, 8
SIZES = {"0.6B": (1024, 16, 3072), "8B": (4096, 32, 12288)}
"""Hidden size, heads, feed-forward size."""
DEVICE = torch.device("cuda", 0)
EPS = 1e-6
Row = dict[str, Any]


def main() -> None:
    """Measure and write."""
    rows = []
    with torch.inference_mode():
        for measure in (ceilings, steps, products, attentions):
            for row in measure():
                rows.append(row)
                print(json.dumps(row), flush=True)
    result = about("kernels", ("torch", "transformers", "triton")) | {
        "gpu": torch.cuda.get_device_name(),
        "results": rows,
    }
    (RESULTS / "kernels-cuda.json").write_text(json.dumps(result, indent=1) + "\n")


def ceilings() -> Iterator[Row]:
    """The rates of a copy and of plain matrix products."""
    source = torch.empty(2**31, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    copy = 2 * source.numel() / _milliseconds(partial(target.copy_, source)) / 1e6
    yield {"of": "copy", "gb_s": round(copy)}
    for dtype in (torch.bfloat16, torch.float16):
        yield {
            "of": "matrices",
            "dtype": str(dtype),
            "tflops": round(matrix_rate(DEVICE, dtype) / 1e12),
            "sustained_tflops": round(sustained_rate(DEVICE, dtype) / 1e12),
        }


def steps() -> Iterator[Row]:
    """The steps between the matrices: error of our kernel and of torch, and GB/s of ours."""
    from embedding_core.encoder.local.layers import kernels

    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for size, (hidden, heads, feed_forward) in SIZES.items():
            token_bytes = TOKENS * dtype.itemsize / 1e6
            x, weight = _normal(dtype, TOKENS, hidden), _normal(dtype, hidden) + 1
            yield _step(
                f"{size} norm, {dtype}",
                2 * hidden * token_bytes,
                _normed(x, weight),
                partial(kernels.rms_norm, x, weight, EPS),
                partial(elementwise.rms_norm, x, weight, EPS),
            )
            merged = _normal(dtype, TOKENS, (heads + 2 * KEY_HEADS) * HEAD_DIM)
            weight, angles = _normal(dtype, HEAD_DIM) + 1, _normal(torch.float32, TOKENS, 1, 64)
            cos, sin = (torch.cat([a, a], -1).to(dtype) for a in (angles.cos(), angles.sin()))
            for name, first, count in (("query", 0, heads), ("key", heads, KEY_HEADS)):
                columns = slice(first * HEAD_DIM, (first + count) * HEAD_DIM)
                given = (merged[:, columns].view(TOKENS, count, HEAD_DIM), weight, EPS, cos, sin)
                left, right = _normed(given[0], weight).chunk(2, -1)
                turned = torch.cat([-right, left], -1) * sin.double()
                yield _step(
                    f"{size} norm and rotation of {name}, {dtype}",
                    2 * count * HEAD_DIM * token_bytes,
                    torch.cat([left, right], -1) * cos.double() + turned,
                    partial(kernels.norm_rotate, *given),
                    partial(elementwise.norm_rotate, *given),
                )
            gate, up = _normal(dtype, TOKENS, 2 * feed_forward).chunk(2, -1)
            yield _step(
                f"{size} swiglu, {dtype}",
                3 * feed_forward * token_bytes,
                F.silu(gate.double()) * up.double(),
                partial(kernels.swiglu, gate, up),
                partial(elementwise.swiglu, gate, up),
            )


def products() -> Iterator[Row]:
    """A bf16 product beside the same in fp8, rounding of the input included."""
    for size, (hidden, heads, feed_forward) in SIZES.items():
        for n_in, n_out in ((hidden, (heads + 2 * KEY_HEADS) * HEAD_DIM), (feed_forward, hidden)):
            x = _normal(torch.bfloat16, TOKENS, n_in)
            weight = _normal(torch.bfloat16, n_out, n_in) * 0.02
            rounded = fp8.Fp8Linear(weight, None, "none")
            true = x[:512].double() @ weight.double().T
            yield {
                "of": f"{size} product {n_in} x {n_out}",
                "fp8_error": _error(rounded(x)[:512], true),
                "bf16_error": _error(F.linear(x, weight)[:512], true),
                "fp8_ms": round(_milliseconds(partial(rounded, x)), 3),
                "bf16_ms": round(_milliseconds(partial(F.linear, x, weight)), 3),
            }


def attentions() -> Iterator[Row]:
    """The attention kernel over texts of one length."""
    kernel = attention.varlen_kernel(torch.bfloat16, DEVICE, HEAD_DIM, windowed=False)
    assert kernel is not None
    for size, (_, heads, _) in SIZES.items():
        for length in (50, 512, 2048, 8192):
            n_texts = TOKENS // length
            n = n_texts * length
            query = _normal(torch.bfloat16, n, heads, HEAD_DIM)
            key = _normal(torch.bfloat16, n, KEY_HEADS, HEAD_DIM)
            packing = layout([length] * n_texts, DEVICE, kernel)
            rule = Rule(causal=True, scale=HEAD_DIM**-0.5)
            run = partial(kernel, query, key, key, packing, rule)
            flops = n_texts * 2 * length * length * heads * HEAD_DIM
            yield {
                "of": f"{size} attention over {length} tokens",
                "tflops": round(flops / _milliseconds(run) / 1e9),
            }


def _step(
    name: str, megabytes: float, true: torch.Tensor, ours: Callable[[], Any], torchs: Any
) -> Row:
    return {
        "of": name,
        "error": _error(ours(), true),
        "torch_error": _error(torchs(), true),
        "gb_s": round(megabytes / _milliseconds(ours)),
    }


def _normal(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


def _normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    wide = x.double()
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPS) * weight.double()


def _error(got: torch.Tensor, true: torch.Tensor) -> float:
    return float((got.double() - true).norm() / true.norm())


def _milliseconds(run: Callable[[], Any], repeats: int = 20) -> float:
    for _ in range(3):
        run()
    taken: list[float] = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        run()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end))
    return statistics.median(taken)


if __name__ == "__main__":
    main()
