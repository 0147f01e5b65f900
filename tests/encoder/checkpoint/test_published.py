"""Settings of well-known checkpoints are accepted, each of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from embedding_core.encoder.checkpoint.describe import read_checkpoint
from tests.checkpoints import as_sentence_transformer, write_json
from tests.published import PUBLISHED


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_settings_are_accepted(tmp_path: Path, name: str) -> None:
    files = dict(PUBLISHED[name])
    as_sentence_transformer(tmp_path, files.pop("1_Pooling/config.json"))
    for file, content in files.items():
        write_json(tmp_path / file, content)
    (tmp_path / "tokenizer.json").write_text("{}")
    safetensors.numpy.save_file({"a": np.zeros(1)}, tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.verified
    asked = files.get("sentence_bert_config.json", {}).get("max_seq_length")
    assert asked is None or checkpoint.max_tokens == asked
