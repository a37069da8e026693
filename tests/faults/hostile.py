"""Row 31: pickles and code in the place of a checkpoint's files, with manifests forged to match."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import attrs
import torch

from framework import checkpoint
from tests.faults import processes
from tests.faults.experiments import started
from tests.faults.files import HF, killed, names, newest
from tests.faults.outcome import Outcome
from tests.faults.processes import Ended, finished

SETS = (HF, "trainer.batch_size=8", "callbacks.checkpoint.every_steps=2")
AUTO = {
    "model/config.json": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
    | {"AutoModelForSequenceClassification": "evil.Evil"},
    "model/tokenizer_config.json": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]},
}
"""Where transformers looks for classes of a model's own."""
UNREAD = {
    "evaluate": {"state.pt", "state.safetensors", checkpoint.COUNTERS},
    "predict": {"state.pt", "state.safetensors", checkpoint.COUNTERS},
    "resume": {"model/info.json", "model/experiment.toml", checkpoint.COUNTERS},
}
"""Files that a command has no need of."""


@attrs.frozen
class Trap:
    """Makes a folder where it is unpickled."""

    marker: str

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        """Say how it is to be unpickled."""
        return os.mkdir, (self.marker,)


def _pickled(file: Path, trap: Trap) -> None:
    file.write_bytes(pickle.dumps(trap))


def _zipped(file: Path, trap: Trap) -> None:
    torch.save({"counters": trap}, file)


def _legacy(file: Path, trap: Trap) -> None:
    torch.save({"counters": trap}, file, _use_new_zipfile_serialization=False)


KINDS = (_zipped, _pickled, _legacy)


def check(folder: Path, rounds: int) -> Outcome:
    """Row 31: whatever reads the checkpoint, nothing of it is executed."""
    letters = (f"p{n},{chr(97 + n % 26) * (1 + n % 7)} and more,{n % 2}" for n in range(60))
    (folder / "posts.csv").write_text("\n".join(["id,text,label", *letters]) + "\n")
    sets = (*SETS, f"dataset={{use='text', train='{folder}/posts.csv', id='id'}}")
    base, marker = killed(folder / "base", 7, *sets), folder / "executed"
    files = names(newest(base))
    failures = [f"{kind.__name__} is harmless" for kind in KINDS if not _bites(kind, marker)]
    trap = Trap(str(marker))
    forgeries: list[tuple[str, str, Callable[[Path], None]]] = [("nothing", "", lambda _: None)]
    for at, name in enumerate(files):
        kinds = [KINDS[(at + number) % 3] for number in range(min(rounds, 3))]
        forgeries += [(f"{k.__name__[1:]} pickle", name, partial(k, trap=trap)) for k in kinds]
    forgeries += [("code", name, partial(_coded, marker=marker)) for name in AUTO]
    reads = refused = 0
    for number, (what, name, forge) in enumerate(forgeries):
        here = folder / str(number)
        shutil.copytree(base, here, symlinks=True)
        for step in here.glob("runs/fault/*/checkpoints/step-*"):
            forge(step / name)
            if name != checkpoint.MANIFEST:
                _seal(step)
        for way, ended in _read(here, sets):
            reads += 1
            taken = ended.code == 0 and "starting over" not in ended.err
            refused += not taken
            wrong = ["it was executed"] * marker.exists()
            wrong += [f"exit code {ended.code}"] * (ended.code not in {0, 1, 2})
            told = "Traceback" not in ended.err and "runs/" in ended.err
            wrong += [f"it says: {ended.last}"] * (ended.code > 0 and not told)
            free = what in {"code", "nothing"} or name in UNREAD[way]
            wrong += [f"exit code {ended.code}, expected otherwise"] * (taken != free)
            failures += [f"{what} as {name}, {way}: {each}" for each in wrong]
    said = (
        f"{len(forgeries) - 1} forgeries in the place of {len(files)} files, read {reads} times by"
        f" run --resume, evaluate and predict: 0 executed, {refused} refused, the others not read"
    )
    return Outcome.of(said, failures)


def _bites(kind: Callable[[Path, Trap], None], marker: Path) -> bool:
    """Tell whether a reader without care executes it."""
    file = marker.with_name("trap")
    kind(file, Trap(str(marker)))

    def read() -> None:
        if kind is _pickled:
            pickle.loads(file.read_bytes())  # noqa: S301 - that's the point
        else:
            torch.load(file, weights_only=False)

    processes.start(read, marker.parent).wait()
    if not marker.exists():
        return False
    marker.rmdir()
    return True


def _coded(file: Path, marker: Path) -> None:
    """Have a file of transformers name classes in a module that lies beside it."""
    module = f"import os\nos.mkdir({str(marker)!r})\nclass Evil: ...\n"
    (file.parent / "evil.py").write_text(module)
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"auto_map": AUTO[f"model/{file.name}"]}))


def _seal(step: Path) -> None:
    """Forge the manifest."""
    entries = {
        name: {"size": (step / name).stat().st_size, "sha256": checkpoint.digest(step / name)}
        for name in names(step)
        if name != checkpoint.MANIFEST
    }
    (step / checkpoint.MANIFEST).write_text(json.dumps(entries))


def _read(here: Path, sets: Sequence[str]) -> Iterator[tuple[str, Ended]]:
    """Read a run's checkpoints in every way there is."""
    (run,) = here.glob("runs/fault/*")
    posts = here.parent / "posts.csv"
    yield "evaluate", finished("evaluate", run, cwd=here)
    yield "predict", finished("predict", run, posts, "--output", "out.csv", cwd=here)
    yield "resume", started(here, *sets, resume=True).wait()
