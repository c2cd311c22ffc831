"""The benchmark of one request a label next to typed markers, in small, on the tiny model."""

import json
import sys
from pathlib import Path

import pytest
from training import recipe_of

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads the memory of a process from /proc")


def test_both_prompts_are_trained_and_mark_the_same_sentences(
    corpus: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import multitask

    recipe_of(corpus, tiny_base)
    out = corpus / "multitask.jsonl"
    settings = ["--recipe", corpus / "recipe.cfg", "--output", out, "--seeds", 1, "--tokens", 300, "--devel", 1]
    monkeypatch.setattr(sys, "argv", ["multitask.py", *map(str, settings)])
    multitask.main()
    single, together = [json.loads(line) for line in out.read_text("utf8").splitlines()]
    assert [single["scheme"], together["scheme"]] == list(multitask.SCHEMES)
    for result in (single, together):
        assert 300 <= result["by_tokens"]["tokens"] < 300 + 128
        assert result["by_tokens"]["marking"] > 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split(" | ")[5] for line in lines] == [
        "1.00",
        f"{together['by_tokens']['marking'] / single['by_tokens']['marking']:.2f}",
    ]
    multitask.main()
    assert len(out.read_text("utf8").splitlines()) == 2, "what is there is not run again"
