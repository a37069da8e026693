"""Reading an experiment: files, the chain of `extends`, and `--set`, merged into one tree.

A component is a bare name or a table. In a child, a table with `use` (or a bare name) replaces
its parent's whole; one without merges into it. Every value keeps where it came from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import tomli

from framework.config.positions import Path as Keys
from framework.config.positions import Position, positions
from framework.errors import ExperimentError, Problem
from framework.registry import KINDS

DEFAULTS = Path(__file__).parent.parent / "defaults.toml"
_DEPTH = 100
"""Keys in a path: whatever is deeper is a mistake, and would run into Python's own limit."""
COMPONENTS = {kind.table: kind for kind in KINDS.values() if kind.table}


@attrs.frozen
class Origin:
    """Where a value was written: the place for messages, the folder for relative paths."""

    file: str
    folder: Path
    text: str = attrs.field(repr=False)
    via: Sequence[str] = ()
    at: Position = attrs.field(default=Position(1, 1, 1, 1))

    def problem(self, message: str, *, at_value: bool = True) -> Problem:
        """Report a mistake made here, at the key or at its value."""
        line, column = self.at[2:] if at_value else self.at[:2]
        source = self.text.split("\n")[line - 1].rstrip("\r")
        return Problem(message, self.file, line, column, source, self.via)


@attrs.frozen
class Draft:
    """A tree of plain values and, by path, the origin of each."""

    tree: dict[str, Any]
    origins: dict[Keys, Origin]
    file: str = ""
    problems: list[Problem] = attrs.field(factory=list)
    """What could not be read."""
    partial: bool = False
    """True where a file could not be read: what seems to be missing may stand in it."""

    def origin(self, path: Keys) -> Origin | None:
        """Find where a path, or else the nearest table around it, was written."""
        known = (self.origins.get(path[:length]) for length in range(len(path), 0, -1))
        return next(filter(None, known), None)

    def problem(self, path: Keys, message: str, *, at_value: bool = True) -> Problem:
        """Report a mistake at a path; what was written nowhere is reported at its table."""
        origin = self.origin(path)
        if not origin:
            return Problem(message, self.file)
        return origin.problem(message, at_value=at_value and path in self.origins)

    def folder(self, path: Keys) -> Path:
        """Return the folder that a relative path written at this place starts from."""
        origin = self.origin(path)
        return origin.folder if origin else Path.cwd()


def read(path: Path, over: Sequence[Draft] = ()) -> Draft:
    """Read an experiment with all it extends, the core's defaults beneath, what is laid over it.

    What can't be read is left out and told in the draft's `problems`; `ExperimentError` where
    the file itself is it.
    """
    files = _chain(path)
    layers = [*files, *over]
    problems = [problem for layer in layers for problem in layer.problems]
    if files[-1].partial:
        raise ExperimentError(problems)
    merged = Draft({}, {}, _short(path), problems, partial=any(file.problems for file in files))
    for layer in [_file(DEFAULTS), *layers]:
        for key in layer.tree:
            _component(merged, layer, (key,))
    label(merged, ("metrics",))
    return merged


def _chain(path: Path) -> list[Draft]:
    """Return the drafts of a file and all it extends, the farthest ancestor first."""
    drafts, seen = [_file(path)], [path.resolve()]
    while "extends" in drafts[0].tree:
        draft = drafts[0]
        parent, child = draft.tree.pop("extends"), draft.origins["extends",]
        if not isinstance(parent, str) or "\0" in parent:
            draft.problems.append(child.problem(f"'extends' must be text, found {parent!r}"))
        # unlike Path's, this one leaves the folder of an unknown user as it is
        elif (path := child.folder / os.path.expanduser(parent)).resolve() in seen:  # noqa: PTH111
            names = " -> ".join(file.name for file in [*seen, path])
            draft.problems.append(child.problem(f"'extends' leads back to itself: {names}"))
        else:
            seen.append(path.resolve())
            drafts.insert(0, _file(path, child))
    return drafts


def _file(path: Path, child: Origin | None = None) -> Draft:
    via = (child.problem("").where, *child.via) if child else ()
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return unread(Problem(f"not UTF-8 text (byte {error.start + 1})", str(path), via=via))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        message = f"{path}: can't read this experiment ({reason})"
        return unread(child.problem(message) if child else Problem(message))
    return parse(text, Origin(_short(path), path.resolve().parent, text, via))


def unread(problem: Problem) -> Draft:
    """Return the draft of what can't be read."""
    return Draft({}, {}, problems=[problem], partial=True)


def _short(path: Path) -> str:
    """Return a file's name as a person in the current folder would write it."""
    full = path.resolve()
    if full == DEFAULTS:
        return "framework/defaults.toml"
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)


def parse(text: str, origin: Origin) -> Draft:
    """Read a document; what can't be read is told in the draft's problems."""
    try:
        tree = tomli.loads(text)
        found = positions(text)
        if max(map(len, found), default=0) > _DEPTH:
            raise RecursionError  # noqa: TRY301 - as the parser itself, a little later
    except tomli.TOMLDecodeError as error:
        at = Position(error.lineno, error.colno, error.lineno, error.colno)
        # it writes a key as Python's tuple of its parts
        said = re.sub(r",?[()]", "", error.msg)
        return unread(attrs.evolve(origin, at=at).problem(said))
    except RecursionError:
        return unread(Problem("nested too deeply", origin.file))
    except ValueError:  # Python's own limit
        return unread(Problem("a number has too many digits", origin.file))
    return Draft(tree, {path: attrs.evolve(origin, at=at) for path, at in found.items()})


def labelled(items: Sequence[Any]) -> dict[str | int, Any]:
    """Return the items of a list under their names; what has none of its own keeps its index."""
    found: dict[str | int, Any] = {}
    for index, item in enumerate(items):
        name = item.get("use") if isinstance(item, dict) else item
        found[name if isinstance(name, str) and name not in found else index] = item
    return found


def label(draft: Draft, path: Keys) -> None:
    """Turn a list of components into the tables it stands for, so that tables can join it."""
    value, depth = _get(draft.tree, path), len(path)
    if isinstance(value, list):
        tables = labelled(value)
        _put(draft.tree, path, tables)
        for old in [known for known in _below(draft, path) if known != path]:
            new = (*path, [*tables][old[depth]], *old[depth + 1 :])  # type: ignore[index]
            draft.origins[new] = draft.origins.pop(old)


def _component(base: Draft, layer: Draft, path: Keys) -> None:
    """Lay a value over another: a table without `use` joins what is below, key by key."""
    value = _get(layer.tree, path)
    # what is no component has no `use` that could mean anything
    if isinstance(value, dict) and ("use" not in value or path[0] not in COMPONENTS):
        label(base, path)
        before = _get(base.tree, path)
        if isinstance(before, str):
            before = {"use": before}
            _put(base.tree, path, before)
            base.origins[*path, "use"] = base.origins.pop(path)
        if isinstance(before, dict):
            base.origins.setdefault(path, layer.origins[path])
            for key in value:
                _component(base, layer, (*path, key))
            return
    for old in _below(base, path):
        del base.origins[old]
    base.origins.update(_below(layer, path))
    _put(base.tree, path, value)


def _below(draft: Draft, path: Keys) -> dict[Keys, Origin]:
    """Return the origins of a path and all that is in it."""
    return {k: origin for k, origin in draft.origins.items() if k[: len(path)] == path}


def _get(tree: Any, path: Keys) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _put(tree: dict[str, Any], path: Keys, value: Any) -> None:
    _get(tree, path[:-1])[path[-1]] = value
