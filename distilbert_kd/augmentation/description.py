"""What augmentation did, for people: samples with the changed words marked, and numbers."""

from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from random import Random

import datasets
import numpy as np

from distilbert_kd.augmentation.augmenting import METHOD, SOURCE, TRANSFER, Augmented


__all__ = ["changed_share", "marked", "sample_lines", "statistics_lines"]


def marked(before: str, after: str) -> str:
    """The later text with the words in brackets that are new or elsewhere, and [-] where words were left out."""
    old, new = before.split(), after.split()
    parts = []
    for operation, _, _, first, last in SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        words = " ".join(new[first:last])
        parts.append(words if operation == "equal" else "[-]" if operation == "delete" else f"[{words}]")
    return " ".join(parts)


def changed_share(before: str, after: str) -> float:
    """Words replaced, put in or left out, as a share of the words before; 0 for a text without words."""
    old, new = before.split(), after.split()
    operations = SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes()
    num_changed = sum(
        max(end - start, last - first) for name, start, end, first, last in operations if name != "equal"
    )
    return min(num_changed / len(old), 1.0) if old else 0.0


def sample_lines(
    gold: datasets.Dataset, augmented: Augmented, label_names: Sequence[str] | None, num_samples: int, seed: int
) -> list[str]:
    """Rows at random with all of their copies.

    Args:
        gold: the rows, as texts.
        augmented: what was added to them.
        label_names: names of the classes; None for numbers.
        num_samples: of rows.
        seed: of the draw.

    Returns:
        Lines.
    """
    by_source: dict[int, list[int]] = {}
    for number, source in enumerate(augmented.added[SOURCE][:]):
        if source >= 0:
            by_source.setdefault(source, []).append(number)
    lines = []
    columns = [name for name in ("text", "text_pair") if name in gold.column_names]
    for source in sorted(Random(seed).sample(sorted(by_source), min(num_samples, len(by_source)))):
        row = gold[source]
        label = row["label"]
        named = label_names[label] if label_names is not None and label >= 0 else f"{label:g}"
        lines += [f"row {source}, label {named}:", f"  {'as it is':<20}  {_one_line([row[name] for name in columns])}"]
        for number in by_source[source]:
            copy = augmented.added[number]
            texts = [marked(row[name], copy[name]) for name in columns]
            lines.append(f"  {copy[METHOD]:<20}  {_one_line(texts)}")
    return lines


def _one_line(texts: Sequence[str]) -> str:
    return " || ".join(" ".join(text.split()) for text in texts)


def statistics_lines(gold: datasets.Dataset, augmented: Augmented) -> dict[str, str]:
    """Counts, the share of words that changed, and lengths.

    Args:
        gold: the rows, as texts.
        augmented: what was added to them.

    Returns:
        Name to text.
    """
    counts, added = augmented.counts, augmented.added
    columns = [name for name in ("text", "text_pair") if name in gold.column_names]
    methods = Counter(method for method in added[METHOD][:] if method != TRANSFER)
    is_copy = [source >= 0 for source in added[SOURCE][:]]
    copies, transfer = (
        added.select([i for i, is_one in enumerate(is_copy) if is_one is kind]) for kind in (True, False)
    )
    lines = {
        "rows": f"{counts['gold']:,} gold, {counts['augmented']:,} copies, {counts['transfer']:,} of the transfer set",
        "dropped": f"{counts['dropped']:,} that were equal to another row, or had no words",
        "methods": ", ".join(f"{name} {number:,}" for name, number in sorted(methods.items())),
    }
    if len(copies):
        sources = gold.select(copies[SOURCE][:])
        shares = [
            max(changed_share(old[name], new[name]) for name in columns)
            for old, new in zip(sources, copies, strict=True)
        ]
        lines["words changed"] = f"{np.mean(shares):.1%} of the altered text"
    for name, rows in (("gold", gold), ("copies", copies), ("transfer set", transfer)):
        if len(rows):
            lines[f"words of a row, {name}"] = _lengths(rows.select_columns(columns))
    return lines


def _lengths(rows: datasets.Dataset) -> str:
    lengths = [sum(len(str(text).split()) for text in row.values()) for row in rows]
    low, middle, high = np.percentile(lengths, (5, 50, 95))
    return f"median {middle:.0f}; 90 % have {low:.0f} to {high:.0f}"
