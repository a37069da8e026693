"""Row 29: experiments that are broken, by a rule or at random."""

from __future__ import annotations

import io
import itertools
import random
import re
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import attrs

from framework.__main__ import main
from tests.faults.outcome import Outcome
from tests.support import ROOT

TEXT = """\
name = "sound"
seed = 42

[dataset]
use = "redsm5"
root = "ROOT/data/redsm5"
criteria = "ROOT/data/dsm5/MDD_Criteria.json"

[model]
use = "hf_classifier"
max_length = 64

[model.config]
hidden_size = 16

[loss]
use = "focal"
gamma = 2.0

[optimizer]
use = "adamw"
lr = 1e-3

[metrics.f1]
average = "macro"

[trainer]
epochs = 1
batch_size = 8
max_grad_norm = 1.0
deterministic = false

[callbacks.early_stopping]
monitor = "val/f1"
mode = "max"
patience = 3

[search]
metric = "val/f1"
direction = "maximize"

[search.space]
"optimizer.lr" = { low = 1e-6, high = 1e-4, log = true }
""".replace("ROOT", str(ROOT))
NUMBERS = {"seed": 42, "max_length": 64, "epochs": 1, "batch_size": 8, "patience": 3}
WORDS = ("use", "average", "monitor", "mode", "metric", "direction")
DEPTHS = (300, 900, 1_100, 20_000)
"""Levels of nesting; Python's own limit is 1,000."""
PER_ROUND = 40
FREE = ("[model.config]", "[search.space]")
"""Tables that take any key."""


@attrs.frozen
class Mutant:
    """A broken file, and what its message must say besides the file's name; None: it may pass."""

    text: bytes
    told: str | None
    line: bool = True
    """Whether there is a line to tell."""


def _made(text: str, told: str | None, *, line: bool = True) -> Mutant:
    return Mutant(text.encode("utf-8", "surrogatepass"), told, line)


def _after(header: str, line: str) -> str:
    return TEXT.replace(header, f"{header}\n{line}", 1)


def _value(key: str, value: str) -> str:
    """Give a key another value, at one of its places."""
    return re.sub(rf"^{key} = .*$", lambda _: f"{key} = {value}", TEXT, count=1, flags=re.MULTILINE)


def _unknown(rng: random.Random) -> Mutant:
    header = rng.choice([h for h in re.findall(r"^\[.*\]$", TEXT, re.MULTILINE) if h not in FREE])
    key = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz_-0123456789", k=rng.randint(4, 60)))
    return _made(_after(header, f"{key} = {rng.choice(['1', 'true', '{}', '[]'])}"), key)


