"""Writers: what they write is read again as the same documents, and offsets are those of the source."""

import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc

from spacy_nerllama.corpora import (
    Document,
    Mention,
    Passage,
    Report,
    read_bioc,
    read_brat,
    read_corpus,
    read_jsonl,
    read_pubtator,
    sentence_docs,
    to_doc,
    to_documents,
    write_bioc,
    write_brat,
    write_corpus,
    write_jsonl,
    write_pubtator,
)

NLP = spacy.blank("en")
SAMPLES = Path(__file__).parent / "corpora"
CORPORA = Path(__file__).parents[2] / "shared" / "corpora"
NAMES = {"pubtator": "out.txt", "bioc": "out.xml", "bioc-json": "out.json", "brat": "out", "jsonl": "out.jsonl"}


def docs_of(documents: Iterable[Document]) -> list[Doc]:
    return [to_doc(document, NLP, report=Report()) for document in documents]


def round_trip(docs: Iterable[Doc], target: str, folder: Path) -> list[Document]:
    path = folder / NAMES[target]
    format = target.removesuffix("-json")
    write_corpus(docs, path, format)
    return list(read_corpus(path, format))


def content(documents: Iterable[Document]) -> list[tuple[str, str, set[Mention]]]:
    return [(d.id, d.text, set(d.mentions)) for d in documents]


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("source", ["corpus.txt", "corpus.xml", "corpus.json", "corpus.jsonl", "brat"])
def test_a_corpus_becomes_another_with_the_same_ids_texts_and_mentions(
    tmp_path: Path, source: str, target: str
) -> None:
    docs = docs_of(read_corpus(SAMPLES / source, label="GENE"))
    written = round_trip(docs, target, tmp_path)
    flat = {ord("\n"): " "} if target == "pubtator" else {}
    ids = [doc.user_data["nerllama_id"] for doc in docs]
    entities = [{(e.start_char, e.end_char, e.label_) for e in doc.ents} for doc in docs]
    read = {d.id: (d.text, {(m.start, m.end, m.label) for m in d.mentions}) for d in written}
    assert read == {
        i: (doc.text.translate(flat), found) for i, doc, found in zip(ids, docs, entities, strict=True)
    }


@pytest.mark.parametrize("suffix", [".xml", ".json"])
def test_bioc_keeps_passages_and_their_offsets(tmp_path: Path, suffix: str) -> None:
    first, _ = read_bioc(SAMPLES / "corpus.xml")
    assert [(p.offset, p.kind) for p in first.passages] == [(0, "title"), (40, "abstract")]
    path = tmp_path / f"out{suffix}"
    write_corpus(docs_of([first]), path, "bioc")
    (again,) = read_bioc(path)
    assert again.passages == first.passages
    text = path.read_text("utf8")
    if suffix == ".json":
        places = [
            a["locations"][0]["offset"]
            for p in json.loads(text)["documents"][0]["passages"]
            for a in p["annotations"]
        ]
    else:
        places = [int(place.attrib["offset"]) for place in ElementTree.fromstring(text).iter("location")]
    assert places == [0, 11, 71], "as in the source, though the gap between its passages is none of the text's"


def test_docs_of_a_pipeline_need_no_ids(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "DISEASE", "pattern": "ataxia"}])
    for target in NAMES:
        first, second = round_trip(nlp.pipe(["An ataxia.", "Pain & ataxia"]), target, tmp_path)
        assert [(d.id, d.text, d.mentions) for d in (first, second)] == [
            ("1", "An ataxia.", (Mention(3, 9, "DISEASE", "ataxia"),)),
            ("2", "Pain & ataxia", (Mention(7, 13, "DISEASE", "ataxia"),)),
        ]


def test_sentences_of_a_document_are_put_together_again() -> None:
    document = next(read_pubtator(SAMPLES / "corpus.txt"))
    (doc,) = docs_of([document])
    parts = list(sentence_docs(doc))
    assert [part.text for part in parts] == [
        "Naproxen for β-thalassaemia. ",
        "It eased pain. ",
        "Nausea was rare.",
    ]
    assert [part.user_data["nerllama_offset"] for part in parts] == [0, 29, 44]
    assert [[e.text for e in part.ents] for part in parts] == [
        ["Naproxen", "β-thalassaemia"],
        ["pain"],
        ["Nausea"],
    ]
    assert all(len(list(part.sents)) == 1 for part in parts)
    assert list(to_documents(parts)) == [document]
    twice = [document, document]
    assert list(to_documents(p for doc in docs_of(twice) for p in sentence_docs(doc))) == twice
    (rest,) = to_documents(parts[1:])
    assert rest.text[29:] == document.text[29:], "what is missing is space, and offsets stay"
    assert rest.mentions == document.mentions[2:]


def test_passages_under_one_mention_are_written_as_one(tmp_path: Path) -> None:
    text = "Ataxia of Charlevoix. Rare. More"
    passages = (Passage(0, 10, 0, "title"), Passage(10, 27, 10, "abstract"), Passage(28, 32, 40, "more"))
    document = Document(
        "1", text, (Mention(0, 20, "X", text[:20]), Mention(28, 32, "X", "More")), passages=passages
    )
    write_bioc([document], tmp_path / "a.xml")
    (read,) = read_bioc(tmp_path / "a.xml")
    assert read.passages == (Passage(0, 27, 0, "title"), Passage(28, 32, 40, "more"))
    assert (read.text, read.mentions) == (text, document.mentions)


def test_a_mention_over_a_line_break_is_written_in_pieces_for_brat(tmp_path: Path) -> None:
    mention = Mention(2, 16, "DISEASE", "ovarian\ncancer")
    write_brat([Document("a/b", "A ovarian\ncancer", (mention,)), Document("a:b", "", ())], tmp_path / "out")
    assert (tmp_path / "out" / "a_b.ann").read_text("utf8") == "T1\tDISEASE 2 9;10 16\tovarian cancer\n"
    first, second = read_brat(tmp_path / "out")
    assert (first.mentions, second.id) == ((mention,), "a_b-2")


