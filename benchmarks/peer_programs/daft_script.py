"""Daft: read everything, embed everything, overwrite. It keeps no state between runs."""

import sys
from pathlib import Path

import daft
from daft import DataType, Series, col


@daft.cls
class Embedder:
    """The model, once per worker."""

    def __init__(self, model_folder: str) -> None:
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(model_folder, device="cpu")

    @daft.method.batch(return_dtype=DataType.embedding(DataType.float32(), 384))
    def embed(self, texts: Series) -> list:
        """Unit vectors."""
        return list(self.model.encode(texts.to_pylist(), normalize_embeddings=True))


@daft.func
def name_of(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]


def main(corpus: Path, lake: Path, model_folder: str) -> None:
    """One pass over all files."""
    lake.mkdir(parents=True, exist_ok=True)
    embedder = Embedder(model_folder)
    (
        daft.read_json(str(corpus / "*.jsonl"), file_path_column="path")
        .select(col("id").alias("doc_id"), name_of(col("path")).alias("source"), col("text"))
        .with_column("vector", embedder.embed(col("text")))
        .write_lance(str(lake / "docs.lance"), mode="overwrite")
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
