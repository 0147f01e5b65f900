"""How embedlake treats each setting that transformers and sentence-transformers read.

A setting is honoured, or it changes no vector, or a checkpoint that sets it is refused by its name.
A key that is not in these tables is refused: it could decide vectors. docs/checkpoints.md shows the
tables; the tests hold each row against sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embedding_core.errors import ModelError

Treatment = Literal["honoured", "irrelevant", "refused"]


@dataclass(frozen=True, slots=True)
class Rule:
    """How settings of a file are treated."""

    treatment: Treatment
    keys: tuple[str, ...]
    why: str
    accepted: tuple[object, ...] = ()
    """Values of a refused setting that ask for nothing unusual, alone or in a list."""

    def accepts(self, value: object) -> bool:
        """Whether a checkpoint may have this value."""
        if self.treatment != "refused":
            return True
        values = value if isinstance(value, list) else [value]
        accepted = [(type(usual), usual) for usual in self.accepted]  # 1 is not True
        return all((type(member), member) in accepted for member in values)


Rules = tuple[Rule, ...]


def offence(settings: Mapping[str, Any], rules: Iterable[Rule]) -> str | None:
    """The first of these settings that is not honoured, and why; None when all are."""
    by_key = {key: rule for rule in rules for key in rule.keys}
    for key, value in settings.items():
        rule = by_key.get(key)
        if rule is None and value is not None:
            return f"sets {key} to {_shown(value)}, a setting that is not known"
        if rule is not None and not rule.accepts(value):
            return f"sets {key} to {_shown(value)}, {rule.why}"
    return None


def refuse_others(settings: Mapping[str, Any], rules: Iterable[Rule], file: Path | str) -> None:
    """Raise ``ModelError`` that names a setting of ``file`` that is not honoured."""
    why = offence(settings, rules)
    if why is not None:
        raise ModelError(
            f"{file} {why}. Remove it if the model was trained without it, or use another model"
        )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _honoured(why: str, keys: str) -> Rule:
    return Rule("honoured", tuple(keys.split()), why)


def _irrelevant(why: str, keys: str) -> Rule:
    return Rule("irrelevant", tuple(keys.split()), why)


def _refused(why: str, keys: str, *accepted: object) -> Rule:
    return Rule("refused", tuple(keys.split()), why, accepted)


_UNTESTED = "which is not verified"

FILES: Rules = (
    _honoured(
        "read for all that is in the tables below",
        "config.json tokenizer.json tokenizer_config.json modules.json "
        "config_sentence_transformers.json sentence_bert_config.json sentence_roberta_config.json "
        "sentence_distilbert_config.json sentence_camembert_config.json "
        "sentence_albert_config.json sentence_xlm-roberta_config.json sentence_xlnet_config.json "
        "1_Pooling/config.json 2_Dense/config.json 2_Normalize/config.json",
    ),
    _honoured("the weights, of the model and of Dense modules", "model.safetensors"),
    _honoured("names the weight files", "model.safetensors.index.json"),
    _honoured(
        "transformers' tokenizer class reads them where tokenizer_config.json lists no tokens",
        "special_tokens_map.json added_tokens.json",
    ),
    _irrelevant(
        "tokenizer.json holds the same; a checkpoint without it is refused",
        "vocab.txt vocab.json merges.txt tokenizer.model spiece.model sentencepiece.bpe.model",
    ),
    _irrelevant(
        "for messages; a model that takes messages is refused (modality_config)",
        "chat_template.jinja chat_template.json",
    ),
    _irrelevant("nothing is generated", "generation_config.json"),
    _irrelevant("for people", "README.md"),
    _refused("pickles can run code; safetensors are needed", "pytorch_model.bin"),
    _refused("an adapter is named in model.adapter", "adapter_config.json"),
    _refused(
        "a processor would stand in for the tokenizer",
        "processor_config.json preprocessor_config.json video_preprocessor_config.json",
    ),
)
"""Files of a checkpoint."""

PROCESSOR_FILES = next(rule.keys for rule in FILES if "processor_config.json" in rule.keys)
SENTENCE_FILES = tuple(key for key in FILES[0].keys if key.startswith("sentence_"))
"""Names of one file, in the order in which sentence-transformers looks for it."""

_AS_DECODER = "is_decoder add_cross_attention"

CONFIG: Rules = (
    _honoured("picks the family", "model_type"),
    _honoured("where tokenizer_config.json names no class", "tokenizer_class"),
    _refused("code of a checkpoint's own is never run", "auto_map"),
    _refused("a model that is both encoder and decoder", "is_encoder_decoder", False, None),
    _refused(
        f"{_UNTESTED}: weights are read in full precision",
        "quantization_config compression_config",
        None,
    ),
    _refused("a processor would stand in for the tokenizer", "processor_class", None),
    _refused(f"{_UNTESTED}: the attention used here gives none", "output_attentions", False, None),
    _refused(f"{_UNTESTED}: heads would be cut off", "pruned_heads", {}, None),
    _refused(f"{_UNTESTED}: some lengths would fail", "chunk_size_feed_forward", 0, None),
    _irrelevant(
        "says who made the file, and how",
        "architectures transformers_version _name_or_path name_or_path _commit_hash model_name "
        "adapters unsloth_fixed unsloth_version matryoshka_dimensions "
        "sbert_ce_default_activation_function sentence_transformers",
    ),
    _irrelevant("the recipe's model.dtype decides", "torch_dtype dtype use_bfloat16"),
    _irrelevant(
        "embedlake has its own attention",
        "attn_implementation _attn_implementation _attn_implementation_autoset "
        "_attn_implementation_internal _experts_implementation experts_implementation "
        "reference_compile deterministic_flash_attn repad_logits_with_grad",
    ),
    _irrelevant(
        "for training alone",
        "initializer_range initializer_factor initializer_cutoff_factor gradient_checkpointing "
        "hidden_dropout_prob attention_probs_dropout_prob attention_dropout dropout "
        "embedding_dropout mlp_dropout hidden_dropout classifier_dropout qa_dropout "
        "seq_classif_dropout summary_first_dropout layerdrop",
    ),
    _irrelevant(
        "belongs to a head or pooler that makes no embedding",
        "classifier_activation classifier_bias classifier_pooling decoder_bias sparse_prediction "
        "sparse_pred_ignore_index id2label label2id num_labels _num_labels problem_type "
        "finetuning_task task_specific_params tie_word_embeddings tie_encoder_decoder "
        "tie_weights_ tied_weights "
        "pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head "
        "pooler_type directionality final_logit_softcapping use_pooler emb_pooler",
    ),
    _irrelevant(
        "numbers of tokens; the tokenizer's files say which tokens go around a text",
        "bos_token_id eos_token_id eos_token_ids cls_token_id sep_token_id mask_token_id "
        "decoder_start_token_id boi_token_index eoi_token_index image_token_index eoi_token_id "
        "boi_token_id",
    ),
    _irrelevant(
        "nothing is generated",
        "use_cache cache_implementation max_length min_length max_new_tokens do_sample "
        "early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p "
        "typical_p repetition_penalty length_penalty no_repeat_ngram_size "
        "encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores "
        "return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values "
        "exponential_decay_length_penalty suppress_tokens begin_suppress_tokens prefix "
        "output_past cross_attention_hidden_size",
    ),
    _irrelevant(
        "the form of what the model gives, not what it computes",
        "output_hidden_states return_dict torchscript tf_legacy_loss pretraining_tp",
    ),
)
"""Settings of config.json, for all families."""

_SIZES = "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size"
_SIZES_WHY = "transformers' model is built by it"
_PADDING_WHY = "numbers a token that no text has, and is never read"
_ROPE_KEYS = "rope_parameters rope_scaling rope_theta"

_BERT: Rules = (
    _honoured(
        _SIZES_WHY,
        f"{_SIZES} hidden_act max_position_embeddings type_vocab_size layer_norm_eps",
    ),
    _refused(_UNTESTED, "embedding_size"),
    _refused(_UNTESTED, "position_embedding_type", "absolute", None),
    _refused(f"{_UNTESTED}: the model would be a decoder", _AS_DECODER, False, None),
)
_ROBERTA: Rules = (
    *_BERT,
    _honoured("positions count from it: the first token has the next number", "pad_token_id"),
)
_DECODER: Rules = (
    _honoured(
        _SIZES_WHY,
        f"{_SIZES} num_key_value_heads head_dim max_position_embeddings rms_norm_eps",
    ),
    _honoured("which kinds are accepted: see rope_type", _ROPE_KEYS),
    _refused(_UNTESTED, "partial_rotary_factor", 1, 1.0, None),
    _refused(f"{_UNTESTED}: a token would see what stands after it", "is_causal", True),
    _irrelevant(_PADDING_WHY, "pad_token_id"),
)
_ONE_WAY = _refused(
    f"{_UNTESTED}: a token would see what stands after it",
    "use_bidirectional_attention",
    False,
    None,
)
_QWEN: Rules = (
    *_DECODER,
    _ONE_WAY,
    _honoured(_SIZES_WHY, "hidden_act"),
    _refused(_UNTESTED, "use_sliding_window use_mrope", False, None),
    _refused(_UNTESTED, "layer_types", "full_attention", None),
    _irrelevant("use_sliding_window is false", "sliding_window max_window_layers"),
)
_NO_BIAS = _refused(
    "which transformers' model does not have", "attention_bias mlp_bias", False, None
)

FAMILY_CONFIG: Mapping[str, Rules] = {
    "bert": (*_BERT, _irrelevant(_PADDING_WHY, "pad_token_id")),
    "distilbert": (
        _honoured(
            _SIZES_WHY,
            "vocab_size dim n_layers n_heads hidden_dim activation max_position_embeddings",
        ),
        _refused(
            "another name of dim, n_layers or n_heads; use one name",
            "hidden_size num_hidden_layers num_attention_heads",
        ),
        _irrelevant("the weights hold the positions", "sinusoidal_pos_embds"),
        _irrelevant(_PADDING_WHY, "pad_token_id"),
    ),
    "gemma3_text": (
        *_DECODER,
        _honoured(
            _SIZES_WHY,
            "hidden_activation attention_bias query_pre_attn_scalar rope_local_base_freq",
        ),
        _honoured(
            "what a token sees",
            "use_bidirectional_attention sliding_window layer_types sliding_window_pattern",
        ),
        _irrelevant("layer_types says it", "_sliding_window_pattern"),
        _refused(_UNTESTED, "attn_logit_softcapping", None),
    ),
    "llama": (
        *_DECODER,
        _ONE_WAY,
        _honoured(_SIZES_WHY, "hidden_act attention_bias mlp_bias"),
        _refused("which transformers' model does not have", "sliding_window layer_types", None),
    ),
    "mistral": (
        *_DECODER,
        _ONE_WAY,
        _NO_BIAS,
        _honoured(_SIZES_WHY, "hidden_act"),
        _honoured("what a token sees", "sliding_window"),
        _refused("which transformers' model does not have", "layer_types", None),
    ),
    "modernbert": (
        _honoured(
            _SIZES_WHY,
            f"{_SIZES} hidden_activation max_position_embeddings norm_eps norm_bias "
            "attention_bias mlp_bias rope_parameters global_rope_theta local_rope_theta",
        ),
        _honoured("what a token sees", "layer_types local_attention global_attn_every_n_layers"),
        _refused(
            "which transformers' model reads for its rotary positions alone", "head_dim", None
        ),
        _irrelevant("transformers' model has rotary positions", "position_embedding_type"),
        _refused("another name of local_attention; use that", "sliding_window"),
        _irrelevant("norm_eps says it", "layer_norm_eps"),
        _irrelevant(_PADDING_WHY, "pad_token_id"),
    ),
    "mpnet": (
        _honoured(
            _SIZES_WHY,
            f"{_SIZES} hidden_act max_position_embeddings layer_norm_eps",
        ),
        _refused("transformers' model counts 32", "relative_attention_num_buckets", 32, None),
        _irrelevant("positions count from 2 whatever it says", "pad_token_id"),
        _irrelevant("transformers' model has no token types", "type_vocab_size"),
        _refused(_UNTESTED, "embedding_size"),
        _refused(_UNTESTED, "position_embedding_type", "absolute", None),
        _refused(f"{_UNTESTED}: the model would be a decoder", _AS_DECODER, False, None),
    ),
    "qwen2": (*_QWEN, _NO_BIAS),
    "qwen3": (
        *_QWEN,
        _honoured(_SIZES_WHY, "attention_bias"),
        _refused("which transformers' model does not have", "mlp_bias", False, None),
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
"""Settings of config.json beside ``CONFIG``, by ``model_type``: all that transformers' model of
the family reads, and all that only embedlake's own code could misread."""


