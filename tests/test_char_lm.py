"""The character language model as a person uses it: trained, resumed, evaluated, generating."""

from __future__ import annotations

import io
import json
import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import ROOT, install, only_run, points, table

from framework import checkpoint
from framework.__main__ import main
from framework.commands._tools import Tools
from framework.errors import RunError, UserError
from plugins.commands import _choice, _interactive
from plugins.commands._generation import Limits, Text, drawn, generate, started
from plugins.commands.generate import _from_file, generative
from plugins.decodings.greedy import Greedy
from plugins.decodings.temperature import Temperature
from plugins.models.transformer_lm import LiveTransformerLm, TransformerLm
from plugins.tokenizers.bpe import Bpe
from plugins.tokenizers.character import Character

FILE = ROOT / "experiments" / "char_lm.toml"
SHORT = (
    *("trainer.steps=8", "trainer.eval_every=4", "trainer.threads=1", "trainer.log_every=1"),
    *("model.layers=1", "model.heads=2", "model.d_model=16", "dataset.ratios=[0.99, 0.01]"),
)
RINGING = """
import signal
import attrs
from framework.hooks import hookimpl

@attrs.frozen
class Ring:
    def build(self):
        return Live()

class Live:
    sink = True
    @hookimpl
    def step_end(self, state):
        if state.step == 3:
            signal.raise_signal(signal.SIGTERM)

@attrs.frozen
class Interrupting:
    def build(self):
        calls = []
        def decode(logits):
            calls.append(1)
            if len(calls) == 5:
                signal.raise_signal(signal.SIGINT)
            return logits.double().softmax(-1)
        return decode
"""


def ran(*sets: str, name: str, rc: int = 0) -> Path:
    """Train the shipped experiment for a few steps; its run."""
    words = [word for text in (*SHORT, f"name={name}", *sets) for word in ("--set", text)]
    assert main(["run", str(FILE), *words]) == rc
    return only_run(Path.cwd(), name)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        return ran(name="short").resolve()


def test_a_run_has_what_every_run_has(run: Path) -> None:
    """The usual folder, with losses that fall, and metrics that fit each other."""
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("completed", 8)
    val = result["metrics"]["val"]
    assert val["perplexity"] == pytest.approx(math.exp(val["loss"]), rel=1e-6)
    # a character is a token
    assert val["bits_per_character"] == pytest.approx(val["loss"] / math.log(2), rel=1e-6)
    losses = [point["train/loss"] for point in points(run) if "train/loss" in point]
    assert losses[-1] < losses[0]
    saved = {file.name for file in (run / "checkpoints" / "best" / "model").iterdir()}
    assert saved == {"characters.json", "experiment.toml", "info.json", "model.safetensors"}


