"""How fast, against the copied pattern, TextBrewer and a bare loop, with each lever alone and with all together.

    GLUE_DIR=... OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive python benchmarks/speed.py --out build/bench

Each variant trains in a process of its own; all of them take turns, round by round, so that a change of the machine
meets all of them. A round has one seed. Runs that are in the results file are not repeated.
"""

import argparse
import importlib.util
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cost import setting_record
from report import markdown_table, mean_and_error, new_figure, save_figure, write_json


logger = logging.getLogger(__name__)

#: Variants in the order of a round, with their names for readers.
NAMES = {
    "copied": "(a) copied pattern, padded to 128",
    "copied_dynamic": "(b) copied pattern, dynamic padding",
    "textbrewer": "(c) TextBrewer as documented",
    "textbrewer_best": "(c) TextBrewer at its best",
    "grouping": "(d) batches by length alone",
    "cache": "(d) teacher cache alone",
    "first_position": "(d) first position alone",
    "frozen": "(d) frozen embeddings alone",
    "online": "(d) grouping, first position",
    "ours": "(d) grouping, cache, first position",
    "ours_again": "(d) the same, second run",
    "ours_one_epoch": "(d) the same, one epoch from nothing",
    "ours_frozen": "(d) all four levers",
    "ours_frozen_again": "(d) all four, second run",
    "ours_frozen_one_epoch": "(d) all four, one epoch from nothing",
    "limit": "(e) limit",
    "limit_frozen": "(e) limit, frozen embeddings",
}
#: A second run finds the cache of the first.
CACHE_OF = {"ours_again": "ours", "ours_frozen_again": "ours_frozen"}
LIMITS = {"limit", "limit_frozen"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing, then writes `speed.json`, the plot and the table."""
    parser = argparse.ArgumentParser(description="CPU time, memory and score of each variant.")
    parser.add_argument("--out", type=Path, required=True, help="folder for teacher, rows and results")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3, help="rounds take them in turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variants", nargs="+", choices=NAMES, default=list(NAMES))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    variants = _installed(options.variants)
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "passive"}
    run_child("job.py", ["sst2", str(options.rows), str(options.out)], environment)

    path = options.out / "speed.json"
    records = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
    scores = json.loads((options.out / "sst2-teacher" / "scores.json").read_text(encoding="utf-8"))
    setting = {**setting_record(options.threads), "teacher_dev": scores}
    setting |= {name: getattr(options, name) for name in ("rows", "epochs", "rounds", "seeds")}
    for number in range(options.rounds):
        for variant in variants:
            if not any(record["variant"] == variant and record["round"] == number for record in records):
                record = _run(variant, number, options, environment)
                logger.info("%s", json.dumps(record))
                records.append(record)
                write_json(path, {"setting": setting, "runs": records})
    rows = summarise(records)
    write_json(path, {"setting": setting, "summary": rows, "runs": records})
    report(options.out, rows)


def _installed(variants: Sequence[str]) -> list[str]:
    if importlib.util.find_spec("textbrewer") is not None:
        return list(variants)
    logger.info("TextBrewer is left out: it is not installed (pip install textbrewer==0.2.1.post1).")
    return [variant for variant in variants if not variant.startswith("textbrewer")]


def run_child(script: str, arguments: Sequence[str], environment: dict[str, str]) -> None:
    """Runs another file of this folder to its end; what it says is shown only if it fails."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")


def _run(variant: str, number: int, options: argparse.Namespace, environment: dict[str, str]) -> dict[str, Any]:
    cache_dir = options.out / "caches" / f"round-{number}" / CACHE_OF.get(variant, variant)
    if variant not in CACHE_OF:
        shutil.rmtree(cache_dir, ignore_errors=True)
    record = options.out / "record.json"
    values = {
        "out": options.out,
        "cache-dir": cache_dir,
        "record": record,
        "rows": options.rows,
        "epochs": 1 if variant.endswith("one_epoch") else options.epochs,
        "seed": number % options.seeds,
        "threads": options.threads,
    }
    run_child("variants.py", [variant, *(f"--{name}={value}" for name, value in values.items())], environment)
    load = round(os.getloadavg()[0], 2)
    return {"round": number, "load_average": load, **json.loads(record.read_text(encoding="utf-8"))}


