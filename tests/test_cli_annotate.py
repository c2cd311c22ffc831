"""`annotate`: documents in, annotated documents out, whatever stops the run in between."""

import json
import re
import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest
import spacy
import srsly
import typer
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span, SpanGroup
from typer.testing import CliRunner

from spacy_nerllama.cli.annotate import FAILED, annotate_cli
from spacy_nerllama.cli.journal import Journal
from spacy_nerllama.corpora import read_corpus

TEXTS = ["Flecainide helped.", "No ataxia.", "", "Fail here.", "Ataxia and\nflecainide.", "Drop this ataxia."]
PUBTATOR = "7|t|Flecainide.\n7|a|No ataxia.\n7\t0\t10\tFlecainide\tOld\tX\n\n8|t|Ataxia.\n8|a|\n\n"

app = typer.Typer()
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(annotate_cli)


class Fragile:
    """Finds what is wrong with a doc by its text; counts the docs that it has seen."""

    seen: list[str] = []
    stop_after: int | None = None

    def __call__(self, doc: Doc) -> Doc:
        if self.stop_after is not None and len(self.seen) == self.stop_after:
            raise KeyboardInterrupt
        self.seen.append(doc.text)
        if doc.text.startswith(("Fail", "Drop")):
            raise ValueError(f"cannot read {doc.text}")
        return doc

    def pipe(self, docs: Iterable[Doc], batch_size: int = 1) -> Iterable[Doc]:
        for doc in docs:
            try:
                yield self(doc)
            except ValueError as error:
                self.handler("fragile", self, [doc], error)
                if doc.text.startswith("Fail"):
                    yield doc  # and others drop it, as spaCy's own pipes do

    def set_error_handler(self, handler) -> None:
        self.handler = handler


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A saved pipeline with rules, and a component that fails on some docs."""
    Fragile.seen, Fragile.stop_after = [], None
    Language.factory("fragile", func=lambda nlp, name: Fragile())
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    words = {"flecainide": "CHEMICAL", "ataxia": "DISEASE"}
    ruler.add_patterns([{"label": label, "pattern": [{"LOWER": word}]} for word, label in words.items()])
    nlp.add_pipe("fragile", first=True)
    nlp.to_disk(tmp_path / "pipeline")
    return tmp_path / "pipeline"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"id": f"d{i}", "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    return path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def mentions(path: Path) -> list[tuple[str, str, list[tuple[str, str]]]]:
    return [(d.id, d.text, [(m.text, m.label) for m in d.mentions]) for d in read_corpus(path)]


EXPECTED = [
    ("d0", TEXTS[0], [("Flecainide", "CHEMICAL")]),
    ("d1", TEXTS[1], [("ataxia", "DISEASE")]),
    ("d2", "", []),
    ("d3", "Fail here.", []),
    ("d4", TEXTS[4], [("Ataxia", "DISEASE"), ("flecainide", "CHEMICAL")]),
    ("d5", "Drop this ataxia.", []),
]


def test_every_document_comes_out_and_those_that_failed_are_named(
    pipeline: Path, texts: Path, tmp_path: Path
) -> None:
    code, printed = run(pipeline, texts, tmp_path / "out.jsonl")
    assert code == FAILED
    assert mentions(tmp_path / "out.jsonl") == EXPECTED
    assert "2 documents could not be annotated" in printed
    assert "d3 fragile: cannot read Fail here." in printed
    assert "d5 fragile: cannot read Drop this ataxia." in printed
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_all_that_failed_are_named_however_many(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text(
        "".join(json.dumps({"id": f"d{i}", "text": "Fail"}) + "\n" for i in range(99))
    )
    code, printed = run(pipeline, tmp_path / "texts.jsonl", tmp_path / "out.jsonl")
    assert (code, "99 documents could not be annotated" in printed) == (FAILED, True)
    assert re.findall(r"\bd\d+\b", printed) == [f"d{i}" for i in range(99)]


@pytest.mark.parametrize("stop_after", range(len(TEXTS)))
def test_a_stopped_run_goes_on_where_it_stopped(
    pipeline: Path, texts: Path, tmp_path: Path, stop_after: int
) -> None:
    Fragile.stop_after = stop_after
    code, printed = run(pipeline, texts, tmp_path / "out.jsonl")
    assert code == 130
    assert "goes on from here" in printed
    assert not (tmp_path / "out.jsonl").exists()
    Fragile.stop_after = None
    assert run(pipeline, texts, tmp_path / "out.jsonl")[0] == FAILED
    assert mentions(tmp_path / "out.jsonl") == EXPECTED
    assert len(Fragile.seen) <= len(TEXTS) + 1, "what was done is not done again"


def test_documents_of_another_run_are_not_mixed_in(pipeline: Path, texts: Path, tmp_path: Path) -> None:
    Fragile.stop_after = 3
    run(pipeline, texts, tmp_path / "out.jsonl")
    Fragile.stop_after = None
    texts.write_text('{"text": "Ataxia."}\n')
    code, printed = run(pipeline, texts, tmp_path / "out.jsonl")
    assert (code, "NL071" in printed) == (1, True)
    assert run(pipeline, texts, tmp_path / "out.jsonl", "--restart")[0] == 0
    assert mentions(tmp_path / "out.jsonl") == [("texts-1", "Ataxia.", [("Ataxia", "DISEASE")])]


def test_offsets_ids_and_titles_of_a_corpus_survive_its_entities_do_not(pipeline: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(PUBTATOR)
    assert run(pipeline, corpus, tmp_path / "out.pubtator")[0] == 0
    assert (tmp_path / "out.pubtator").read_text() == (
        "7|t|Flecainide.\n7|a|No ataxia.\n7\t0\t10\tFlecainide\tCHEMICAL\t-\n7\t15\t21\tataxia\tDISEASE\t-\n\n"
        "8|t|Ataxia.\n8|a|\n8\t0\t6\tAtaxia\tDISEASE\t-\n\n"
    )


@pytest.mark.parametrize("name", ["out.xml", "out.json", "out.jsonl", "out"])
def test_other_formats(pipeline: Path, tmp_path: Path, name: str) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(PUBTATOR)
    assert run(pipeline, corpus, tmp_path / name)[0] == 0
    assert [(id_, found) for id_, _, found in mentions(tmp_path / name)] == [
        ("7", [("Flecainide", "CHEMICAL"), ("ataxia", "DISEASE")]),
        ("8", [("Ataxia", "DISEASE")]),
    ]


def test_plain_texts_and_docs(pipeline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "b.txt").write_text("No ataxia.")
    (folder / "a.txt").write_text("Flecainide.\n\nAtaxia.\n")
    assert run(pipeline, folder, tmp_path / "out.spacy")[0] == 0
    vocab = spacy.blank("en").vocab
    docs = list(DocBin(store_user_data=True).from_disk(tmp_path / "out.spacy").get_docs(vocab))
    assert [doc.text for doc in docs] == ["Flecainide.\n\nAtaxia.\n", "No ataxia."]
    assert [[ent.text for ent in doc.ents] for doc in docs] == [["Flecainide", "Ataxia"], ["ataxia"]]
    assert run(pipeline, tmp_path / "out.spacy", tmp_path / "again.jsonl")[0] == 0
    assert run(pipeline, folder / "b.txt", tmp_path / "b.jsonl")[0] == 0
    assert mentions(tmp_path / "b.jsonl") == mentions(tmp_path / "again.jsonl")[1:]


@pytest.mark.parametrize("name", ["out.jsonl", "out.json"])
def test_votes_are_written_as_scores(tmp_path: Path, name: str) -> None:
    """Here those of recorded responses, two against one."""
    responses = ["@@Ataxia## fell.", "@@Ataxia## fell.", "Ataxia fell."]
    record = {"text": "Ataxia fell.", "label": "DISEASE", "responses": responses}
    (tmp_path / "recorded.jsonl").write_text(json.dumps(record))
    (tmp_path / "in.txt").write_text("Ataxia fell.")
    nlp = spacy.blank("en")
    model = {"@llm_models": "nerllama.Replay.v1", "path": str(tmp_path / "recorded.jsonl")}
    nlp.add_pipe("nerllama_ner", config={"labels": {"DISEASE": "disease"}, "model": model})
    nlp.to_disk(tmp_path / "pipeline")
    assert run(tmp_path / "pipeline", tmp_path / "in.txt", tmp_path / name)[0] == 0
    assert re.search(r'"score": "?0.6667\b', (tmp_path / name).read_text())
    assert mentions(tmp_path / name)[0][2] == [("Ataxia", "DISEASE")]


def test_a_text_that_the_tokenizer_refuses_is_not_the_end(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "a", "text": "x " * 600_000}) + '\n{"text": "Ataxia."}\n')
    code, printed = run(pipeline, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert (code, "E088" in printed) == (FAILED, True)
    assert [(id_, len(text)) for id_, text, _ in mentions(tmp_path / "out.jsonl")] == [
        ("a", 1_200_000),
        ("in-2", 7),
    ]


def test_mentions_that_are_left_out_may_be_wrong(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("7|t|No ataxia.\n7|a|\n7\t0\t6\tataxia of mice\tOld\n7\t1\t2\n")
    code, printed = run(pipeline, tmp_path / "in.txt", tmp_path / "out.jsonl")
    assert code == 0, printed
    assert mentions(tmp_path / "out.jsonl")[0][2] == [("ataxia", "DISEASE")]


def test_sentences_are_those_of_the_pipeline(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer", config={"punct_chars": [";"]})
    nlp.to_disk(tmp_path / "pipeline")
    (tmp_path / "in.txt").write_text("7|t|A title\n7|a|No ataxia. None; none.\n")
    assert run(tmp_path / "pipeline", tmp_path / "in.txt", tmp_path / "out.spacy")[0] == 0
    (doc,) = DocBin().from_disk(tmp_path / "out.spacy").get_docs(nlp.vocab)
    assert [sentence.text for sentence in doc.sents] == ["A title", "No ataxia. None;", "none."]


def test_a_later_component_may_merge_tokens(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    record.write_text('{"text": "A rare ataxia", "label": "DISEASE", "response": "A @@rare ataxia##"}\n')
    nlp = spacy.blank("en")
    model = {"@llm_models": "nerllama.Replay.v1", "path": str(record)}
    nlp.add_pipe("nerllama_ner", config={"labels": {"DISEASE": "disease"}, "model": model})
    nlp.add_pipe("merge_entities")
    nlp.to_disk(tmp_path / "pipeline")
    (tmp_path / "in.txt").write_text("A rare ataxia")
    code, printed = run(tmp_path / "pipeline", tmp_path / "in.txt", tmp_path / "out.jsonl")
    assert code == 0, printed
    assert mentions(tmp_path / "out.jsonl")[0][2] == [("rare ataxia", "DISEASE")]


def voted(doc: Doc) -> Doc:
    doc.spans["nerllama"] = SpanGroup(doc, name="nerllama", attrs={"nerllama": True}, spans=[doc[1:2]])
    return doc


def test_what_input_brings_and_what_failed_docs_have_is_left_out(tmp_path: Path, pipeline: Path) -> None:
    nlp = spacy.load(pipeline)
    nlp.get_pipe("entity_ruler").overwrite = True
    doc, failing = nlp.make_doc("No gout."), nlp.make_doc("Fail, ataxia.")
    doc.set_ents([Span(doc, 1, 2, "OLD")])
    voted(doc).spans["other"] = [doc[0:1]]
    DocBin(docs=[doc, failing], store_user_data=True).to_disk(tmp_path / "in.spacy")
    Language.component("votes", func=voted)
    swapped = spacy.load(pipeline, exclude=["fragile"])
    swapped.add_pipe("votes")
    swapped.add_pipe("fragile")  # behind the rules and the votes
    swapped.to_disk(tmp_path / "swapped")
    assert run(tmp_path / "swapped", tmp_path / "in.spacy", tmp_path / "out.spacy")[0] == FAILED
    first, second = DocBin().from_disk(tmp_path / "out.spacy").get_docs(nlp.vocab)
    assert (first.ents, second.ents) == ((), ())
    assert (list(first.spans), list(second.spans)) == (["other", "nerllama"], [])


def test_a_folder_of_texts(pipeline: Path, tmp_path: Path) -> None:
    """Entities beside some of them (brat) change nothing; corpus files are no texts; the output may lie there."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text("Ataxia.")
    (folder / "a.ann").write_text("")
    for stop_after in (1, None):
        Fragile.stop_after = stop_after
        code, _ = run(pipeline, folder, folder / "out.jsonl")
        assert code == (130 if stop_after else 0)
    assert [id_ for id_, *_ in mentions(folder / "out.jsonl")] == ["a", "b"]
    (folder / "c.TXT").write_text("Ataxia.")
    assert run(pipeline, folder, tmp_path / "three.jsonl")[0] == 0
    assert [id_ for id_, *_ in mentions(tmp_path / "three.jsonl")] == ["a", "b", "c"]
    (folder / "c.TXT").write_text(PUBTATOR)
    code, printed = run(pipeline, folder, tmp_path / "out.jsonl")
    assert (code, "NL075" in printed) == (1, True)
    assert run(pipeline, folder, tmp_path / "out.jsonl", "--format", "txt")[0] == 0


