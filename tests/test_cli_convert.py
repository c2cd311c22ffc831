import json
import re
from pathlib import Path

import pytest
import spacy
import typer
from spacy.tokens import Doc, DocBin
from typer.testing import CliRunner

from spacy_nerllama.cli.convert import convert, convert_cli, parse_labels
from spacy_nerllama.corpora import read_corpus

PUBTATOR = (
    "1|t|Aspirin for migraine.\n1|a|It helped.\n"
    "1\t0\t7\tAspirin\tChemical\tX\n1\t12\t20\tmigraine\tDisease\tX\n\n"
    "2|t|KCNH2x carriers\n2\t0\t5\tKCNH2\tGene\tX\n\n3|t|None\n"
)

app = typer.Typer()
app.command()(convert_cli)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(PUBTATOR, encoding="utf-8")
    return path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def read(path: Path) -> list[Doc]:
    return list(DocBin(store_user_data=True).from_disk(path).get_docs(spacy.blank("en").vocab))


def test_a_corpus_becomes_a_spacy_file_and_a_report(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "train.spacy"
    code, printed = run(corpus, output, "--format", "pubtator")
    assert code == 0
    for row in (
        "documents 3",
        "sentences 4",
        "mentions Chemical 1",
        "mentions Gene 1",
        "snapped 1",
        "dropped 0",
    ):
        assert row in printed
    docs = read(output)
    assert [doc.user_data["nerllama_id"] for doc in docs] == ["1", "2", "3"]
    assert [(e.text, e.label_) for doc in docs for e in doc.ents] == [
        ("Aspirin", "Chemical"),
        ("migraine", "Disease"),
        ("KCNH2x", "Gene"),
    ]
    assert [len(list(doc.sents)) for doc in docs] == [2, 1, 1]
    assert list(output.parent.iterdir()) == [output]


def test_labels_misaligned_skip_and_limit(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.spacy"
    options = ["--labels", "Chemical=CHEMICAL, Gene=GENE", "--misaligned", "drop"]
    code, printed = run(corpus, output, "-f", "pubtator", *options, "--limit", 2)
    assert code == 0
    assert "skipped label Disease 1" in printed
    assert "dropped 1" in printed
    assert [[e.label_ for e in doc.ents] for doc in read(output)] == [["CHEMICAL"], []]
    assert run(corpus, output, "-f", "pubtator", "--skip", 1, "--limit", 1)[0] == 0
    assert [doc.user_data["nerllama_id"] for doc in read(output)] == ["2"]
    assert run(corpus, output, "-f", "pubtator", "--skip", 2)[0] == 0
    assert [doc.text for doc in read(output)] == ["None"]


def test_bare_iob_tags_get_the_label(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("Rare\tO\nataxia\tB\n", encoding="utf-8")
    assert run(path, tmp_path / "a.spacy", "-f", "iob", "--label", "DISEASE")[0] == 0
    assert [e.label_ for e in read(tmp_path / "a.spacy")[0].ents] == ["DISEASE"]


def test_the_format_is_recognised_and_the_report_written(corpus: Path, tmp_path: Path) -> None:
    corpus.write_text(PUBTATOR + "\n3|t|Ataxia, ataxia.\n" + "3\t0\t6\tAtaxia\tDisease\n" * 2, encoding="utf-8")
    report = tmp_path / "metrics" / "report.json"
    code, printed = run(corpus, tmp_path / "a.spacy", "--report", report)
    assert code == 0
    counts = json.loads(report.read_text("utf8"))
    assert counts["mentions"] == {"Chemical": 1, "Disease": 2, "Gene": 1}
    assert (counts["documents"], counts["duplicate_ids"], counts["duplicates"], counts["snapped"]) == (4, 1, 1, 1)
    assert "given twice, kept once 1" in printed
    assert "id that was there before 1" in printed


def test_sentences_become_docs(corpus: Path, tmp_path: Path) -> None:
    assert run(corpus, tmp_path / "a.spacy", "--split-sentences")[0] == 0
    docs = read(tmp_path / "a.spacy")
    assert [doc.text for doc in docs] == ["Aspirin for migraine. ", "It helped.", "KCNH2x carriers", "None"]
    assert [doc.user_data["nerllama_id"] for doc in docs] == ["1", "1", "2", "3"]
    assert [doc.user_data.get("nerllama_offset") for doc in docs] == [0, 22, None, None]


def test_the_tokenizer_for_biomedical_text(tmp_path: Path) -> None:
    path = tmp_path / "a.mark"
    path.write_text("A <mark>p16</mark>(INK4A) carrier.\n", encoding="utf-8")
    for tokenizer, snapped in (("spacy", 1), ("bio", 0)):
        code, printed = run(path, tmp_path / "a.spacy", "--label", "GENE", "--tokenizer", tokenizer)
        assert code == 0
        assert f"snapped {snapped}" in printed


def test_what_an_annotator_did_not_accept_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "Yes."}\n{"text": "No.", "answer": "reject"}\n', encoding="utf-8")
    code, printed = run(path, tmp_path / "a.spacy")
    assert code == 0
    assert "left out, answer reject 1" in printed
    assert [doc.text for doc in read(tmp_path / "a.spacy")] == ["Yes."]


def test_columns_of_an_iob_file(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("1 Ataxia B-D x\n", encoding="utf-8")
    options = ["-f", "iob", "--separator", "space", "--token-column", 2, "--tag-column", -2]
    assert run(path, tmp_path / "a.spacy", *options)[0] == 0
    assert [(e.text, e.label_) for e in read(tmp_path / "a.spacy")[0].ents] == [("Ataxia", "D")]


def test_skipping_every_mention_is_said(corpus: Path, tmp_path: Path) -> None:
    code, printed = run(corpus, tmp_path / "a.spacy", "-f", "pubtator", "--labels", "chemical=CHEMICAL")
    assert code == 0
    assert "All mentions were skipped" in printed


def test_documents_without_any_mention_are_said(tmp_path: Path) -> None:
    """Such as those of a file that has its mentions where they are not read."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "ATM loss", "ner": [[0, 3, "GENE"]]}\n', encoding="utf-8")
    code, printed = run(path, tmp_path / "a.spacy")
    assert code == 0
    assert "There is no mention in any document" in printed


def test_a_file_without_documents_is_said(corpus: Path, tmp_path: Path) -> None:
    """And where it is --skip that left none, that is said too."""
    printed = run(corpus, tmp_path / "a.spacy", "-f", "pubtator", "--skip", 3)[1]
    assert "holds no documents after the first 3, which --skip leaves out" in printed
    corpus.write_text("", encoding="utf-8")
    printed = run(corpus, tmp_path / "a.spacy", "-f", "pubtator")[1]
    assert "corpus.txt holds no documents" in printed
    assert "documents after" not in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-f", "conll"], "NL110"),
        (["-f", "brat"], "NL118"),
        (["--tokenizer", "moses"], "NL128"),
        (["--separator", ","], "NL128"),
        (["--token-column", "0"], "NL129"),
        (["-f", "pubtator", "--labels", "Chemical"], "NL112"),
        (["-f", "pubtator", "--misaligned", "ignore"], "NL113"),
        (["-f", "pubtator", "--lang", "xyz"], "E048"),
        (["-f", "iob"], "NL108"),
        (["-f", "bc2gm"], "NL105"),
    ],
)
def test_bad_options_are_clear_errors(corpus: Path, tmp_path: Path, options: list[str], message: str) -> None:
    output = tmp_path / "out.spacy"
    code, printed = run(corpus, output, *options)
    assert code == 1
    assert message in printed
    assert not output.exists()


def test_a_missing_file_and_a_wrong_output_name_are_clear_errors(corpus: Path, tmp_path: Path) -> None:
    assert "NL111" in run(tmp_path / "missing.txt", tmp_path / "out.spacy", "-f", "pubtator")[1]
    assert "NL114" in run(corpus, tmp_path / "out.json", "-f", "pubtator")[1]


def test_a_broken_line_leaves_the_old_output_whole(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.spacy"
    run(corpus, output, "-f", "pubtator")
    before = output.read_bytes()
    corpus.write_text(PUBTATOR + "3\t0\n", encoding="utf-8")
    code, printed = run(corpus, output, "-f", "pubtator")
    assert code == 1
    assert "NL101" in printed
    assert "line 10" in printed
    assert output.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt", "out.spacy"]


def test_an_output_that_cannot_be_written_leaves_nothing_behind(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out.spacy"
    folder.mkdir()
    code, printed = run(corpus, folder, "-f", "pubtator")
    assert code == 1
    assert "Nothing was written" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt", "out.spacy"]


def test_what_cannot_be_placed_is_left_out_and_shown(tmp_path: Path) -> None:
    lines = "".join(f"1\t{90 + i}\t{96 + i}\tAtaxia\tDisease\n" for i in range(5))
    path, output = tmp_path / "corpus.txt", tmp_path / "out.spacy"
    path.write_text(f"1|t|Ataxia is rare.\n1|a|\n{lines}1\t0\t6\tAtaxia\tDisease\n")
    code, printed = run(path, output)
    assert (code, output.exists()) == (1, False)
    assert "--misplaced drop" in printed
    code, printed = run(path, output, "--misplaced", "drop")
    assert code == 0
    assert "another text, left out 5" in printed
    assert printed.count("[NL130]") == 3
    assert [ent.text for doc in read(output) for ent in doc.ents] == ["Ataxia"]


def test_a_label_may_hold_commas() -> None:
    assert parse_labels("T116,T123=PROTEIN, T047=DISEASE") == {"T116,T123": "PROTEIN", "T047": "DISEASE"}


def test_convert_streams(corpus: Path) -> None:
    docs, report = convert(read_corpus(corpus), spacy.blank("en"))
    assert report.documents == 0
    next(docs)
    assert report.documents == 1


@pytest.mark.parametrize("labels", ["", "Chemical", "Chemical=", "=X", "A=B=C", "A=B,A=C", "A=B,"])
def test_labels_that_cannot_be_read(labels: str) -> None:
    with pytest.raises(ValueError, match="NL112"):
        parse_labels(labels)
