"""The serving benchmark, on the tiny model and our server: its rates mean nothing there, its comparison does."""

import json
import sys
from pathlib import Path

import pytest
from recorder import DISEASE, sentence
from vllm_server import serving

from spacy_nerllama.requests import Request, TokenSpan
from spacy_nerllama.voting import Votes

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import serving as benchmark

    return benchmark


def test_differences_are_named(benchmark) -> None:
    request = Request(sentence("The ATM gene causes ataxia"), DISEASE)
    kept, lost = TokenSpan(4, 5, "DISEASE"), TokenSpan(1, 3, "DISEASE")
    served, local = Votes({kept: 0.9, lost: 0.49}), Votes({kept: 0.7, lost: 0.51})
    named, largest = benchmark.differences([request], [served], [local], 0.5)
    assert named == ["'ATM gene' (served 0.4900, local 0.5100) in: The ATM gene causes ataxia"]
    assert largest == pytest.approx(0.2)
    assert benchmark.differences([request], [served], [served], 0.5) == ([], 0.0)


def test_a_run(benchmark, tiny, tiny_base: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    encoder, engine, *_ = tiny.load()
    out = tmp_path / "out.json"
    with serving(engine.model, encoder, str(tiny_base)) as served:
        settings = ["--url", served.url, "--local", str(tiny_base), "--limit", "3", "--timed", "2"]
        settings += ["--in-flight", "1", "4", "--no-text", "--json", str(out)]
        monkeypatch.setattr(sys, "argv", ["serving.py", *settings])
        benchmark.main()
    result = json.loads(out.read_text())
    assert [(each["votes"], each["differing"]) for each in result["same"]] == [
        ("greedy", []),
        ("k = 10", []),
        ("exact", []),
    ]
    assert all(each["gap"] < 1e-4 for each in result["same"])
    assert {(row["name"], row["k"], row["in_flight"]) for row in result["rows"]} == {
        ("marked", k, n) for k in (1, 10, None) for n in (1, 4)
    }
    assert "|  | k | 1 in flight | 4 in flight |" in capsys.readouterr().out


def test_some_votes_and_no_times(benchmark, tiny, tiny_base: Path, monkeypatch, capsys) -> None:
    """For a server on which the whole would take too long."""
    encoder, engine, *_ = tiny.load()
    with serving(engine.model, encoder, str(tiny_base)) as served:
        settings = ["--url", served.url, "--local", str(tiny_base), "--limit", "2"]
        monkeypatch.setattr(sys, "argv", ["serving.py", *settings, "--samples", "1", "exact", "--timed", "0"])
        benchmark.main()
    written = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in written if not line.startswith(" ")] == ["greedy", "exact"]
