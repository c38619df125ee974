"""Commands about what comes out: report, export."""

from __future__ import annotations

from pathlib import Path

import click

from consenso.cli.shared import folder_of
from consenso.errors import ConfigError


@click.command()
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
        click.echo(str(write_report(folder_of(run_folders[0] if run_folders else Path("experiment.toml")))))
        return
    from consenso.judging import combine_runs

    combined, path = combine_runs([folder_of(one).path for one in run_folders], out or Path("combined.html"))
    for name, student, sentence in zip(combined["dataset"], combined["student"], combined["sentence"]):
        click.echo(f"{name} ({student}): {sentence}")
    click.echo(f"report:  {path}")


@click.command()
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

    folder = folder_of(run_folder)
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
