"""Plain YAML: the small part of the language that a recipe needs, read strictly.

Scalars follow the YAML 1.2 core schema, as editors do, and not YAML 1.1 as PyYAML does: `5e-5` is a number, `no` and
`on` are text (so `labels: [no, yes]` and `eval_strategy: no` mean what they say), `1:30` and dates are text. Anchors,
aliases, tags and repeated keys are refused. Nothing here can run code: the loader is PyYAML's safe one.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml


__all__ = ["MAX_BYTES", "dump_yaml", "parse_yaml"]

MAX_BYTES = 1_000_000
MAX_DEPTH = 20

_NULL = re.compile(r"(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)$")
_FLOAT = re.compile(
    r"(?:[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_PLUS_MINUS_DIGITS = list("-+0123456789")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of the YAML 1.2 core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, _PLUS_MINUS_DIGITS)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, [*_PLUS_MINUS_DIGITS, "."])


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or YAML 1.2 would not read back as text, and never writes an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, [*_PLUS_MINUS_DIGITS, "."])


def parse_yaml(text: str) -> tuple[Any, list[str]]:
    """Read one YAML document.

    Args:
        text: the document.

    Returns:
        The value and the problems, one line each. The value is None when the text is no YAML at all. Of repeated keys
        it holds the last one, so that the rest can still be checked.
    """
    problems: list[str] = []
    try:
        problems = list(_unwanted_syntax(text))
        if problems:
            return None, problems
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            problems = list(_key_problems(node))
            return (None if node is None else loader.construct_document(node)), problems
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        if problems:  # a key that is a collection, already named, can't be constructed
            return None, problems
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return None, [f"{where}expected YAML, got: {error.problem or error.context}"]
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        return None, ["expected YAML, got: " + " ".join(str(error).split())]


def dump_yaml(value: Any) -> str:
    """Write a value as block YAML that `parse_yaml` and any YAML 1.1 reader understand in the same way."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=119)


def _unwanted_syntax(text: str) -> Iterator[str]:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        where = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent):
            yield f"{where}expected plain YAML, got the alias *{anchor}; write the value out"
        elif anchor:
            yield f"{where}expected plain YAML, got the anchor &{anchor}; write the value out where it is used"
        if tag:
            yield f"{where}expected plain YAML, got the tag {tag}; remove it"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            yield f"{where}expected at most {MAX_DEPTH} levels of nesting, got more"
            return


def _key_problems(node: yaml.Node | None) -> Iterator[str]:
    if isinstance(node, yaml.ScalarNode):
        if any("\ud800" <= character <= "\udfff" for character in node.value):
            yield f"line {node.start_mark.line + 1}: expected text, got half of a surrogate pair"
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _key_problems(item)
    elif isinstance(node, yaml.MappingNode):
        first_lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                got = key.value if isinstance(key, yaml.ScalarNode) else "a collection"
                yield f"line {line}: expected a name as key, got {got}; put it in quotes if it is one"
            elif key.value in first_lines:
                first = first_lines[key.value]
                yield f"line {line}: key {key.value!r} is given twice (first in line {first}); keep one"
            else:
                first_lines[key.value] = line
            yield from _key_problems(key)
            yield from _key_problems(value)
