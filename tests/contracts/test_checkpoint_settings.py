"""Each row of the tables of settings against sentence-transformers, one text at a time.

A setting is changed in a small random checkpoint. Either the vectors are those of
sentence-transformers, or the checkpoint is refused by the setting's name.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import transformers

from embedding_core.encoder import Encoder
from embedding_core.encoder.checkpoint.treatments.model_config import (
    CONFIG,
    FAMILY_CONFIG,
    config_rules,
)
from embedding_core.encoder.checkpoint.treatments.rule import Rules, offence
from embedding_core.errors import ModelError
from embedding_core.identity import space_id
from tests.models import describe
from tests.settings import CONFIGS, PROSE, Vectors, build, edited, reference

pytestmark = pytest.mark.slow

EQUAL = 0.9999
FAMILIES = sorted(CONFIGS)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """family -> (folder of its checkpoint, sentence-transformers' vectors), each made once."""
    made: dict[str, tuple[Path, Vectors]] = {}

    def base(family: str) -> tuple[Path, Vectors]:
        if family not in made:
            folder = build(tmp_path_factory.mktemp("base") / family, family)
            made[family] = folder, reference(folder)
        return made[family]

    return base


def equal(left: Vectors, right: Vectors) -> bool:
    return left.shape == right.shape and bool(((left * right).sum(axis=1) >= EQUAL).all())


def vectors_of(folder: Path) -> Vectors:
    encoder = Encoder.load(str(folder), dtype="fp32", device="cpu")
    vectors: Vectors = encoder.encode_documents(PROSE).astype(float)
    return vectors


def assert_honoured(folder: Path, base: tuple[Path, Vectors]) -> None:
    """Equal vectors; and another space, if sentence-transformers' vectors are not the base's."""
    expected = reference(folder)
    assert equal(vectors_of(folder), expected)
    if not equal(expected, base[1]):
        changed, before = (describe(str(f), dtype="fp32").space for f in (folder, base[0]))
        assert space_id(changed) != space_id(before)


def assert_refused(folder: Path, key: str) -> None:
    with pytest.raises(ModelError, match=key):
        vectors_of(folder)


def test_base_equals_sentence_transformers(bases: Any) -> None:
    for family in FAMILIES:
        assert equal(vectors_of(bases(family)[0]), bases(family)[1]), family


# config.json


@pytest.mark.parametrize("family", ["bert", "llama", "gemma3_text", "modernbert"])
def test_config_fewer_positions_than_the_tokenizer_gives(
    bases: Any, tmp_path: Path, family: str
) -> None:
    assert_honoured(build(tmp_path / "made", family, max_position_embeddings=100), bases(family))


ROPE_OTHER = {"rope_type": "default", "rope_theta": 700.0}
ROPE_OF_LAYERS = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 700.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
}
MADE_WITH: dict[str, list[Any]] = {
    "vocab_size": [800],
    "hidden_size": [96],
    "dim": [96],
    "num_hidden_layers": [2],
    "n_layers": [2],
    "num_attention_heads": [2],
    "n_heads": [2],
    "intermediate_size": [96],
    "hidden_dim": [96],
    "hidden_act": ["relu", "gelu_new"],
    "hidden_activation": ["relu"],
    "activation": ["relu"],
    "max_position_embeddings": [170],
    "type_vocab_size": [1],
    "layer_norm_eps": [0.1],
    "rms_norm_eps": [0.1],
    "norm_eps": [0.1],
    "num_key_value_heads": [1, 4],
    "head_dim": [16],
    "attention_bias": [True],
    "mlp_bias": [True],
    "norm_bias": [True],
    "query_pre_attn_scalar": [64],
    "use_bidirectional_attention": [True],
    "sliding_window": [10],
    "local_attention": [10],
    "pad_token_id": [0, 5, 100],
}
"""Values that a checkpoint is made with, for honoured settings of config.json."""