def test_any_file_is_a_text_if_it_is_said_to_be_one(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "note.md").write_text("Ataxia.")
    assert run(pipeline, tmp_path / "note.md", tmp_path / "out.jsonl", "--format", "txt")[0] == 0
    assert [text for _, text, _ in mentions(tmp_path / "out.jsonl")] == ["Ataxia."]
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing.txt"):
        code, printed = run(pipeline, tmp_path / name, tmp_path / "no.jsonl", "--format", "txt")
        assert (code, "NL078" in printed) == (1, True)


def test_what_is_no_spacy_file_is_said(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "in.spacy").write_bytes(zlib.compress(srsly.msgpack_dumps({"a": 1})))
    for name, error in (("in.spacy", "NL090"), ("missing.spacy", "NL064")):
        code, printed = run(pipeline, tmp_path / name, tmp_path / "out.jsonl")
        assert (code, error in printed) == (1, True)


def test_the_byte_order_mark_of_a_plain_text_is_no_text(pipeline: Path, tmp_path: Path) -> None:
    """It would hide a mention at the beginning; only brat's offsets count it."""
    (tmp_path / "a.txt").write_text("Ataxia.", encoding="utf-8-sig")
    assert run(pipeline, tmp_path / "a.txt", tmp_path / "out.jsonl")[0] == 0
    assert mentions(tmp_path / "out.jsonl") == [("a", "Ataxia.", [("Ataxia", "DISEASE")])]
    (tmp_path / "a.ann").write_text("")
    assert run(pipeline, tmp_path / "a.txt", tmp_path / "brat.jsonl")[0] == 0
    assert [text for _, text, _ in mentions(tmp_path / "brat.jsonl")] == ["\ufeffAtaxia."]


