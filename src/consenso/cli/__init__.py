"""Door 1: the commands. Results go to stdout and files, progress and logs to stderr.

Exit codes: 0 ok, 1 failed (can be resumed), 2 usage or bad input, 3 incomplete, 4 a guard failed, 5 budget reached, 130 interrupted.
"""

from __future__ import annotations

import errno
import io
import logging
import sys

import click

from consenso import __version__
from consenso.cli import cleaning, comparing, labelling, predicting, results, runs, training
from consenso.errors import ConsensoError


def main() -> None:
    """Run the command line; deliberate errors become one line and an exit code."""
    for stream in (
        sys.stdout,
        sys.stderr,
    ):  # a redirect on Windows is not UTF-8 by itself, and results hold "−" and "±"
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
    try:
        code = cli(prog_name="consenso", standalone_mode=False)
    except ConsensoError as error:
        _fail(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; finished work is kept, the same command goes on", 130)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except OSError as error:
        if error.filename is None and error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        where = f" ({error.filename})" if error.filename else ""
        _fail(f"{error.strerror}{where}; finished work is kept, mend this and run the same command again", 1)
    else:
        raise SystemExit(code if isinstance(code, int) else 0)  # click returns what a command's Exit carries


def _fail(message: str, code: int) -> None:
    click.echo(f"consenso: {' '.join(message.split())}", err=True)
    raise SystemExit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="consenso")
@click.option("-v", "--verbose", is_flag=True, help="Show log lines on stderr.")
def cli(verbose: bool) -> None:
    """May the labels of an LLM consensus replace human ones for this classifier?

    \b
    consenso init DATA          write a commented experiment.toml
    consenso run                do what is not yet done; prints the verdict and the report's path
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        stream=sys.stderr,
        format="%(levelname)s %(name)s: %(message)s",
    )


for command in (
    runs.init, runs.run, runs.status, runs.data, labelling.annotate, labelling.log, labelling.consensus,
    comparing.finetune, comparing.plan, comparing.compare, results.report, results.export, training.train,
    predicting.predict, cleaning.clean, runs.config, runs.doctor,
):  # fmt: skip
    cli.add_command(command)
