"""Settings of the files that sentence-transformers reads, and of its modules."""

from __future__ import annotations

from embedding_core.encoder.checkpoint.treatments.rule import Rules, honoured, irrelevant, refused

_HUB = "token cache_dir revision subfolder local_files_only trust_remote_code code_revision"
_HUB_WHY = "sentence-transformers sets it at loading"

SENTENCE_CONFIG: Rules = (
    honoured("the longest input", "max_seq_length"),
    honoured("see the tables below", "processor_kwargs tokenizer_args"),
    honoured("see the tables below", "model_kwargs model_args config_kwargs config_args"),
    honoured("texts are lowered before all else", "do_lower_case"),
    refused("another task than embedding", "transformer_task", "feature-extraction"),
    refused("states that Pooling does not read", "module_output_name", "token_embeddings", None),
    refused("each text is run as one text", "processing_kwargs", {}, None),
    refused(
        "queries and documents are treated alike",
        "query_length document_length query_expansion",
        None,
    ),
    refused("the checkpoint's own tokenizer is used", "tokenizer_name_or_path", None),
    honoured(
        "must be of texts alone, to their last hidden states: with messages every text would be "
        "put into the chat template",
        "modality_config",
    ),
    irrelevant("speed alone", "unpad_inputs backend"),
)
"""Settings of sentence_bert_config.json, or one of its older names."""

PROCESSOR_KWARGS: Rules = (
    honoured("the longest input", "model_max_length"),
    irrelevant(_HUB_WHY, _HUB),
    irrelevant("fast tokenizers, padding never seen", "use_fast padding_side padding"),
)
"""Settings of ``processor_kwargs``, once called ``tokenizer_args``."""

MODEL_KWARGS: Rules = (
    irrelevant(_HUB_WHY, _HUB),
    irrelevant("the recipe's model.dtype decides", "dtype torch_dtype"),
    irrelevant(
        "how the weights are loaded and run, not what they are",
        "attn_implementation device_map low_cpu_mem_usage use_safetensors max_memory "
        "offload_folder use_cache",
    ),
)
"""Settings of ``model_kwargs``, once called ``model_args``."""

CONFIG_KWARGS: Rules = (
    irrelevant(_HUB_WHY, _HUB),
    irrelevant("nothing is generated", "use_cache"),
)
"""Settings of ``config_kwargs``, once called ``config_args``."""

SENTENCE_TRANSFORMERS_CONFIG: Rules = (
    honoured("the query prompt and the document prompt", "prompts"),
    honoured("values of a vector, unless the recipe wants fewer", "truncate_dim"),
    refused("another kind of model", "model_type", "SentenceTransformer", None),
    irrelevant("queries and documents have separate prompts", "default_prompt_name"),
    irrelevant("vectors are of unit length, which ranks alike by each", "similarity_fn_name"),
    irrelevant("says who made the file", "__version__ requirements"),
)
"""Settings of config_sentence_transformers.json."""

MODULE: Rules = (
    honoured("what to run, and in which folder", "type path name"),
    irrelevant("the order of the list counts", "idx"),
    refused("no call takes arguments", "kwargs", None),
)
"""Settings of each module in modules.json."""

POOLING: Rules = (
    honoured(
        "mean, cls or last token",
        "pooling_mode pooling_mode_mean_tokens pooling_mode_cls_token pooling_mode_lasttoken "
        "pooling_mode_max_tokens pooling_mode_mean_sqrt_len_tokens "
        "pooling_mode_weightedmean_tokens",
    ),
    refused("prompts are pooled with the text", "include_prompt", True),
    irrelevant("the model says it", "word_embedding_dimension embedding_dimension"),
)
"""Settings of a Pooling module."""

DENSE: Rules = (
    honoured("the layer", "in_features out_features bias"),
    refused(
        "supported: Tanh and Identity of torch.nn.modules",
        "activation_function",
        "torch.nn.modules.activation.Tanh",
        "torch.nn.modules.linear.Identity",
    ),
    refused("the layer alone is run", "use_residual", False),
    refused("a Dense module reads the vector", "module_input_name", "sentence_embedding"),
    refused("a Dense module gives the vector", "module_output_name", "sentence_embedding", None),
)
"""Settings of a Dense module."""

NORMALIZE: Rules = (
    refused("the vector is normalised", "module_input_name", "sentence_embedding"),
    refused("the vector is normalised", "module_output_name", "sentence_embedding", None),
)
"""Settings of a Normalize module."""