def config_rules(model_type: str) -> Rules:
    """Rules for all of config.json; settings that only other families read change nothing."""
    rules = (*CONFIG, *FAMILY_CONFIG[model_type])
    read = {key for rule in rules for key in rule.keys}
    others = {key for table in FAMILY_CONFIG.values() for rule in table for key in rule.keys}
    why = "read by models of other families"
    return (*rules, Rule("irrelevant", tuple(sorted(others - read)), why))


ROPE: Rules = (
    _refused(
        "which makes a vector depend on others",
        "rope_type type",
        "default",
        "linear",
        "yarn",
        "llama3",
        None,
    ),
    _honoured(
        "transformers' model is built by it",
        "rope_theta factor attention_factor beta_fast beta_slow mscale mscale_all_dim truncate "
        "low_freq_factor high_freq_factor original_max_position_embeddings",
    ),
    _refused(_UNTESTED, "partial_rotary_factor", 1, 1.0, None),
)
"""Settings of rope_parameters and rope_scaling, or of each kind of layer in them."""

TOKENIZER_CONFIG: Rules = (
    _honoured("picks the class that reads tokenizer.json", "tokenizer_class"),
    _honoured(
        "that class applies it",
        "do_lower_case strip_accents tokenize_chinese_chars add_prefix_space trim_offsets legacy "
        "bos_token eos_token unk_token sep_token pad_token cls_token mask_token "
        "additional_special_tokens extra_special_tokens model_specific_special_tokens "
        "added_tokens_decoder fix_mistral_regex image_token boi_token eoi_token audio_token "
        "boa_token eoa_token video_token vision_bos_token vision_eos_token",
    ),
    _honoured("the longest input, if nothing else says it", "model_max_length max_len"),
    _honoured("the end token is appended, once, if tokenizer.json does not", "add_eos_token"),
    _refused("the end of a long text is cut off, not its start", "truncation_side", "right", None),
    _refused("code of a checkpoint's own is never run", "auto_map", None),
    _refused("code of a checkpoint's own is never run", "trust_remote_code", False, None),
    _refused("tokenizer.json is read, and no other", "fast_tokenizer_files", None),
    _refused("a processor would stand in for the tokenizer", "processor_class", None),
    _refused("settings are read by their names", "init_inputs", None),
    _refused(
        "padding must be hidden from the model",
        "model_input_names",
        "input_ids",
        "token_type_ids",
        "attention_mask",
        None,
    ),
    _irrelevant("transformers passes over it where tokenizer.json is", "add_bos_token"),
    _irrelevant("control tokens in a text are always read as characters", "split_special_tokens"),
    _irrelevant(
        "padding is never seen by a text",
        "padding_side pad_to_multiple_of pad_token_type_id padding",
    ),
    _irrelevant(
        "given with each call by sentence-transformers",
        "max_length stride truncation truncation_strategy return_token_type_ids",
    ),
    _irrelevant(
        "for texts made of ids",
        "clean_up_tokenization_spaces errors spaces_between_special_tokens skip_special_tokens",
    ),
    _irrelevant(
        "for messages; a model that takes messages is refused (modality_config)",
        "chat_template use_default_system_prompt response_template response_schema "
        "chat_control_tokens",
    ),
    _irrelevant(
        "read by tokenizers in Python, which transformers 5 does not use for these families",
        "do_basic_tokenize never_split sp_model_kwargs use_fast from_slow add_dummy_prefix_space "
        "keep_accents wordpieces_prefix do_normalize bos_token_id eos_token_id pad_token_id "
        "unk_token_id sep_token_id cls_token_id mask_token_id",
    ),
    _irrelevant(
        "says where the tokenizer came from",
        "name_or_path special_tokens_map_file tokenizer_file vocab_file merges_file "
        "added_tokens_file backend is_local local_files_only verbose device_map "
        "transformers_version _commit_hash unsloth_version",
    ),
)
"""Settings of tokenizer_config.json. Any other key that names a token (``…_token``) is honoured."""

