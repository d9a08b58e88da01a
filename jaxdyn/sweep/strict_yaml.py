"""A YAML file read strictly: each value knows its path and line, and a key given twice is an error.

`Table` has a closed set of keys and hands out values by key and type. Every error says where it is,
what was there, what is allowed, and for a key the nearest one.
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from jaxdyn.errors import InputError

PAGE = "docs/sweeps.md"

NAMES = {str: "text", int: "a whole number", bool: "true or false", dict: "a table of keys", list: "a list"}


@dataclass(frozen=True)
class Value:
    """One value of the file: plain Python in `raw`, dictionaries and lists hold further `Value`s."""

    raw: Any
    path: str
    line: int

    def refuse(self, allowed: str) -> NoReturn:
        """Raise the error that says what is allowed here."""
        refuse(self.path, self.line, _shown(self.raw), allowed)

    def of(self, *kinds: type) -> Any:
        """Return the plain value, after checking its type; a bool is not a number here."""
        if type(self.raw) not in kinds:
            self.refuse(" or ".join(NAMES[kind] for kind in kinds))
        return self.raw


@dataclass
class Table:
    """A mapping of the file with a closed set of keys, its values handed out by key and type."""

    value: Value
    keys: Sequence[str]

    def __post_init__(self) -> None:
        self._items: dict[str, Value] = self.value.of(dict)
        for key, item in self._items.items():
            if key not in self.keys:
                near = difflib.get_close_matches(key, self.keys, n=1)
                hint = f" (nearest: {near[0]})" if near else ""
                refuse(item.path, item.line, "this key", f"the keys {', '.join(self.keys)}{hint}")

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def __getitem__(self, key: str) -> Value:
        if key not in self._items:
            refuse(f"{self.value.path}.{key}".lstrip("."), self.value.line, "nothing", "this key is needed")
        return self._items[key]

    def get(self, key: str, *kinds: type, default: Any = None) -> Any:
        """Return a plain value by key, checked by type, or the default."""
        return self._items[key].of(*kinds) if key in self._items else default

    def one_of(self, key: str, allowed: Sequence[str], default: Any) -> Any:
        """Return one of a few words."""
        if key not in self._items:
            return default
        if self._items[key].raw not in allowed:
            self._items[key].refuse(", ".join(allowed))
        return self._items[key].raw

    def words(self, key: str, allowed: Iterable[str], default: tuple[str, ...]) -> tuple[str, ...]:
        """Return a list of words, each one of a few, none twice; one word alone is a list of one."""
        if key not in self._items:
            return default
        value, options = self._items[key], tuple(allowed)
        items = value.raw if isinstance(value.raw, list) else [value]
        for item in items:
            if item.raw not in options:
                item.refuse(", ".join(options))
        found = tuple(item.raw for item in items)
        if not found or len(set(found)) < len(found):
            value.refuse(f"each of {', '.join(options)} at most once, at least one")
        return found

    def number(self, key: str, least: int, default: Any) -> Any:
        """Return a whole number not below the least."""
        found = self.get(key, int, default=default)
        if key in self._items and found < least:
            self._items[key].refuse(f"{least} or more")
        return found


def refuse(path: str, line: int, got: str, allowed: str) -> NoReturn:
    """Raise the error of one place in the plan."""
    msg = f"{path} (line {line}): got {got}; allowed: {allowed}"
    raise InputError(msg, page=PAGE)


def read(file: Path) -> Value:
    """Read a YAML file.

    Raises
    ------
    InputError : no such file, not YAML, a key twice, a key that is not text, or anything beyond plain values.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"plan: cannot read {file}: {error}; give a YAML file"
        raise InputError(msg, page=PAGE) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        msg = f"plan: {file} is not valid YAML: {' '.join(str(error).split())}"
        raise InputError(msg, page=PAGE) from error
    if node is None:
        msg = f"plan: {file} is empty; see the documentation for a plan to begin from"
        raise InputError(msg, page=PAGE)
    return _value(node, "", yaml.SafeLoader("").construct_object)


def _value(node: yaml.Node, path: str, construct: Callable[[yaml.Node], Any]) -> Value:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        items: dict[str, Value] = {}
        for key_node, below in node.value:
            key, at = construct(key_node), key_node.start_mark.line + 1
            place = f"{path}.{key}".lstrip(".")
            if not isinstance(key, str):
                refuse(place, at, f"the key {key!r}", "keys that are text")
            if key in items:
                refuse(place, at, f"this key again, first on line {items[key].line}", "each key once")
            found = _value(below, place, construct)
            items[key] = Value(found.raw, found.path, at)
        return Value(items, path or "plan", line)
    if isinstance(node, yaml.SequenceNode):
        return Value([_value(below, f"{path}[{i}]", construct) for i, below in enumerate(node.value)], path, line)
    return Value(construct(node), path or "plan", line)


def _shown(raw: Any) -> str:
    if isinstance(raw, dict):
        return "a table of keys"
    if isinstance(raw, list):
        return f"a list of {len(raw)}"
    return "nothing" if raw is None else repr(raw)
