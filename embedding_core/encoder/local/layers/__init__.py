"""Layers that replace transformers' ones: the same weights and formula, fewer passes.

On a GPU projections of one input are one matrix product and what stands between the matrices is
one kernel a step; on a CPU matrices run as oneDNN likes them. A model whose layers are not replaced
runs transformers' own, with our attention.
"""

from embedding_core.encoder.local.layers.fp8 import FP8, beside_fp8, quantise
from embedding_core.encoder.local.layers.install import gives_ends_only, install_layers

__all__ = ["FP8", "beside_fp8", "gives_ends_only", "install_layers", "quantise"]