_HUB = "token cache_dir revision subfolder local_files_only trust_remote_code code_revision"
_HUB_WHY = "sentence-transformers sets it at loading"

SENTENCE_CONFIG: Rules = (
    _honoured("the longest input", "max_seq_length"),
    _honoured("see the tables below", "processor_kwargs tokenizer_args"),
    _honoured("see the tables below", "model_kwargs model_args config_kwargs config_args"),
    _honoured("texts are lowered before all else", "do_lower_case"),
    _refused("another task than embedding", "transformer_task", "feature-extraction"),
    _refused("states that Pooling does not read", "module_output_name", "token_embeddings", None),
    _refused("each text is run as one text", "processing_kwargs", {}, None),
    _refused(
        "queries and documents are treated alike",
        "query_length document_length query_expansion",
        None,
    ),
    _refused("the checkpoint's own tokenizer is used", "tokenizer_name_or_path", None),
    _honoured(
        "must be of texts alone, to their last hidden states: with messages every text would be "
        "put into the chat template",
        "modality_config",
    ),
    _irrelevant("speed alone", "unpad_inputs backend"),
)
"""Settings of sentence_bert_config.json, or one of its older names."""

PROCESSOR_KWARGS: Rules = (
    _honoured("the longest input", "model_max_length"),
    _irrelevant(_HUB_WHY, _HUB),
    _irrelevant("fast tokenizers, padding never seen", "use_fast padding_side padding"),
)
"""Settings of ``processor_kwargs``, once called ``tokenizer_args``."""

