"""Strict structuring of tables into option classes: nothing coerces, every mistake is kept."""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs
import cattrs

from framework.config.merge import DEFAULTS, Draft, label, labelled
from framework.config.positions import Path as Keys
from framework.errors import Problem, UserError, listing, nearest
from framework.registry import KINDS, Offer, Registry

_UNIONS = (Union, types.UnionType)
_WORDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    dict: "a table",
    list: "a list",
}


class _MismatchError(Exception):
    """A value isn't of its option's type; `args` are paths inside it, each with what is wrong."""


def _mismatch(value: Any, kind: Any, hint: str = "") -> _MismatchError:
    return _MismatchError(((), f"expected {_expected(kind)}, found {_shown(value)}{hint}"))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {value!r}"
    if isinstance(value, (dict, list)):
        return _WORDS[type(value)]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _words(error: Exception) -> str:
    """Return the first line of what an error says, or its type if it says nothing."""
    return str(error.args[0] if error.args else "").split("\n")[0] or type(error).__name__


def _shape(kind: Any) -> Any:
    """Return a type without its arguments."""
    return get_origin(kind) or kind


def _expected(kind: Any) -> str:
    shape = _shape(kind)
    if shape is Literal:
        return "one of " + listing(get_args(kind))
    if shape in _UNIONS:
        members = [member for member in get_args(kind) if member is not types.NoneType]
        return " or ".join(map(_expected, members))
    if shape is list and get_args(kind):
        return f"a list of {_expected(get_args(kind)[0])}"
    return _WORDS.get(shape, str(kind))


def _strict(value: Any, kind: Any) -> Any:
    if kind is float and type(value) is int and abs(value) < 2**1023:
        return float(value)
    if type(value) is not kind:
        raise _mismatch(value, kind)
    return value


def _literal(value: Any, kind: Any) -> Any:
    if any(value == choice and type(value) is type(choice) for choice in get_args(kind)):
        return value
    words = [choice for choice in get_args(kind) if isinstance(choice, str)]
    raise _mismatch(value, kind, nearest(value, words) if isinstance(value, str) else "")


class _Converter(cattrs.Converter):
    """Coerces nothing; relative paths start from the folder of who wrote them."""

    def __init__(self, draft: Draft) -> None:
        super().__init__(forbid_extra_keys=True, detailed_validation=False)
        self.draft = draft
        self.at: Keys = ()  # of the value at hand
        for simple in (bool, int, float, str):
            self.register_structure_hook(simple, _strict)
        self.register_structure_hook(Path, self._path)
        self.register_structure_hook_func(lambda kind: _shape(kind) is Literal, _literal)
        self.register_structure_hook_func(lambda kind: _shape(kind) in _UNIONS, self._union)
        self.register_structure_hook_func(lambda kind: _shape(kind) in (list, dict), self._items)

    def _path(self, value: Any, kind: Any) -> Path:
        if not (isinstance(value, str) and value):
            raise _mismatch(value, kind)
        return Path(self.draft.folder(self.at), Path(value).expanduser()).absolute()

    def _union(self, value: Any, kind: Any) -> Any:
        members = [member for member in get_args(kind) if member is not types.NoneType]
        if Path in members and str in members and isinstance(value, str):
            return self._path(value, Path) if value.startswith((".", "/", "~")) else value
        inside = None
        for member in members:
            try:
                return self.structure(value, member)
            except _MismatchError as error:
                inside = error if error.args[0][0] else inside
        raise inside or _mismatch(value, kind)

    def _items(self, value: Any, kind: Any) -> Any:
        """Structure a list or a table item by item; every wrong item is told, at its place."""
        if not isinstance(value, _shape(kind)):
            raise _mismatch(value, kind)
        member = get_args(kind)[-1] if get_args(kind) else Any
        at, made, wrong = self.at, {}, []
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            self.at = (*at, key)
            try:
                made[key] = self.structure(item, member)
            except _MismatchError as error:
                wrong += [((key, *inner), message) for inner, message in error.args]
        self.at = at
        if wrong:
            raise _MismatchError(*wrong)
        return made if isinstance(value, dict) else list(made.values())


@attrs.frozen
class Part:
    """One component of an experiment: who offers it, and its frozen options."""

    kind: str
    use: str
    """The plugin as the experiment names it: `name` or `distribution:name`."""
    offer: Offer
    options: Any


