"""What can be said of an installed plugin without importing it: from its source and metadata."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from framework.registry import Offer

_IMPORT = re.compile(r"^(?:from|import)[ \t]+(\w+)", re.MULTILINE)
_CLASS = r"^class[ \t]+{name}\b[^\n]*:\s*\n\s+[rR]?(\"\"\"|'''|\"|')(.*?)(?:\1|$)"


def look(offer: Offer) -> tuple[str, str]:
    """Return a plugin's one-line summary, and why it can't be imported as far as that is seen.

    The summary is the first line of its class's docstring, or else its distribution's. Seen are
    a module that isn't there, a module without that name, and the import of a package that isn't
    installed; `plugins --check-env` really imports.
    """
    try:
        module, name = offer.entry.module, offer.entry.attr
    except AttributeError:
        return "", f"its entry point '{offer.entry.value}' is not 'module:class'"
    file = _file(module)
    if file is None:
        return "", f"there is no module '{module}'"
    text, lacking = _source(file)
    if lacking:
        return "", f"{file.name} imports '{lacking}', which is not installed"
    found = re.search(_CLASS.format(name=re.escape(name)), text, re.MULTILINE)
    if found:
        return found[2].strip(), ""
    if text and not re.search(rf"\b{re.escape(name.split('.')[0])}\b", text):
        return "", f"{file.name} has no '{name}'"
    dist = offer.entry.dist
    return (dist.metadata["Summary"] or "") if dist else "", ""


def unmet(name: str) -> list[str]:
    """Return what a distribution requires and this environment lacks."""
    from packaging.requirements import Requirement

    found = []
    for text in distribution(name).requires or ():
        wanted = Requirement(text)
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
    """Find a module's file without importing it, nor the packages it stands in."""
    path: Sequence[str] | None = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = _spec(".".join(parts[:depth]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations or ()
    # a package may be a folder without a file of its own
    return Path(spec.origin or "") if spec else None


def _spec(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        found = finder.find_spec(name, path)
        if found is not None:
            return found
    return None


@functools.cache
def _source(file: Path) -> tuple[str, str]:
    """Return a file's text, and the first package that it imports and that isn't there."""
    if file.suffix != ".py":
        return "", ""  # compiled, or a folder
    text = file.read_text(encoding="utf-8", errors="replace")
    for package in _IMPORT.findall(text):
        if package not in sys.modules and not _there(package):
            return text, package
    return text, ""


@functools.cache
def _there(package: str) -> bool:
    return package in sys.stdlib_module_names or _spec(package, None) is not None