MODEL_KWARGS: Rules = (
    _irrelevant(_HUB_WHY, _HUB),
    _irrelevant("the recipe's model.dtype decides", "dtype torch_dtype"),
    _irrelevant(
        "how the weights are loaded and run, not what they are",
        "attn_implementation device_map low_cpu_mem_usage use_safetensors max_memory "
        "offload_folder use_cache",
    ),
)
"""Settings of ``model_kwargs``, once called ``model_args``."""

CONFIG_KWARGS: Rules = (
    _irrelevant(_HUB_WHY, _HUB),
    _irrelevant("nothing is generated", "use_cache"),
)
"""Settings of ``config_kwargs``, once called ``config_args``."""

SENTENCE_TRANSFORMERS_CONFIG: Rules = (
    _honoured("the query prompt and the document prompt", "prompts"),
    _honoured("values of a vector, unless the recipe wants fewer", "truncate_dim"),
    _refused("another kind of model", "model_type", "SentenceTransformer", None),
    _irrelevant("queries and documents have separate prompts", "default_prompt_name"),
    _irrelevant("vectors are of unit length, which ranks alike by each", "similarity_fn_name"),
    _irrelevant("says who made the file", "__version__ requirements"),
)
"""Settings of config_sentence_transformers.json."""

MODULE: Rules = (
    _honoured("what to run, and in which folder", "type path name"),
    _irrelevant("the order of the list counts", "idx"),
    _refused("no call takes arguments", "kwargs", None),
)
"""Settings of each module in modules.json."""

