"""The product as a process with the loopback Hub in its environment; the Hub's client reads its settings at import.

Reads one JSON object a line (`arguments`, `token`), runs the command line, and answers with exit code and output. One
process for many commands, because each start costs a second.
"""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Answer:
    """What a command left."""

    exit_code: int
    stdout: str
    stderr: str


class Client:
    """A process that runs commands; `with Client(...) as client`."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def ask(self, *arguments: object, token: str | None = "hf_write", code: str | None = None) -> Answer:
        """Runs a command, or Python code that prints."""
        request = {"arguments": [str(argument) for argument in arguments], "token": token, "code": code}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return Answer(**json.loads(self.process.stdout.readline()))


def push(
    client: Client, run: Path, *options: str, repo: str = "ada/tiny", load_back: bool = False, **settings: Any
) -> Answer:
    """Runs `distilbert-kd push`; without loading it back, which takes seconds, if that is not what is tested."""
    checks = [] if load_back else ["--no-load-back"]
    return client.ask("push", run, "--repo", repo, *checks, *options, **settings)


def hub_environment(endpoint: str, home: Path, **settings: str) -> dict[str, str]:
    """The environment of a user whose Hub is the loopback one, with a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **settings,
    }


def _serve() -> None:
    from typer.testing import CliRunner

    from distilbert_kd.cli import app

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        os.environ.pop("HF_TOKEN", None)
        if request["token"]:
            os.environ["HF_TOKEN"] = request["token"]
        answers.write(json.dumps(_run(CliRunner(), app, request)) + "\n")
        answers.flush()


def _run(runner: Any, app: Any, request: dict[str, Any]) -> dict[str, Any]:
    import io
    import traceback

    if request["code"]:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            try:
                exec(request["code"], {})
                return {"exit_code": 0, "stdout": output.getvalue(), "stderr": ""}
            except Exception:
                return {"exit_code": 1, "stdout": output.getvalue(), "stderr": traceback.format_exc()}
    result = runner.invoke(app, request["arguments"], prog_name="distilbert-kd")
    stderr = result.stderr
    if result.exception and not isinstance(result.exception, SystemExit):
        stderr += "".join(traceback.format_exception(result.exception))
    return {"exit_code": result.exit_code, "stdout": result.stdout, "stderr": stderr}


if __name__ == "__main__":
    _serve()
