"""Door 1: the commands. Results go to stdout and files, progress and logs to stderr.

Exit codes: 0 ok, 1 failed (can be resumed), 2 usage or bad input, 3 incomplete, 4 a guard failed, 5 budget reached, 130 interrupted.
"""

from __future__ import annotations

import errno
import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from consenso import __version__
from consenso.errors import ConfigError, ConsensoError, DataError

if TYPE_CHECKING:
    import pandas as pd

    from consenso.experiment import Outcome
    from consenso.experiment_file import Experiment
    from consenso.store import RunFolder

Command = TypeVar("Command", bound=Callable[..., Any])


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


def experiment_options(command: Command) -> Command:
    """Add the argument EXPERIMENT and the options that every stage shares."""
    command = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)
    command = click.option("--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a setting.")(
        command
    )
    command = click.option("--out", type=click.Path(path_type=Path), help="Run folder (default: runs/<name>).")(command)
    return click.argument("experiment", type=click.Path(path_type=Path), default=Path("experiment.toml"))(command)


@cli.command()
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
@click.option("--force", is_flag=True, help="Overwrite the file.")
def init(data: Path, votes: Path | None, out: Path, force: bool, **columns: str | None) -> None:
    """Write a commented experiment.toml from a data file."""
    from consenso.drafting import draft

    try:
        text, summary = draft(data, votes=votes, columns=columns, beside=out)
    except DataError as error:
        raise DataError(
            f"{error} (nothing was written; init names columns with --text, --gold, --id, --split)"
        ) from None
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; choose another name with --out, or overwrite it with --force")
    from consenso.store import write_text

    write_text(out, text)
    click.echo(f"{summary}\nwrote {out}; read it, then: consenso run {out}")


@cli.command()
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
    outcome = (_run_until_verdict if until_verdict else _run)(experiment, out, changes)
    _print_outcome(outcome, as_json)
    raise click.exceptions.Exit(outcome.exit_code)


def _run_until_verdict(experiment: Path, out: Path | None, changes: tuple[str, ...]) -> Outcome:
    from consenso import experiment as flow
    from consenso.experiment_file import read_experiment
    from consenso.progress import showing
    from consenso.store import RunFolder

    read, base = read_experiment(experiment, changes)
    folder = out or Path("runs") / read.name
    with showing() as progress:
        outcome = flow.run_until_verdict(read, folder, progress=progress, base=base)
    for decision in RunFolder(folder).record()["until_verdict"]:
        click.echo(f"{decision['seeds']} seeds: {decision['action']}: {decision['reason']}", err=True)
    return outcome


def _run(
    experiment: Path,
    out: Path | None,
    changes: tuple[str, ...],
    until: str = "report",
    *,
    wait: bool = True,
    batch: bool = False,
) -> Outcome:
    from consenso import experiment as flow
    from consenso.experiment_file import read_experiment
    from consenso.progress import showing

    read, base = read_experiment(experiment, changes)
    folder = out or Path("runs") / read.name
    if batch:
        read = read.by_batch()
    with showing() as progress:
        return flow.run(read, folder, until=until, progress=progress, base=base, wait=wait)


def _print_outcome(outcome: Outcome, as_json: bool) -> None:
    _say_what_changed_since_the_freeze(outcome.folder)
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


def _say_what_changed_since_the_freeze(place: Path) -> None:
    from consenso.compare.freezing import FILE
    from consenso.store import RunFolder

    folder = RunFolder(place)
    if not (place / FILE).exists() or not folder.has("guards"):
        return
    guards = folder.read("guards")
    for reason in guards.loc[(guards["guard"] == FIXED) & (guards["outcome"] == "warned"), "reason"].unique():
        click.echo(f"guard {FIXED}: {reason}", err=True)


FIXED = "fixed before scoring"
"""The guard that a freeze is held against."""


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
        bound = (
            f" for {row['runs']} (arm, seed) pairs" if row["known"] else f", up to {row['runs']} once the votes are in"
        )
        click.echo(
            f"{row['student']}: {row['to_do']} trainings to do{bound}, {row['done']} done; about "
            f"{duration(row['seconds'])} and {row['disk_bytes'] / 1e6:.0f} MB on disk ({row['basis']})"
        )


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


