"""Settings of config.json, those of every family and those of each."""

from __future__ import annotations

from collections.abc import Mapping

from embedding_core.encoder.checkpoint.treatments.rule import (
    UNTESTED,
    Rule,
    Rules,
    honoured,
    irrelevant,
    refused,
)

_AS_DECODER = "is_decoder add_cross_attention"

CONFIG: Rules = (
    honoured("picks the family", "model_type"),
    honoured("where tokenizer_config.json names no class", "tokenizer_class"),
    refused("code of a checkpoint's own is never run", "auto_map"),
    refused("a model that is both encoder and decoder", "is_encoder_decoder", False, None),
    refused(
        f"{UNTESTED}: weights are read in full precision",
        "quantization_config compression_config",
        None,
    ),
    refused("a processor would stand in for the tokenizer", "processor_class", None),
    refused(f"{UNTESTED}: the attention used here gives none", "output_attentions", False, None),
    refused(f"{UNTESTED}: heads would be cut off", "pruned_heads", {}, None),
    refused(f"{UNTESTED}: some lengths would fail", "chunk_size_feed_forward", 0, None),
    irrelevant(
        "says who made the file, and how",
        "architectures transformers_version _name_or_path name_or_path _commit_hash model_name "
        "adapters unsloth_fixed unsloth_version matryoshka_dimensions "
        "sbert_ce_default_activation_function sentence_transformers",
    ),
    irrelevant("the recipe's model.dtype decides", "torch_dtype dtype use_bfloat16"),
    irrelevant(
        "embedlake has its own attention",
        "attn_implementation _attn_implementation _attn_implementation_autoset "
        "_attn_implementation_internal _experts_implementation experts_implementation "
        "reference_compile deterministic_flash_attn repad_logits_with_grad",
    ),
    irrelevant(
        "for training alone",
        "initializer_range initializer_factor initializer_cutoff_factor gradient_checkpointing "
        "hidden_dropout_prob attention_probs_dropout_prob attention_dropout dropout "
        "embedding_dropout mlp_dropout hidden_dropout classifier_dropout qa_dropout "
        "seq_classif_dropout summary_first_dropout layerdrop",
    ),
    irrelevant(
        "belongs to a head or pooler that makes no embedding",
        "classifier_activation classifier_bias classifier_pooling decoder_bias sparse_prediction "
        "sparse_pred_ignore_index id2label label2id num_labels _num_labels problem_type "
        "finetuning_task task_specific_params tie_word_embeddings tie_encoder_decoder "
        "tie_weights_ tied_weights "
        "pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head "
        "pooler_type directionality final_logit_softcapping use_pooler emb_pooler",
    ),
    irrelevant(
        "numbers of tokens; the tokenizer's files say which tokens go around a text",
        "bos_token_id eos_token_id eos_token_ids cls_token_id sep_token_id mask_token_id "
        "decoder_start_token_id boi_token_index eoi_token_index image_token_index eoi_token_id "
        "boi_token_id",
    ),
    irrelevant(
        "nothing is generated",
        "use_cache cache_implementation max_length min_length max_new_tokens do_sample "
        "early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p "
        "typical_p repetition_penalty length_penalty no_repeat_ngram_size "
        "encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores "
        "return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values "
        "exponential_decay_length_penalty suppress_tokens begin_suppress_tokens prefix "
        "output_past cross_attention_hidden_size",
    ),
    irrelevant(
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
    honoured(
        _SIZES_WHY,
        f"{_SIZES} hidden_act max_position_embeddings type_vocab_size layer_norm_eps",
    ),
    refused(UNTESTED, "embedding_size"),
    refused(UNTESTED, "position_embedding_type", "absolute", None),
    refused(f"{UNTESTED}: the model would be a decoder", _AS_DECODER, False, None),
)
_ROBERTA: Rules = (
    *_BERT,
    honoured("positions count from it: the first token has the next number", "pad_token_id"),
)
_DECODER: Rules = (
    honoured(
        _SIZES_WHY,
        f"{_SIZES} num_key_value_heads head_dim max_position_embeddings rms_norm_eps",
    ),
    honoured("which kinds are accepted: see rope_type", _ROPE_KEYS),
    refused(UNTESTED, "partial_rotary_factor", 1, 1.0, None),
    refused(f"{UNTESTED}: a token would see what stands after it", "is_causal", True),
    irrelevant(_PADDING_WHY, "pad_token_id"),
)
_ONE_WAY = refused(
    f"{UNTESTED}: a token would see what stands after it",
    "use_bidirectional_attention",
    False,
    None,
)
_QWEN: Rules = (
    *_DECODER,
    _ONE_WAY,
    honoured(_SIZES_WHY, "hidden_act"),
    refused(UNTESTED, "use_sliding_window use_mrope", False, None),
    refused(UNTESTED, "layer_types", "full_attention", None),
    irrelevant("use_sliding_window is false", "sliding_window max_window_layers"),
)
_NO_BIAS = refused(
    "which transformers' model does not have", "attention_bias mlp_bias", False, None
)

FAMILY_CONFIG: Mapping[str, Rules] = {
    "bert": (*_BERT, irrelevant(_PADDING_WHY, "pad_token_id")),
    "distilbert": (
        honoured(
            _SIZES_WHY,
            "vocab_size dim n_layers n_heads hidden_dim activation max_position_embeddings",
        ),
        refused(
            "another name of dim, n_layers or n_heads; use one name",
            "hidden_size num_hidden_layers num_attention_heads",
        ),
        irrelevant("the weights hold the positions", "sinusoidal_pos_embds"),
        irrelevant(_PADDING_WHY, "pad_token_id"),
    ),
    "gemma3_text": (
        *_DECODER,
        honoured(
            _SIZES_WHY,
            "hidden_activation attention_bias query_pre_attn_scalar rope_local_base_freq",
        ),
        honoured(
            "what a token sees",
            "use_bidirectional_attention sliding_window layer_types sliding_window_pattern",
        ),
        irrelevant("layer_types says it", "_sliding_window_pattern"),
        refused(UNTESTED, "attn_logit_softcapping", None),
    ),
    "llama": (
        *_DECODER,
        _ONE_WAY,
        honoured(_SIZES_WHY, "hidden_act attention_bias mlp_bias"),
        refused("which transformers' model does not have", "sliding_window layer_types", None),
    ),
    "mistral": (
        *_DECODER,
        _ONE_WAY,
        _NO_BIAS,
        honoured(_SIZES_WHY, "hidden_act"),
        honoured("what a token sees", "sliding_window"),
        refused("which transformers' model does not have", "layer_types", None),
    ),
    "modernbert": (
        honoured(
            _SIZES_WHY,
            f"{_SIZES} hidden_activation max_position_embeddings norm_eps norm_bias "
            "attention_bias mlp_bias rope_parameters global_rope_theta local_rope_theta",
        ),
        honoured("what a token sees", "layer_types local_attention global_attn_every_n_layers"),
        refused("which transformers' model reads for its rotary positions alone", "head_dim", None),
        irrelevant("transformers' model has rotary positions", "position_embedding_type"),
        refused("another name of local_attention; use that", "sliding_window"),
        irrelevant("norm_eps says it", "layer_norm_eps"),
        irrelevant(_PADDING_WHY, "pad_token_id"),
    ),
    "mpnet": (
        honoured(
            _SIZES_WHY,
            f"{_SIZES} hidden_act max_position_embeddings layer_norm_eps",
        ),
        refused("transformers' model counts 32", "relative_attention_num_buckets", 32, None),
        irrelevant("positions count from 2 whatever it says", "pad_token_id"),
        irrelevant("transformers' model has no token types", "type_vocab_size"),
        refused(UNTESTED, "embedding_size"),
        refused(UNTESTED, "position_embedding_type", "absolute", None),
        refused(f"{UNTESTED}: the model would be a decoder", _AS_DECODER, False, None),
    ),
    "qwen2": (*_QWEN, _NO_BIAS),
    "qwen3": (
        *_QWEN,
        honoured(_SIZES_WHY, "attention_bias"),
        refused("which transformers' model does not have", "mlp_bias", False, None),
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
    refused(
        "which makes a vector depend on others",
        "rope_type type",
        "default",
        "linear",
        "yarn",
        "llama3",
        None,
    ),
    honoured(
        "transformers' model is built by it",
        "rope_theta factor attention_factor beta_fast beta_slow mscale mscale_all_dim truncate "
        "low_freq_factor high_freq_factor original_max_position_embeddings",
    ),
    refused(UNTESTED, "partial_rotary_factor", 1, 1.0, None),
)
"""Settings of rope_parameters and rope_scaling, or of each kind of layer in them."""