def test_a_component_that_gives_other_docs_is_refused(tmp_path: Path, texts: Path) -> None:
    Language.component("copier", func=lambda doc: doc.copy())
    nlp = spacy.blank("en")
    nlp.add_pipe("copier")
    nlp.to_disk(tmp_path / "pipeline")
    code, printed = run(tmp_path / "pipeline", texts, tmp_path / "out.jsonl")
    assert (code, "NL074" in printed) == (1, True)


@pytest.mark.parametrize(
    ("content", "output", "code"),
    [
        ('{"text": "Ataxia."}\n{"txt": "Ataxia."}\n', "out.jsonl", "NL117"),
        ('{"text": "Ataxia."}\n{"txt": "Ataxia."}\n', "out.jsonl", "`convert` can: write a .spacy file"),
        ('{"text": "Ataxia."}\n', "out.html", "NL072"),
        (None, "out.jsonl", "NL111"),
        ('{"text": "Ataxia."}\n', "texts", "NL119"),
        ('{"text": "Ataxia."}\n', "folder.jsonl", "NL073"),
        ('{"text": "Ataxia."}\n', "in.jsonl", "NL077"),
    ],
)
def test_what_cannot_be_read_or_written_is_said_before_the_work(
    pipeline: Path, tmp_path: Path, content: str | None, output: str, code: str
) -> None:
    for name in ("texts", "folder.jsonl"):
        (tmp_path / name / "something").mkdir(parents=True)
    if content is not None:
        (tmp_path / "in.jsonl").write_text(content)
    status, printed = run(pipeline, tmp_path / "in.jsonl", tmp_path / output)
    assert (status, code in printed) == (1, True)
    assert Fragile.seen == []


