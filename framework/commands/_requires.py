"""The key `requires`: distributions that an experiment needs, held against what is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from framework.config.structure import Structurer


def check(structurer: Structurer) -> None:
    """Tell every requirement that isn't met."""
    requires = structurer.draft.tree["requires"]
    if not requires:
        return  # what reads requirements takes as long to import as all the rest
    from packaging.requirements import InvalidRequirement, Requirement

    for index, text in enumerate(requires if isinstance(requires, list) else ()):
        if not isinstance(text, str):
            continue  # already told as a wrong type
        at = ("requires", index)
        try:
            wanted = Requirement(text)
            found = version(wanted.name)
        except InvalidRequirement:
            structurer.fail(at, f"{text!r} is no requirement; write it as 'name>=1.2'")
        except PackageNotFoundError:
            structurer.fail(at, f"'{wanted.name}' is not installed; pip install '{text}'")
        else:
            if not wanted.specifier.contains(found, prereleases=True):
                structurer.fail(at, f"'{text}' is required and {found} is installed")
