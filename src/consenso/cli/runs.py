"""Commands about a run as a whole: init, run, status, data, config, doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consenso.cli.shared import experiment_options, folder_of, made_folder, print_outcome, run_until, show, warn
from consenso.errors import ConfigError, DataError

if TYPE_CHECKING:
    from consenso.experiment import Outcome
    from consenso.experiment_file import Experiment


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--votes",
    type=click.Path(path_type=Path),
    help="Votes that exist already (long or wide table, earlier run folder).",
)
@click.option("--text", help="Column of the texts.")
@click.option("--gold", help="Column of the human labels.")
@click.option("--id", "text_id", help="Column of the text ids.")
@click.option("--split", help="Column that says train, dev, test or pool.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("experiment.toml"), show_default=True, help="File to write."
)
@click.option("--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Write a setting into the file.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
def init(
    data: Path, votes: Path | None, out: Path, force: bool, changes: tuple[str, ...], **columns: str | None
) -> None:
    """Write a commented experiment.toml from a data file."""
    from consenso.drafting import draft, for_init

    try:
        made = draft(data, votes=votes, columns=columns, beside=out, changes=changes)
    except (ConfigError, DataError) as error:
        raise type(error)(for_init(str(error))) from None
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; choose another name with --out, or overwrite it with --force")
    from consenso.store import write_text

    write_text(out, made.text)
    click.echo(f"{made.summary}\nwrote {out}; read it, then: consenso run {out}")
    warn(made.warnings)


@click.command()
@experiment_options
@click.option("--dry-run", is_flag=True, help="Tell trainings, seconds and disk; start nothing.")
@click.option("--until-verdict", is_flag=True, help="Add seeds by the rule of [compare.until], from a pilot on.")
def run(
    experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool, *, dry_run: bool, until_verdict: bool
) -> None:
    """Do what is not yet done; print the verdict and the report's path."""
    if dry_run:
        (_dry_run_until_verdict if until_verdict else _dry_run)(experiment, out, changes, as_json)
        return
    outcome = (_run_until_verdict if until_verdict else run_until)(experiment, out, changes)
    print_outcome(outcome, as_json)
    raise click.exceptions.Exit(outcome.exit_code)


def _run_until_verdict(experiment: Path, out: Path | None, changes: tuple[str, ...]) -> Outcome:
    from consenso import experiment as flow
    from consenso.experiment_file import read_experiment
    from consenso.progress import showing
    from consenso.store import RunFolder

    read, base = read_experiment(experiment, changes)
    folder = out or Path("runs") / read.name
    with showing() as progress:
        outcome = flow.run_until_verdict(read, folder, progress=progress, base=base, file=experiment)
    for decision in RunFolder(folder).record()["until_verdict"]:
        click.echo(f"{decision['seeds']} seeds: {decision['action']}: {decision['reason']}", err=True)
    return outcome


