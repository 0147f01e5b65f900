"""Small samples of five corpora, in the layouts of the real ones; the same bytes every time.

    python -m tests.corpora.samples chat try-chat     writes try-chat/data for the recipe chat.yaml

Each sample has a few records that cannot be used, as the real corpora have.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet

CHAT_SOURCES = (
    "algebra", "biology", "chess", "code", "contests", "dialogue", "essays", "facts",
    "geometry", "history", "law", "medicine", "physics", "puzzles", "safety", "tools",
)  # fmt: skip
CHAT_ROUNDS = 20
"""Conversations of each source."""
CHAT_MAX_TOKENS = 32_768
WEB_SHARDS = 99
PHRASES = {
    "en": "The river carries sand to the sea, and the sea gives some of it back.",
    "de": "Flüsse tragen Sand ins Meer; ein Teil davon kehrt zurück.",
    "ar": "يحمل النهر الرمل إلى البحر، ويعيد البحر بعضه.",
    "hi": "नदी रेत को समुद्र तक ले जाती है, और समुद्र कुछ लौटा देता है।",
    "zh": "河流把沙子带到海里，大海又送回一部分。",
    "ja": "川は砂を海へ運び、海はその一部を返す。",
    "ko": "강은 모래를 바다로 나르고 바다는 일부를 돌려준다.",
    "ru": "Река несёт песок в море, и море возвращает часть его.",
    "el": "Ο ποταμός φέρνει άμμο στη θάλασσα.",
    "he": "הנהר נושא חול אל הים, והים מחזיר חלק ממנו.",
    "th": "แม่น้ำพาทรายไปสู่ทะเล",
    "emoji": "👩‍👩‍👧 went to the 🏖️, e\u0301 and 𝒙 in hand.",
}
ARABIC = (
    "النَّهْرُ يَحْمِلُ الرَّمْلَ إِلَى الْبَحْرِ.",
    "قال الكاتب: «العلم نور»، ثم مضى.",
    "بلغ عدد السكان ١٢٬٣٤٥ نسمة في عام ٢٠٢٤.",
    "ﻻ ﺗﻨﺲ ﷲ، ﷺ.",  # letters in presentation forms, as old exports have them
    "العـــربية لغة\u200f جميلة.",
)


def write_prompts(data: Path) -> None:
    """Four ``prompt_text.jsonl`` at several depths, beside files that are something else."""
    phrases = cycle(PHRASES.values())
    for folder, first_id in {
        "": 1,
        "2025-11/run-01": 1_000,
        "2025-11/run-02/retries/b": 1_000,  # the ids of run-01 once more
        "2025-12/run-01": 9_007_199_254_740_993,  # 2**53 + 1: no float holds it
    }.items():
        prompts: list[dict[str, Any]] = [
            {"prompt_id": first_id + n, "text": f"Prompt {n} of {folder or 'all'}: {next(phrases)}"}
            for n in range(80)
        ]
        if folder == "2025-11/run-01":
            prompts[7]["text"] = None
            prompts[30]["prompt_id"] = "1030"  # a text, where a number is declared
            prompts[50]["text"] = "word " * 9_000
        write_json_lines(data / folder / "prompt_text.jsonl", prompts)
    write_json_lines(data / "2025-11/run-01/responses.jsonl", [{"prompt_id": 1000, "text": "No."}])
    write_json_lines(data / "2025-12/old_prompt_text.jsonl", [{"prompt_id": 1, "text": "Old."}])
    write_json_lines(data / "_drafts/prompt_text.jsonl", [{"prompt_id": 1, "text": "Draft."}])


def write_chat(data: Path) -> None:
    """Conversations of 16 sources, mixed, in four shards of which one is compressed."""
    conversations = [chat_record(source, n) for n in range(CHAT_ROUNDS) for source in CHAT_SOURCES]
    by_id = {record["id"]: record for record in conversations}
    # "User", ":", the prompt, the thinking and the response are words of one token each.
    by_id["code-3"]["messages"] = turns("fits", "think", "a " * (CHAT_MAX_TOKENS - 4))
    by_id["code-4"]["messages"] = turns("longer", "think", "a " * (CHAT_MAX_TOKENS - 3))
    by_id["law-9"]["messages"] = turns("longest", "b " * 20_000, "a " * 20_000)
    by_id["chess-5"]["messages"][-1]["content"] = "<think>It was cut off while it was"
    by_id["facts-6"]["messages"].append({"role": "user", "content": "And then?"})
    size = len(conversations) // 4
    for shard in range(4):
        name = f"part-{shard // 2}/chat-{shard:05}-of-00004.jsonl" + (".gz" if shard == 3 else "")
        write_json_lines(data / name, conversations[shard * size : (shard + 1) * size])


def chat_record(source: str, n: int) -> dict[str, Any]:
    """A conversation: every third has two rounds and a system, every fourth no thinking."""
    thinking = None if n % 4 == 0 else f"They ask about {source}, case {n}."
    phrase = list(PHRASES.values())[n % len(PHRASES)]
    messages = turns(f"Tell me about {source} {n}.\n{phrase}", thinking, f"{source} {n} is so.")
    if n % 3 == 0:
        before = [{"role": "system", "content": f"You know {source}."}]
        before += turns("First question", "An earlier thought.", "First answer")
        messages = before + messages
    return {"id": f"{source}-{n}", "source": source, "messages": messages}


def turns(prompt: str, thinking: str | None, response: str) -> list[dict[str, str]]:
    """A turn by the user and the answer to it, with its thinking between tags."""
    thought = "" if thinking is None else f"<think>\n{thinking.strip()}\n</think>\n\n"
    return [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": thought + response.strip()},
    ]


def write_web(data: Path) -> None:
    """A dataset as ``datasets`` saves it: 99 Arrow streams of three pages, and its JSON files."""
    for shard in range(WEB_SHARDS):
        pages = [web_page(shard, row) for row in range(3)]
        path = data / "train" / f"data-{shard:05}-of-{WEB_SHARDS:05}.arrow"
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = pa.schema(
            {"text": pa.string(), "url": pa.string(), "timestamp": pa.timestamp("s")}
        )
        with pa.ipc.new_stream(path, schema) as stream:
            stream.write_table(pa.Table.from_pylist(pages, schema), max_chunksize=2)
    shards = [{"filename": f"data-{n:05}-of-{WEB_SHARDS:05}.arrow"} for n in range(WEB_SHARDS)]
    write_json(data / "dataset_dict.json", {"splits": ["train"]})
    write_json(data / "train" / "state.json", {"_data_files": shards, "_split": "train"})
    write_json(data / "train" / "dataset_info.json", {"features": {"text": {"dtype": "string"}}})


def web_page(shard: int, row: int) -> dict[str, Any]:
    """A page: short, of one to several chunks, or empty; the last one is a copy of the first."""
    number = 0 if (shard, row) == (WEB_SHARDS - 1, 0) else 3 * shard + row
    text = "\n\n".join(islice(web_paragraphs(number), 1 + number * 7 % 40))
    crawled = datetime(2019, 4, 18) + timedelta(hours=number)
    return {
        "text": "" if (shard, row) == (42, 1) else text,
        "url": f"https://site{number % 10}.example/{number}",
        "timestamp": None if number % 50 == 3 else crawled,
    }


def web_paragraphs(number: int) -> Iterable[str]:
    """Paragraphs of a page, without an end."""
    for n, phrase in enumerate(cycle([*PHRASES.values()][:2])):
        yield f"Page {number}, paragraph {n}. " + " ".join([phrase] * (1 + (number + n) % 4))


def write_encyclopedia(data: Path) -> None:
    """Articles in several scripts, a folder per language; lengths around 400 characters."""
    lengths = (1, 399, 400, 401, 799, 800, 801, 1_234, 4_000)
    for language, n_shards in {"en": 2, "ar": 1, "hi": 1, "zh": 1, "emoji": 1}.items():
        for shard in range(n_shards):
            articles = [
                article(language, shard * len(lengths) + n, length)
                for n, length in enumerate(lengths)
            ]
            if (language, shard) == ("en", 1):
                blank = " " * 399 + "\n"  # a window of nothing but white space
                articles[4]["text"] = articles[3]["text"][:400] + blank + "The end."
            path = data / f"20231101.{language}" / f"train-{shard:05}-of-{n_shards:05}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pa.parquet.write_table(pa.Table.from_pylist(articles), path, row_group_size=4)


def article(language: str, number: int, n_characters: int) -> dict[str, str]:
    """An article of exactly so many characters, with a title in its script."""
    phrase = PHRASES[language]
    title = f"{phrase.split()[0]} {number}"
    text = "".join(islice(cycle(f"{number}. {phrase}\n"), n_characters - 1)) + "."
    url = f"https://{language}.encyclopedia.example/wiki/{quote(title)}"
    return {"id": f"{12 + number:04}", "url": url, "title": title, "text": text}


def write_arabic(data: Path) -> None:
    """Files of 40 articles, one of them named in Arabic, one written with escapes."""
    for file, name in enumerate(("2023/akhbar-1", "2024/01/أخبار", "2024/02/kutub/kitab")):
        articles: list[dict[str, Any]] = [
            {"content": arabic_text(file, n), "source": "وكالة"} for n in range(40)
        ]
        if file == 0:
            articles[11] = {"source": "وكالة"}
            articles[20]["content"] = f" \n{articles[20]['content']}\n"
            articles[33]["content"] = articles[32]["content"] + " نهاية أخرى."
        write_json_lines(data / f"{name}.ndjson", articles, ensure_ascii=file == 2)
    write_json(data / "2024" / "index.json", [{"content": "فهرس"}])


def arabic_text(file: int, n: int) -> str:
    """Sentences: few, so that an article fits, and every eighth time many."""
    n_sentences = 60 if n % 8 == 0 else 1 + n % 3
    sentences = islice(cycle(ARABIC[n % 5 :] + ARABIC[: n % 5]), n_sentences)
    return f"مقال {file}/{n}: " + " ".join(sentences)


def write_json_lines(
    path: Path, records: Sequence[Mapping[str, Any]], ensure_ascii: bool = False
) -> None:
    """A record a line; compressed where the name says so, without a date in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record, ensure_ascii=ensure_ascii) + "\n" for record in records)
    content = lines.encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def write_json(path: Path, value: Any) -> None:
    """One JSON value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


SAMPLES: Mapping[str, Callable[[Path], None]] = {
    "prompts": write_prompts,
    "chat": write_chat,
    "web": write_web,
    "encyclopedia": write_encyclopedia,
    "arabic": write_arabic,
}
"""By the name of the recipe."""

if __name__ == "__main__":
    SAMPLES[sys.argv[1]](Path(sys.argv[2]) / "data")