def test_evaluate_finds_the_same(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the checkpoint alone, with its saved vocabulary, val has the values of the run."""
    capsys.readouterr()
    assert main(["evaluate", str(run), "--split", "val", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    best = json.loads((run / "result.json").read_text())["best"]
    assert found["loss"] == best["value"]


def test_predict_gives_the_loss_of_windows(run: Path, tmp_path: Path) -> None:
    """Another text is scored window by window, and no text is written."""
    (tmp_path / "other.txt").write_text("The kettle hums.\n" * 10, encoding="utf-8")
    output = tmp_path / "rows.csv"
    assert main(["predict", str(run), str(tmp_path / "other.txt"), "--output", str(output)]) == 0
    head, *rows = output.read_text().splitlines()
    assert head == "id,tokens,characters,loss"
    assert [row.split(",")[:3] for row in rows] == [
        ["text:0", "64", "64"],
        ["text:64", "64", "64"],
        ["text:128", "41", "41"],
    ]


def same_by_predict(run: Path) -> None:
    """Predict for the text of val; over all its tokens, the loss is the evaluation's.

    It fails where BPE makes tokens of each window alone.
    """
    text = (ROOT / "data" / "char_lm" / "input.txt").read_text(encoding="utf-8")
    Path("val.txt").write_text(text[int(len(text) * 0.99) :], encoding="utf-8")
    assert main(["predict", str(run), "val.txt", "--output", "val.csv"]) == 0
    rows = table(Path("val.csv"))
    total = sum(float(row["loss"]) * int(row["tokens"]) for row in rows if row["loss"])
    best = json.loads((run / "result.json").read_text())["best"]["value"]
    assert total / sum(int(row["tokens"]) for row in rows) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("tokenizer", ["character", '{ use = "bpe", vocabulary = 270 }'])
def test_it_resumes_exactly(
    tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is stopped and goes on ends bit for bit as one that is not."""
    monkeypatch.chdir(tmp_path)
    offers = {"framework.callback": {"ring": "ringing:Ring"}}
    install(monkeypatch, tmp_path, "ringing 1.0", offers, ringing=RINGING)
    sets = (f"model.tokenizer={tokenizer}", "model.dropout=0.1")
    whole = ran(*sets, name="whole")
    halted = ran(*sets, "callbacks.ring={}", name="halted", rc=143)
    assert json.loads((halted / "result.json").read_text())["steps"] == 3
    assert main(["run", "--resume", str(halted)]) == 0
    assert points(halted) == points(whole)
    same_by_predict(whole)
    mine, theirs = (
        load_file(folder / "checkpoints" / "last" / checkpoint.WEIGHTS)
        for folder in (halted, whole)
    )
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


# --- generation, of a model that nobody trained


@pytest.fixture(scope="module")
def model() -> LiveTransformerLm:
    """A tiny model over eight letters, with weights that make it decided."""
    torch.manual_seed(4)
    options = TransformerLm(
        tokenizer=Character(), layers=2, heads=2, d_model=16, context=24, cache=False
    )
    live = options.build({"train": [{"text": "abcdefgh"}]})
    with torch.no_grad():
        for parameter in live.module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    live.module.eval()
    return live


def gone_on(
    model: Any, *prompts: str, decoding: Any = None, seed: int = 0, **limits: Any
) -> list[Text]:
    """Generate, and return the texts as they ended."""
    bounds = Limits(**{"tokens": 10, "context": model.context, **limits})
    texts = started(model, prompts, bounds, [seed])
    for _ in generate(model, texts, (decoding or Greedy()).build()):
        pass
    return texts


def test_greedy_is_the_plain_loop(model: LiveTransformerLm) -> None:
    """With a cache, the text is that of reading everything again for every token."""
    (found,) = gone_on(model, "abc")
    ids = model.tokenizer.encode("abc").tolist()
    for _ in range(10):
        with torch.no_grad():
            logits = model.module(torch.tensor([ids]))["logits"][0, -1]
        ids.append(int(logits[2:].argmax()) + 2)
    assert found.ids == ids[3:]
    assert (found.text, found.reason) == (
        model.tokenizer.decode(ids[3:]),
        "10 tokens were generated",
    )


def test_company_does_not_change_a_text(model: LiveTransformerLm) -> None:
    """Prompts of any lengths generate together what each would alone, drawn or not."""
    prompts = ["a", "hgfedcba", "bcd"]
    hot = Temperature(temperature=2.0)
    together = gone_on(model, *prompts, decoding=hot, seed=3)
    assert len({text.text for text in together}) > 1
    for at, prompt in enumerate(prompts):
        others = ["h" * 5] * at
        assert gone_on(model, *others, prompt, decoding=hot, seed=3)[at].text == together[at].text
    again = gone_on(model, *prompts, decoding=hot, seed=4)
    assert [text.text for text in again] != [text.text for text in together]


def test_the_context_ends_a_text_with_a_reason(model: LiveTransformerLm) -> None:
    """The last token that can be predicted is the one after a full context; others go on."""
    short, long = gone_on(model, "a", "a" * 20, tokens=15)
    assert (len(long.ids), long.reason) == (5, "the context of 24 tokens is full")
    assert (len(short.ids), short.reason) == (15, "15 tokens were generated")
    (full,) = gone_on(model, "a" * 24)
    assert len(full.ids) == 1
    with pytest.raises(UserError, match="prompt 1 of 1 has 25 tokens and the model reads 24"):
        gone_on(model, "a" * 25)


def test_prompts_that_cannot_be_read(model: LiveTransformerLm, said: Callable[[], Any]) -> None:
    """An empty one and one that is no text are refused; unknown characters are said."""
    with pytest.raises(UserError, match="prompt 2 of 2 is empty"):
        gone_on(model, "a", "")
    with pytest.raises(UserError, match="is no valid UTF-8"):
        gone_on(model, "a\udc80")
    gone_on(model, "aXYb")
    assert said() == ["prompt 1 of 1: 2 characters are not in the vocabulary"]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings so far."""
    caplog.set_level("WARNING", logger="framework")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_stop_may_begin_and_end_in_any_token(model: LiveTransformerLm) -> None:
    """A text ends before the stop, wherever tokens are cut, and no part of a stop is shown."""
    (free,) = gone_on(model, "abc", decoding=Temperature(temperature=3.0))
    stop = free.text[3:6]
    before = free.text.index(stop)
    (found,) = gone_on(model, "abc", decoding=Temperature(temperature=3.0), stops=["xyz", stop])
    assert found.text == free.text[:before]
    assert found.reason == f"the stop {stop!r} came"
    assert len(found.ids) == before + 3

    limits = Limits(99, 99, ["xyz"])
    text = Text("", [], model.tokenizer, limits, None)  # type: ignore[arg-type]
    for shown, sure in (("axy", "a"), ("ax", "a"), ("axa", "axa"), ("xyx", "xy"), ("a\ufffd", "a")):
        text.text = shown
        assert text.sure() == sure


@pytest.mark.parametrize("chance", [0.0, 0.25, 0.999999, 1 - 2**-53])
def test_a_token_without_a_share_is_never_drawn(chance: float) -> None:
    """Also where the running sum is rounded: the first and last tokens have no share."""
    shares = torch.tensor([0, 0.1, 0, 0.2, 0.7, 0], dtype=torch.float64).numpy()
    assert drawn(shares, chance) in {1, 3, 4}


def test_tokens_are_drawn_by_their_shares() -> None:
    """Over a fine grid of chances each token comes as often as its share says."""
    shares = torch.tensor([0.125, 0.5, 0.0, 0.375], dtype=torch.float64).numpy()
    found = [drawn(shares, at / 800) for at in range(800)]
    assert [found.count(token) for token in range(4)] == [100, 400, 0, 300]


@pytest.mark.parametrize("shares", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], [-0.5, 1.5]])
def test_what_is_no_distribution_ends_generation(shares: Sequence[float]) -> None:
    """A decoding that leaves nothing to draw from is told, and not drawn from."""
    with pytest.raises(RunError, match="gave no distribution"):
        drawn(torch.tensor(shares, dtype=torch.float64).numpy(), 0.5)


def test_special_tokens_are_never_generated(model: LiveTransformerLm) -> None:
    """However hot, neither padding nor the unknown is drawn; logits that are NaN are told."""
    (found,) = gone_on(model, "abc", decoding=Temperature(temperature=1e9), tokens=20)
    assert min(found.ids) >= 2

    class Broken:
        tokenizer, context = model.tokenizer, model.context

        def reader(self) -> Any:
            return lambda tokens: torch.full((len(tokens), 10), math.nan)

    with pytest.raises(RunError, match="logits are not finite"):
        gone_on(Broken(), "a")


def test_bpe_goes_on_with_whole_characters() -> None:
    """While a character is half generated nothing of it is shown."""
    live = Bpe(vocabulary=260).build(["🌿"])
    text = Text("", [], live, Limits(99, 99), None)  # type: ignore[arg-type]
    for token in live.encode("🌿")[:-1]:
        text.ids.append(int(token))
        text.text = live.decode(text.ids)
        assert text.sure() == ""


# --- which decoding is meant

ARGUMENTS: dict[str, Any] = dict.fromkeys(["top_k", "top_p", "temperature", "decoding"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "LiveGreedy()"),
        ({"temperature": 0.5}, "LiveTemperature(temperature=0.5)"),
        ({"top_k": 3, "temperature": 0.5}, "LiveTopK(k=3, temperature=0.5)"),
        ({"top_p": 0.9}, "LiveTopP(p=0.9, temperature=1.0)"),
        ({"decoding": "greedy", "top_k": 3}, "LiveGreedy()"),
        ({"decoding": '{use="top_k", k=2}', "temperature": 3.0}, "LiveTopK(k=2, temperature=1.0)"),
    ],
)
def test_what_is_explicit_comes_first(given: Any, expected: str) -> None:
    """A named decoding before top-k and top-p, these before temperature, and greedy without any."""
    assert repr(_choice.chosen({**ARGUMENTS, **given}, Tools())) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"top_k": 0}, "--top-k:1:16: 'k' must be >= 1: 0"),
        ({"top_p": 1.5}, "'p' must be <= 1.0: 1.5"),
        ({"temperature": -1.0}, "'temperature' must be >= 0.0: -1.0"),
        ({"temperature": math.inf}, "'temperature' must be finite: inf"),
        ({"temperature": math.nan}, "'temperature' must be >= 0.0: nan"),
        ({"decoding": "gredy"}, "no decoding is named 'gredy'; did you mean 'greedy'?"),
        ({"top_k": 1, "top_p": 0.5}, "give --top-k or --top-p, not both"),
    ],
)
def test_what_cannot_be_is_told_as_in_an_experiment(given: Any, words: str) -> None:
    """A wrong value is told with its argument, before any model is loaded."""
    with pytest.raises(UserError) as caught:
        _choice.chosen({**ARGUMENTS, **given}, Tools())
    assert words in str(caught.value)


# --- the command


def test_generate_prints_texts_and_reasons(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prompt and text stand on stdout, why it ended on stderr; `--json` has both."""
    file = tmp_path / "prompt.txt"
    file.write_text("FERRYMAN:\n", encoding="utf-8")
    words = ["--prompt", "The tide", "--prompt-file", str(file), "--max-tokens", "5"]
    capsys.readouterr()
    assert main(["generate", str(run), *words, "--seed", "1", "--top-k", "5", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["prompt"], second["prompt"]) == ("The tide", "FERRYMAN:")
    assert (len(first["text"]), first["tokens"]) == (5, 5)
    assert main(["generate", str(run), *words, "--seed", "1", "--top-k", "5"]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"The tide{first['text']}\nFERRYMAN:{second['text']}\n"
    assert shown.err == "ended: 5 tokens were generated\n" * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "there is nothing to go on with; give --prompt, or --interactive"),
        (["--prompt", "a", "--max-tokens", "0"], "--max-tokens is 0; it must be at least 1"),
        (["--prompt", "a", "--stop", ""], "--stop is empty"),
        (
            ["--interactive", "--prompt", "a"],
            "--interactive asks for prompts and shows texts; leave",
        ),
        (["--prompt", "a", "--seed", "-1"], "--seed is -1; it must be at least 0"),
        (["--prompt-file", "none.txt"], "none.txt: can't be read (No such file or directory)"),
    ],
)
def test_arguments_that_cannot_be(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is one line and exit code 2, before a run is looked for."""
    assert main(["generate", "nowhere", *words]) == 2
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        (b"\xef\xbb\xbfA:\n", "A:"),
        (b"A:\r\nB:\r\n", "A:\r\nB:"),
        (b"A:\n\n", "A:\n"),
        (b"\n", "\n"),
        (b"\r\n", "\r\n"),
        (b"", ""),
    ],
)
def test_a_prompt_file_is_read_as_training_is(content: bytes, prompt: str, tmp_path: Path) -> None:
    """Without a mark of byte order, with its line ends; only the last goes, where others stay."""
    (tmp_path / "prompt.txt").write_bytes(content)
    assert _from_file(tmp_path / "prompt.txt") == [prompt]


def test_a_model_that_cannot_generate_is_told() -> None:
    """A classifier's run is refused in words."""
    with pytest.raises(UserError, match="runs/x: its model can't generate text: it has no token"):
        generative(object(), "runs/x")


def talked(
    model: Any, lines: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Hold a conversation; what is shown."""
    given = {**ARGUMENTS, "stop": [], "max_tokens": 8, "seed": 0}
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    monkeypatch.setenv("COLUMNS", "200")
    capsys.readouterr()
    assert _interactive.talk(model, given, Tools()) == 0
    return capsys.readouterr().out


def test_a_conversation(
    model: LiveTransformerLm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prompts are gone on with, settings change, mistakes are told, and it goes on until /quit."""
    (found,) = gone_on(model, "abc", tokens=8)
    lines = "abc\n/set max_tokens=2\nabc\n/set top_k=0\n/set colour=red\n/set seed=x\n/quit\nabc\n"
    shown = talked(model, lines, monkeypatch, capsys)
    assert f"abc{found.text}\nended: 8 tokens were generated" in shown
    assert f"abc{found.text[:2]}\nended: 2 tokens were generated" in shown
    assert "'k' must be >= 1: 0" in shown
    assert "/set: there is no 'colour'; it knows temperature" in shown
    assert "/set: 'x' is no value of seed" in shown
    assert shown.count("ended: ") == 2


def test_settings_hold_from_then_on(
    model: LiveTransformerLm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`/set temperature=0.8` draws, another seed draws otherwise, without a value it is greedy."""
    (greedy,) = gone_on(model, "abc", tokens=8)
    heat = "/set temperature=50\nabc\n/set seed=1\nabc\n/set temperature=\nabc\n/set stop=\\n\n"
    shown = talked(model, heat, monkeypatch, capsys)
    texts = [line.removeprefix("> ") for line in shown.splitlines() if "abc" in line]
    assert len({*texts}) == 3
    assert texts[2].endswith(f"abc{greedy.text}")


def test_what_is_shown_is_what_was_generated(
    model: LiveTransformerLm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tabs, carriage returns and names of emoji stay as they are; a blank can be a stop."""
    said = "a\t:smile: [b]\rc"
    lines = f"/set max_tokens=1\n{said}\n/set stop= \n/set stop=\n"
    stops: list[Any] = []
    real = _interactive.changed

    def changed(*given: Any) -> Any:
        found = real(*given)
        stops.append(found["stop"])
        return found

    monkeypatch.setattr(_interactive, "changed", changed)
    assert said in talked(model, lines, monkeypatch, capsys)
    assert stops == [[], [" "], []]


@pytest.fixture
def foreground() -> Iterator[None]:
    """SIGINT as a terminal's program has it: started in the background, tests ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("foreground")
def test_ctrl_c_stops_a_text_and_not_the_program(
    model: LiveTransformerLm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A real SIGINT while generating ends the text with what there is; the next prompt works."""
    offers = {"framework.decoding": {"interrupting": "interrupts:Interrupting"}}
    install(monkeypatch, tmp_path, "interrupts 1.0", offers, interrupts=RINGING)
    lines = "/set decoding=interrupting\nabc\n/set decoding=\nabc\n"
    shown = talked(model, lines, monkeypatch, capsys)
    assert shown.count("ended: interrupted") == 1
    assert shown.count("ended: 8 tokens were generated") == 1
