"""What a run was trained on is not evaluated as if it had been held out."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from framework.commands import evaluate
from framework.commands.trained import Finished
from framework.errors import UserError


@pytest.mark.parametrize(
    ("test", "seen"), [(["c", "d"], 0), (["c", "a", "b"], 2), (["new"], 0), ([], 0)]
)
def test_records_of_train_are_refused(tmp_path: Path, test: list[str], seen: int) -> None:
    """Those of the run's own record of train; what was in its test, or is new, may be there."""
    sides = {"train": ["a", "b", "d"], "test": ["c", "d"]}
    (tmp_path / "splits.json").write_text(json.dumps(sides))
    done = Finished(Any, tmp_path / "checkpoints" / "step-1" / "model", {})  # type: ignore[arg-type]
    splits: Any = SimpleNamespace(manifest={"train": ["x"], "test": test})
    if not seen:
        evaluate._held_out(done, "test", splits)
        return
    with pytest.raises(UserError, match=f"^{seen} of the split 'test' were trained on"):
        evaluate._held_out(done, "test", splits)