@cli.command()
@experiment_options
def status(experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    """Show which stages and trainings of a run are done, and which are out of date."""
    from consenso.experiment_file import read_experiment
    from consenso.overview import progress_of

    said = (None, None) if experiment.is_dir() else read_experiment(experiment, changes)
    facts = progress_of(_folder(experiment, out, changes), *said)
    if as_json:
        click.echo(json.dumps(facts))
        return
    for stage in facts["stages"]:
        click.echo(f"{stage['stage']:<10} {stage['state']:<11} {stage['detail']}")
    if facts["sentence"]:
        click.echo(f"verdict: {facts['sentence']}")


def _folder(source: Path, out: Path | None = None, changes: tuple[str, ...] = ()) -> RunFolder:
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


@cli.command()
@experiment_options
def data(experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    """Load, deduplicate, split and guard against leakage; print what was found."""
    _run(experiment, out, changes, until="data")
    from consenso.overview import describe_data

    table = describe_data(_made(experiment, out, changes))
    _show(table, as_json)
    if not as_json and table.attrs["folds"] > 1:
        click.echo(f"these are the parts of fold 0 of {table.attrs['folds']}; each fold tests other texts")


@cli.command()
@experiment_options
@click.option("--plan", "planning", is_flag=True, help="Tell requests, tokens, USD, time, duplicates; send nothing.")
@click.option("--probe", "probing", is_flag=True, help="Find out what each endpoint honours (a few requests).")
@click.option("--batch", is_flag=True, help="Ask by batch files where the endpoint takes them: half the price.")
@click.option("--no-wait", is_flag=True, help="Submit batch files and leave; the same command collects them.")
def annotate(
    experiment: Path,
    out: Path | None,
    changes: tuple[str, ...],
    as_json: bool,
    *,
    planning: bool,
    probing: bool,
    batch: bool,
    no_wait: bool,
) -> None:
    """Collect the votes of every annotator; print how many are valid. Goes on where it was cut off."""
    if planning or probing:
        _run(experiment, out, changes, until="data")
        (_plan_votes if planning else _probe)(experiment, out, changes, as_json)
        return
    _run(experiment, out, changes, until="annotate", wait=not no_wait, batch=batch)
    from consenso.overview import describe_vote_log, describe_votes

    folder = _made(experiment, out, changes)
    _show(describe_votes(folder), as_json)
    if not as_json and (asked := describe_vote_log(folder)) is not None:
        click.echo(f"vote log: {asked[1]}")


def _plan_votes(experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    from consenso.experiment_file import read_experiment
    from consenso.overview import plan_annotation
    from consenso.progress import duration

    rows = plan_annotation(*_opened(experiment, out, changes))
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("no LLM is asked: embedded, local and imported annotators cost nothing")
        return
    for row in rows:
        cost = "cost unknown" if row["cost"] is None else "free" if row["to_ask"] else "nothing to pay"
        if row["most"]:
            cost = f"about {row['cost']:.4f} USD (at most {row['most']:.4f})"
        time = f", {duration(row['seconds'])}" if row["seconds"] else ""
        more = "".join(f", {row[name]:,} {words}" for name, words in _PLAN_WORDS.items() if row[name])
        click.echo(
            f"{row['annotator']} ({row['endpoint']}/{row['model']}): {row['to_ask']:,} requests to send, "
            f"{row['kept']:,} answers kept{more}; "
            f"{row['tokens_in']:,.0f} tokens in, {row['tokens_out']:,.0f} out, {cost}{time}"
        )
        click.echo(f"    from {row['basis']}; {row['note']}")
    known = [row["cost"] for row in rows if row["cost"] is not None]
    unknown = [row["annotator"] for row in rows if row["cost"] is None]
    spent = sum(row["spent"] for row in rows[:1])
    budget = read_experiment(experiment, changes)[0].annotate.budget
    limit = f" (without {', '.join(unknown)}, whose price is not known)" if unknown else ""
    if budget is not None:
        limit += f"; annotate.budget is {budget:g} USD" + (f", of which {spent:.4f} are spent" if spent else "")
        limit += ", which is not enough" if sum(known) + spent > budget else ""
        limit += "; a budget needs all prices" if unknown else ""
    click.echo(
        f"in all: {sum(row['to_ask'] for row in rows):,} requests, about {sum(known):.4f} USD{limit}. Nothing was sent."
    )


_PLAN_WORDS = {
    "waiting": "in batch files",
    "too_long": "too long to be asked",
    "duplicates": "of texts that stand twice (share_duplicates)",
}


def _probe(experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    from consenso.labels import LabelSchema
    from consenso.overview import probe_annotators

    read, folder, base = _opened(experiment, out, changes)
    rows = probe_annotators(read, LabelSchema.from_records(folder.record()["labels"]), base)
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        for row in rows:
            said = row.get("error") or ", ".join(f"{name}: {row[name]}" for name in ("schema", "logprobs", "seed", "n"))
            click.echo(f"{row['annotator']} ({row['endpoint']}/{row['model']}): {said}")
    raise click.exceptions.Exit(int(any("error" in row for row in rows)))


def _opened(experiment: Path, out: Path | None, changes: tuple[str, ...]) -> tuple[Experiment, RunFolder, Path]:
    """An experiment, its run folder, and where its paths start from."""
    from consenso.experiment_file import read_experiment
    from consenso.store import RunFolder

    read, base = read_experiment(experiment, changes)
    return read, RunFolder(out or Path("runs") / read.name), base


@cli.command()
@click.argument("run_folder", type=click.Path(path_type=Path), default=Path("experiment.toml"))
@click.option("--annotator", "annotators", multiple=True, help="Only this annotator (repeatable).")
@click.option(
    "--status", "statuses", multiple=True, help="Only answers of this status (repeatable), such as unparsable."
)
@click.option("--label", "labels", multiple=True, help="Only this label (repeatable).")
@click.option("--text", "texts", multiple=True, help="Only this text id (repeatable).")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Rows to print.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write all of them to a .csv or .parquet file.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def log(run_folder: Path, limit: int, target: Path | None, as_json: bool, **chosen: tuple[str, ...]) -> None:
    """Look into the vote log of a run: what was asked, answered, paid; or write its answers to a file.

    RUN_FOLDER is a run folder, the experiment.toml that made it, or a vote log (.sqlite) itself.
    """
    from consenso.annotate.logreading import LogReader
    from consenso.annotate.logview import Query, describe_log
    from consenso.overview import log_of

    path = run_folder if run_folder.suffix == ".sqlite" else log_of(_folder(run_folder))
    with LogReader(path) as votelog:
        query = Query(votelog, **chosen)
        if target is not None:
            click.echo(f"{query.export(target):,} answers written to {target}")
        elif any(chosen.values()):
            _show_answers(list(query.rows(limit)), query.count(), as_json)
        else:
            rows, statement = describe_log(votelog), votelog.ledger().statement
            if as_json:
                click.echo(json.dumps({"asked": rows, "ledger": statement}, ensure_ascii=False))
            else:
                _show_rows(rows, drop_zeros=True)
                click.echo(statement)


def _show_answers(rows: list[dict[str, Any]], count: int, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    if not rows:
        click.echo("no such answer")
        return
    short = [
        {name: row[name] for name in ("text_id", "annotator", "repetition", "status", "label", "confidence")}
        | {"reply": _cut(row["reply"] or row["error"] or "")}
        for row in rows
    ]
    _show_rows(short)
    if count > len(rows):
        click.echo(f"{len(rows)} of {count:,}; more with --limit, all with --to FILE")


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 70 else f"{line[:69]}…"


def _show_rows(rows: list[dict[str, Any]], *, drop_zeros: bool = False) -> None:
    import pandas as pd

    frame = pd.DataFrame(rows)
    if drop_zeros and len(frame):
        frame = frame[
            [name for name in frame.columns if not frame[name].map(lambda value: value == 0 or value is None).all()]
        ]
    _show(frame, as_json=False)


@cli.command()
@experiment_options
def consensus(experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    """Turn votes into labels; print coverage, agreement and quality against gold (never test gold)."""
    _run(experiment, out, changes, until="consensus")
    from consenso.overview import describe_consensus

    table = describe_consensus(_made(experiment, out, changes))
    _show(table, as_json)
    if not as_json:
        for note in table.attrs["notes"]:
            click.echo(note)


@cli.command()
@experiment_options
def finetune(experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    """Train every arm over every seed; finished trainings are kept and not repeated."""
    _run(experiment, out, changes, until="finetune")
    from consenso.overview import describe_trainings

    _show(describe_trainings(_made(experiment, out, changes)), as_json)


@cli.command()
@click.argument("experiment", type=click.Path(path_type=Path), required=False)
@click.option("--texts", type=int, multiple=True, help="Number of test texts (repeatable); default: the experiment's.")
@click.option("--seeds", type=int, multiple=True, help="Number of seeds (repeatable); default: the experiment's.")
@click.option("--margin", type=float, help="The margin as a share: 0.02 is 2 pp.")
@click.option("--accuracy", type=float, help="Expected accuracy of the students, as a share.")
@click.option("--disagreement", type=float, help="Share of test texts on which the two arms disagree.")
@click.option("--persistence", type=float, help="Share of that variance which lasts over seeds.")
@click.option("--sd-seed", type=float, help="Standard deviation of the difference over seeds, as a share.")
@click.option("--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a setting.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder whose pilot is read (default: runs/<name>).")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def plan(
    experiment: Path | None,
    changes: tuple[str, ...],
    out: Path | None,
    *,
    as_json: bool,
    **numbers: Any,
) -> None:
    """Tell, before anyone labels, what S seeds and n test texts can show; after a pilot, with its components."""
    from consenso.judging import plan_experiment

    texts, seeds = numbers.pop("texts"), numbers.pop("seeds")
    source = experiment
    if source is None and Path("experiment.toml").exists():
        source = Path("experiment.toml")
    found = plan_experiment(source, out, changes, texts=texts, seeds=seeds, **numbers)
    if as_json:
        rows = json.loads(found.table.to_json(orient="records"))
        click.echo(json.dumps({"rows": rows, "sentence": found.sentence, "basis": found.basis}, ensure_ascii=False))
        return
    _show(found.table, as_json)
    click.echo(f"{found.sentence}\nbasis: {found.basis}")


@cli.command()
@experiment_options
@click.option("--explain", metavar="GUARD", help="Say what a guard looks at, what its failure does, what to do.")
@click.option(
    "--freeze", "freezing", is_flag=True, help="Write frozen.json: what is declared before the first scoring."
)
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    help="Judge predictions of your own: a table, or a folder of them.",
)
@click.option("--gold", help="With --predictions: their gold column, or a file with text_id and gold.")
@click.option("--contrast", metavar="ARM,CONTROL", help="With --predictions: the primary contrast.")
@click.option("--metric", help="With --predictions: the primary metric (default: macro_f1).")
@click.option("--margin", type=float, help="With --predictions: the margin, as a share (default: 0.02).")
def compare(experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Check the guards, score the arms on test gold and print the contrasts and the verdict."""
    if options["explain"] is not None:
        from consenso.compare import explain

        click.echo(explain(" ".join(options["explain"].lower().replace("-", " ").replace("_", " ").split())))
        return
    _check_options_of_compare(changes, **options)
    if options["predictions"] is not None:
        _judge_predictions(out, as_json, **options)
    if options["freezing"]:
        _freeze(experiment, out, changes, as_json)
        return
    outcome = _run(experiment, out, changes, until="compare")
    from consenso.overview import describe_comparison

    _show(describe_comparison(_made(experiment, out, changes)), as_json)
    if as_json:
        _say_what_changed_since_the_freeze(outcome.folder)
    else:
        _print_outcome(outcome, as_json)
    raise click.exceptions.Exit(outcome.exit_code)


def _check_options_of_compare(changes: tuple[str, ...], *, freezing: bool, **options: Any) -> None:
    """Predictions of one's own have no experiment.toml, and an experiment declares in its file what they need options for."""
    if options["predictions"] is None:
        given = [f"--{name}" for name in ("gold", "contrast", "metric", "margin") if options[name] is not None]
        if given:
            raise ConfigError(
                f"{', '.join(given)} goes with --predictions; for an experiment say it in experiment.toml, or with "
                "--set compare.metric=… and the like"
            )
        return
    source = click.get_current_context().get_parameter_source("experiment")
    experiment = ["EXPERIMENT"] if source is not click.core.ParameterSource.DEFAULT else []
    if given := [*experiment, *(["--freeze"] if freezing else []), *(["--set"] if changes else [])]:
        raise ConfigError(
            f"{', '.join(given)} does not go with --predictions, which are judged without an experiment.toml; leave it out"
        )


def _freeze(experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    from consenso.experiment import freeze_experiment
    from consenso.experiment_file import read_experiment

    read, base = read_experiment(experiment, changes)
    folder = out or Path("runs") / read.name
    frozen = freeze_experiment(read, folder, base=base)
    if as_json:
        click.echo(json.dumps(frozen.as_record(), ensure_ascii=False))
    else:
        click.echo(f"{folder / 'frozen.json'}: {frozen}")


def _judge_predictions(
    out: Path | None, as_json: bool, *, predictions: Path, contrast: str | None, **given: Any
) -> None:
    from consenso.compare import exit_code
    from consenso.judging import judge_predictions
    from consenso.overview import contrast_rows

    pair = None if contrast is None else tuple(part.strip() for part in contrast.split(","))
    if pair is not None and (len(pair) != 2 or not all(pair)):
        raise ConfigError(f"--contrast names two arms, like llm,human; found {contrast!r}")
    metric, margin = given["metric"] or "macro_f1", 0.02 if given["margin"] is None else given["margin"]
    found = judge_predictions(predictions, given["gold"], contrast=pair, metric=metric, margin=margin, out=out)
    primary, place = found[found["is_primary"]], None if out is None else out / "report.html"
    if as_json:
        click.echo(json.dumps(_judged(found, metric, place), ensure_ascii=False))
    else:
        _show(contrast_rows(found, metric), as_json)
        for guard in found.attrs["guards"]:
            if guard["outcome"] in {"failed", "warned"}:
                scope = "" if guard["scope"] == "all" else f" ({guard['scope']})"
                click.echo(f"guard {guard['guard']}{scope} {guard['outcome']}: {guard['reason']}", err=True)
        for sentence in primary["sentence"]:
            click.echo(f"verdict: {sentence}")
        if place is not None:
            click.echo(f"report:  {place}")
    raise click.exceptions.Exit(max(map(exit_code, primary["verdict"]), default=0))


def _judged(found: pd.DataFrame, metric: str, place: Path | None) -> dict[str, Any]:
    """What `compare --predictions --json` prints; verdict and sentence are those of the first student."""
    from consenso.overview import contrast_rows

    primary = found.loc[found["is_primary"], ["student", "verdict", "sentence"]].to_dict("records")
    return {
        "verdict": primary[0]["verdict"] if primary else "",
        "sentence": primary[0]["sentence"] if primary else "",
        "others": {row["student"]: row["sentence"] for row in primary[1:]},
        "contrasts": json.loads(contrast_rows(found, metric).to_json(orient="records")),
        "guards": [
            {name: guard[name] for name in ("guard", "scope", "outcome", "reason")} for guard in found.attrs["guards"]
        ],
        "report": None if place is None else str(place),
    }


def _made(experiment: Path, out: Path | None, changes: tuple[str, ...]) -> RunFolder:
    from consenso.experiment_file import read_experiment
    from consenso.store import RunFolder

    return RunFolder(out or Path("runs") / read_experiment(experiment, changes)[0].name)


def _show(frame: pd.DataFrame, as_json: bool) -> None:
    if as_json:
        click.echo(frame.to_json(orient="records", force_ascii=False))
    else:
        click.echo(frame.to_string(index=False, na_rep="–", float_format=lambda value: f"{value:.3f}"))


@cli.command()
@click.argument("run_folders", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN_FOLDER]...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="With several run folders: the file to write (default: combined.html).",
)
def report(run_folders: tuple[Path, ...], out: Path | None) -> None:
    """Write report.html and report.md of a run folder (or of an experiment.toml's) anew; of several, one report for all."""
    from consenso.report import write_report

    if len(run_folders) < 2:
        if out is not None:
            raise ConfigError("--out goes with several run folders; the report of one stands in its folder")
        click.echo(str(write_report(_folder(run_folders[0] if run_folders else Path("experiment.toml")))))
        return
    from consenso.judging import combine_runs

    combined, path = combine_runs([_folder(one).path for one in run_folders], out or Path("combined.html"))
    for name, student, sentence in zip(combined["dataset"], combined["student"], combined["sentence"]):
        click.echo(f"{name} ({student}): {sentence}")
    click.echo(f"report:  {path}")


@cli.command()
@click.argument("run_folder", type=click.Path(path_type=Path), default=Path("experiment.toml"))
@click.option(
    "--to", "target", type=click.Path(path_type=Path), help="Folder to write to (default: <run folder>/export)."
)
@click.option("--table", "tables", multiple=True, help="Only this table (repeatable).")
@click.option("--earlier", is_flag=True, help="Write the earlier system's files instead of the tables.")
@click.option("--label-studio", is_flag=True, help="Write texts and votes for Label Studio instead.")
@click.option("--argilla", is_flag=True, help="Write texts and votes for Argilla instead.")
@click.option("--spreadsheet-safe", is_flag=True, help="Keep spreadsheets from reading texts as formulas.")
def export(
    run_folder: Path,
    target: Path | None,
    tables: tuple[str, ...],
    *,
    earlier: bool,
    label_studio: bool,
    argilla: bool,
    spreadsheet_safe: bool,
) -> None:
    """Write the tables as CSV, or files for other tools: the earlier system, Label Studio, Argilla."""
    from consenso.report import export_argilla, export_earlier, export_label_studio, export_tables

    folder = _folder(run_folder)
    place = target or folder.path / "export"
    if sum((earlier, label_studio, argilla)) > 1:
        raise ConfigError("--earlier, --label-studio, --argilla: choose one")
    if earlier:
        written = export_earlier(folder, place, spreadsheet_safe=spreadsheet_safe)
    elif label_studio or argilla:
        written = [(export_label_studio if label_studio else export_argilla)(folder, place)]
    else:
        written = export_tables(folder, place, names=list(tables) or None, spreadsheet_safe=spreadsheet_safe)
    for path in written:
        click.echo(str(path))


@cli.command()
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


@cli.command()
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