def _dry_run(experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    from consenso.experiment_file import read_experiment
    from consenso.overview import plan
    from consenso.progress import duration
    from consenso.store import RunFolder

    read, base = read_experiment(experiment, changes)
    rows = plan(read, RunFolder(out or Path("runs") / read.name), base)
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        least = "" if row["known"] else "at most "
        without = f", without {', '.join(row['left_out'])}, which need the votes" if row["left_out"] else ""
        click.echo(
            f"{row['student']}: {least}{row['to_do']} trainings to do for {row['runs']} runs{without}, {row['done']} done; about "
            f"{duration(row['seconds'])} and {row['disk_bytes'] / 1e6:.0f} MB on disk ({row['basis']})"
        )
    for line in _remarks(rows):
        click.echo(line)


FEW_TEST_TEXTS = 300
"""With fewer test texts the dry run tells what the guard “gold beats the floor” asks of them."""


def _remarks(rows: list[dict[str, Any]]) -> list[str]:
    """What the numbers of a dry run mean, and what so few test texts ask of the student."""
    shared = "a run is an arm under a seed; arms with equal labels share a training, floors need none"
    if not all(row["known"] for row in rows):
        shared += "; which are equal shows once there are labels (consenso consensus)"
    said = [shared]
    n = max((row["test_texts"] for row in rows), default=0)
    if 0 < n < FEW_TEST_TEXTS:
        said.append(
            f"few test texts: {n} have gold, so that a standard error may reach {50 / n**0.5:.1f} pp, and the guard “gold beats "
            f"the floor” asks for a gain of 5 of them, {250 / n**0.5:.0f} pp; with {FEW_TEST_TEXTS} test texts "
            f"{250 / FEW_TEST_TEXTS**0.5:.0f} pp"
        )
    return said


def _dry_run_until_verdict(experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    """From the pilot to the most seeds that the rule allows; JSON: the rows of both, each with its seeds."""
    from consenso.compare.untilverdict import look_plan
    from consenso.experiment_file import read_experiment
    from consenso.overview import plan
    from consenso.progress import duration
    from consenso.store import RunFolder

    read, base = read_experiment(experiment, changes)
    rule, folder = read.compare.until, RunFolder(out or Path("runs") / read.name)
    ends = (look_plan(rule)[0] if rule.rule == "looks" else rule.pilot, rule.most)
    pilot, most = ([{**row, "seeds": S} for row in plan(read.with_seeds(S), folder, base)] for S in ends)
    if as_json:
        click.echo(json.dumps([*pilot, *most]))
        return
    for first, last in zip(pilot, most):
        click.echo(
            f"{first['student']}: {first['to_do']} to {last['to_do']} trainings to do (from {ends[0]} seeds to {ends[1]}), "
            f"{last['done']} done; about {duration(first['seconds'])} to {duration(last['seconds'])} and "
            f"{first['disk_bytes'] / 1e6:.0f} to {last['disk_bytes'] / 1e6:.0f} MB on disk ({first['basis']})"
        )
    for line in _remarks(most):
        click.echo(line)


@click.command()
@experiment_options
def status(experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    """Show which stages and trainings of a run are done, and which are out of date."""
    from consenso.experiment_file import read_experiment
    from consenso.overview import progress_of

    said = (None, None) if experiment.is_dir() else read_experiment(experiment, changes)
    facts = progress_of(folder_of(experiment, out, changes), *said)
    if as_json:
        click.echo(json.dumps(facts))
        return
    for stage in facts["stages"]:
        click.echo(f"{stage['stage']:<10} {stage['state']:<11} {stage['detail']}")
    if facts["sentence"]:
        click.echo(f"verdict: {facts['sentence']}")


@click.command()
@experiment_options
def data(experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    """Load, deduplicate, split and guard against leakage; print what was found."""
    run_until(experiment, out, changes, until="data")
    from consenso.experiment_file import read_experiment
    from consenso.overview import describe_data
    from consenso.preconditions import say_if_few

    table = describe_data(made_folder(experiment, out, changes))
    show(table, as_json)
    if not as_json:
        if table.attrs["folds"] > 1:
            click.echo(f"these are the parts of fold 0 of {table.attrs['folds']}; each fold tests other texts")
        if why := table.attrs["left_out"]:
            click.echo(f"left out: {', '.join(f'{count:,} {reason}' for reason, count in why.items())}")
    if tested := table.attrs["tested"]:
        warn(say_if_few(tested, read_experiment(experiment, changes)[0]))


@click.command()
@click.argument("experiment", type=click.Path(path_type=Path), default=Path("experiment.toml"))
@click.option("--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a setting.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of experiment.toml instead.")
def config(experiment: Path, changes: tuple[str, ...], schema: bool) -> None:
    """Show the effective settings of an experiment, defaults included, or the JSON Schema."""
    from consenso.experiment_file import Experiment, read_experiment

    if schema:
        click.echo(json.dumps(Experiment.model_json_schema(), indent=1, ensure_ascii=False))
        return
    read: Experiment = read_experiment(experiment, changes)[0]
    click.echo(json.dumps(read.model_dump(mode="json"), indent=1, ensure_ascii=False))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def doctor(as_json: bool) -> None:
    """Check the installation, devices, bf16, the embedded encoder, caches and keys; exit 1 if a check fails."""
    from consenso.doctor import examine

    found = examine()
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        for line in found:
            click.echo(f"{line['state']:<8} {line['check']:<22} {line['found']}")
    raise click.exceptions.Exit(int(any(line["state"] == "failed" for line in found)))
