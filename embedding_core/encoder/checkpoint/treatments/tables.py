"""All tables of rules by what they are about, for the documentation."""

from __future__ import annotations

from collections.abc import Mapping

from embedding_core.encoder.checkpoint.treatments.folder import FILES
from embedding_core.encoder.checkpoint.treatments.model_config import CONFIG, FAMILY_CONFIG, ROPE
from embedding_core.encoder.checkpoint.treatments.rule import Rules
from embedding_core.encoder.checkpoint.treatments.sentence_config import (
    CONFIG_KWARGS,
    DENSE,
    MODEL_KWARGS,
    MODULE,
    NORMALIZE,
    POOLING,
    PROCESSOR_KWARGS,
    SENTENCE_CONFIG,
    SENTENCE_TRANSFORMERS_CONFIG,
)
from embedding_core.encoder.checkpoint.treatments.tokenizer_config import TOKENIZER_CONFIG

TABLES: Mapping[str, Rules] = {
    "Files": FILES,
    "config.json": CONFIG,
    **{f"config.json of {family}": rules for family, rules in FAMILY_CONFIG.items()},
    "config.json, rope_parameters": ROPE,
    "tokenizer_config.json": TOKENIZER_CONFIG,
    "sentence_bert_config.json": SENTENCE_CONFIG,
    "sentence_bert_config.json, processor_kwargs": PROCESSOR_KWARGS,
    "sentence_bert_config.json, model_kwargs": MODEL_KWARGS,
    "sentence_bert_config.json, config_kwargs": CONFIG_KWARGS,
    "config_sentence_transformers.json": SENTENCE_TRANSFORMERS_CONFIG,
    "modules.json": MODULE,
    "1_Pooling/config.json": POOLING,
    "2_Dense/config.json": DENSE,
    "2_Normalize/config.json": NORMALIZE,
}
"""All tables by what they are about."""
