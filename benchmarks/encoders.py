"""What embedlake's encoder is held against, each as its users run it, and embedlake itself.

Every variant turns the same strings into vectors. A peer is left out where it is not installed;
sentence-transformers' flash path is asked for only where its kernel package is. OpenVINO and
onnxruntime (``pip install openvino onnxruntime onnx``) run on CPUs, on batches in length order.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embedding_core.encoder import Encoder
from embedding_core.encoder.local.budget import even_share
from embedding_core.encoder.local.cpu import Lanes
from embedding_core.encoder.local.engine import CheckpointInfo
from embedding_core.encoder.local.packing import lay_out, pack

Vectors = npt.NDArray[np.float32]

PEER_BATCH, PEER_TOKENS = 32, 131_072
"""Texts of a peer's batch: sentence-transformers' default; fewer where they are very long."""
DTYPES = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp8": torch.float8_e4m3fn,
}


@dataclass(frozen=True)
class Loaded:
    """A variant, ready."""

    encode: Callable[[Sequence[str], int], Vectors]
    """Given the texts and how many make a batch, which only the peers ask for."""
    dtype: torch.dtype
    """Arithmetic that it runs in."""
    forward: Callable[[Sequence[str]], Callable[[], None]] | None = None
    """Tokenises and packs the texts; what it gives runs the model alone."""
    padded: bool = True
    """Whether it pads batches of texts in length order; else nothing is padded."""


def variants(device: str, info: CheckpointInfo) -> dict[str, Callable[[], Loaded]]:
    """How to load each; ratios refer to the first."""
    found: dict[str, Callable[[], Loaded]] = {}
    if importlib.util.find_spec("sentence_transformers"):
        found["sentence-transformers, default"] = lambda: _peer(device, info, {})
        if not _stored_half(info):  # its default otherwise
            found["sentence-transformers, bf16"] = lambda: _peer(
                device, info, {"dtype": torch.bfloat16}
            )
        if device == "cpu" and _stored_half(info):
            found["sentence-transformers, fp32"] = lambda: _peer(
                device, info, {"dtype": torch.float32}
            )
        if device == "cuda" and importlib.util.find_spec("flash_attn"):
            flash = {"dtype": torch.bfloat16, "attn_implementation": "flash_attention_2"}
            found["sentence-transformers, bf16, flash"] = lambda: _peer(device, info, flash)
    found["transformers, sorted and padded, bf16"] = lambda: _plain(device, info, torch.bfloat16)
    if device == "cpu" and importlib.util.find_spec("openvino"):
        found["OpenVINO, bf16"] = partial(_openvino, info, "LATENCY")
        found["OpenVINO, bf16, a stream per core"] = partial(_openvino, info, "THROUGHPUT")
    if device == "cpu" and importlib.util.find_spec("onnxruntime"):
        found["onnxruntime, fp32"] = partial(_onnxruntime, info, quantised=False)
        found["onnxruntime, dynamic int8"] = partial(_onnxruntime, info, quantised=True)
    for dtype in ("bf16", "fp16", "fp8") if device == "cuda" else ("bf16", "fp32"):
        found[f"embedlake, {dtype}"] = partial(_ours, device, info, dtype)
    return found


def _stored_half(info: CheckpointInfo) -> bool:
    """Whether the checkpoint's own arithmetic, sentence-transformers' default, is not fp32."""
    config = json.loads((Path(str(info.directory)) / "config.json").read_text())
    return str(config.get("dtype", config.get("torch_dtype", "float32"))) != "float32"


def reference(device: str, info: CheckpointInfo, samples: Sequence[Sequence[str]]) -> list[Vectors]:
    """Per sample (n_texts, dim) in fp32, one text at a time through transformers' own model."""
    encode = _plain(device, info, torch.float32).encode
    vectors = [encode(texts, 1) for texts in samples]
    del encode
    release(device)
    return vectors


