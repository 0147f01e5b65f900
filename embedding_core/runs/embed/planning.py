"""Plan a run: what it would do, before anything is paid for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from embedding_core.encoder.engines import describe_model
from embedding_core.errors import SetupError
from embedding_core.identity import rows_id, space_id
from embedding_core.lake import ledger
from embedding_core.lake.table import table_of
from embedding_core.plurals import counted
from embedding_core.reasons import RETRIED
from embedding_core.recipe import Recipe
from embedding_core.records import Plan, PlannedFile, SourceFile, Space
from embedding_core.runs.choosing.state import Choices, known_choices
from embedding_core.runs.cutting import Cutting, cutting_of, rules_of
from embedding_core.runs.embed.comparison import Comparison, TableState, table_state
from embedding_core.runs.embed.estimate import (
    NOTHING_SAMPLED,
    STARTING_SECONDS,
    Estimate,
    estimate,
)
from embedding_core.runs.serving import following
from embedding_core.sources import Discovery, discover
from embedding_core.store.places import place_of


def plan(recipe: Recipe, retry_reasons: Collection[str] = (), before_a_run: bool = False) -> Plan:
    """Compare the source with the table; changes nothing.

    Files of a place that nothing is downloaded from to plan, such as a hub, are sampled only
    ``before_a_run``; otherwise such a plan has no estimate.

    Files with a reject of one of ``retry_reasons``, or of one that passes by itself, are worked on
    again though they did not change. Where the recipe chooses among documents, and files have to be
    surveyed first, the plan has what is certain, and those files. Raises ``SetupError`` when the
    source, the model or the table cannot be used.
    """
    return PlanBasis.now(recipe, retry_reasons, before_a_run).plan()


@dataclass(frozen=True, slots=True)
class PlanBasis:
    """What a plan is made from: a recipe, its source and its table, as they were at one moment."""

    recipe: Recipe
    """The recipe, naming the model in service if it follows that."""
    retry_reasons: Collection[str]
    before_a_run: bool
    space: Space
    cutting: Cutting
    state: TableState
    source: Discovery
    tokens_per_second: float | None
    """Rate of earlier runs on the table."""
    choices: Choices
    """Which documents are taken."""

    @classmethod
    def now(
        cls, recipe: Recipe, retry_reasons: Collection[str] = (), before_a_run: bool = False
    ) -> PlanBasis:
        """List the source and look at the table. Arguments and errors as ``plan``.

        Raises ``Switched`` when a promote comes between looking for the model in service and
        opening the table.
        """
        recipe = following(recipe)
        info = describe_model(recipe.model)
        table = table_of(recipe)
        snapshot, history = table.open_if_made(), ledger.open_ledger(table)
        cutting = cutting_of(recipe, info, snapshot)
        state = table_state(snapshot, history, recipe, info.space)
        # A source that is empty before there is a table is a mistake; later its files were removed.
        source = discover(recipe.source, may_be_empty=snapshot is not None)
        return cls(
            recipe,
            retry_reasons,
            before_a_run,
            info.space,
            cutting,
            state,
            source,
            ledger.tokens_per_second(history),
            known_choices(table, recipe.source, source, rules_of(recipe, cutting)),
        )

    @property
    def rules(self) -> dict[str, Any]:
        """What decides the rows."""
        return rules_of(self.recipe, self.cutting)

    def plan(self) -> Plan:
        """What a run would do."""
        recipe, state, source = self.recipe, self.state, self.source
        comparison = Comparison(
            self.rules,
            state,
            self._files(),
            {reject.source_uri for reject in source.unreadable},
            RETRIED.union(self.retry_reasons),
            self.choices,
        )
        files, unchanged = comparison.to_do()
        gone_uris = comparison.removed(files)
        with_rows = [uri for uri in gone_uris if uri in state.versions]
        kept = tuple(with_rows) if recipe.keep_removed else ()
        removed = tuple(uri for uri in gone_uris if not (kept and uri in state.versions))
        expected, rate = self._estimate(files), self.tokens_per_second
        rules = rows_id(self.rules)
        return Plan(
            recipe=recipe.name,
            space_id=space_id(self.space),
            rows_id=rules,
            files=files,
            removed_uris=removed,
            removed_keys=tuple(
                sorted(key for uri in removed for key in state.versions.get(uri, ()))
            ),
            rowless_keys=state.rowless_keys({*removed, *(file.moved_from for file in files)}),
            removed_share=0.0 if kept or not with_rows else len(with_rows) / len(state.versions),
            max_removed_share=recipe.max_removed_share,
            kept_uris=kept,
            unchanged_uris=unchanged,
            only_rejects=sum(
                uri in state.rejects and uri not in state.versions for uri in unchanged
            ),
            unreadable=source.unreadable,
            passed_over=source.passed_over,
            columns_added=state.columns.added,
            columns_dropped=state.columns.dropped,
            sample_problems=expected.problems,
            lost_share=state.share_by_other_rules(files, rules) if expected.nothing_usable else 0.0,
            table_version=state.version,
            estimated_chunks=expected.chunks,
            estimated_tokens=expected.tokens,
            work_seconds=expected.seconds(rate) if rate and files else None,
            choice=self.choices.summary,
            starting_seconds=STARTING_SECONDS,
        )

    def _files(self) -> dict[str, SourceFile]:
        """The files to compare, by URI; those behind a limit only where the table knows them."""
        unknown = self.choices.beyond - self.state.uris() if self.choices.beyond else ()
        return {file.uri: file for file in self.source.files if file.uri not in unknown}

    def _estimate(self, files: Sequence[PlannedFile]) -> Estimate:
        if not (self.before_a_run or place_of(self.recipe.source.uri).is_read_to_plan):
            return NOTHING_SAMPLED
        unknown = [
            file
            for file in files
            if file.change != "moved" and file.same_as is None and file.is_read
        ]
        return estimate(unknown, self.recipe, self.cutting)


def check_removals(planned: Plan, allowed: bool) -> None:
    """Raise ``SetupError`` for a plan that removes more than the recipe tolerates unasked: files
    that left the source, or rows that a changed recipe would put nothing in place of."""
    if planned.lost_share > planned.max_removed_share and not allowed:
        why = (
            "; ".join(planned.sample_problems) or "each was rejected, as max_rejected_share lets it"
        )
        raise SetupError(
            f"the recipe was changed and can use none of the records that were sampled ({why}), so "
            f"{planned.lost_share:.0%} of the table's files would lose their rows, more than "
            f"{planned.max_removed_share:.0%} (max_removed_share). Nothing was changed: "
            "correct the recipe",
            action="allow_removals",
        )
    if planned.removes_too_much and not allowed:
        gone = counted(len(planned.removed_uris), "file is", "files are")
        raise SetupError(
            f"{gone} no longer in the source{_if_empty(planned)}, with {planned.removed_share:.0%} "
            f"of those in the table; above {planned.max_removed_share:.0%} (max_removed_share) a "
            "run stops before any change, because a source that is only partly there would empty "
            "the table. Look at the plan, or set keep_removed: true to keep their rows",
            action="allow_removals",
        )


def _if_empty(planned: Plan) -> str:
    return ", which holds no file that the recipe reads" if planned.is_source_empty else ""


def is_outdated(planned: Plan, recipe: Recipe) -> bool:
    """Whether the table was changed after it was planned with."""
    snapshot = table_of(recipe).open_if_made()
    version = None if snapshot is None else snapshot.version
    return version != planned.table_version
