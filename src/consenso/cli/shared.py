"""What the commands share: options, the run folder, tables on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from consenso.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from consenso.experiment import Outcome
    from consenso.experiment_file import Experiment
    from consenso.store import RunFolder

Command = TypeVar("Command", bound=Callable[..., Any])


def experiment_options(command: Command) -> Command:
    """Add the argument EXPERIMENT and the options that every stage shares."""
    command = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)
    command = click.option("--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a setting.")(
        command
    )
    command = click.option("--out", type=click.Path(path_type=Path), help="Run folder (default: runs/<name>).")(command)
    return click.argument("experiment", type=click.Path(path_type=Path), default=Path("experiment.toml"))(command)


def run_until(
    experiment: Path,
    out: Path | None,
    changes: tuple[str, ...],
    until: str = "report",
    *,
    wait: bool = True,
    batch: bool = False,
) -> Outcome:
    """Do what is not yet done up to a stage, with progress on stderr."""
    from consenso import experiment as flow
    from consenso.experiment_file import read_experiment
    from consenso.progress import showing

    read, base = read_experiment(experiment, changes)
    folder = out or Path("runs") / read.name
    if batch:
        read = read.by_batch()
    with showing() as progress:
        return flow.run(read, folder, until=until, progress=progress, base=base, wait=wait, file=experiment)


def print_outcome(outcome: Outcome, as_json: bool) -> None:
    """Print the verdict, failed trainings and where the report stands."""
    say_what_changed(outcome.folder)
    say_if_swapped(outcome.folder)
    if as_json:
        facts = {
            "verdict": outcome.verdict,
            "sentence": outcome.sentence,
            "others": outcome.others,
            "failed_trainings": outcome.failed,
            "folder": str(outcome.folder),
            "report": str(outcome.report) if outcome.report else None,
        }
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    click.echo(f"verdict: {outcome.sentence or 'none yet'}")
    for student, sentence in outcome.others.items():
        click.echo(f"{student}: {sentence}")
    if outcome.failed:
        click.echo(
            f"consenso: {outcome.failed} training(s) failed (see the table trainings); run again to retry", err=True
        )
    if outcome.report:
        click.echo(f"report:  {outcome.report}")


def say_what_changed(place: Path) -> None:
    """Say on stderr what differs from what was frozen before the first scoring."""
    from consenso.compare.freezing import FILE
    from consenso.store import RunFolder

    folder = RunFolder(place)
    if not (place / FILE).exists() or not folder.has("guards"):
        return
    guards = folder.read("guards")
    for reason in guards.loc[(guards["guard"] == FIXED) & (guards["outcome"] == "warned"), "reason"].unique():
        click.echo(f"guard {FIXED}: {reason}", err=True)


def say_if_swapped(place: Path) -> None:
    """Say on stderr where the labels seem to be swapped: such a verdict is worth nothing."""
    from consenso.consensus.swapped import GUARD
    from consenso.store import RunFolder

    folder = RunFolder(place)
    if folder.has("guards"):
        guards = folder.read("guards")
        warn(guards.loc[(guards["guard"] == GUARD) & (guards["outcome"] == "warned"), "reason"].unique())


FIXED = "fixed before scoring"
"""The guard that a freeze is held against."""


def opened(experiment: Path, out: Path | None, changes: tuple[str, ...]) -> tuple[Experiment, RunFolder, Path]:
    """An experiment, its run folder, and where its paths start from."""
    from consenso.experiment_file import read_experiment
    from consenso.store import RunFolder

    read, base = read_experiment(experiment, changes)
    return read, RunFolder(out or Path("runs") / read.name), base


def folder_of(source: Path, out: Path | None = None, changes: tuple[str, ...] = ()) -> RunFolder:
    """The run folder of an experiment.toml, or the folder itself."""
    from consenso.experiment_file import read_experiment
    from consenso.store import RunFolder

    if out is None and source.is_dir():
        out = source
    if out is None:
        out = Path("runs") / read_experiment(source, changes)[0].name
    folder = RunFolder(out)
    if not folder.record():
        raise ConfigError(f"{out} is not a run folder yet (no run.json); `consenso run` makes it")
    return folder


def made_folder(experiment: Path, out: Path | None, changes: tuple[str, ...]) -> RunFolder:
    """Return the run folder that an experiment has just been run in."""
    from consenso.experiment_file import read_experiment
    from consenso.store import RunFolder

    return RunFolder(out or Path("runs") / read_experiment(experiment, changes)[0].name)


def warn(lines: Iterable[str]) -> None:
    """Print on stderr what the user should look at."""
    for line in lines:
        click.echo(f"consenso: {line}", err=True)


def show(frame: pd.DataFrame, as_json: bool) -> None:
    """Print a table, or its rows as JSON."""
    if as_json:
        click.echo(frame.to_json(orient="records", force_ascii=False))
    else:
        click.echo(frame.to_string(index=False, na_rep="–", float_format=lambda value: f"{value:.3f}"))


def show_rows(rows: list[dict[str, Any]], *, drop_zeros: bool = False) -> None:
    """Print rows as a table; `drop_zeros` leaves out columns that say nothing."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    if drop_zeros and len(frame):
        frame = frame[
            [name for name in frame.columns if not frame[name].map(lambda value: value == 0 or value is None).all()]
        ]
    show(frame, as_json=False)
