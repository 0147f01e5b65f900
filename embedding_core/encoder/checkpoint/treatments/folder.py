"""Files of a checkpoint's folder."""

from __future__ import annotations

from embedding_core.encoder.checkpoint.treatments.rule import Rules, honoured, irrelevant, refused

FILES: Rules = (
    honoured(
        "read for all that is in the tables below",
        "config.json tokenizer.json tokenizer_config.json modules.json "
        "config_sentence_transformers.json sentence_bert_config.json sentence_roberta_config.json "
        "sentence_distilbert_config.json sentence_camembert_config.json "
        "sentence_albert_config.json sentence_xlm-roberta_config.json sentence_xlnet_config.json "
        "1_Pooling/config.json 2_Dense/config.json 2_Normalize/config.json",
    ),
    honoured("the weights, of the model and of Dense modules", "model.safetensors"),
    honoured("names the weight files", "model.safetensors.index.json"),
    honoured(
        "transformers' tokenizer class reads them where tokenizer_config.json lists no tokens",
        "special_tokens_map.json added_tokens.json",
    ),
    irrelevant(
        "tokenizer.json holds the same; a checkpoint without it is refused",
        "vocab.txt vocab.json merges.txt tokenizer.model spiece.model sentencepiece.bpe.model",
    ),
    irrelevant(
        "for messages; a model that takes messages is refused (modality_config)",
        "chat_template.jinja chat_template.json",
    ),
    irrelevant("nothing is generated", "generation_config.json"),
    irrelevant("for people", "README.md"),
    refused("pickles can run code; safetensors are needed", "pytorch_model.bin"),
    refused("an adapter is named in model.adapter", "adapter_config.json"),
    refused(
        "a processor would stand in for the tokenizer",
        "processor_config.json preprocessor_config.json video_preprocessor_config.json",
    ),
)
"""Files of a checkpoint."""

PROCESSOR_FILES = next(rule.keys for rule in FILES if "processor_config.json" in rule.keys)
SENTENCE_FILES = tuple(key for key in FILES[0].keys if key.startswith("sentence_"))
"""Names of one file, in the order in which sentence-transformers looks for it."""
