"""Commands about arms and the verdict: finetune, plan, compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consenso.cli.shared import experiment_options, made_folder, print_outcome, run_until, say_what_changed, show
from consenso.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@experiment_options
def finetune(experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    """Train every arm over every seed; finished trainings are kept and not repeated."""
    run_until(experiment, out, changes, until="finetune")
    from consenso.overview import describe_trainings

    show(describe_trainings(made_folder(experiment, out, changes)), as_json)


@click.command()
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
    show(found.table, as_json)
    click.echo(f"{found.sentence}\nbasis: {found.basis}")


@click.command()
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
    outcome = run_until(experiment, out, changes, until="compare")
    from consenso.overview import describe_comparison

    show(describe_comparison(made_folder(experiment, out, changes)), as_json)
    if as_json:
        say_what_changed(outcome.folder)
    else:
        print_outcome(outcome, as_json)
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
        show(contrast_rows(found, metric), as_json)
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
