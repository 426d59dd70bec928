"""What a search for layers found: a table, a picture and all numbers. Reads the record that `layers.json` holds."""

import json
import logging
import statistics
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distilbert_kd.results import Table, markdown_table
from distilbert_kd.storage import storage_errors, write_text


__all__ = ["render_search", "write_report"]

logger = logging.getLogger(__name__)


def write_report(folder: Path, record: Mapping[str, Any]) -> str:
    """Writes `layers.json`, `layers.md` and, with matplotlib, `layers.png`.

    Args:
        folder: that is there.
        record: a `LayerSearch` as a dictionary, with the setting of the search.

    Returns:
        The text of `layers.md`.

    Raises:
        StorageError: a file can't be written.
    """
    write_text(folder / "layers.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    text = render_search(record)
    write_text(folder / "layers.md", text)
    if find_spec("matplotlib") is None:
        logger.info("layers: no picture, because matplotlib is not installed: pip install matplotlib")
    else:
        _draw(folder / "layers.png", record)
    return text


def render_search(record: Mapping[str, Any]) -> str:
    """The findings in Markdown: the ranked maps, the importance of each layer, and how to read them.

    Args:
        record: as in `write_report`.

    Returns:
        The text.
    """
    depth = f"{record['num_layers']} of {record['num_teacher_layers']} layers"
    unit = _unit(record)
    ranking = Table(
        f"{record['name']}: which {depth} to keep",
        ("", "layers", "map", f"{unit}, distilled", "score, distilled", f"{unit}, cut", "score, cut"),
        tuple(
            (
                str(place),
                " ".join(map(str, result["candidate"]["layers"])),
                ", ".join(result["candidate"]["names"]),
                _mean([each["divergence"] for each in result["distilled"]], 4),
                _mean([100 * each["score"] for each in result["distilled"]], 1),
                f"{result['cut']['divergence']:.4f}",
                f"{100 * result['cut']['score']:.1f}",
            )
            for place, result in enumerate(record["ranking"], start=1)
        ),
    )
    importance = Table(
        "Importance: the teacher without one layer, untrained",
        ("layer removed", unit, "score", "change of score"),
        tuple(_importance_row(each, record["importance_score"]) for each in record["importance"]),
    )
    notes = "\n".join(f"- {line}" for line in _notes(record, unit))
    parts = [
        f"# {ranking.title}",
        markdown_table(ranking),
        f"## {importance.title}",
        markdown_table(importance),
        notes,
    ]
    return "\n\n".join(parts) + "\n"


def _importance_row(each: Mapping[str, Any], whole_score: float) -> tuple[str, ...]:
    if each["without"] is None:
        return (str(each["layer"]), "can't be removed", "", "")
    score = each["without"]["score"]
    divergence = f"{each['without']['divergence']:.4f}"
    return (str(each["layer"]), divergence, f"{100 * score:.1f}", f"{100 * (score - whole_score):+.1f}")


def _notes(record: Mapping[str, Any], unit: str) -> list[str]:
    rows, seeds = record["rows"], record["seeds"]
    seen = (
        "which neither the teacher nor a student learnt from (the teacher's best epoch was chosen by them)"
        if record["is_teacher_trained_here"]
        else "which no student learnt from; the teacher was there already and may have"
    )
    spread = (
        f"mean ± standard deviation of seeds {', '.join(map(str, seeds))}"
        if len(seeds) > 1
        else (f"seed {seeds[0]} alone, so the spread of the ranking is unknown")
    )
    return [
        f"Ranked by {unit} after distillation: how far from the teacher, 0 is the teacher itself. Measured on "
        f"{rows['held-out']:,} training rows that were held out, {seen}. No row of the splits that a run reports was "
        "looked at.",
        f"Distilled: epochs {record['num_epochs']:g} ({record['num_steps']} steps), on {rows['sample']:,} training "
        f"rows; {spread}. Cut: before any training.",
        f"Importance, and with it the maps importance and backward, come from {rows['importance']:,} rows of that "
        "sample.",
        f"Score: {record['score_name']} in %; the teacher's is {100 * record['teacher_score']:.1f} on the held-out "
        f"rows and {100 * record['importance_score']:.1f} on those of importance.",
        f"Teacher: {record['teacher']}. {record['seconds']:.0f} seconds in all.",
        *record["caveats"],
    ]


def _unit(record: Mapping[str, Any]) -> str:
    return "squared difference" if record["is_regression"] else "KL in nats"


def _mean(values: Sequence[float], decimals: int) -> str:
    mean = f"{statistics.fmean(values):.{decimals}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{decimals}f}"


def _draw(path: Path, record: Mapping[str, Any]) -> None:
    """Importance of each layer on the left; on the right the maps, the best on top, before and after distillation."""
    from matplotlib.figure import Figure  # without pyplot: no window, no state that outlives the picture

    ranking, unit = record["ranking"], _unit(record)
    figure = Figure(figsize=(10, 1.6 + 0.35 * max(len(ranking), 5)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    removable = [each for each in record["importance"] if each["without"] is not None]
    left.bar([str(each["layer"]) for each in removable], [each["without"]["divergence"] for each in removable])
    left.set(xlabel="teacher layer that is removed", ylabel=f"{unit} to the whole teacher", title="Importance")
    places = range(len(ranking))
    for place, result in zip(places, ranking, strict=True):
        values = [each["divergence"] for each in result["distilled"]]
        right.plot(values, [place] * len(values), "o", color="C0", label="distilled" if place == 0 else None)
        cut = result["cut"]["divergence"]
        right.plot(cut, place, "o", color="C1", fillstyle="none", label="cut, untrained" if place == 0 else None)
    names = [f"{' '.join(map(str, r['candidate']['layers']))}  {', '.join(r['candidate']['names'])}" for r in ranking]
    right.set_yticks(places, names)
    right.invert_yaxis()
    right.set(xlabel=f"{unit} to the teacher, held-out rows", title="Layer maps", xlim=(0, None))
    right.legend(frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    with storage_errors(path):
        figure.savefig(path, dpi=90)
