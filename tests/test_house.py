"""Rules that no linter has: modules of a size; in tests no private name and no sleep."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.house import MOST_LINES, broken_rules_of_tests, long_modules, modules

CODE = """
_loaded = {}

class Lake:
    def __init__(self):
        self._open = True

    def _repr_html_(self):
        return ""

def _commit():
    pass
"""


def problems(folder: Path, test: str) -> list[str]:
    """What the rules say of a test of ``CODE``."""
    for package, text in (("code", CODE), ("tests", test)):
        (folder / package).mkdir()
        (folder / package / "module.py").write_text(text)
    return list(broken_rules_of_tests(modules(folder, ["tests"]), modules(folder, ["code"])))


@pytest.mark.parametrize(
    ("test", "name"),
    [
        ("from code.module import _commit", "_commit"),
        ("module._commit()", "_commit"),
        ("monkeypatch.setattr(module, '_loaded', {})", "_loaded"),
        ("monkeypatch.setattr('code.module._loaded', {})", "_loaded"),
        ("assert lake._open", "_open"),
    ],
)
def test_private_name_in_a_test_is_named_with_its_line(
    tmp_path: Path, test: str, name: str
) -> None:
    (problem,) = problems(tmp_path, f"\n{test}\n")
    assert problem.startswith(f"tests/module.py:2: {name} is private")


@pytest.mark.parametrize(
    "test",
    [
        "from torch._subclasses import fake_tensor",
        "weights = module._parameters",
        "page = lake._repr_html_()",
        "_commit = 1",
        "class Fake:\n    def __init__(self):\n        self._open = False",
        "time.sleep(0.05)",
        "code = 'import time; time.sleep(600)'",
    ],
)
def test_names_of_others_and_short_waits_are_let_pass(tmp_path: Path, test: str) -> None:
    assert problems(tmp_path, test) == []


@pytest.mark.parametrize("test", ["time.sleep(2)", "sleep(1.0)"])
def test_sleep_of_a_second_is_named(tmp_path: Path, test: str) -> None:
    (problem,) = problems(tmp_path, test)
    assert "wait for what happens" in problem


def test_module_that_is_too_long_is_named(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    for name, n_lines in (("long", MOST_LINES + 1), ("short", MOST_LINES)):
        (tmp_path / "code" / f"{name}.py").write_text("pass\n" * n_lines)
    (problem,) = long_modules(modules(tmp_path, ["code"]))
    assert problem.startswith(f"code/long.py: {MOST_LINES + 1} lines")