POOLING: Rules = (
    _honoured(
        "mean, cls or last token",
        "pooling_mode pooling_mode_mean_tokens pooling_mode_cls_token pooling_mode_lasttoken "
        "pooling_mode_max_tokens pooling_mode_mean_sqrt_len_tokens "
        "pooling_mode_weightedmean_tokens",
    ),
    _refused("prompts are pooled with the text", "include_prompt", True),
    _irrelevant("the model says it", "word_embedding_dimension embedding_dimension"),
)
"""Settings of a Pooling module."""

DENSE: Rules = (
    _honoured("the layer", "in_features out_features bias"),
    _refused(
        "supported: Tanh and Identity of torch.nn.modules",
        "activation_function",
        "torch.nn.modules.activation.Tanh",
        "torch.nn.modules.linear.Identity",
    ),
    _refused("the layer alone is run", "use_residual", False),
    _refused("a Dense module reads the vector", "module_input_name", "sentence_embedding"),
    _refused("a Dense module gives the vector", "module_output_name", "sentence_embedding", None),
)
"""Settings of a Dense module."""

NORMALIZE: Rules = (
    _refused("the vector is normalised", "module_input_name", "sentence_embedding"),
    _refused("the vector is normalised", "module_output_name", "sentence_embedding", None),
)
"""Settings of a Normalize module."""

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
