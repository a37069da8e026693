"""Reading an experiment: files, the chain of `extends`, and `--set`, merged into one tree.

A component is a bare name or a table. In a child, a table with `use` (or a bare name) replaces
its parent's whole; one without merges into it. Every value keeps where it came from.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import tomli

from framework.config import dump
from framework.config.positions import Path as Keys
from framework.config.positions import positions
from framework.errors import ExperimentError, Problem
from framework.registry import KINDS

DEFAULTS = Path(__file__).parent.parent / "defaults.toml"


@attrs.frozen
class Origin:
    """Where a value was written: the place for messages, the folder for relative paths."""

    source: str
    folder: Path
    line: int = 0
    column: int = 0
    value_line: int = 0
    value_column: int = 0
    text: str = attrs.field(default="", repr=False)

    def problem(self, message: str, *, at_value: bool) -> Problem:
        """Report a mistake made here, at the key or at its value."""
        line = self.value_line if at_value else self.line
        column = self.value_column if at_value else self.column
        if not line:
            return Problem(message, self.source)
        source = self.text.split("\n")[line - 1].rstrip("\r").replace("\t", " ")
        excerpt = f"    {source}\n    {' ' * (column - 1)}^"
        return Problem(message, f"{self.source}:{line}:{column}", excerpt)


@attrs.frozen
class Draft:
    """A tree of plain values and, by path, the origin of each."""

    tree: dict[str, Any]
    origins: dict[Keys, Origin]

    def problem(self, path: Keys, message: str, *, at_value: bool = True) -> Problem:
        """Report a mistake at a path; what was written nowhere is reported at its table."""
        for length in range(len(path), 0, -1):
            origin = self.origins.get(path[:length])
            if origin is not None:
                return origin.problem(message, at_value=at_value and length == len(path))
        return Problem(message)

    def folder(self, path: Keys) -> Path:
        """Return the folder that a relative path written at this place starts from."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]].folder
        return Path.cwd()


def read(path: Path, sets: Sequence[str] = ()) -> Draft:
    """Read an experiment with all it extends, the core's defaults beneath, `--set` on top."""
    layers = [_file(DEFAULTS), *_chain(path), *(_set(text) for text in sets)]
    merged = Draft({}, {})
    for layer in layers:
        _merge(merged, layer)
    return merged


def _chain(path: Path) -> list[Draft]:
    """Return the drafts of a file and all it extends, the farthest ancestor first."""
    drafts: list[Draft] = []
    seen: list[Path] = []
    reference: Draft | None = None
    while True:
        seen.append(path.resolve())
        draft = _file(path, reference)
        drafts.append(draft)
        if "extends" not in draft.tree:
            return drafts[::-1]
        parent = draft.tree.pop("extends")
        if not isinstance(parent, str):
            problem = draft.problem(("extends",), f"'extends' must be text, found {parent!r}")
            raise ExperimentError([problem])
        # unlike Path's, this one leaves the folder of an unknown user as it is
        path = draft.folder(("extends",)) / os.path.expanduser(parent)  # noqa: PTH111
        if path.resolve() in seen:
            chain = " -> ".join(p.name for p in [*seen, path])
            problem = draft.problem(("extends",), f"'extends' leads back to itself: {chain}")
            raise ExperimentError([problem])
        reference = draft


def _file(path: Path, child: Draft | None = None) -> Draft:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        message = f"{path}: can't read this experiment ({error.strerror})"
        problem = child.problem(("extends",), message) if child else Problem(message)
        raise ExperimentError([problem]) from None
    except UnicodeDecodeError as error:
        message = f"{path}: not UTF-8 text (byte {error.start + 1})"
        raise ExperimentError([Problem(message)]) from None
    return _parse(text, _short(path), path.resolve().parent)


def _short(path: Path) -> str:
    """Return a file's name as a person in the current folder would write it."""
    full = path.resolve()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)


def _set(argument: str) -> Draft:
    """Parse `K=V`: V is a TOML value of one line, or, where it isn't one, a string."""
    key, equals, value = argument.partition("=")
    source = f"--set {argument}"
    if not (key.strip() and equals) or "\n" in key:
        raise ExperimentError([Problem("expected KEY=VALUE, as in --set loss.gamma=3", source)])
    if "\n" not in value:
        with contextlib.suppress(ExperimentError):
            return _parse(argument, source, Path.cwd(), plain=True)
    return _parse(f"{key}= {dump.value(value.strip())}", source, Path.cwd(), plain=True)


def _parse(text: str, source: str, folder: Path, *, plain: bool = False) -> Draft:
    try:
        tree = tomli.loads(text)
        found = positions(text)
    except tomli.TOMLDecodeError as error:
        at = Origin(source, folder, error.lineno, error.colno, error.lineno, error.colno, text)
        raise ExperimentError([at.problem(error.msg, at_value=True)]) from None
    except RecursionError:
        raise ExperimentError([Problem("nested too deeply", source)]) from None
    except ValueError:  # Python's own limit
        raise ExperimentError([Problem("a number has too many digits", source)]) from None
    if plain:
        origins = {path: Origin(source, folder) for path in found}
    else:
        origins = {path: Origin(source, folder, *at, text) for path, at in found.items()}
    return Draft(tree, origins)


def _merge(base: Draft, layer: Draft) -> None:
    """Lay one draft over another, in place."""
    many = [kind.table for kind in KINDS.values() if kind.many]
    for key, value in layer.tree.items():
        if key in many and isinstance(value, dict):
            _label(base, key)
        _component(base, layer, (key,))


def labelled(items: Sequence[Any]) -> dict[str | int, Any]:
    """Return the items of a list under their names; what has none of its own keeps its index."""
    found: dict[str | int, Any] = {}
    for index, item in enumerate(items):
        name = item.get("use") if isinstance(item, dict) else item
        found[name if isinstance(name, str) and name not in found else index] = item
    return found


def _label(draft: Draft, key: str) -> None:
    """Turn a list of names into the tables it stands for, so that tables can join it."""
    value = draft.tree.get(key)
    if isinstance(value, list):
        draft.tree[key] = labelled(value)
        names: dict[str | int, str | int] = dict(enumerate(draft.tree[key]))
        for path in [path for path in draft.origins if path[0] == key and len(path) > 1]:
            draft.origins[key, names[path[1]], *path[2:]] = draft.origins.pop(path)


def _component(base: Draft, layer: Draft, path: Keys) -> None:
    """Lay a value over another: a table without `use` joins a name or a table, key by key."""
    value = _get(layer.tree, path)
    before = _get(base.tree, path)
    if isinstance(value, dict) and "use" not in value:
        if isinstance(before, str):
            before = {"use": before}
            _put(base.tree, path, before)
            base.origins[*path, "use"] = base.origins[path]
        if isinstance(before, dict):
            base.origins.setdefault(path, layer.origins[path])
            for key in value:
                _component(base, layer, (*path, key))
            return
    _replace(base, layer, path)


def _replace(base: Draft, layer: Draft, path: Keys) -> None:
    for old in [known for known in base.origins if known[: len(path)] == path]:
        del base.origins[old]
    new = {k: origin for k, origin in layer.origins.items() if k[: len(path)] == path}
    base.origins.update(new)
    _put(base.tree, path, _get(layer.tree, path))


def _get(tree: Any, path: Keys) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _put(tree: dict[str, Any], path: Keys, value: Any) -> None:
    *parents, last = path
    for key in parents:
        tree = tree.setdefault(str(key), {})
    tree[last] = value  # type: ignore[index]