def release(device: str) -> None:
    """Give back the memory of models that nothing refers to."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def peer_batch(counts: Sequence[int]) -> int:
    """Texts of a peer's batch, given the tokens of each text."""
    return max(1, min(PEER_BATCH, PEER_TOKENS // max(counts)))


def padding_share(counts: Sequence[int]) -> float:
    """Part of the tokens of sorted, padded batches that is padding."""
    ordered, batch = sorted(counts, reverse=True), peer_batch(counts)
    run = sum(len(ordered[at : at + batch]) * ordered[at] for at in range(0, len(ordered), batch))
    return 1 - sum(counts) / run


def _peer(device: str, info: CheckpointInfo, model_options: dict[str, Any]) -> Loaded:
    """sentence-transformers with its own settings but those given."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(info.directory), device=device, model_kwargs=dict(model_options)
    )
    model.max_seq_length = info.space.max_tokens

    def encode(texts: Sequence[str], batch: int) -> Vectors:
        out = model.encode(
            list(texts), batch_size=batch, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(out, dtype=np.float32)

    return Loaded(encode, next(model.parameters()).dtype)


def _plain(device: str, info: CheckpointInfo, dtype: torch.dtype) -> Loaded:
    """transformers' model and mask over right-padded batches of texts in length order."""
    model = _transformers_model(info, dtype).to(device)

    @torch.inference_mode()
    def states(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = model(
            input_ids=ids.to(device), attention_mask=mask.to(device)
        ).last_hidden_state
        return hidden.float()

    return Loaded(partial(_padded, info, device, states), dtype)


def _transformers_model(info: CheckpointInfo, dtype: torch.dtype) -> Any:
    import transformers

    model_class = getattr(transformers, info.checkpoint.rules.model_class)
    model = model_class.from_pretrained(
        info.checkpoint.directory, dtype=dtype, local_files_only=True
    )
    return model.eval()


class _LastStates(torch.nn.Module):
    """A transformers model as a function of two tensors, for those that trace it."""

    def __init__(self, info: CheckpointInfo) -> None:
        super().__init__()
        self._model = _transformers_model(info, torch.float32)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self._model(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        return hidden


def _traced_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long)


def _openvino(info: CheckpointInfo, hint: str) -> Loaded:
    """OpenVINO in bf16; with the hint THROUGHPUT several batches are under way at once.

    torch only pools here, on one thread. OpenVINO's telemetry is left out: where no network is, it
    stops the first batches for seconds.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # as if not installed
    import openvino

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = openvino.convert_model(_LastStates(info), example_input=_traced_inputs())
    compiled = openvino.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "bf16",
            "PERFORMANCE_HINT": hint,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
        },
    )
    queue = openvino.AsyncInferQueue(compiled)  # as many requests as the hint asks for

    def encode(texts: Sequence[str], batch: int) -> Vectors:
        out = np.empty((len(texts), info.space.dim), dtype=np.float32)

        def pool(request: Any, known: tuple[list[int], torch.Tensor]) -> None:
            rows, mask = known
            hidden = torch.from_numpy(request.get_output_tensor(0).data)
            out[rows] = _unit(hidden, mask.bool(), info)

        queue.set_callback(pool)
        for rows, ids, mask in _padded_batches(info, texts, batch):
            queue.start_async([ids.numpy(), mask.numpy()], (rows, mask))
        queue.wait_all()
        return out

    return Loaded(encode, torch.bfloat16)


def _onnxruntime(info: CheckpointInfo, quantised: bool) -> Loaded:
    """onnxruntime's CPU provider, in fp32 or with weights and activations in int8."""
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    axes = {0: "texts", 1: "tokens"}
    with tempfile.TemporaryDirectory() as scratch:
        path = f"{scratch}/model.onnx"
        torch.onnx.export(
            _LastStates(info),
            _traced_inputs(),
            path,
            input_names=["ids", "mask"],
            output_names=["hidden"],
            dynamic_axes=dict.fromkeys(("ids", "mask", "hidden"), axes),
            dynamo=False,
        )
        if quantised:
            quantize_dynamic(path, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def states(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        (hidden,) = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})
        return torch.from_numpy(hidden)

    return Loaded(partial(_padded, info, "cpu", states), torch.float32)


def _padded(
    info: CheckpointInfo,
    device: str,
    states: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    texts: Sequence[str],
    batch: int,
) -> Vectors:
    """(n_texts, dim) by ``states`` of ids and mask, a padded batch after the other."""
    out = np.empty((len(texts), info.space.dim), dtype=np.float32)
    for rows, ids, mask in _padded_batches(info, texts, batch):
        out[rows] = _unit(states(ids, mask), mask.bool().to(device), info)
    return out


def _padded_batches(
    info: CheckpointInfo, texts: Sequence[str], batch: int
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Positions, ids and mask of right-padded batches of texts, longest first."""
    encoded = info.tokenizer.encode(texts, "", info.space.max_tokens)
    ids = [torch.from_numpy(text_ids).long() for text_ids, _ in encoded]
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        padded = torch.nn.utils.rnn.pad_sequence([ids[row] for row in rows], batch_first=True)
        lengths = torch.tensor([len(ids[row]) for row in rows])
        yield rows, padded, (torch.arange(padded.shape[1]) < lengths[:, None]).long()


def _unit(hidden: torch.Tensor, real: torch.Tensor, info: CheckpointInfo) -> Vectors:
    """(n_texts, dim) unit vectors of (n_texts, n_tokens, hidden_size) states."""
    pooled = _pooled(hidden.float(), real, info.checkpoint.pooling)[:, : info.space.dim]
    vectors: Vectors = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
    return vectors


def _pooled(hidden: torch.Tensor, real: torch.Tensor, pooling: str) -> torch.Tensor:
    if pooling == "mean":
        return (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True)
    place = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
    if pooling == "last":
        place = real.sum(1) - 1
    return hidden[torch.arange(len(hidden), device=hidden.device), place]


def _ours(device: str, info: CheckpointInfo, dtype: str) -> Loaded:
    from embedding_core.encoder.local.transformer import TransformerEncoder

    encoder = Encoder.load(
        str(info.directory), dtype=dtype, device=device, max_tokens=info.space.max_tokens
    )
    assert isinstance(encoder, TransformerEncoder)

    def forward(texts: Sequence[str]) -> Callable[[], None]:
        model = encoder._model(encoder.dtype)
        ids = [one for one, _ in encoder._tokenizer.encode(texts, "", encoder.space.max_tokens)]
        lengths = [len(one) for one in ids]
        lanes = Lanes.of(torch.device(device), len(ids), sum(lengths))
        tokens = even_share(sum(lengths), encoder.batch_tokens, lanes.number, max(lengths))
        batches = [lay_out(ids, rows) for rows in pack(lengths, tokens)]

        def run() -> None:
            waiting = deque(batches)

            def work() -> None:
                with suppress(IndexError):  # no batch waits for this lane
                    while True:
                        model.forward(waiting.popleft())

            lanes.run(work)
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    return Loaded(
        lambda texts, _: encoder.encode_documents(texts), DTYPES[dtype], forward, padded=False
    )
