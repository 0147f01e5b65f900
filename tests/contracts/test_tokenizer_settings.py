"""Each row of the table of tokenizer_config.json, and the files beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from embedding_core.encoder import Encoder
from embedding_core.encoder.checkpoint.backend import CLASSES, backend_json
from embedding_core.encoder.checkpoint.treatments.tokenizer_config import TOKENIZER_CONFIG
from embedding_core.errors import ModelError
from tests.checkpoints import edit_json, write_json
from tests.contracts.test_checkpoint_settings import (
    FAMILIES,
    assert_honoured,
    assert_refused,
    equal,
    keys_of,
    vectors_of,
)
from tests.models import describe
from tests.settings import TOKENIZER_FAMILIES, build, edited, reference

pytestmark = pytest.mark.slow

CONFIG = "tokenizer_config.json"
NEW = "<new>"
HONOURED: dict[str, list[Any]] = {
    "do_lower_case": [False],
    "strip_accents": [True, False],
    "tokenize_chinese_chars": [False],
    "add_prefix_space": [True, False],
    "trim_offsets": [False],
    "legacy": [True, False],
    "additional_special_tokens": [["<extra>"]],
    "extra_special_tokens": [["<extra>"], {"extra_token": "<extra>"}],
    "model_specific_special_tokens": [{"image_token": NEW}],
    "added_tokens_decoder": [{"610": {"content": "harbour", "special": False}}],
    "fix_mistral_regex": [True],
    "model_max_length": [40, 200],
    "max_len": [40],
    "tokenizer_class": ["PreTrainedTokenizerFast"],
}
REFUSED: dict[str, list[Any]] = {
    "truncation_side": ["left"],
    "trust_remote_code": [True],
    "auto_map": [{"AutoTokenizer": ["own.Tokenizer", None]}],
    "fast_tokenizer_files": [["tokenizer.4.json"]],
    "processor_class": ["Gemma3Processor"],
    "init_inputs": [["vocab.txt"]],
    "model_input_names": [["input_ids", "pixel_values"]],
}
IRRELEVANT: dict[str, Any] = {
    "split_special_tokens": True,
    "padding_side": "left",
    "pad_to_multiple_of": 8,
    "pad_token_type_id": 0,
    "padding": True,
    "max_length": 10,
    "stride": 2,
    "truncation": True,
    "truncation_strategy": "longest_first",
    "return_token_type_ids": True,
    "clean_up_tokenization_spaces": True,
    "errors": "ignore",
    "spaces_between_special_tokens": True,
    "skip_special_tokens": True,
    "chat_template": "{{ messages }}",
    "use_default_system_prompt": True,
    "response_template": "x",
    "response_schema": {},
    "chat_control_tokens": [],
    "do_basic_tokenize": False,
    "never_split": ["harbour"],
    "sp_model_kwargs": {"alpha": 0.1},
    "use_fast": False,
    "from_slow": True,
    "add_dummy_prefix_space": False,
    "keep_accents": False,
    "wordpieces_prefix": "++",
    "do_normalize": False,
    "name_or_path": "other/model",
    "special_tokens_map_file": "/etc/map.json",
    "tokenizer_file": "/etc/tokenizer.json",
    "vocab_file": "/etc/vocab.txt",
    "merges_file": "/etc/merges.txt",
    "added_tokens_file": "/etc/added.json",
    "backend": "tokenizers",
    "is_local": False,
    "local_files_only": True,
    "verbose": False,
    "device_map": "auto",
    "transformers_version": "4.30.0",
    "unsloth_version": "1",
    "add_bos_token": True,
    "_commit_hash": "0" * 40,
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Any] = {}

    def base(family: str) -> Any:
        if family not in made:
            folder = build(tmp_path_factory.mktemp("base") / family, family)
            made[family] = folder, reference(folder)
        return made[family]

    return base


def values_of(key: str, folder: Path) -> list[Any]:
    """What to set ``key`` to; for a token: another of the vocabulary's, and one that is new."""
    if key in HONOURED:
        return HONOURED[key]
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    old = json.loads((folder / CONFIG).read_text()).get(key)
    other = next(token["content"] for token in added if token["content"] != old)
    return [other, {"__type": "AddedToken", "content": NEW, "special": True}]


OURS = {"add_eos_token"}
"""transformers 5 leaves the token out that it asks for; see what differs on purpose."""

OTHER_MEDIA = {
    f"{name}_token"
    for name in ("audio", "boa", "boi", "eoa", "eoi", "image", "video", "vision_bos", "vision_eos")
}
"""Tokens that are treated alike: each alone in one family, and all at once in the others."""
MEDIA_FAMILY = "qwen3"


