"""The study of votes, on the tiny model: its figures mean nothing there, but what it compares must be right."""

import json
import re
import sys
from pathlib import Path

import pytest
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab

from spacy_nerllama.prompts import CompactPrompt
from spacy_nerllama.requests import TokenSpan
from spacy_nerllama.voting import Voting

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
BEGIN, END = "<!-- votes table -->", "<!-- end of votes table -->"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import votes

    return votes


@pytest.fixture
def splits(benchmark, tmp_path: Path) -> Path:
    """The devel splits that it reads, with a few sentences of our own in each."""
    for name, label in benchmark.CORPORA.items():
        docs = DocBin()
        for who in ("Anna", "Bert", "Carla"):
            doc = Doc(Vocab(), words=[who, "has", name, "."])
            doc.set_ents([Span(doc, 2, 3, label)])
            docs.add(doc)
        docs.to_disk(tmp_path / f"{name}.spacy")
    return tmp_path


def test_so_many_requests_of_each_split_are_drawn_and_fewer_are_some_of_them(benchmark, splits: Path) -> None:
    drawn = benchmark.draw(splits, 2)
    assert sorted(request.sentence.words[2] for request, _ in drawn) == sorted([*benchmark.CORPORA] * 2)
    assert all(request.labels[0][0] == gold[0].label for request, gold in drawn)
    assert {request for request, _ in benchmark.draw(splits, 1)} < {request for request, _ in drawn}


def test_what_is_remembered_is_what_would_be_read(benchmark, tiny, splits: Path, monkeypatch) -> None:
    """The votes are those of the model alone, and each setting is charged for what it reads alone."""
    encoder, engine, *_ = tiny.load()
    examples = benchmark.draw(splits, 1)
    result = json.loads(json.dumps(benchmark.mark(engine, encoder, examples)))
    read, score = [], engine.score
    monkeypatch.setattr(engine, "score", lambda rows: read.extend(len(row.ids) for row in rows) or score(rows))
    for setting in benchmark.SETTINGS:
        if setting.wordings == 1:
            read.clear()
            voting = Voting(setting.samples, temperature=setting.temperature)
            alone = list(tiny.vote((request for request, _ in examples), CompactPrompt(), voting, 4096))
            found = benchmark.answers_of([result], setting)
            for votes, (spans, _) in zip(alone, found, strict=True):
                assert spans == pytest.approx(dict(votes.spans), abs=1e-4)
            assert result["ids"][setting.name] == sum(read)
    read.clear()
    benchmark.mark(engine, encoder, examples)
    assert sum(read) < sum(result["ids"].values()) / 2, "settings share what they read"


def test_a_threshold_is_scored_on_the_half_that_it_was_not_chosen_on(benchmark) -> None:
    span, other = TokenSpan(0, 1, "GENE"), TokenSpan(2, 3, "GENE")
    sure, unsure = ({span: 0.9, other: 0.7}, [span]), ({span: 0.3}, [span])
    answers = [sure, unsure] * 3  # so one half are those with 0.9, the other those with 0.3
    assert benchmark.counts(answers, tuned=False).tolist() == [[1, 2, 1], [0, 0, 1]] * 3
    # Chosen on the unsure, 0.3 is the threshold for the sure; 0.75 on the sure, which leaves the unsure without.
    assert benchmark.counts(answers, tuned=True).tolist() == [[1, 2, 1], [0, 0, 1]] * 3
    assert benchmark.counts([sure] * 2, tuned=True).tolist() == [[1, 1, 1]] * 2
    assert benchmark.counts([unsure] * 2, tuned=True).tolist() == [[1, 1, 1]] * 2


def test_the_place_for_the_table_is_marked() -> None:
    text = (BENCHMARKS.parent / "docs" / "voting.md").read_text("utf8")
    assert text.count(BEGIN) == text.count(END) == 1


def test_a_run_and_another_one_that_has_nothing_to_do(
    benchmark, splits: Path, tiny_base: Path, tiny_adapter: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    settings = [
        "--corpus",
        str(splits),
        "--output",
        str(tmp_path / "out.jsonl"),
        "--limit",
        "3",
        "--device",
        "cpu",
    ]
    settings += ["--base", str(tiny_base), "--adapter", str(tiny_adapter), "--dtype", "float32"]
    settings += ["--update", str(page), "--plot", str(tmp_path / "plot.png")]
    monkeypatch.setattr(sys, "argv", ["votes.py", *settings])
    benchmark.main()
    printed = capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["part"] for line in lines] == [0, 8]
    assert [len(line["answers"]) for line in lines] == [8, 4]
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("|")][2:]
    assert [tuple(cell.strip() for cell in row[1:3]) for row in rows[:2]] == [("greedy", ""), ("k = 3", "0.5")]
    assert len(rows) == len(benchmark.SETTINGS) == 28
    assert rows[0][-2].strip() == "1.00"
    assert "12 requests with 12 mentions." in printed
    before, written, after = re.split(f"{BEGIN}\n|\n{END}", page.read_text())
    assert (before, after) == ("before\n", "\nafter\n")
    assert written.startswith(printed.strip())
    assert written.endswith("(plot.png)")
    assert (tmp_path / "plot.png").is_file()

    # Of a run that was stopped, what is there is not done again.
    (tmp_path / "out.jsonl").write_text(json.dumps(lines[0]) + "\n")
    mark, marked = benchmark.mark, []
    monkeypatch.setattr(benchmark, "mark", lambda *given: marked.append(len(given[2])) or mark(*given))
    benchmark.main()
    assert marked == [4]
    assert capsys.readouterr().out == printed