def test_a_folder_with_files_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="NL119"):
        write_brat([], tmp_path)
    with pytest.raises(ValueError, match=r"NL127.*pubtator"):
        write_corpus([], tmp_path / "a.tsv", "iob")


@pytest.mark.parametrize("target", NAMES)
def test_a_writer_that_fails_leaves_the_old_file_whole(tmp_path: Path, target: str) -> None:
    def docs() -> Iterable[Doc]:
        yield NLP("Ataxia.")
        raise RuntimeError("no more")

    path = tmp_path / NAMES[target]
    if target != "brat":
        path.write_text("old")
    with pytest.raises(RuntimeError, match="no more"):
        write_corpus(docs(), path, target.removesuffix("-json"))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == (
        [] if target == "brat" else [(path.name, "old")]
    )


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Any text, in up to three passages, with any mentions within one of them."""
    text_strategy = st.text(
        st.one_of(
            st.sampled_from("ab <&>\"'\n\t\r\\;|\ufeff\u2028\u00a0"),
            st.characters(exclude_categories=["Cs", "Cc"]),
        )
    )
    parts, start = list[Passage](), 0
    texts = draw(st.lists(text_strategy, min_size=1, max_size=3).filter(lambda texts: texts[-1] != ""))
    for text in texts:
        parts.append(
            Passage(
                start, start + len(text), start + draw(st.integers(0, 99)), draw(st.sampled_from(["title", ""]))
            )
        )
        start += len(text) + 1
    text, mentions = " ".join(texts), set[Mention]()
    for passage in parts:
        bounds = st.lists(st.integers(passage.start, passage.end), min_size=2, max_size=2, unique=True).map(sorted)
        for a, b in draw(st.lists(bounds, max_size=3)) if passage.start < passage.end else []:
            if text[a:b] == text[a:b].strip():
                mentions.add(Mention(a, b, draw(st.sampled_from(["X", "Y"])), text[a:b]))
    ordered = sorted(mentions, key=lambda m: (m.start, m.end, m.label))
    id_ = draw(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5).filter(str.strip))
    return Document(id_, text, tuple(ordered), passages=tuple(parts))


WRITE_READ: dict[str, tuple[Callable, Callable]] = {
    "pubtator": (write_pubtator, read_pubtator),
    "bioc": (write_bioc, read_bioc),
    "bioc-json": (write_bioc, read_bioc),
    "brat": (write_brat, read_brat),
    "jsonl": (write_jsonl, read_jsonl),
}


@pytest.mark.parametrize("target", NAMES)
@settings(max_examples=50)
@given(written=st.lists(documents(), min_size=1, max_size=2, unique_by=lambda d: d.id))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, target: str, written: list[Document]) -> None:
    write, read = WRITE_READ[target]
    path = tmp_path_factory.mktemp("out") / NAMES[target]
    write(written, path)
    found = list(read(path))
    if target == "brat":
        found.sort(key=lambda d: d.text)
        written = sorted(written, key=lambda d: d.text)
    assert [len(d.text) for d in found] == [len(d.text) for d in written]
    places = [[(m.start, m.end, m.label) for m in d.mentions] for d in written]
    assert [[(m.start, m.end, m.label) for m in d.mentions] for d in found] == places
    if target.startswith("bioc"):
        assert [d.passages for d in found] == [d.passages for d in written]
    if target != "brat":
        flat = {ord("|"): "_"} if target == "pubtator" else {}
        assert [d.id for d in found] == [d.id.translate(flat) for d in written]
    same = {"pubtator": lambda text: text.translate({9: 32, 10: 32, 13: 32})}.get(target, str)
    if target != "bioc":  # XML cannot hold every character
        assert [d.text for d in found] == [same(d.text) for d in written]


FILES = [
    *(f"ncbi-disease/{split}.PubTator.txt" for split in ("train", "devel", "test")),
    *(f"bc5cdr/{split}.PubTator.txt" for split in ("train", "devel", "test")),
    *(f"bc5cdr/{split}.BioC.xml" for split in ("train", "devel", "test")),
    *(f"bc2gm/{split}.in" for split in ("train", "test")),
    *(f"iob/{corpus}/test.tsv" for corpus in ("NCBI-disease", "BC5CDR-chem", "BC5CDR-disease", "BC2GM")),
    "nlm-gene-sample/train.head120.mark.txt",
]


@pytest.mark.skipif(not CORPORA.is_dir(), reason=f"the corpora are not in {CORPORA}")
@pytest.mark.parametrize("name", FILES)
def test_real_documents_survive_every_format(tmp_path: Path, name: str) -> None:
    source = [
        Document(f"{i}-{d.id}", d.text, d.mentions, passages=d.passages)  # two have one id
        for i, d in enumerate(islice(read_corpus(CORPORA / name, label="GENE"), 200))
    ]
    for target, (write, read) in WRITE_READ.items():
        write(source, tmp_path / NAMES[target])
        assert sorted(content(read(tmp_path / NAMES[target]))) == sorted(content(source)), target


@pytest.mark.skipif(not CORPORA.is_dir(), reason=f"the corpora are not in {CORPORA}")
def test_bioc_and_pubtator_give_the_same_documents() -> None:
    bioc, pubtator = (
        list(read_corpus(CORPORA / "bc5cdr" / name)) for name in ("devel.BioC.xml", "devel.PubTator.txt")
    )
    assert [(d.id, d.text, d.passages) for d in bioc] == [(d.id, d.text, d.passages) for d in pubtator]
