"""The two programs, the package and a stock Trainer, as a test starts them and looks at what they leave."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from tests.reliability.places import Place


ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120.0


class Server:
    """The process that forks them."""

    def __init__(self, inputs: Path) -> None:
        self.inputs = inputs
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.server", str(inputs)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request and its answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """Ends it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(timeout=60) == 0


@dataclass
class Ended:
    """How a start ended: an exit code, a negative signal, "paused" or "hangs" for each process, and what was said."""

    ends: list[str]
    log: str
    pids: list[int] = field(default_factory=list)
    cpu_s: float = 0.0

    @property
    def end(self) -> str:
        """Of the process that fared worst."""
        return max(self.ends, key=lambda end: (end == "hangs", end != "0"))

    @property
    def error(self) -> str:
        """The last line of a traceback or message, short and without places."""
        lines = [line for line in self.log.splitlines() if re.match(r"[\w.]+(Error|Exception)\b|error: ", line)]
        line = re.sub(r"(/[\w.-]+)+/", "", lines[-1] if lines else "")
        return line if len(line) <= 90 else line[:87] + "..."


@dataclass
class Program:
    """One of the two: "ours" or "stock"."""

    name: str
    server: Server

    def start(
        self,
        place: Place,
        fault: str | None = None,
        overrides: tuple[str, ...] = (),
        options: tuple[str, ...] = (),
        processes: int = 1,
        kill_at_cpu_s: float | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Ended:
        """Runs it to its end, whatever that is."""
        place.disk.mkdir(parents=True, exist_ok=True)
        log = place.folder / "log"
        answer = self.server.ask(
            program=self.name,
            folder=str(place.folder),
            fault=fault,
            overrides=overrides,
            options=options,
            processes=processes,
            kill_at_cpu_s=kill_at_cpu_s,
            timeout_s=timeout_s,
            log=str(log),
        )
        return Ended(answer["ends"], log.read_text("utf-8", errors="replace"), answer["pids"], answer["cpu_s"])

    def go_on(self, place: Place, paused: Ended) -> Ended:
        """Lets one that was paused run to its end."""
        answer = self.server.ask(go_on=paused.pids, kill_at_cpu_s=None, timeout_s=TIMEOUT_S)
        return Ended(answer["ends"], (place.folder / "log").read_text("utf-8"))

    def outcome(self, place: Place) -> dict[str, Any]:
        """All that a run is for: weights, history and scores, without times and places."""
        names = ("teacher", "student", "control") if self.name == "ours" else ("student",)
        weights = {name: (place.run / name / "model.safetensors").read_bytes() for name in names}
        found = {"weights": {name: hashlib.sha256(content).hexdigest() for name, content in weights.items()}}
        return found | _records(place.run) if self.name == "ours" else found

    def verdict(self, place: Place, whole: dict[str, Any]) -> str:
        """What a run that ended well left: "same", "different" or "not finite"."""
        if not all(is_finite(path) for path in place.run.rglob("*.safetensors")):
            return "not finite"
        return "same" if self.outcome(place) == whole else "different"


def is_finite(path: Path) -> bool:
    """Whether each weight of a file is a number; a file that is no whole one was set aside."""
    try:
        return all(np.isfinite(tensor).all() for tensor in load_file(path).values())
    except SafetensorError:
        return True


def _records(run: Path) -> dict[str, Any]:
    timed = ("runtime", "per_second", "flos", "train_loss")
    history = {
        name: [{key: value for key, value in line.items() if not key.endswith(timed)} for line in lines]
        for name, lines in json.loads((run / "history.json").read_text("utf-8")).items()
    }
    results = json.loads((run / "results.json").read_text("utf-8"))
    scores = {name: model["splits"] for name, model in results["models"].items()}
    files = sorted(path.name for path in run.iterdir())
    return {"history": history, "scores": scores, "files": files}


def copied(begun: Place, folder: Path) -> Place:
    """Another place with what a run has left in one."""
    shutil.copytree(begun.folder, folder)
    return Place(folder, begun.inputs)