def summarise(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each variant: medians over the rounds, scores as means.

    The limits are given without the teacher's pass, and once more with it: the first is what a second run could reach
    at most, the other a first run. Ratios are medians of the ratios within a round.
    """
    timed = [_timed(record, is_pass_counted=record["variant"] not in LIMITS) for record in records]
    timed += [
        {**_timed(record, True), "variant": f"{record['variant']}_with_pass"}
        for record in records
        if record["variant"] in LIMITS
    ]
    names = {**NAMES, **{f"{name}_with_pass": f"{NAMES[name]}, a pass of the teacher counted" for name in LIMITS}}
    rows = []
    for variant, name in names.items():
        own = {row["round"]: row for row in timed if row["variant"] == variant}
        if not own:
            continue
        limit = _limit_of(variant)
        score, error = mean_and_error([row["score"] for row in own.values()])
        rows.append(
            {
                "variant": variant,
                "name": name,
                "rounds": len(own),
                "samples_per_s": statistics.median(row["samples_per_s"] for row in own.values()),
                "cpu_s_per_1000": statistics.median(row["cpu_s_per_1000"] for row in own.values()),
                "times_copied": _ratio(timed, own, "copied"),
                "times_copied_dynamic": _ratio(timed, own, "copied_dynamic"),
                "times_textbrewer": _ratio(timed, own, "textbrewer"),
                "times_textbrewer_best": _ratio(timed, own, "textbrewer_best"),
                "of_limit": _ratio(timed, own, limit) if limit else None,
                "peak_memory_mb": statistics.median(row["peak_memory_mb"] for row in own.values()),
                "dev_score": score,
                "dev_score_error": error,
            }
        )
    return rows


def _timed(record: dict[str, Any], is_pass_counted: bool) -> dict[str, Any]:
    cpu_s, wall_s = record["cpu_s"], record["wall_s"]
    if not is_pass_counted:
        cpu_s, wall_s = cpu_s - record["pass_cpu_s"], wall_s - record["pass_wall_s"]
    speed = {"cpu_s_per_1000": 1000 * cpu_s / record["row_visits"], "samples_per_s": record["row_visits"] / wall_s}
    return {**record, **speed}


def _limit_of(variant: str) -> str | None:
    """The limit that a variant of ours is held against; one epoch has a pass of its own, which no limit here has."""
    if not variant.startswith("ours") or variant.endswith("one_epoch"):
        return None
    limit = "limit_frozen" if "frozen" in variant else "limit"
    return limit if variant in CACHE_OF else f"{limit}_with_pass"


def _ratio(timed: Sequence[dict[str, Any]], own: dict[int, dict[str, Any]], other: str) -> float | None:
    """How many times less CPU time than `other`: the median over the rounds that have both."""
    others = {row["round"]: row["cpu_s_per_1000"] for row in timed if row["variant"] == other}
    ratios = [others[number] / row["cpu_s_per_1000"] for number, row in own.items() if number in others]
    return statistics.median(ratios) if ratios else None


def report(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The table, on the screen and in `speed.md`, and the plot."""
    table = _table(rows)
    (out / "speed.md").write_text(table + "\n", encoding="utf-8")
    logger.info("%s", table)
    figure, axes = new_figure(1, 1)
    axis, shown = axes[0][0], list(reversed(rows))
    figure.set_size_inches(8, 0.32 * len(rows) + 1)
    colours = {"(a": "0.3", "(b": "0.5", "(c": "tab:orange", "(d": "tab:blue", "(e": "tab:green"}
    costs = [row["cpu_s_per_1000"] for row in shown]
    bars = axis.barh([row["name"] for row in shown], costs, color=[colours[row["name"][:2]] for row in shown])
    axis.bar_label(bars, [f"{row['cpu_s_per_1000']:.1f}" for row in shown], padding=3)
    axis.set_xlabel("CPU seconds per 1,000 rows, median")
    save_figure(figure, out / "speed.png")


def _table(rows: Sequence[dict[str, Any]]) -> str:
    header = ["", "rounds", "samples/s", "CPU s per 1,000 rows", "× (a)", "× (b)", "× (c)", "× (c) best", "of (e)"]
    header += ["peak MB", "dev accuracy"]

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    lines = [
        [
            row["name"],
            str(row["rounds"]),
            f"{row['samples_per_s']:.0f}",
            f"{row['cpu_s_per_1000']:.2f}",
            number(row["times_copied"], ".2f"),
            number(row["times_copied_dynamic"], ".2f"),
            number(row["times_textbrewer"], ".2f"),
            number(row["times_textbrewer_best"], ".2f"),
            number(row["of_limit"], ".2f"),
            f"{row['peak_memory_mb']:.0f}",
            f"{100 * row['dev_score']:.1f}" + (f" ± {100 * row['dev_score_error']:.1f}" if row["rounds"] > 1 else ""),
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


if __name__ == "__main__":
    main()