ALONE = [
    (family, key)
    for family in TOKENIZER_FAMILIES
    for key in sorted({*keys_of(TOKENIZER_CONFIG, "honoured")} - OURS)
    if key not in OTHER_MEDIA or family == MEDIA_FAMILY
]


@pytest.mark.parametrize(("family", "key"), ALONE)
def test_tokenizer_config_honoured(bases: Any, tmp_path: Path, family: str, key: str) -> None:
    folder = bases(family)[0]
    values = values_of(key, folder)
    if key == "unk_token" and family in ("bert", "distilbert", "mpnet"):
        changes = {key: values.pop()}
        assert_refused(edited(folder, tmp_path / "unknown", CONFIG, **changes), "UNK")
    for number, value in enumerate(values):
        changes = {key: value} | ({"model_max_length": ...} if key == "max_len" else {})
        assert_honoured(edited(folder, tmp_path / str(number), CONFIG, **changes), bases(family))


@pytest.mark.parametrize("family", sorted({*TOKENIZER_FAMILIES} - {MEDIA_FAMILY}))
def test_tokenizer_config_tokens_of_other_media_honoured_at_once(
    bases: Any, tmp_path: Path, family: str
) -> None:
    folder = bases(family)[0]
    by_key = {key: values_of(key, folder) for key in sorted(OTHER_MEDIA)}
    for number in range(2):
        changes = {key: values[number] for key, values in by_key.items()}
        assert_honoured(edited(folder, tmp_path / str(number), CONFIG, **changes), bases(family))


@pytest.mark.parametrize("key", ["frobnicate", "vocab", "tokenizer_object", "gguf_file"])
def test_tokenizer_config_unknown_key_refused_and_null_accepted(
    bases: Any, tmp_path: Path, key: str
) -> None:
    assert_refused(edited(bases("bert")[0], tmp_path / "set", CONFIG, **{key: "x"}), key)
    describe(str(edited(bases("bert")[0], tmp_path / "null", CONFIG, frobnicate=None)))


def test_tokenizer_config_unknown_key_allowed_when_asked(bases: Any, tmp_path: Path) -> None:
    changes = {"frobnicate": 1, "other_token": NEW}
    folder = edited(bases("bert")[0], tmp_path / "set", CONFIG, **changes)
    space = describe(str(folder), allow_unverified=True).space
    assert space.tokenizer != describe(str(bases("bert")[0])).space.tokenizer


def test_tokenizer_config_longest_input_that_is_no_number_refused(
    bases: Any, tmp_path: Path
) -> None:
    folder = edited(bases("bert")[0], tmp_path / "set", CONFIG, model_max_length="long")
    assert_refused(folder, "model_max_length to 'long'")


def test_tokenizer_truncated_at_its_start_in_tokenizer_json_refused(
    bases: Any, tmp_path: Path
) -> None:
    lengths = {"max_length": 99, "strategy": "LongestFirst", "stride": 0, "direction": "Left"}
    folder = edited(bases("roberta")[0], tmp_path / "set", "tokenizer.json", truncation=lengths)
    assert_refused(folder, "truncation_side")


def test_tokenizer_that_puts_a_text_into_segment_1_refused(bases: Any, tmp_path: Path) -> None:
    folder = edited(
        bases("bert")[0], tmp_path / "set", CONFIG, tokenizer_class="PreTrainedTokenizerFast"
    )
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"]["single"][1]["Sequence"]["type_id"] = 1
    write_json(folder / "tokenizer.json", content)
    assert_refused(folder, "type_id")


