"""The study of agreement, on the tiny model: its figures mean nothing there; each sentence must be read once."""

import sys
from pathlib import Path

import pytest

from spacy_nerllama.models import Llama

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def pubtator(number: int, words: str, label: str) -> str:
    title, abstract = f"A case of {words}.", f"We saw {words} again. It was not {words} at all."
    text, rows, at = f"{title} {abstract}", [], -1
    while (at := text.find(words, at + 1)) >= 0:
        rows.append(f"{number}\t{at}\t{at + len(words)}\t{words}\t{label}\t-")
    return "\n".join([f"{number}|t|{title}", f"{number}|a|{abstract}", *rows, "", ""])


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """Natural devel splits of two abstracts each, a mention in all sentences."""
    for folder, label in (("ncbi-disease", "SpecificDisease"), ("bc5cdr", "Disease")):
        (tmp_path / folder).mkdir()
        text = pubtator(1, "gout", label) + pubtator(2, "hay fever", label)
        (tmp_path / folder / "devel.PubTator.txt").write_text(text)
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*NLW004")  # the tiny adapter was not taught chemicals
def test_each_sentence_is_read_once(
    corpora: Path, tiny_base: Path, tiny_adapter: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import agreement

    asked, vote = [], Llama.vote
    monkeypatch.setattr(Llama, "vote", lambda self, requests, *more: vote(self, noted(requests), *more))

    def noted(requests):
        for request in requests:
            asked.append((request.sentence.text, request.labels))
            yield request

    page = tmp_path / "voting.md"
    page.write_text("before <!-- agreement, devel -->\nold\n<!-- end of agreement, devel --> after")
    settings = ["--base", str(tiny_base), "--adapter", str(tiny_adapter), "--cache", str(tmp_path / "cache")]
    arguments = ["agreement.py", "--corpora", str(corpora), *settings, "--update", str(page)]
    monkeypatch.setattr(sys, "argv", arguments)
    agreement.main()
    assert len(asked) == len(set(asked)) > 0
    head, _, *rows = capsys.readouterr().out.strip().splitlines()
    assert "F1" in head
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    each = [str(value) for value in (0.0, *agreement.AGREEMENTS)]
    assert [row[:3] for row in cells] == [[name, "2", value] for name in agreement.NATURAL for value in each]
    assert [bool(row[6]) for row in cells] == 2 * [False, True, True, True]
    assert page.read_text().startswith(f"before <!-- agreement, devel -->\n{head}\n")
    assert page.read_text().endswith("\n<!-- end of agreement, devel --> after")