@attrs.define
class Structurer:
    """Turns the tables of a draft into options; gathers the problems instead of raising."""

    draft: Draft
    registry: Registry
    problems: list[Problem] = attrs.field(factory=list)
    used: dict[Keys, Part] = attrs.field(factory=dict)
    """Every component met, nested ones too, by path."""
    classes: dict[Keys, tuple[str, type[Any]] | None] = attrs.field(factory=dict)
    """Kind and options class by path; None for a component that can't be loaded."""
    converter: _Converter = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make the converter of the values."""
        self.converter = _Converter(self.draft)

    def fail(self, path: Keys, message: str, *, at_value: bool = True) -> None:
        """Note a mistake."""
        self.problems.append(self.draft.problem(path, message, at_value=at_value))

    def lacks(self, path: Keys, message: str) -> None:
        """Note that something is missing, unless it may stand in a file that can't be read."""
        if not self.draft.partial:
            self.fail(path, message)

    def component(self, kind: str, value: Any, path: Keys, default: str = "") -> Part | None:
        """Structure a bare name or a table with `use`, for which there may be a default."""
        table = value if isinstance(value, dict) else {"use": value}
        name, at = table.get("use", default), (*path, "use") if table is value else path
        writer = self.draft.origins.get(at)
        if not isinstance(name, str):
            wanted = "a plugin's name" if table is value else "a name or a table"
            self.fail(at, f"{kind}: expected {wanted}, found {_shown(name)}")
            return None
        if self.draft.partial and (writer is None or writer.folder == DEFAULTS.parent):
            return None  # the file that can't be read may name another
        if not name:
            self.fail(path, f'{kind}: no plugin is named; write use = "…"')
            return None
        self.classes[path] = None
        try:
            offer = self.registry.find(kind, name)
            cls = offer.load()
        except UserError as error:
            self.fail(at if writer else path, str(error))
            return None
        self.classes[path] = kind, cls
        given = {key: item for key, item in table.items() if key != "use"}
        options = self.options(cls, given, path, f"{kind} '{name}'", f" of {offer.owner}")
        if options is None:
            return None
        self.used[path] = Part(kind, name, offer, options)
        return self.used[path]

    def components(self, kind: str, value: Any, path: Keys) -> dict[str, Part]:
        """Structure tables under labels (`false` drops one), a list of names being such tables."""
        if not isinstance(value, dict):
            wanted = "a list of names, or tables" if KINDS[kind].listed else "tables"
            self.fail(path, f"expected {wanted} with labels, found {_shown(value)}")
            return {}
        made: dict[Any, Part] = {}
        for key, item in value.items():
            name = item.get("use") if isinstance(item, dict) else item
            listed = isinstance(key, int)  # an item of a list that has no name of its own
            if listed and isinstance(name, str):
                self.fail((*path, key), f"'{name}' stands twice; give tables with labels")
            if listed or item is not False:
                part = self.component(kind, item, (*path, key), "" if listed else str(key))
                made |= {key: part} if part else {}
        return made

    def table(self, cls: type[Any], key: str) -> Any:
        """Structure a table of the experiment that is no component."""
        value = self.draft.tree[key]
        self.classes[key,] = "", cls
        if isinstance(value, dict):
            return self.options(cls, value, (key,), key)
        self.fail((key,), f"'{key}': expected a table, found {_shown(value)}")
        return None

    def unknown(self, path: Keys, table: Any, known: Any, told: str, others: str) -> str:
        """Tell the keys that a table can't have; return what they may mean."""
        hints = {key: nearest(key, known, others) for key in table if key not in known}
        for key, hint in hints.items():
            self.fail((*path, key), f"{told} '{key}'{hint}", at_value=False)
        return "".join(hints.values())

    def options(
        self, cls: type[Any], table: Mapping[str, Any], path: Keys, owner: str, source: str = ""
    ) -> Any:
        """Structure one options class field by field, so that each mistake is found at once.

        What is the class's own fault is told with its `source`, too.
        """
        before = len(self.problems)
        attrs.resolve_types(cls, include_extras=False)
        fields = {field.name: field for field in attrs.fields(cls) if field.init}
        meant = self.unknown(path, table, fields, f"{owner} has no option", "its options are")
        values = {}
        for name, field in fields.items():
            if name in table:
                values[field.alias] = self.field(field, table[name], (*path, name), owner + source)
            elif field.default is attrs.NOTHING and f"mean '{name}'" not in meant:
                about = field.metadata.get("help", "it has no default")
                self.lacks(path, f"{owner} needs the option '{name}' ({about})")
            elif field.metadata.get("kind") and field.default not in (None, attrs.NOTHING):
                # the default is written as in a file
                values[field.alias] = self._nested(field, field.default, (*path, name))
        if len(self.problems) > before:
            return None
        try:
            return cls(**values)
        except Exception as error:  # noqa: BLE001 - whatever a plugin's own check raises
            self.lacks(path, f"{owner}: {_words(error)}")
            return None

    def _nested(self, field: attrs.Attribute[Any], value: Any, path: Keys) -> Any:
        """Structure a nested component, or, where the default is a mapping, several."""
        kind, factory = field.metadata["kind"], getattr(field.default, "factory", None)
        if factory:
            value = factory() if value is field.default else value
            if isinstance(value, list) and KINDS[kind].listed:
                label(self.draft, path)
                value = labelled(value)
            return {k: part.options for k, part in self.components(kind, value, path).items()}
        part = self.component(kind, value, path, field.default or "")
        return part.options if part else None

    def field(self, field: attrs.Attribute[Any], value: Any, path: Keys, owner: str) -> Any:
        """Structure one option; None where it is wrong, or of another type than `owner` knows."""
        if field.metadata.get("kind"):
            return self._nested(field, value, path)
        try:
            self.converter.at = path
            value = self.converter.structure(value, field.type or Any)
        except _MismatchError as error:
            for inner, message in error.args:
                self.fail((*path, *inner), f"'{field.name}': {message}")
            return None
        except Exception as error:  # noqa: BLE001 - a type that the core has no rule for
            self.fail(path, f"{owner}: '{field.name}' is no {field.type}: {_words(error)}")
            return None
        try:
            (field.validator or (lambda *_: None))(None, field, value)
        except AttributeError:
            pass  # it compares options with each other: checked again once all are known
        except Exception as error:  # noqa: BLE001 - likewise
            self.fail(path, _words(error))
        return value