@pytest.mark.parametrize(
    "declared", [None, *CLASSES, "PreTrainedTokenizerFast", "LlamaTokenizerFast"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_tokenizer_class_is_the_one_that_transformers_picks(
    bases: Any, tmp_path: Path, family: str, declared: str | None
) -> None:
    value = ... if declared is None else declared
    folder = edited(bases(family)[0], tmp_path / "set", CONFIG, tokenizer_class=value)
    try:
        picked = transformers.AutoTokenizer.from_pretrained(folder)
        picked("a 🛸")
    except Exception:  # a class of another kind of vocabulary
        with pytest.raises(ModelError):
            describe(str(folder))
    else:
        checkpoint = describe(str(folder)).checkpoint
        assert checkpoint is not None
        picked.backend_tokenizer.no_truncation()
        picked.backend_tokenizer.no_padding()
        made = backend_json(checkpoint.tokenizer_file, checkpoint.reading)
        assert json.loads(made) == json.loads(picked.backend_tokenizer.to_str())


def test_tokenizer_class_that_is_not_listed_refused_by_its_name(bases: Any, tmp_path: Path) -> None:
    folder = edited(bases("bert")[0], tmp_path / "set", CONFIG, tokenizer_class="T5Tokenizer")
    assert_refused(folder, "tokenizer_class to 'T5Tokenizer'")


def test_llama_tokenizer_of_byte_level_is_read_as_it_is(bases: Any, tmp_path: Path) -> None:
    """Llama 3's kind, under Llama 2's name."""
    folder = edited(bases("llama")[0], tmp_path / "set", CONFIG)
    for name in ("tokenizer.json", CONFIG):
        (folder / name).write_text((bases("modernbert")[0] / name).read_text())
    edit_json(folder / CONFIG, tokenizer_class="LlamaTokenizerFast")
    assert_honoured(folder, bases("llama"))


# The files beside it.


@pytest.mark.parametrize("family", ["bert", "roberta", "qwen3"])
def test_tokens_named_in_files_beside_are_honoured(bases: Any, tmp_path: Path, family: str) -> None:
    folder = edited(bases(family)[0], tmp_path / "set", "added_tokens.json", harbour=610)
    write_json(folder / "special_tokens_map.json", {"sep_token": "<sep>", "eos_token": "<sep>"})
    assert_honoured(folder, bases(family))


def test_digest_of_equal_tokenizers_is_equal_whatever_file_says_it(
    bases: Any, tmp_path: Path
) -> None:
    """Lower case by one file, by the other, by both, or by the default of the class."""
    base = bases("bert")[0]
    cased = json.loads((base / "tokenizer.json").read_text())
    cased["normalizer"]["lowercase"] = False
    folders = [base, edited(base, tmp_path / "default", CONFIG, do_lower_case=...)]
    folders.append(edited(base, tmp_path / "config", CONFIG, do_lower_case=True))
    write_json(folders[-1] / "tokenizer.json", cased)
    digests = {describe(str(folder)).space.tokenizer for folder in folders}
    assert len(digests) == 1
    other = describe(str(edited(base, tmp_path / "no", CONFIG, do_lower_case=False)))
    assert other.space.tokenizer not in digests


def test_control_tokens_in_a_text_are_characters_and_a_missing_end_is_appended(
    bases: Any, tmp_path: Path
) -> None:
    """What differs from sentence-transformers on purpose."""
    base = bases("llama")[0]
    content = json.loads((base / "tokenizer.json").read_text())
    content["post_processor"] = None
    folder = edited(base, tmp_path / "set", CONFIG, add_eos_token=True)
    write_json(folder / "tokenizer.json", content)
    encoder = Encoder.load(str(folder), dtype="fp32", device="cpu")
    assert encoder.tokenizer.n_special == 1
    inner = transformers.AutoTokenizer.from_pretrained(folder)
    assert encoder.tokenizer.count(["a </s>"])[0] > 1 + len(inner("a </s>")["input_ids"])


@pytest.mark.parametrize("kind", ["query", "document"])
def test_prompt_that_holds_a_control_token_refused(bases: Any, tmp_path: Path, kind: str) -> None:
    prompts = {kind: "[SEP] of a kind: "}
    file = "config_sentence_transformers.json"
    folder = edited(bases("bert")[0], tmp_path / "set", file, prompts=prompts)
    assert_refused(folder, "prompts")


@pytest.mark.parametrize("key", keys_of(TOKENIZER_CONFIG, "refused"))
def test_tokenizer_config_refused(bases: Any, tmp_path: Path, key: str) -> None:
    for number, value in enumerate(REFUSED[key]):
        changed = edited(bases("bert")[0], tmp_path / str(number), CONFIG, **{key: value})
        assert_refused(changed, key)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokenizer_config_irrelevant_all_at_once(bases: Any, tmp_path: Path, family: str) -> None:
    numbers = {key for key in keys_of(TOKENIZER_CONFIG, "irrelevant") if key.endswith("_token_id")}
    assert set(keys_of(TOKENIZER_CONFIG, "irrelevant")) - numbers == set(IRRELEVANT)
    folder = edited(bases(family)[0], tmp_path / "set", CONFIG, **IRRELEVANT)
    assert equal(reference(folder), bases(family)[1])
    assert equal(vectors_of(folder), bases(family)[1])
    spaces = [describe(str(path)).space for path in (folder, bases(family)[0])]
    assert spaces[0].tokenizer == spaces[1].tokenizer
