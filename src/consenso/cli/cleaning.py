"""The command clean: what can go, how large it is, and removing it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consenso.cli.shared import folder_of
from consenso.errors import ConfigError

if TYPE_CHECKING:
    from consenso.cleaning import Found

WHAT = ("pieces", "cache", "unfinished", "leftovers", "models", "all-pieces")


@click.command()
@click.argument("sources", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN_FOLDER or EXPERIMENT]...")
@click.option(
    "--models",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Look for trained models below it.",
)
@click.option(
    "--what",
    multiple=True,
    type=click.Choice(WHAT),
    help="Only this (again for more); default: all but models, all-pieces.",
)
@click.option(
    "--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Only what was not used for so long; models: 30."
)
@click.option("--yes", is_flag=True, help="Remove it; without, it is only listed.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def clean(
    sources: tuple[Path, ...],
    models: tuple[Path, ...],
    what: tuple[str, ...],
    older_than: float | None,
    *,
    yes: bool,
    as_json: bool,
) -> None:
    """List what can go from run folders and models, with sizes; with --yes remove it.

    Removed by --yes: trainings that no table refers to, caches, states of trainings that were cut off, leftovers of killed
    processes. By name only: --what models (saved by `consenso train`, or in the Hugging Face cache; unused for 30
    days), --what all-pieces (also the trainings behind the tables: they would be trained again). Gold, votes, tables and
    reports always stay.
    """
    from consenso.cleaning import chosen, remove, survey

    sources = sources or (() if models else (Path("experiment.toml"),))
    for source in sources:
        if not source.exists():
            raise ConfigError(
                f"{source}: there is no such run folder or experiment file; name one, or models with --models FOLDER"
            )
        if (source / "config.json").is_file() and not (source / "run.json").exists():
            raise ConfigError(f"{source} is a model's folder, no run folder; look at it with --models {source}")
    folders = [folder_of(source) for source in sources]
    found = survey(folders, models, hub=not what or "models" in what)
    wanted = chosen(found, what, older_than)
    gone = remove(wanted) if yes else []
    if as_json:
        click.echo(json.dumps(_facts(found, wanted, gone, yes=yes), ensure_ascii=False))
        return
    for line in _lines(found, wanted):
        click.echo(line)
    if yes:
        click.echo(f"removed {_sum(gone)}" if gone else "nothing was removed: there is nothing to remove")
    else:
        click.echo(
            f"nothing was removed; add --yes to remove {_sum(wanted)}"
            if wanted
            else "nothing was removed: nothing can go"
        )


def _lines(found: Sequence[Found], wanted: Sequence[Found]) -> list[str]:
    """Per run folder and kind how many and how large; each model by its name."""
    from consenso.cleaning import KINDS, MODEL_DAYS

    lines = []
    for run in dict.fromkeys(one.run for one in found):
        mine = [one for one in found if one.run == run]
        lines.append(str(run) if run is not None else "models")
        for kind in KINDS:
            items = [one for one in mine if one.what == kind]
            goes = [one for one in items if one in wanted]
            if items and kind != "models":
                kept = "" if goes == items else f"; {len(items) - len(goes)} stay" if goes else f"; stay{_unless(kind)}"
                lines.append(f"  {kind:<13} {len(items):>6}  {_size(items):>9}  {KINDS[kind]}{kept}")
            for one in items if kind == "models" else ():
                old = f"last used {dt.date.fromtimestamp(one.used)}"
                why = _unless(kind) if one.days() >= MODEL_DAYS else f": used within {MODEL_DAYS:g} days"
                kept = "" if goes and one in goes else f"; stays{why}"
                lines.append(f"  {kind:<13} {_size([one]):>17}  {one.name or one.path} ({old}{kept})")
    return lines


def _unless(kind: str) -> str:
    by_name = {"pieces-in-use": "all-pieces", "models": "models"}.get(kind)
    return f" without --what {by_name}" if by_name else ""


def _sum(found: Sequence[Found]) -> str:
    return f"{len(found)} item{'' if len(found) == 1 else 's'}, {_size(found)}"


def _size(found: Sequence[Found]) -> str:
    from rich.filesize import decimal

    return decimal(sum(one.bytes for one in found))


def _facts(found: Sequence[Found], wanted: Sequence[Found], gone: Sequence[Found], *, yes: bool) -> dict[str, Any]:
    rows = [
        {
            "what": one.what, "path": str(one.path), "name": one.name, "bytes": one.bytes, "run": None if one.run is None else str(one.run),
            "used": dt.datetime.fromtimestamp(one.used, dt.UTC).isoformat(timespec="seconds"),
            "goes": one in wanted, "removed": one in gone,
        }
        for one in found
    ]  # fmt: skip
    sizes: dict[str, int] = {}
    for one in found:
        sizes[one.what] = sizes.get(one.what, 0) + one.bytes
    freed = sum(one.bytes for one in gone)
    return {
        "found": rows,
        "bytes": sizes,
        "goes_bytes": sum(one.bytes for one in wanted),
        "removed": yes,
        "freed_bytes": freed,
    }
