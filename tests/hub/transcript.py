"""The push as a user sees it: real commands against the strict Hub, which runs as a process of its own.

    python -m tests.hub.transcript RUN            shows the commands with all that they print
    python -m tests.hub.transcript RUN docs/hub.md   puts them between the marks of the page

The run folder is copied first. The Hub's address is replaced by the real one's; nothing else is.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.hub.client import ROOT, hub_environment


BEGIN, END = "<!-- begin of the transcript -->", "<!-- end of the transcript -->"
_REPO = "ada/movie-reviews"
_REAL = "https://huggingface.co"
_FOR_THE_CARD = "--license apache-2.0 --language en"


@dataclass(frozen=True)
class Step:
    """A command, with what is said before it; `exit_code` is the one that it must end with."""

    about: str
    command: str
    token: str | None = "hf_write"
    exit_code: int = 0


def steps_of(run: str) -> list[Step]:
    """What a user does with a run, the mistakes included."""
    push = f"distilbert-kd push {run} --repo {_REPO}"
    tagged = f"{push} --tag v1.0 {_FOR_THE_CARD}"
    return [
        Step("With a token that the Hub doesn't know", push, token="hf_wrong", exit_code=5),
        Step("With one that may only read", push, token="hf_read", exit_code=5),
        Step("With one that may write", f"{push} --dry-run"),
        Step("", tagged),
        Step("The same again", tagged),
        Step("A public repository is not made private", f"{push} --private", exit_code=5),
        Step(
            "By its id, with transformers alone and an empty cache; `use.py` is what stands under Use in the card",
            "python use.py",
            token=None,
        ),
    ]


def transcript(run: Path) -> str:
    """Runs the steps.

    Args:
        run: the folder of a finished run.

    Returns:
        Markdown.

    Raises:
        SystemExit: a step ended in another way than it must.
    """
    parts = [
        f"Recorded on {time.strftime('%Y-%m-%d')} by `python -m tests.hub.transcript {run}`, with "
        f"huggingface_hub {version('huggingface_hub')} against the strict Hub of the tests (`tests/hub/loopback.py`), "
        "whose address is replaced by the real one's. Nothing here has been pushed to the public Hub."
    ]
    with tempfile.TemporaryDirectory() as place, _hub() as endpoint:
        here = Path(place)
        shutil.copytree(run, here / "runs" / run.name)
        for step in steps_of(f"runs/{run.name}"):
            failed = f" (exit code {step.exit_code})" if step.exit_code else ""
            parts += [f"{step.about}{failed}:"] if step.about else []
            parts.append(f"```console\n$ {step.command}\n{_output_of(step, here, run.name, endpoint)}```")
    return "\n\n".join(parts)


@contextmanager
def _hub():
    server = [sys.executable, "-m", "tests.hub.loopback"]
    with subprocess.Popen(server, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


def _output_of(step: Step, here: Path, name: str, endpoint: str) -> str:
    program, *arguments = shlex.split(step.command)
    command = [sys.executable, *(["-m", "distilbert_kd"] if program == "distilbert-kd" else []), *arguments]
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    environment = hub_environment(endpoint, here / "home", **quiet, **({"HF_TOKEN": step.token} if step.token else {}))
    if program == "python":
        card = (here / "runs" / name / "hub" / "README.md").read_text("utf-8")
        (here / "use.py").write_text(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], "utf-8")
        environment |= {"HF_HOME": str(here / "another"), "PYTHONPATH": ""}
    done = subprocess.run(
        command, cwd=here, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode != step.exit_code:
        raise SystemExit(f"{step.command}: expected exit code {step.exit_code}, got {done.returncode}:\n{done.stdout}")
    return done.stdout.replace(endpoint, _REAL)


def write_into(page: Path, text: str) -> None:
    """Puts the transcript between its marks in a page."""
    pattern = rf"{re.escape(BEGIN)}.*{re.escape(END)}"
    content, number = re.subn(pattern, lambda _: f"{BEGIN}\n{text}\n{END}", page.read_text("utf-8"), flags=re.DOTALL)
    if number != 1:
        raise SystemExit(f"Expected the marks {BEGIN} and {END} once in {page}, got them {number} times.")
    page.write_text(content, "utf-8")


if __name__ == "__main__":
    os.environ.pop("HF_TOKEN", None)
    text = transcript(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        write_into(Path(sys.argv[2]), text)
    else:
        sys.stdout.write(f"{text}\n")