def test_an_option_that_does_not_exist_is_a_usage_error(pipeline: Path, texts: Path, tmp_path: Path) -> None:
    code, printed = run(pipeline, texts, tmp_path / "out.jsonl", "--restrat")
    assert (code, "restrat" in printed) == (2, True)


def test_settings_can_be_overridden(pipeline: Path, texts: Path, tmp_path: Path) -> None:
    code, printed = run(pipeline, texts, tmp_path / "out.jsonl", "--components.entity_ruler.no_such_setting", "1")
    assert (code, "no_such_setting" in printed) == (1, True)


# The journal


def test_a_record_that_was_cut_off_anywhere_is_dropped_and_no_other(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    with Journal(tmp_path / "whole", "key") as journal:
        for text in TEXTS[:3]:
            journal.add(nlp(text), text, "failed" if not text else None)
    whole, ends = (tmp_path / "whole").read_bytes(), []
    with Journal(tmp_path / "whole", "key") as journal:
        ends = [end for end, _ in journal._records()]
        assert (journal.done, journal.failed) == (3, [(2, "", "failed")])
    for cut in {
        *range(0, len(whole), 50),
        *(end + i for end in (0, *ends[:-1]) for i in (-1, 0, 1, 8)),
        len(whole) - 1,
    }:
        (tmp_path / "cut").write_bytes(whole[: max(0, cut)])
        with Journal(tmp_path / "cut", "key") as journal:
            assert journal.done == max(0, sum(end <= cut for end in ends) - 1)
            for text in TEXTS[journal.done : 3]:
                journal.add(nlp(text), text)
            assert [doc.text for doc in journal.docs(nlp.vocab)] == TEXTS[:3]


def test_two_runs_cannot_write_one_journal(tmp_path: Path) -> None:
    doc = spacy.blank("en")("Ataxia.")
    with Journal(tmp_path / "journal", "key") as journal:
        journal.add(doc, "1")
        for restart in (False, True):
            with pytest.raises(BlockingIOError, match="NL070"):
                Journal(tmp_path / "journal", "key", restart)
    with Journal(tmp_path / "journal", "key") as journal:
        assert journal.done == 1
    with Journal(tmp_path / "journal", "another key", restart=True) as journal:
        assert journal.done == 0
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]
