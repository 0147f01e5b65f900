"""Plan a run: what it would do, before anything is paid for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from embedding_core.encoder.engines import describe_model
from embedding_core.errors import SetupError
from embedding_core.identity import row_rules, rows_id, space_id
from embedding_core.lake import ledger
from embedding_core.lake.table import table_of
from embedding_core.reasons import RETRIED
from embedding_core.recipe import Recipe
from embedding_core.records import Plan
from embedding_core.runs.cutting import Cutting, cutting_of
from embedding_core.runs.embed.comparison import Comparison, table_state
from embedding_core.runs.embed.estimate import NOTHING_SAMPLED, STARTING_SECONDS, estimate
from embedding_core.sources import discover
from embedding_core.store.places import place_of


def plan(recipe: Recipe, retry_reasons: Collection[str] = (), before_a_run: bool = False) -> Plan:
    """Compare the source with the table; changes nothing.

    Files of a place that nothing is downloaded from to plan, such as a hub, are sampled only
    ``before_a_run``; otherwise such a plan has no estimate.

    Files with a reject of one of ``retry_reasons``, or of one that passes by itself, are worked on
    again though they did not change. Raises ``SetupError`` when the source, the model or the table
    cannot be used.
    """
    info = describe_model(recipe.model)
    table = table_of(recipe)
    snapshot, history = table.open_if_made(), ledger.open_ledger(table)
    cutting = cutting_of(recipe, info, snapshot)
    rules = rules_of(recipe, cutting)
    state = table_state(snapshot, history, recipe, info.space)
    source = discover(recipe.source, may_be_empty=bool(state.versions) and not recipe.keep_removed)
    comparison = Comparison(
        rules,
        state,
        {file.uri: file for file in source.files},
        {reject.source_uri for reject in source.unreadable},
        RETRIED.union(retry_reasons),
    )
    files, unchanged = comparison.to_do()
    gone_uris = comparison.removed(files)
    with_rows = [uri for uri in gone_uris if uri in state.versions]
    kept = tuple(with_rows) if recipe.keep_removed else ()
    removed = tuple(uri for uri in gone_uris if not (kept and uri in state.versions))
    unknown = [file for file in files if file.change != "moved" and file.same_as is None]
    is_sampled = before_a_run or place_of(recipe.source.uri).is_read_to_plan
    expected = estimate(unknown, recipe, cutting) if is_sampled else NOTHING_SAMPLED
    rate = ledger.tokens_per_second(history)
    return Plan(
        recipe=recipe.name,
        space_id=space_id(info.space),
        rows_id=rows_id(rules),
        files=files,
        removed_uris=removed,
        removed_keys=tuple(sorted(key for uri in removed for key in state.versions.get(uri, ()))),
        rowless_keys=state.rowless_keys({*removed, *(file.moved_from for file in files)}),
        removed_share=0.0 if kept or not with_rows else len(with_rows) / len(state.versions),
        max_removed_share=recipe.max_removed_share,
        kept_uris=kept,
        unchanged_uris=unchanged,
        only_rejects=sum(uri in state.rejects and uri not in state.versions for uri in unchanged),
        unreadable=source.unreadable,
        passed_over=source.passed_over,
        columns_added=state.columns.added,
        columns_dropped=state.columns.dropped,
        sample_problems=expected.problems,
        lost_share=state.share_by_other_rules(rows_id(rules)) if expected.nothing_usable else 0.0,
        table_version=state.version,
        estimated_chunks=expected.chunks,
        estimated_tokens=expected.tokens,
        work_seconds=expected.seconds(rate) if rate and files else None,
        starting_seconds=STARTING_SECONDS,
    )


def rules_of(recipe: Recipe, cutting: Cutting) -> dict[str, Any]:
    """What decides the rows of the recipe."""
    return row_rules(recipe, cutting.spec, cutting.digest, cutting.limit, cutting.prompt)


def check_removals(planned: Plan, allowed: bool) -> None:
    """Raise ``SetupError`` for a plan that removes more than the recipe tolerates unasked: files
    that left the source, or rows that a changed recipe would put nothing in place of."""
    if planned.lost_share > planned.max_removed_share and not allowed:
        raise SetupError(
            f"the recipe was changed and can use none of the records that were sampled "
            f"({'; '.join(planned.sample_problems)}), so {planned.lost_share:.0%} of the table's "
            f"files would lose their rows, more than {planned.max_removed_share:.0%} "
            "(max_removed_share). Nothing was changed: correct the recipe",
            action="allow_removals",
        )
    if planned.removes_too_much and not allowed:
        raise SetupError(
            f"{len(planned.removed_uris):,} files are no longer in the source, with "
            f"{planned.removed_share:.0%} of those in the table; above "
            f"{planned.max_removed_share:.0%} (max_removed_share) a run stops before any change, "
            "because a source that is only partly there would empty the table. Look at the plan, "
            "or set keep_removed: true to keep their rows",
            action="allow_removals",
        )


def is_outdated(planned: Plan, recipe: Recipe) -> bool:
    """Whether the table was changed after it was planned with."""
    snapshot = table_of(recipe).open_if_made()
    version = None if snapshot is None else snapshot.version
    return version != planned.table_version
