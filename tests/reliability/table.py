"""The table of what was found: for the terminal, and for the page of the documents."""

import json
import os
import platform
import time
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any


BEGIN, END = "<!-- begin of the table -->", "<!-- end of the table -->"

#: What is lost, by `Finding.result`, where nobody but the program did anything.
LOST = {
    "same": "nothing",
    "nothing": "nothing",
    "refused": "nothing",
    "different": "**the result**, unseen",
    "not finite": "**all weights**, unseen",
    "stuck": "**the run**, until a person mends the folder",
    "hangs": "**the time** until somebody notices",
    "unseen": "**which run it is**",
    "something": "**an empty folder**",
}

Row = tuple[str, str]


def rows_of(findings: Iterable[Mapping[str, Any]]) -> dict[Row, dict[str, dict[str, Any]]]:
    """Findings by fault and program, in the order in which faults are registered.

    Args:
        findings: each with `index`, `kind`, `name`, `program`, and what a `Finding` says.
    """
    rows: dict[Row, dict[str, dict[str, Any]]] = {}
    for each in sorted(findings, key=lambda each: each["index"]):
        rows.setdefault((each["kind"], each["name"]), {})[each["program"]] = dict(each)
    return rows


def merged(record: Path, findings: list[dict[str, Any]], num_faults: int) -> list[dict[str, Any]]:
    """Findings in a file, of which those of the same fault and program are replaced by new ones.

    Args:
        record: JSON; made if it is not there.
        findings: new ones.
        num_faults: in the registry; a record with another number is of another registry, and is begun anew.

    Returns:
        All that are known now.
    """
    before = json.loads(record.read_text("utf-8")) if record.is_file() else {"num_faults": num_faults, "findings": []}
    known = before["findings"] if before["num_faults"] == num_faults else []
    of = {(each["kind"], each["name"], each["program"]): each for each in (*known, *findings)}
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"num_faults": num_faults, "findings": list(of.values())}, indent=1), "utf-8")
    return list(of.values())


def as_markdown(rows: Mapping[Row, Mapping[str, Mapping[str, Any]]], not_applicable: Collection[Row]) -> str:
    """The table, with a line of figures and of what measured it.

    Args:
        rows: what was found.
        not_applicable: faults that have no meaning for the stock Trainer.

    Returns:
        Markdown.
    """
    lines = [
        "| Fault | Tries | `distilbert-kd` | Lost | Stock `Trainer` | Lost |",
        "|---|---|---|---|---|---|",
    ]
    kind = None
    for (this, name), found in rows.items():
        if this != kind:
            lines.append(f"| **{this}** | | | | | |")
            kind = this
        ours, stock = found.get("ours"), found.get("stock")
        tries = ours["tries"] if ours else ""
        without = "not applicable" if (this, name) in not_applicable else "not measured"
        cells = [name, str(tries), *_cells(ours, "not measured"), *_cells(stock, without)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([_measured(rows), "", *lines])


def _cells(finding: Mapping[str, Any] | None, without: str = "") -> tuple[str, str]:
    if finding is None:
        return without, ""
    if finding["is_asked_for"]:
        return "goes on, as was asked", "nothing"
    words = finding["words"] or "exit 0"
    return f"{words}, then the same bits" if finding["result"] == "same" else words, LOST[finding["result"]]


def _measured(rows: Mapping[Row, Mapping[str, Mapping[str, Any]]]) -> str:
    num_lost = {
        program: sum(LOST[found[program]["result"]] != "nothing" and not found[program]["is_asked_for"]
                     for found in rows.values() if program in found)
        for program in ("ours", "stock")
    }  # fmt: skip
    num_tried = {program: sum(program in found for found in rows.values()) for program in ("ours", "stock")}
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate", "safetensors"))
    return (
        f"Measured on {time.strftime('%Y-%m-%d')} with Python {platform.python_version()}, {versions}, on "
        f"{os.cpu_count()} cores ({platform.machine()}, no GPU), seed 42. Something is lost in {num_lost['ours']} of "
        f"{num_tried['ours']} faults with `distilbert-kd`, in {num_lost['stock']} of {num_tried['stock']} with the "
        "stock Trainer."
    )


def as_text(rows: Mapping[Row, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Lines for the terminal."""
    lines = []
    for (kind, name), found in rows.items():
        for program, each in found.items():
            outcome, lost = _cells(each)
            lines.append(f"{program:5}  {kind}: {name} | {each['tries']} | {outcome} | lost: {lost.replace('*', '')}")
    return lines


def write_into(page: Path, table: str) -> None:
    """Puts the table between its marks in a page."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", "utf-8")
