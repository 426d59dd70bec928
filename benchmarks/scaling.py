"""Does time grow in step with rows and layers, and does memory stay where it is?

    GLUE_DIR=... OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive python benchmarks/scaling.py --out build/bench

SST-2 rows from 1,000 to 64,000 with a student of 3 layers, and students of 1 to 6 layers on 2,000 rows. All rows go
through the teacher's pass, the cache, the sampler and the loader; the optimizer steps are as many for each number of
rows (`--steps`), because a step costs the same whatever the number of rows behind it, if this benchmark is right.
"""

import argparse
import json
import logging
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cost import setting_record
from report import markdown_table, new_figure, save_figure, write_json
from speed import run_child


logger = logging.getLogger(__name__)

NUM_ROWS = (1000, 4000, 16000, 64000)
NUM_LAYERS = (1, 2, 3, 4, 5, 6)
ROWS_FOR_LAYERS = 2000
STUDENT_LAYERS = 3
#: What is run: (rows, layers of the student).
TRIALS = [*((rows, STUDENT_LAYERS) for rows in NUM_ROWS), *((ROWS_FOR_LAYERS, layers) for layers in NUM_LAYERS)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing, then writes `scaling.json`, the plot and the table."""
    parser = argparse.ArgumentParser(description="CPU time and memory against rows and layers.")
    parser.add_argument("--out", type=Path, required=True, help="folder for teacher, rows and results")
    parser.add_argument("--steps", type=int, default=125, help="optimizer steps of each training")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "passive"}
    path = options.out / "scaling.json"
    records = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
    done = {(record["round"], record["rows"], record["layers"]) for record in records}
    setting = {**setting_record(options.threads), "steps": options.steps, "rounds": options.rounds}
    for rows in sorted({rows for rows, _ in TRIALS}):
        run_child("job.py", ["sst2", str(rows), str(options.out)], environment)
    for number in range(options.rounds):
        for rows, layers in TRIALS:
            if (number, rows, layers) in done:
                continue
            record_path = options.out / "record.json"
            values = {
                "out": options.out,
                "record": record_path,
                "rows": rows,
                "layers": layers,
                "steps": options.steps,
                "seed": number,
                "threads": options.threads,
            }
            run_child("scaling_trial.py", [f"--{name}={value}" for name, value in values.items()], environment)
            records.append({"round": number, **json.loads(record_path.read_text(encoding="utf-8"))})
            logger.info("%s", json.dumps(records[-1]))
            write_json(path, {"setting": setting, "runs": records})
    report(options.out, records)


def report(out: Path, records: Sequence[dict[str, Any]]) -> None:
    """The table, on the screen and in `scaling.md`, and the plot."""
    medians = [_median(records, *trial) for trial in TRIALS]
    header = ["rows", "layers", "training, CPU s per 1,000 rows", "pass, CPU s per 1,000 rows", "peak MB"]
    lines = [
        [f"{row['rows']:,.0f}", f"{row['layers']:.0f}", f"{row['train_cpu_s_per_1000']:.2f}",
         f"{row['pass_cpu_s_per_1000']:.2f}", f"{row['peak_memory_mb']:.0f}"]
        for row in medians
    ]  # fmt: skip
    table = markdown_table(header, lines)
    (out / "scaling.md").write_text(table + "\n", encoding="utf-8")
    logger.info("%s", table)
    figure, axes = new_figure(1, 3)
    by_rows, by_layers = medians[: len(NUM_ROWS)], medians[len(NUM_ROWS) :]
    for axis, field, label in (
        (axes[0][0], "train_cpu_s_per_1000", "CPU s per 1,000 rows"),
        (axes[0][1], "peak_memory_mb", "peak memory, MB"),
    ):
        axis.plot([row["rows"] for row in by_rows], [row[field] for row in by_rows], "o-")
        axis.set(xscale="log", xlabel="rows of the training set", ylabel=label)
        axis.set_ylim(0, 1.15 * max(row[field] for row in by_rows))
    axes[0][2].plot(NUM_LAYERS, [row["train_cpu_s_per_1000"] for row in by_layers], "o-")
    axes[0][2].set(xlabel="layers of the student", ylabel="CPU s per 1,000 rows")
    axes[0][2].set_ylim(bottom=0)
    save_figure(figure, out / "scaling.png")


def _median(records: Sequence[dict[str, Any]], rows: int, layers: int) -> dict[str, Any]:
    own = [record for record in records if (record["rows"], record["layers"]) == (rows, layers)]
    return {name: statistics.median(record[name] for record in own) for name in own[0]}


if __name__ == "__main__":
    main()
