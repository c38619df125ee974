"""Commands about votes and labels: annotate, log, consensus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consenso.cli.shared import experiment_options, folder_of, made_folder, opened, run_until, show, show_rows
from consenso.errors import DataError

if TYPE_CHECKING:
    from consenso.store import RunFolder


@click.command()
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
        run_until(experiment, out, changes, until="data")
        (_plan_votes if planning else _probe)(experiment, out, changes, as_json)
        return
    run_until(experiment, out, changes, until="annotate", wait=not no_wait, batch=batch)
    from consenso.overview import describe_vote_log, describe_votes

    folder = made_folder(experiment, out, changes)
    show(describe_votes(folder), as_json)
    if not as_json and (asked := describe_vote_log(folder)) is not None:
        click.echo(f"vote log: {asked[1]}")


def _plan_votes(experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    from consenso.experiment_file import read_experiment
    from consenso.overview import plan_annotation
    from consenso.progress import duration

    rows = plan_annotation(*opened(experiment, out, changes))
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

    read, folder, base = opened(experiment, out, changes)
    rows = probe_annotators(read, LabelSchema.from_records(folder.record()["labels"]), base)
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        for row in rows:
            said = row.get("error") or ", ".join(f"{name}: {row[name]}" for name in ("schema", "logprobs", "seed", "n"))
            click.echo(f"{row['annotator']} ({row['endpoint']}/{row['model']}): {said}")
    raise click.exceptions.Exit(int(any("error" in row for row in rows)))


@click.command()
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

    path = run_folder if run_folder.suffix == ".sqlite" else _log_of(folder_of(run_folder))
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
                show_rows(rows, drop_zeros=True)
                click.echo(statement)


def _log_of(folder: RunFolder) -> Path:
    """Where the vote log stands; a run that has votes and asked nobody has none."""
    from consenso.overview import log_of

    path = log_of(folder)
    if not path.exists() and folder.has("votes"):
        annotate = folder.record().get("settings", {}).get("annotate", {})
        files = ", ".join(str(one["source"]) for one in annotate.get("imports", []))
        made = " and ".join(
            filter(
                None,
                [
                    f"imported ({files})" if files else "",
                    "made by embedded encoders" if annotate.get("annotators") else "",
                ],
            )
        )
        raise DataError(
            f"{folder.path}: no vote log, because nothing was asked: its votes were {made}; see consenso annotate for a "
            "summary, or consenso export --table votes"
        )
    return path


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
    show_rows(short)
    if count > len(rows):
        click.echo(f"{len(rows)} of {count:,}; more with --limit, all with --to FILE")


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 70 else f"{line[:69]}…"


@click.command()
@experiment_options
def consensus(experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    """Turn votes into labels; print coverage, agreement and quality against gold (never test gold)."""
    run_until(experiment, out, changes, until="consensus")
    from consenso.overview import describe_consensus

    table = describe_consensus(made_folder(experiment, out, changes))
    show(table, as_json)
    if not as_json:
        for note in table.attrs["notes"]:
            click.echo(note)
