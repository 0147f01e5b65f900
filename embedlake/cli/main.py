"""The command line: data on stdout, talk on stderr, exit codes with a meaning.

0 done · 1 failed · 2 wrong command or recipe · 3 finished, but more was rejected than the recipe
tolerates · 4 the gate said no · 130 stopped by Ctrl-C · 143 stopped by SIGTERM. Each command has
its own module and imports heavy packages when it runs.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from io import StringIO
from typing import NoReturn

import click

from embedding_core import __version__
from embedding_core.errors import EmbedlakeError, SetupError, UsageError
from embedding_core.reports.report import said
from embedding_core.runs.outcome import EXIT_CODES
from embedding_core.store.retry import waited_for
from embedlake import interrupts
from embedlake.cli import (
    deploy,
    doctor,
    drop,
    embed,
    models,
    search,
    serve,
    spaces,
    stack,
    table,
    verify,
)
from embedlake.cli.exchange import export, feedback, import_files
from embedlake.cli.inputs import init, peek, stats, validate
from embedlake.cli.look import map_rows, report_page, table_metrics
from embedlake.environment import process_environment
from embedlake.extras import how_to_install
from embedlake.terminal import HarmlessLines, harmless

BAD_USAGE = 2
STOPPED = "stopped. What was committed is kept; the same command goes on where this ended"
MODULES = (
    init, peek, stats, embed, search, serve, feedback, table, table_metrics, report_page, map_rows,
    validate, models, spaces, export, import_files, drop, verify, stack, doctor, deploy,
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="embedlake")
@click.pass_context
def cli(context: click.Context) -> None:
    """Turn files into a LanceDB table of embeddings and keep it true."""
    context.with_resource(waited_for(by_a_person=True))


for module in MODULES:
    for command in module.COMMANDS:
        cli.add_command(command)


def main() -> None:
    """Run the console script and leave with an exit code."""
    os.environ.update(process_environment())
    interrupts.handle_signals()
    _make_warnings_harmless()
    try:
        with interrupts.not_mistaken():
            # click returns the code of an Exit, or None when the command ends by itself.
            sys.exit(cli(standalone_mode=False))
    except (click.Abort, KeyboardInterrupt):
        click.echo(STOPPED, err=True)
        _answer_error(STOPPED, KeyboardInterrupt)
        sys.exit(interrupts.exit_code())
    except click.ClickException as error:
        _show(error)
        _answer_error(error.format_message(), UsageError)
        sys.exit(error.exit_code)
    except EmbedlakeError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        if (missing := how_to_install(error)) is None:
            raise
        _fail(SetupError(missing))
    except Exception as error:
        from embedlake.diagnosis.servers import refused_login

        if (refused := refused_login(error)) is None:
            raise
        _fail(refused)


def _show(error: click.ClickException) -> None:
    """Print the error as click does, the usage before it, and harmless."""
    said = StringIO()
    error.show(said)
    click.echo(harmless(said.getvalue()), nl=False, err=True)


def _fail(error: EmbedlakeError) -> NoReturn:
    message = said(error)
    click.echo(harmless(f"embedlake: {message}"), err=True)
    _answer_error(message, type(error))
    sys.exit(BAD_USAGE if isinstance(error, UsageError) else EXIT_CODES["failed"])


def _make_warnings_harmless() -> None:
    """Let no warning that a library logs steer the terminal, where nobody has set up logging."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(HarmlessLines(logging.Formatter()))


def _answer_error(message: str, kind: type[BaseException]) -> None:
    """Print the error as an object on stdout if the command has ``--json``."""
    if "--json" in sys.argv:
        click.echo(json.dumps({"error": message, "kind": kind.__name__}))
