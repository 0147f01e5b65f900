"""A plain model of what a user did, which says what the table must say, or may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from embedding_core.recipe import Recipe
from experiments.faults.world import Content
from experiments.machine.editions import Wording, content_of
from experiments.machine.spaces import DIMS, Spaces
from tests.driver import recipe_for

NOTHING = Content({})


class State(NamedTuple):
    """What a table has beside the rows of its files."""

    spaces: Spaces | None
    """None before there is a table."""
    n_opinions: int
    """Rows of the feedback, which are numbered."""


@dataclass(slots=True)
class Model:
    """The files, the recipe, and what the table may be after all that was done."""

    folder: Path
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Lines of the files of the source, by name."""
    wording: Wording = field(default_factory=Wording)
    chunk: Mapping[str, Any] = field(default_factory=lambda: {"max_tokens": 16})
    reuse: str = "file"
    versions: dict[str, list[Content]] = field(default_factory=dict)
    """What the table may have of each file, by URI."""
    run_recipe: Recipe | None = None
    """The recipe of the last run that ended, if no run was killed since: then each file has but
    one version, and ledger and rejects say what it says."""
    state: State = field(default_factory=lambda: State(None, 0))
    n_rows: int = 0
    unfilled: Mapping[int, int] = field(default_factory=dict)
    """Rows that lack a vector, by the space that is not in service."""
    n_edits: int = 0
    """Changes of files and of the recipe since the last run."""

    @property
    def source(self) -> Path:
        """The folder of the files."""
        return self.folder / "src"

    @property
    def recipe(self) -> Recipe:
        """The recipe as it is now."""
        return recipe_for(
            self.folder,
            source=self.wording.source(),
            chunk=self.chunk,
            model={"dim": DIMS[0]},
            reuse=self.reuse,
            release={"follow": True},
            maintain={"small_fragments": 6},
            max_rejected_share=1.0,
            max_removed_share=1.0,
        )

    @property
    def spaces(self) -> Spaces:
        """The spaces of a table that there is."""
        assert self.state.spaces is not None
        return self.state.spaces

    def write(self, name: str, lines: tuple[str, ...]) -> None:
        """Write a file."""
        (self.source / name).write_text("".join(line + "\n" for line in lines))
        self.files[name] = lines
        self.n_edits += 1

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.source / name).unlink()
        del self.files[name]
        self.n_edits += 1

    def edit(
        self,
        wording: Wording | None = None,
        chunk: Mapping[str, Any] | None = None,
        reuse: str | None = None,
    ) -> None:
        """Change some of the recipe."""
        self.wording, self.chunk = wording or self.wording, chunk or self.chunk
        self.reuse = reuse or self.reuse
        self.n_edits += 1

    def run_ended(self, is_done: bool) -> None:
        """A run was done, and the table says what the files say; or it was refused."""
        self.n_edits = 0
        if is_done:
            self.versions = {uri: [content] for uri, content in self._contents().items()}
            self.run_recipe = self.recipe

    def run_was_killed(self) -> None:
        """Each file may be as it was, or as it is now."""
        contents = self._contents()
        for uri in contents.keys() | self.versions.keys():
            versions = self.versions.setdefault(uri, [NOTHING])
            versions.append(contents.get(uri, NOTHING))
        self.run_recipe, self.n_edits = None, 0

    def _contents(self) -> dict[str, Content]:
        return {
            str(self.source / name): content_of(lines, self.wording)
            for name, lines in self.files.items()
        }
