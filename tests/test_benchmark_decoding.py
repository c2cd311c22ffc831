"""The decoding benchmark, on the tiny model: its figures mean nothing there, but what it counts must be right."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import spacy

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import decoding

    return decoding


def test_the_sentences_that_come_with_it(benchmark) -> None:
    nlp = spacy.blank("en")
    docs = [benchmark.marked_doc(nlp, line) for line in (BENCHMARKS / "sentences.txt").read_text().splitlines()]
    assert len({doc.text for doc in docs}) == len(docs) >= 40
    assert [ent.text for ent in docs[8].ents] == ["Hypokalemia", "QT prolongation", "torsade de pointes"]
    assert any(not doc.ents for doc in docs)
    assert not any("@" in doc.text or "#" in doc.text for doc in docs)


def test_a_run(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "decoding.py"), "--limit", "3", "--few", "2", "--rounds", "1"]
    command += ["--model", str(tiny_base), "--adapter", str(tiny_adapter), "--text-adapter", str(tiny_adapter)]
    command += ["--dtype", "float32", "--device", "cpu", "--json", str(tmp_path / "out.json")]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads((tmp_path / "out.json").read_text())
    assert "Greedy readings that differ from generate-constrained: 0 of 2." in run.stdout
    assert (result["compared"], result["differing"]) == (2, 0)
    rows = {(row["name"], row["k"]): row for row in result["rows"]}
    assert rows.keys() == {
        *(("generate-loop", k) for k in (1, 10)),
        *(("generate-batch", k) for k in (1, 10)),
        *(("marked", k) for k in (1, 5, 10, 50)),
        ("prompt-lookup", 1),
        ("generate-constrained", 1),
        ("marked-exact", None),
        ("floor", None),
    }
    assert all(row["sentences_per_s"] > 0 and row["passes"] > 0 for row in rows.values())
    assert all(row["malformed"] == 0 for (name, _), row in rows.items() if name.startswith("marked"))
    assert rows["generate-loop", 10]["malformed"] > 0, "a random model copies nothing"
    assert f"| marked-exact |  | 3 | {rows['marked-exact', None]['sentences_per_s']:.2f} |" in run.stdout