SET_TO: dict[str, list[dict[str, Any]]] = {
    "pad_token_id": [{"pad_token_id": -1}, {"pad_token_id": ...}],
    "rope_parameters": [{"rope_parameters": ROPE_OTHER}],
    "rope_theta": [{"rope_parameters": ..., "rope_theta": 700.0}],
    "rope_scaling": [
        {"rope_parameters": ..., "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        {"rope_parameters": ..., "rope_scaling": {"type": "linear", "factor": 4.0}},
    ],
    "rope_local_base_freq": [{"rope_parameters": ..., "rope_local_base_freq": 100.0}],
    "global_rope_theta": [{"rope_parameters": ..., "global_rope_theta": 100.0}],
    "local_rope_theta": [{"rope_parameters": ..., "local_rope_theta": 100.0}],
    "layer_types": [{"layer_types": ["full_attention", "sliding_attention", "full_attention"]}],
    "sliding_window_pattern": [{"layer_types": ..., "sliding_window_pattern": 2}],
    "global_attn_every_n_layers": [{"layer_types": ..., "global_attn_every_n_layers": 2}],
    "tokenizer_class": [{"tokenizer_class": "PreTrainedTokenizerFast"}],
    "model_type": [],  # every test of a family
}
"""Changes to config.json, for honoured settings."""

REFUSED_VALUES: dict[str, list[Any]] = {
    "relative_attention_num_buckets": [16],
    "head_dim": [8],
    "embedding_size": [32],
    "auto_map": [{"AutoModel": "own.Model"}],
    "is_encoder_decoder": [True],
    "quantization_config": [{"quant_method": "bitsandbytes"}],
    "compression_config": [{"format": "x"}],
    "processor_class": ["Gemma3Processor"],
    "output_attentions": [True],
    "pruned_heads": [{"0": [1]}],
    "chunk_size_feed_forward": [4],
    "position_embedding_type": ["relative_key"],
    "is_decoder": [True],
    "add_cross_attention": [True],
    "partial_rotary_factor": [0.5],
    "is_causal": [False, None],
    "use_bidirectional_attention": [True],
    "use_sliding_window": [True],
    "use_mrope": [True],
    "layer_types": [["full_attention", "sliding_attention", "full_attention"]],
    "attention_bias": [True],
    "mlp_bias": [True],
    "attn_logit_softcapping": [30.0],
    "sliding_window": [10],
    "hidden_size": [64],
    "num_hidden_layers": [3],
    "num_attention_heads": [4],
}

TYPED: dict[str, Any] = {
    "architectures": ["SomeModel"],
    "transformers_version": "4.30.0",
    "adapters": {},
    "model_name": "mine",
    "matryoshka_dimensions": [32, 64],
    "torch_dtype": "float16",
    "dtype": "float32",
    "attn_implementation": "eager",
    "_attn_implementation": "eager",
    "_attn_implementation_internal": "eager",
    "experts_implementation": "eager",
    "_experts_implementation": "eager",
    "classifier_pooling": "mean",
    "classifier_activation": "relu",
    "id2label": {"0": "a"},
    "label2id": {"a": 0},
    "num_labels": 1,
    "problem_type": "regression",
    "layer_types": ["full_attention"] * 3,
    "task_specific_params": {"summary": {}},
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    "rope_scaling": None,
    "cache_implementation": "hybrid",
    "hidden_act": "relu",
    "hidden_activation": "relu",
    "activation": "relu",
    "position_embedding_type": "absolute",
    "_name_or_path": "other/model",
    "name_or_path": "other/model",
    "_commit_hash": "0" * 40,
    "pad_token_id": 3,
    "return_dict": False,
    "is_causal": False,
    "bad_words_ids": [[1]],
    "suppress_tokens": [1],
    "begin_suppress_tokens": [1],
    "exponential_decay_length_penalty": [1, 1.5],
    "prefix": "p",
}
"""Of irrelevant settings: what a value of another type than 1, true or 0.5 looks like."""
FRACTIONS = ("dropout", "prob", "range", "factor", "theta", "freq", "eps", "drop", "softcap")
FLAGS = (
    *("use_", "do_", "output_", "is_", "tie_", "gradient", "sparse_prediction", "classifier_bias"),
    *("decoder_bias", "reference", "deterministic", "repad", "sinusoidal", "attention_bias"),
    *("mlp_bias", "norm_bias", "torchscript", "add_cross", "remove_", "return_", "early_"),
)


def some(key: str) -> Any:
    """A value that this irrelevant setting of config.json may have."""
    if key in TYPED:
        return TYPED[key]
    if key.startswith(FLAGS):
        return True
    return 0.25 if any(part in key for part in FRACTIONS) else 1


def keys_of(rules: Rules, treatment: str) -> list[str]:
    return [key for rule in rules if rule.treatment == treatment for key in rule.keys]


OWN = [(family, key) for family in FAMILIES for key in keys_of(FAMILY_CONFIG[family], "honoured")]


@pytest.mark.parametrize(
    ("family", "key"), [*OWN, *(("bert", key) for key in keys_of(CONFIG, "honoured"))]
)
def test_config_honoured(bases: Any, tmp_path: Path, family: str, key: str) -> None:
    assert key in MADE_WITH or key in SET_TO, "the row has no value to test it with"
    for number, value in enumerate(MADE_WITH.get(key, [])):
        folder = build(tmp_path / f"made{number}", family, **{key: value})
        assert_honoured(folder, bases(family))
    for number, changes in enumerate(SET_TO.get(key, [])):
        if key == "rope_parameters" and family in ("gemma3_text", "modernbert"):
            changes = {"rope_parameters": ROPE_OF_LAYERS}
        folder = edited(bases(family)[0], tmp_path / f"set{number}", "config.json", **changes)
        assert_honoured(folder, bases(family))


@pytest.mark.parametrize(
    ("family", "key"),
    [
        *((f, key) for f in FAMILIES for key in keys_of(FAMILY_CONFIG[f], "refused")),
        *(("bert", key) for key in keys_of(CONFIG, "refused")),
    ],
)
def test_config_refused(bases: Any, tmp_path: Path, family: str, key: str) -> None:
    for number, value in enumerate(REFUSED_VALUES[key]):
        folder = edited(bases(family)[0], tmp_path / str(number), "config.json", **{key: value})
        named = "encoder and a decoder" if key == "is_encoder_decoder" else key
        assert_refused(folder, named)


@pytest.mark.filterwarnings("ignore:.*rope_scaling")
@pytest.mark.parametrize("family", FAMILIES)
def test_config_irrelevant_all_at_once(bases: Any, tmp_path: Path, family: str) -> None:
    changes = {key: some(key) for key in keys_of(config_rules(family), "irrelevant")}
    folder = edited(bases(family)[0], tmp_path / "set", "config.json", **changes)
    assert equal(reference(folder), bases(family)[1])
    assert equal(vectors_of(folder), bases(family)[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_config_accepted_values_of_refused_settings(
    bases: Any, tmp_path: Path, family: str
) -> None:
    rules = [rule for rule in config_rules(family) if rule.treatment == "refused"]
    changes = {k: rule.accepted[0] for rule in rules for k in rule.keys if rule.accepted}
    if "layer_types" in changes and changes["layer_types"] is not None:
        changes["layer_types"] = ["full_attention"] * 3
    folder = edited(bases(family)[0], tmp_path / "set", "config.json", **changes)
    assert equal(reference(folder), bases(family)[1])
    assert equal(vectors_of(folder), bases(family)[1])


# What the library reads, against the tables: nothing that a family's model reads is missing.


def read_in(source: str) -> set[str]:
    """Names read as ``config.<name>`` or ``getattr(config, "<name>")``, by whatever owner."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and _is_config(node.value):
            names.add(node.attr)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
            owner, name, *_ = node.args
            if _is_config(owner) and isinstance(name, ast.Constant):
                names.add(str(name.value))
    return names


def _is_config(node: ast.AST) -> bool:
    name = getattr(node, "id", getattr(node, "attr", ""))
    return str(name) in ("config", "effective_config", "text_config")


def model_source(model_class: Any) -> str:
    """Source of the classes that the model is made of, heads for other tasks left out."""
    module = inspect.getmodule(model_class)
    assert module is not None
    model = model_class(model_class.config_class(**CONFIGS_BY_CLASS[model_class]))
    kinds = {type(part) for part in model.modules()}
    kinds |= {base for kind in kinds for base in kind.__mro__ if base.__module__ == module.__name__}
    return "\n".join(
        inspect.getsource(kind) for kind in kinds if kind.__module__ == module.__name__
    )


CONFIGS_BY_CLASS = {
    getattr(transformers, f"{name}Model"): config for name, config in CONFIGS.values()
}


@pytest.mark.parametrize("family", FAMILIES)
def test_config_table_has_all_that_the_model_reads(family: str) -> None:
    model_class = getattr(transformers, f"{CONFIGS[family][0]}Model")
    known = {key for rule in (*CONFIG, *FAMILY_CONFIG[family]) for key in rule.keys}
    read = read_in(model_source(model_class))
    aliases = set(model_class.config_class.attribute_map)
    assert aliases <= set(keys_of(FAMILY_CONFIG[family], "refused"))
    assert read - known == set()


@pytest.mark.parametrize("family", FAMILIES)
def test_config_table_has_all_fields_of_the_configuration(family: str) -> None:
    """What transformers itself writes into config.json is accepted."""
    config = getattr(transformers, f"{CONFIGS[family][0]}Config")(**CONFIGS[family][1])
    rules = (*CONFIG, *FAMILY_CONFIG[family])
    assert set(config.to_dict()) - {key for rule in rules for key in rule.keys} == set()
    assert offence(config.to_dict(), rules) is None
