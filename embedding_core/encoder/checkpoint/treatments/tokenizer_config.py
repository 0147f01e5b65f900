"""Settings of tokenizer_config.json."""

from __future__ import annotations

from embedding_core.encoder.checkpoint.treatments.rule import Rules, honoured, irrelevant, refused

TOKENIZER_CONFIG: Rules = (
    honoured("picks the class that reads tokenizer.json", "tokenizer_class"),
    honoured(
        "that class applies it",
        "do_lower_case strip_accents tokenize_chinese_chars add_prefix_space trim_offsets legacy "
        "bos_token eos_token unk_token sep_token pad_token cls_token mask_token "
        "additional_special_tokens extra_special_tokens model_specific_special_tokens "
        "added_tokens_decoder fix_mistral_regex image_token boi_token eoi_token audio_token "
        "boa_token eoa_token video_token vision_bos_token vision_eos_token",
    ),
    honoured("the longest input, if nothing else says it", "model_max_length max_len"),
    honoured("the end token is appended, once, if tokenizer.json does not", "add_eos_token"),
    refused("the end of a long text is cut off, not its start", "truncation_side", "right", None),
    refused("code of a checkpoint's own is never run", "auto_map", None),
    refused("code of a checkpoint's own is never run", "trust_remote_code", False, None),
    refused("tokenizer.json is read, and no other", "fast_tokenizer_files", None),
    refused("a processor would stand in for the tokenizer", "processor_class", None),
    refused("settings are read by their names", "init_inputs", None),
    refused(
        "padding must be hidden from the model",
        "model_input_names",
        "input_ids",
        "token_type_ids",
        "attention_mask",
        None,
    ),
    irrelevant("transformers passes over it where tokenizer.json is", "add_bos_token"),
    irrelevant("control tokens in a text are always read as characters", "split_special_tokens"),
    irrelevant(
        "padding is never seen by a text",
        "padding_side pad_to_multiple_of pad_token_type_id padding",
    ),
    irrelevant(
        "given with each call by sentence-transformers",
        "max_length stride truncation truncation_strategy return_token_type_ids",
    ),
    irrelevant(
        "for texts made of ids",
        "clean_up_tokenization_spaces errors spaces_between_special_tokens skip_special_tokens",
    ),
    irrelevant(
        "for messages; a model that takes messages is refused (modality_config)",
        "chat_template use_default_system_prompt response_template response_schema "
        "chat_control_tokens",
    ),
    irrelevant(
        "read by tokenizers in Python, which transformers 5 does not use for these families",
        "do_basic_tokenize never_split sp_model_kwargs use_fast from_slow add_dummy_prefix_space "
        "keep_accents wordpieces_prefix do_normalize bos_token_id eos_token_id pad_token_id "
        "unk_token_id sep_token_id cls_token_id mask_token_id",
    ),
    irrelevant(
        "says where the tokenizer came from",
        "name_or_path special_tokens_map_file tokenizer_file vocab_file merges_file "
        "added_tokens_file backend is_local local_files_only verbose device_map "
        "transformers_version _commit_hash unsloth_version",
    ),
)
"""Settings of tokenizer_config.json. Any other key that names a token (``…_token``) is honoured."""
