"""What a model's files may ask of transformers: nothing outside their folder, no pickle, no code.

Before a model is loaded, the few files that name others are read. transformers 5 follows a sharded index out of a
local folder, reads a pickle (weights only) if the index names one, and may fetch a kernel that a config names.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from distilbert_kd.errors import TeacherError


__all__ = ["check_model_files"]

_CONFIG, _INDEX, _TOKENIZER = "config.json", "model.safetensors.index.json", "tokenizer_config.json"
_ADAPTER, _TEMPLATES = "adapter_config.json", "additional_chat_templates"
_LARGEST = 50_000_000
#: Of a config: another file that is read in its place, and other names for its keys.
_REDIRECTS = ("configuration_files", "attribute_map")
#: A file in the folder itself: no separator of any system, no drive.
_PLAIN_NAME = re.compile(r"[^/\\:]+")


def check_model_files(location: str, revision: str | None = None) -> None:
    """Refuses a model that names files outside its folder, weights that are no safetensors, or code of the Hub.

    Args:
        location: Hub id or folder.
        revision: of the Hub repository.

    Raises:
        TeacherError: it does. Files that are missing or no JSON are left to the loader, which says so.
    """
    folder = Path(location)
    problems = list(_links_out(folder)) if folder.is_dir() else []
    checks = {_CONFIG: _in_config, _INDEX: _in_index, _TOKENIZER: _in_tokenizer, _ADAPTER: _in_adapter}
    for name, find in checks.items():
        path = folder / name if folder.is_dir() else _from_hub(location, name, revision)
        problems += [f"{name}: {problem}" for problem in (_problems(path, find) if path else ())]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise TeacherError(
            f"Expected a model whose files stay in their own folder, hold no pickle and name no code, got {location} "
            f"with {'; '.join(problems[:5])}{more}. Don't load it unless you know why; then save it once with "
            "save_pretrained()."
        )


def _links_out(folder: Path) -> Iterator[str]:
    """Links to elsewhere: a vocabulary that is a link to a secret would be copied into the student's folder."""
    root = folder.resolve()
    # The Hub's own cache: snapshots/COMMIT holds links to blobs beside it.
    allowed = root.parents[1] / "blobs" if root.parent.name == "snapshots" else root
    for path in sorted([*folder.iterdir(), *(folder / _TEMPLATES).glob("*")]):
        if path.is_symlink() and not path.resolve().is_relative_to(root) and path.resolve().parent != allowed:
            yield f"{path.relative_to(folder)}, a link to {path.resolve()}"


def _from_hub(repository: str, name: str, revision: str | None) -> Path | None:
    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except (OSError, ValueError):  # not there, or not to be had: the loader will tell
        return None


def _problems(path: Path, find: Callable[[dict[str, Any]], Iterator[str]]) -> Iterator[str]:
    try:
        if path.stat().st_size > _LARGEST:
            yield f"more than {_LARGEST} bytes, too many to be checked"
            return
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(content, dict):
        yield from find(content)


def _in_config(content: dict[str, Any]) -> Iterator[str]:
    for key, value in content.items():
        if key == "transformers_weights" and not (value == _INDEX or _is_plain_safetensors(value)):
            yield f"weights in {str(value)!r:.80}"
        if key in _REDIRECTS and value:
            yield f"{key}, which leads past this check"
        if "attn_implementation" in key and "/" in json.dumps(value):
            yield f"the kernel {json.dumps(value)[:80]}, which is code"


def _in_index(content: dict[str, Any]) -> Iterator[str]:
    weight_map = content.get("weight_map")
    for name in dict.fromkeys(map(str, weight_map.values())) if isinstance(weight_map, dict) else ():
        if not _is_plain_safetensors(name):
            yield f"weights in {name!r:.80}"


def _is_plain_safetensors(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and bool(_PLAIN_NAME.fullmatch(name))


def _in_tokenizer(content: dict[str, Any]) -> Iterator[str]:
    names = content.get("fast_tokenizer_files")  # the other names of files there are not followed
    for name in names if isinstance(names, list) else ():
        if not _PLAIN_NAME.fullmatch(str(name)):
            yield f"a vocabulary in {str(name)!r:.80}"


def _in_adapter(content: dict[str, Any]) -> Iterator[str]:
    """With `peft`, transformers loads the base model from where this says; without it, the adapter is left out."""
    yield f"an adapter of {str(content.get('base_model_name_or_path'))!r:.80}, to be merged into that model first"
