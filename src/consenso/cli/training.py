"""The command about a classifier to use: train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consenso.cli.shared import experiment_options
from consenso.errors import ConfigError

if TYPE_CHECKING:
    from consenso.final_model import Trained


@click.command()
@experiment_options
@click.option("--to", required=True, type=click.Path(path_type=Path), help="Folder to write the model to.")
@click.option("--labels", metavar="ARM", help="Whose labels: any arm (default: the one the experiment asks about).")
@click.option(
    "--student", default="encoder", show_default=True, help="What to train: a fine-tuned encoder, nothing else."
)
@click.option("--seed", type=int, help="Seed of the training (default: the experiment's first).")
@click.option("--seeds-tried", type=int, default=1, show_default=True, help="Try so many seeds, keep the best on dev.")
@click.option("--all-texts", is_flag=True, help="Train on test texts too: no test score is left for this model.")
@click.option(
    "--threads",
    type=int,
    default=1,
    show_default=True,
    help="More may be faster; 1 gives the experiment's very numbers.",
)
@click.option("--force", is_flag=True, help="Replace a model that stands in the folder.")
@click.option("--push-to-hub", metavar="REPO_ID", help="Upload the folder to the Hugging Face Hub.")
@click.option("--private", is_flag=True, help="With --push-to-hub: a private repository.")
def train(
    experiment: Path, out: Path | None, changes: tuple[str, ...], as_json: bool, student: str, **options: Any
) -> None:
    """Train one classifier to use, on the labels of your choice; save it with a model card for transformers."""
    from consenso.experiment_file import read_experiment
    from consenso.final_model import train_model
    from consenso.finetune.ranks import find_ranks
    from consenso.progress import showing

    if student != "encoder":
        raise ConfigError(
            f"--student: train makes a fine-tuned encoder and nothing else; found {student!r}, leave it out"
        )
    read, base = read_experiment(experiment, _for_the_encoder(changes))
    with showing() as progress:
        trained = train_model(read, out, base=base, progress=progress, **options)
    if find_ranks().rank:
        return  # the first of the processes that trained together tells
    if "encoder" not in read.finetune.students:
        compared = ", ".join(read.finetune.students)
        click.echo(
            f"the experiment compares {compared}; train made a fine-tuned encoder, about which its verdict says nothing",
            err=True,
        )
    if as_json:
        click.echo(
            json.dumps({"folder": str(trained.folder), "address": trained.address, **trained.facts}, ensure_ascii=False)
        )
    else:
        _say(trained)


def _for_the_encoder(changes: tuple[str, ...]) -> tuple[str, ...]:
    """A recipe that is set here is the encoder's, whatever [finetune.overrides.encoder] says; who names a rate has chosen."""
    recipe = [change.removeprefix("finetune.recipe.") for change in changes if change.startswith("finetune.recipe.")]
    more = [f"finetune.overrides.encoder.recipe.{change}" for change in recipe]
    more += ["finetune.learning_rates=[]"] if any(change.startswith("learning_rate=") for change in recipe) else []
    return (*changes, *more)


def _say(trained: Trained) -> None:
    facts = trained.facts
    data, temperature = facts["data"], facts["temperature"]
    scored, where = (facts["test"], "test texts") if facts["test"] else (None, "")
    score = (
        f"; macro-F1 {scored['metrics']['macro_f1']['value']:.3f} on {scored['texts']:,} {where}"
        if scored
        else f"; dev macro-F1 {facts['dev']['macro_f1']:.3f}, not tested"
    )
    click.echo(
        f"model:   {trained.folder} (arm {facts['arm']}, {data['train_texts']:,} texts, seed {facts['seed']}{score})"
    )
    click.echo(f"card:    {trained.folder / 'README.md'}")
    if silent := facts["never_predicted"]:
        click.echo(f"it gave none of the {data['dev_texts'] + data['test_texts']:,} dev and test texts the label "
                   f"{' or '.join(silent)}", err=True)  # fmt: skip
    if not temperature["fitted"]:
        click.echo(f"no temperature was fitted: {temperature['why']}", err=True)
    if trained.address:
        click.echo(f"pushed:  {trained.address}")
