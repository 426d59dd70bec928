"""Loads a pushed student back in a process of its own with an empty cache, and compares it with the one that was sent.

Run as a program it is that process: `python -m distilbert_kd.hub.load_back`, which reads its request as JSON from
standard input and writes its answer as JSON. The token, for a private repository, is in its environment only.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_token, scan_cache_dir

from distilbert_kd.errors import HubError


__all__ = ["LoadedBack", "load_back"]

#: Of different lengths and scripts; the last is cut.
TEXTS = (
    "A quiet, clever film that I would watch again.",
    "Nothing works here: the plot is dull and the cast looks bored.",
    "0 of 10 -- \u00fcberhaupt nicht!",
    "word " * 200,
)
_ANSWER = "distilbert_kd:"
_CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_XET_CACHE", "HF_MODULES_CACHE")


@dataclass(frozen=True)
class LoadedBack:
    """What loading back showed.

    Attributes:
        commit: That the revision led to; None if it led to several.
        largest_difference: Of any logit, between the model that was sent and the one that came back.
        num_texts: Texts that were given to both.
    """

    commit: str | None
    largest_difference: float
    num_texts: int


def load_back(repo: str, revision: str, student: Path, max_length: int) -> LoadedBack:
    """Loads model and tokenizer by id and revision, in a fresh process with an empty cache, and compares logits.

    Args:
        repo: id.
        revision: branch, tag or commit, as a user would name it.
        student: the folder that was sent.
        max_length: texts are cut to so many tokens.

    Returns:
        What came back.

    Raises:
        HubError: it can't be loaded.
    """
    request = {"repo": repo, "revision": revision, "student": str(student), "max_length": max_length}
    with tempfile.TemporaryDirectory(prefix="distilbert-kd-load-back-") as home:
        environment = {name: value for name, value in os.environ.items() if name not in _CACHES}
        environment |= {"HF_HOME": home, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
        token = get_token()  # a stored login lies in the HF_HOME that this process does not have
        if token:
            environment["HF_TOKEN"] = token
        done = subprocess.run(
            [sys.executable, "-m", "distilbert_kd.hub.load_back"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
    answers = [line.removeprefix(_ANSWER) for line in done.stdout.splitlines() if line.startswith(_ANSWER)]
    if done.returncode != 0 or not answers:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise HubError(f"Expected to load {repo} back at {revision} with an empty cache, got: {last[:300]}.")
    return LoadedBack(**json.loads(answers[-1]))


def _compare(repo: str, revision: str, student: str, max_length: int) -> LoadedBack:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(1)  # the same sums in the same order, in both
    logits = []
    safe = {"trust_remote_code": False}
    for source, options in ((student, safe), (repo, {"revision": revision, **safe})):
        model = AutoModelForSequenceClassification.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, **options
        ).eval()
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        with torch.no_grad():
            logits.append(
                torch.cat(
                    [
                        model(**tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")).logits
                        for text in TEXTS
                    ]
                )
            )
    if not all(torch.isfinite(each).all() for each in logits):
        raise ValueError("a logit is not finite")
    commits = [each.commit_hash for cached in scan_cache_dir().repos for each in cached.revisions]
    return LoadedBack(
        commits[0] if len(commits) == 1 else None, (logits[0] - logits[1]).abs().max().item(), len(TEXTS)
    )


if __name__ == "__main__":
    print(_ANSWER + json.dumps(vars(_compare(**json.load(sys.stdin)))))  # noqa: T201  the answer of this program
