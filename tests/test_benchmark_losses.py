"""The benchmark of the losses, in small, on the tiny model: its figures mean nothing there, its books do."""

import json
import sys
from pathlib import Path

import pytest
from training import recipe_of

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads the memory of a process from /proc")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import losses as benchmark

    return benchmark


def test_a_run_and_its_resuming(benchmark, corpus: Path, tiny_base: Path, monkeypatch, capsys) -> None:
    recipe_of(corpus, tiny_base)
    out = corpus / "losses.jsonl"
    settings = ["--recipe", str(corpus / "recipe.cfg"), "--output", str(out), "--losses", "decision", "response"]
    settings += ["--seeds", "1", "--tokens", "300", "--devel", "2", "--adapter.r", "2"]
    monkeypatch.setattr(sys, "argv", ["losses.py", *settings])
    benchmark.main()
    results = [json.loads(line) for line in out.read_text("utf8").splitlines()]
    assert [(result["loss"], result["seed"]) for result in results] == [("decision", 1), ("response", 1)]
    for result in results:
        assert 300 <= result["by_tokens"]["tokens"] < 300 + 128
        assert result["by_time"]["tokens"] <= result["by_tokens"]["tokens"]
        assert result["tokens_per_second"] > 0
        assert {"f1", "f1_best", "ece"} < set(result["by_tokens"])
    assert results[0]["by_time"] == results[0]["by_tokens"], "the decision loss sets the time"
    table = capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["decision", "response"]
    out.write_text(json.dumps(results[0]) + "\n", "utf8")  # as if it had been stopped after the first run
    benchmark.main()
    again = [json.loads(line) for line in out.read_text("utf8").splitlines()]
    assert [result["loss"] for result in again] == ["decision", "response"]
    assert again[0] == results[0], "what is there is not done again"
    assert again[1]["by_tokens"]["f1"] == results[1]["by_tokens"]["f1"]
    assert again[1]["by_tokens"]["ece"] == results[1]["by_tokens"]["ece"]


def test_a_table_has_mean_and_deviation(benchmark) -> None:
    point = {"tokens": 100, "seconds": 1.0, "f1_best": 0.25, "ece": 0.125}
    both = [{"by_tokens": {**point, "f1": f1}, "by_time": {**point, "f1": f1}} for f1 in (0.5, 0.75)]
    more = {"loss": "decision", "tokens_per_second": 10.0, "memory": 5.0}
    row = benchmark.table([{**more, **each} for each in both]).splitlines()[2]
    assert row.startswith("| decision | 2 | 0.625 ± 0.177 | 0.250 ± 0.000 | 0.125 ± 0.000 | 0.625 ± 0.177 |")
    assert benchmark.spread([0.5], ".3f") == "0.500"
