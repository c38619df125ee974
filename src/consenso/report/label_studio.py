"""A run as tasks with predictions, as Label Studio imports them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from consenso.labels import LabelSchema
from consenso.report.export import open_folder
from consenso.report.facts import Facts
from consenso.report.opinions import Opinion, opinions, schema_of, who_voted, write_json_list
from consenso.report.settings import ReportSettings
from consenso.store import RunFolder, write_text


def export_label_studio(folder: RunFolder | str | Path, out: str | Path) -> Path:
    """Write <out>/label_studio.json (tasks) and label_studio.xml (labelling interface); return the path of the former.

    Tasks are the texts that anyone was asked about, in Label Studio's basic JSON format: `data` holds text, text_id,
    consensus_level and is_problematic; there is a prediction per annotator with a label (model_version: its name; score:
    its confidence, where it has one) and, first, one for the final label (model_version: consensus, human or gold; score:
    the consensus score). Paste the XML under Settings › Labeling Interface before the tasks are imported. Gold is not
    written: whoever labels should not see it.
    Raises `DataError` where there are no votes yet.
    """
    place, target = open_folder(folder), Path(out)
    who_voted(place)
    facts = Facts(place, ReportSettings())
    write_text(target / "label_studio.xml", interface(schema_of(facts)))
    return write_json_list(target / "label_studio.json", tasks(facts))


def interface(schema: LabelSchema) -> str:
    """Return the labelling interface: the text, and one choice among the labels, with their descriptions as hints."""
    choices = []
    for name in schema.names:
        hint = schema.descriptions[name]
        choices.append(f"    <Choice value={quoteattr(name)}{f' hint={quoteattr(hint)}' if hint else ''}/>")
    lines = [
        "<View>",
        '  <Text name="text" value="$text"/>',
        '  <Choices name="label" toName="text" choice="single" required="true">',
        *choices,
        "  </Choices>",
        "</View>",
    ]
    return "\n".join(lines) + "\n"


def tasks(facts: Facts) -> Iterator[dict[str, Any]]:
    """Yield the tasks."""
    for one in opinions(facts):
        given = [*([] if one.final is None else [one.final]), *one.votes]
        data = {"text": one.text, "text_id": one.text_id, **one.state}
        yield {"data": data, "predictions": [_prediction(opinion) for opinion in given]}


def _prediction(given: Opinion) -> dict[str, Any]:
    chosen = {
        "id": "label", "from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [given.label]},
    }  # fmt: skip
    score = {} if given.score is None else {"score": given.score}
    return {"model_version": given.who, **score, "result": [chosen]}
