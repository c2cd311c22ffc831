"""The benchmarks of a training step and of merging, in small: their tables, and that both sides run."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def rows(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.skipif(sys.platform != "linux", reason="it reads the memory of a process from /proc")
def test_a_training_step_is_measured_both_ways(monkeypatch, capsys) -> None:
    import finetune as benchmark

    settings = ["--shape", "tiny", "--lengths", "32", "--batches", "1", "--steps", "1"]
    monkeypatch.setattr(sys, "argv", ["finetune.py", *settings])
    benchmark.main()
    head, *_, row = rows(capsys.readouterr().out)
    found = dict(zip(head, row, strict=True))
    assert found["batch x length"] == "1 x 32"
    assert all(
        float(found[f"{way}, {what}"].replace(",", "")) > 0
        for way in benchmark.WAYS
        for what in ("MB", "tokens/s")
    )
    assert float(found["speed ratio"]) > 0


def test_merged_and_beside_take_turns(
    corpus: Path, tiny_base: Path, tiny_adapter: Path, monkeypatch, capsys
) -> None:
    import merging as benchmark

    settings = ["--data", str(corpus / "devel.spacy"), "--limit", "2", "--rounds", "2", "--dtype", "float32"]
    settings += ["--name", str(tiny_base), "--adapter", str(tiny_adapter)]
    monkeypatch.setattr(sys, "argv", ["merging.py", *settings])
    benchmark.main()
    head, *found = rows(capsys.readouterr().out)
    assert [row[0] for row in found if row[0] != "---"] == ["one greedy reading", "exact"]
    assert all(len(row) == len(head) for row in found)
