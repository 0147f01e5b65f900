"""Clients without their libraries, and embedlake without its clients."""

from __future__ import annotations

import subprocess
import sys

import pytest

from embedlake.extras import installing

WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {library!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
try:
    import {module}
except ModuleNotFoundError as error:
    print(error)
"""


def in_python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [
        ("embedlake.langchain", "langchain_core", "langchain"),
        ("embedlake.llama_index", "llama_index", "llama-index"),
    ],
)
def test_client_without_its_library_says_how_to_install_it(
    module: str, library: str, extra: str
) -> None:
    line = in_python(WITHOUT.format(module=module, library=library))
    assert line.startswith(f"this needs {library}, which the core install of embedlake leaves out")
    assert line.endswith(f"pip install 'embedlake[{extra}]'\n")


def test_import_of_another_module_that_is_missing_stays_as_python_says_it() -> None:
    with (
        pytest.raises(ModuleNotFoundError, match=r"^No module named 'nowhere_at_all'$"),
        installing(),
    ):
        import nowhere_at_all  # noqa: F401


def test_embedlake_loads_no_client() -> None:
    names = ("langchain_core", "llama_index", "lancedb", "pydantic", "zstandard")
    program = f"import sys, embedlake; print([n for n in {names!r} if n in sys.modules])"
    assert in_python(program) == "[]\n"