def _misspelt(rng: random.Random) -> Mutant:
    key = rng.choice([*NUMBERS, *WORDS[1:], "gamma", "lr", "deterministic", "root"])
    wrong = key[: len(key) // 2] + rng.choice("qxzj") + key[len(key) // 2 :]
    return _made(re.sub(rf"^{key} = ", f"{wrong} = ", TEXT, count=1, flags=re.MULTILINE), wrong)


def _number(rng: random.Random) -> Mutant:
    wrong = [
        "nan",
        "inf",
        "-inf",
        "-1",
        "3.7",
        "true",
        '"3"',
        "[]",
        "{}",
        "1979-05-27",
        "9" * 5_000,
    ]
    key = rng.choice([*NUMBERS, "gamma", "lr", "max_grad_norm", "deterministic"])
    if key in ("gamma", "lr", "max_grad_norm"):
        wrong = ["nan", "-inf", "-1", "true", '"3"', "[]", "{}", "1979-05-27", "9" * 400]
    if key == "deterministic":
        wrong = ["0", "1", '"false"', "nan", "[]"]
    value = rng.choice(wrong)
    digits = value == "9" * 5_000  # more than Python reads, at whatever place
    return _made(_value(key, value), "" if digits else key, line=not digits)


def _name(rng: random.Random) -> Mutant:
    climbs = ["../evil", "..", ".", "a/../../b", "/evil", "~/evil", "a\\\\b", "", " ", "-x"]
    odd = ["a\\u0000b", "a\\nb", "\\u202Eevil", "é", "a\\u001b[31mb", "a:b", "a" * 300]
    return _made(_value("name", f'"{rng.choice(climbs + odd)}"'), "name")


def _plugin(rng: random.Random) -> Mutant:
    wrong = [
        "../../evil",
        "os:system",
        "framework.run:run",
        "foca",
        "focal\\u0000",
        "",
        "a" * 9_000,
    ]
    kind = rng.choice(["dataset", "model", "loss", "optimizer"])
    text = re.sub(
        rf"^\[{kind}\]\nuse = .*$",
        lambda _: f'[{kind}]\nuse = "{rng.choice(wrong)}"',
        TEXT,
        count=1,
        flags=re.MULTILINE,
    )
    return _made(text, kind)


def _path(rng: random.Random) -> Mutant:
    wrong = ['""', "3", "[]", "true", '["../evil"]', "{ a = 1 }"]
    key = rng.choice(["root", "criteria"])
    return _made(_value(key, rng.choice(wrong)), key)


def _shape(rng: random.Random) -> Mutant:
    table = rng.choice(["dataset", "model", "loss", "optimizer", "trainer", "callbacks", "search"])
    value = rng.choice(["3", "nan", "[[[]]]", "[{}]", "07:32:00", "true"])
    parts = TEXT.split("\n\n")
    kept = [part for part in parts if not part.startswith((f"[{table}]", f"[{table}."))]
    return _made("\n\n".join([f"{table} = {value}", *kept]), table)


def _deep(rng: random.Random) -> Mutant:
    depth = rng.choice(DEPTHS)
    key = ".".join("a" * depth)
    inside = rng.choice(["", *FREE])
    ways = {
        "list": f"deep = {'[' * depth}{']' * depth}",
        "table": f"deep = {'{a=' * depth}1{'}' * depth}",
        "unclosed": f"deep = {'[' * depth}",
        "dotted": f"deep.{key} = 1",
    }
    if rng.random() < 0.2:
        header = rng.choice([f"[deep.{key}]", f"[[deep.{key}]]", f"[model.config.{key}]"])
        return _made(f"{TEXT}\n{header}\nx = 1\n", None if "config" in header else "", line=False)
    way = rng.choice([*ways])
    text = _after(inside, ways[way]) if inside else f"{ways[way]}\n{TEXT}"
    # a free table may hold it, if it is not too deep for the parser
    return _made(text, None if inside == FREE[0] and way != "unclosed" else "", line=False)


def _twice(rng: random.Random) -> Mutant:
    line = rng.choice([line for line in TEXT.splitlines() if line])
    word = line.strip("[]").split(" = ")[0].strip('"')
    return _made(TEXT.replace(line, f"{line}\n{line}", 1), word.split(".")[-1])


def _parent(rng: random.Random) -> Mutant:
    wrong = ['"x.toml"', '"../../nowhere.toml"', "3", '"/"', '"."', '""', '"a\\u0000b"', "[]"]
    return _made(f"extends = {rng.choice(wrong)}\n{TEXT}", "extends")


def _needed(rng: random.Random) -> Mutant:
    wrong = ['["../evil"]', '["no-such-thing>=1"]', '["torch>=999"]', '"torch"', "[3]", "3"]
    return _made(f"requires = {rng.choice(wrong)}\n{TEXT}", "requires")


def _bytes(rng: random.Random) -> Mutant:
    """Break it anywhere; it may still be sound, or be another experiment."""
    raw = bytearray(TEXT.encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(raw))
        until = min(len(raw), at + rng.randint(1, 30))
        way = rng.randrange(5)
        if way == 0:
            del raw[at:until]
        elif way == 1:
            raw[at:at] = raw[at:until]
        elif way == 2:
            raw[at:at] = rng.randbytes(rng.randint(1, 8))
        elif way == 3:
            raw[at] ^= 1 << rng.randrange(8)
        else:
            raw[at:at] = rng.choice(
                [b"\0", b"\r", b"\xef\xbb\xbf", b"'''", b"\xff\xfe", b"\\u0000"]
            )
    return Mutant(bytes(raw), None, line=False)  # what is no text has no lines


WAYS: tuple[Callable[[random.Random], Mutant], ...] = (
    _unknown, _misspelt, _number, _name, _plugin, _path, _shape, _deep, _twice, _parent, _needed,
    *[_bytes] * 5,
)  # fmt: skip


def check(folder: Path, rounds: int) -> Outcome:
    """Row 29: exit 2 with file and key, no traceback, nothing written anywhere."""
    here = folder / "a" / "b"
    here.mkdir(parents=True)
    rng = random.Random(29)  # noqa: S311 - draws of a test
    failures: list[str] = []
    codes: Counter[int] = Counter()
    ways = itertools.islice(itertools.cycle(WAYS), PER_ROUND * rounds)
    for number, way in enumerate(ways):
        mutant = way(rng)
        failures += _judged(mutant, f"{way.__name__[1:]} {number}", folder, codes)
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    if written - {"a/b/x.toml"} - {name for name in written if name.startswith("kept-")}:
        failures.append(f"written: {sorted(written)}")
    counts = ", ".join(f"{count} ended with {code}" for code, count in sorted(codes.items()))
    return Outcome.of(f"{sum(codes.values())} files: {counts}, no traceback, no write", failures)


def _judged(mutant: Mutant, what: str, folder: Path, codes: Counter[int]) -> list[str]:
    """Return what is wrong with how a mutant is told; one that fails is kept in the folder."""
    here = folder / "a" / "b"
    (here / "x.toml").write_bytes(mutant.text)
    out, err = io.StringIO(), io.StringIO()
    # where it can't be sound, `run` must be as strict as `validate`
    words = ["validate", "--show"] if mutant.told is None else ["run"]
    crash = ""
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([*words, str(here / "x.toml")])
        except BaseException as error:  # noqa: BLE001 - whatever gets out is the finding
            code, crash = 1, type(error).__name__
    codes[code] += 1
    said = err.getvalue()
    where = r"x\.toml:\d+:\d+: " if mutant.line else r"x\.toml"
    wrong = [f"raised {crash}"] * bool(crash)
    if code == 2 and not re.search(where, said):
        wrong.append("no place was told")
    if mutant.told is not None and not crash:
        wrong += [f"ended with {code}"] * (code != 2)
        wrong += [f"{mutant.told!r} was not told"] * (mutant.told not in said)
    if wrong:
        (folder / f"kept-{what.replace(' ', '-')}.toml").write_bytes(mutant.text)
    return [f"{what}: {problem}" for problem in wrong]
