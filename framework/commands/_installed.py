"""What can be said of an installed plugin without importing it: from its source and metadata.

A line of the source that looks sound is believed. What looks broken is parsed before it is
said, and where a module decides at run time what it finds or holds, nothing is claimed.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import decode_source
from pathlib import Path

from framework.errors import UserError, listing, nearest
from framework.registry import KINDS, Offer

_IMPORT = re.compile(r"^(?:from[ \t]+(\w+)|import[ \t]+([^\n#;]+))", re.MULTILINE)
# a class with the first line of its docstring, or with a body that begins without one
_CLASS = (
    r"^class[ \t]+{name}\b(?:[^\n]*:[ \t]*\n\s+"
    r"(?:[rR]?(\"\"\"|''')(.*?)(?:\1|$)|((?![rRuU]{{1,2}}[\"'])[\w@.])))?"
)
_BLOCKS = (ast.If, ast.Try, ast.ExceptHandler, ast.With)
# how a module comes by names, and finds modules, that its source doesn't show
_NAMES = re.compile(r"\bimport[ \t(]+\*|\b__getattr__\b|\b(?:globals|vars|locals|exec)[ \t]*\(")
_PATHS = re.compile(r"\bsys[ \t]*\.[ \t]*(?:path|modules|meta_path)|\b__path__\b|\baddsitedir\b")
_UNKNOWN: tuple[str, list[str]] = ("", [])


def check_kind(kind: str) -> None:
    """Raise `UserError` where there is no such kind of plugin."""
    if kind not in KINDS:
        hint = nearest(kind, KINDS) or f"; the kinds are {listing(KINDS)}"
        raise UserError(f"there is no kind '{kind}'{hint}")


def look(offer: Offer) -> tuple[str, str]:
    """Return a plugin's one-line summary, and why it can't be imported as far as that is seen.

    The summary is the first line of its class's docstring, or else its distribution's. Seen are
    a module that isn't there or can't be parsed, a module without that name, and the import of a
    package that isn't installed; `plugins --check-env` really imports.
    """
    try:
        module, name = offer.entry.module, offer.entry.attr or ""
    except (AttributeError, ValueError):  # of the two libraries that may have found it
        name = ""
    if not name:
        return "", f"its entry point '{offer.entry.value}' is not 'module:class'"
    file = _file(module)
    if file is None:
        return "", f"there is no module '{module}'"
    text, doubtful = _source(file)
    found = re.findall(_CLASS.format(name=re.escape(name)), text, re.MULTILINE)
    _, words, bare = found[0] if len(found) == 1 else ("", "", "")
    summary = words.strip()
    if doubtful or (text and not bare and (not summary or "\\" in summary)):
        classes, broken = _parsed(file)
        if broken:
            return "", broken
        summary = classes.get(name, "")
        if text and not (summary or found or _holds(text, name)):
            return "", f"{file.name} has no '{name}'"
    if summary:
        return summary, ""
    # asked first: of the two libraries that may have found it, one raises where it is absent
    about = offer.entry.dist.metadata if offer.entry.dist else None
    return about["Summary"] if about and "Summary" in about else "", ""


def unmet(name: str) -> list[str]:
    """Return what a distribution requires and this environment lacks."""
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    for text in distribution(name).requires or ():
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            found.append(f"requires '{text}', which can't be read")
            continue
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = distribution(wanted.name).version
        except PackageNotFoundError:
            found.append(f"requires '{text}', which is not installed; pip install '{text}'")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            found.append(f"requires '{text}', and {version} is installed")
    return found


@functools.cache
def _file(module: str) -> Path | None:
    """Find a module's file without importing it, nor the packages it stands in.

    None where there is none, and an empty path where that can't be known.
    """
    path: Sequence[str] | None = None
    file = Path()
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        found = _find(".".join(parts[:depth]), path)
        if found is None:
            # a package may say at run time where its modules are
            fixed = file.suffix in ("", ".py") and not _PATHS.search(_source(file)[0])
            return None if fixed else Path()
        if found is _UNKNOWN:
            return Path()
        # a package may be a folder without a file of its own
        file, path = Path(found[0]), found[1]
    return file


def _find(name: str, path: Sequence[str] | None) -> tuple[str, list[str]] | None:
    """Return a module's file and, of a package, where its modules are."""
    try:
        for finder in sys.meta_path:
            try:
                found = finder.find_spec(name, path)
            except KeyError:
                # a folder without __init__.py asks for its parent, which nobody has imported
                found = finder.find_spec(name.rpartition(".")[2], path)
            if found is not None:
                return found.origin or "", list(found.submodule_search_locations or ())
    except Exception:  # noqa: BLE001 - a finder is anybody's code
        return _UNKNOWN
    return None


@functools.cache
def _there(package: str) -> bool:
    known = package in sys.modules or package in sys.stdlib_module_names
    return known or _find(package, None) is not None


@functools.cache
def _source(file: Path) -> tuple[str, bool]:
    """Return a module's text, and whether it seems to lack something or can't be decoded."""
    if file.suffix != ".py":
        return "", False  # compiled, or a folder
    try:
        text = decode_source(file.read_bytes())
    except OSError:
        return "", False  # in a zip, or closed to us
    except (SyntaxError, ValueError):
        return "", True
    for package, several in _IMPORT.findall(text):
        for words in several.split(",") if several else [package]:
            first = re.match(r"\s*(\w+)", words)
            if first and not _there(first[1]):
                return text, True
    return text, False


def _holds(text: str, name: str) -> bool:
    """Tell whether a module may hold a name, for all that its text says."""
    first = re.escape(name.partition(".")[0])
    return any(pattern.search(text) for pattern in (_NAMES, _PATHS, re.compile(rf"\b{first}\b")))


@functools.cache
def _parsed(file: Path) -> tuple[Mapping[str, str], str]:
    """Return the summary of each class of a module, and why that can't be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its literals: nobody asked
            tree = ast.parse(file.read_bytes(), file.name)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return {}, f"{file.name} can't be parsed: {error}"
    if not _PATHS.search(_source(file)[0]):
        for package in _imports(tree):
            if not _there(package):
                return {}, f"{file.name} imports '{package}', which is not installed"
    return dict(_classes(tree)), ""


def _imports(tree: ast.Module) -> Iterator[str]:
    """Give the packages that a module imports, come what may."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _classes(node: ast.AST, outer: str = "") -> Iterator[tuple[str, str]]:
    """Give each class that can be reached from outside, with its docstring's first line."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield outer + child.name, (ast.get_docstring(child) or "").partition("\n")[0].strip()
            yield from _classes(child, f"{outer}{child.name}.")
        elif isinstance(child, _BLOCKS):
            yield from _classes(child, outer)
