"""The real corpora, where they lie beside the repository: what is read is what the files say."""

from collections import Counter
from pathlib import Path

import pytest
import spacy

from spacy_nerllama.cli.convert import convert
from spacy_nerllama.corpora import read_bc2gm, read_corpus, read_iob, read_pubtator

CORPORA = Path(__file__).parents[2] / "shared" / "corpora"
pytestmark = pytest.mark.skipif(not CORPORA.is_dir(), reason=f"the corpora are not in {CORPORA}")

SPLITS = ["train", "devel", "test"]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("corpus", ["ncbi-disease", "bc5cdr"])
def test_every_pubtator_mention_is_that_of_its_line(corpus: str, split: str) -> None:
    path = CORPORA / corpus / f"{split}.PubTator.txt"
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")]
    expected = [(r[0], int(r[1]), int(r[2]), r[4], r[3].strip()) for r in rows if len(r) > 4]
    documents = list(read_pubtator(path))
    assert len(documents) == {"ncbi-disease": [593, 100, 100], "bc5cdr": [500] * 3}[corpus][SPLITS.index(split)]
    read = [(d.id, m.start, m.end, m.label, m.text) for d in documents for m in d.mentions]
    assert read == expected
    assert all(d.text[m.start : m.end] == m.text for d in documents for m in d.mentions)


@pytest.mark.parametrize(("split", "sentences", "mentions"), [("train", 15000, 18265), ("test", 5000, 6331)])
def test_every_bc2gm_mention_is_that_of_its_line(split: str, sentences: int, mentions: int) -> None:
    documents = list(read_bc2gm(CORPORA / "bc2gm" / f"{split}.in"))
    lines = (CORPORA / "bc2gm" / f"{split}.GENE.eval").read_text(encoding="utf-8").splitlines()
    assert (len(documents), len(lines)) == (sentences, mentions)
    expected = Counter((line.split("|", 2)[0], line.split("|", 2)[2]) for line in lines)
    assert Counter((d.id, m.text) for d in documents for m in d.mentions) == expected
    assert all(d.text[m.start : m.end] == m.text for d in documents for m in d.mentions)
    assert sum(d.corrected for d in documents) == (1 if split == "train" else 0)


@pytest.mark.parametrize(
    ("corpus", "label", "sentences", "mentions"),
    [
        ("NCBI-disease", "Disease", 940, 960),
        ("BC5CDR-chem", "Chemical", 4797, 5385),
        ("BC5CDR-disease", "Disease", 4797, 4424),
        ("BC2GM", "GENE", 5038, 6325),
    ],
)
def test_iob_counts(corpus: str, label: str, sentences: int, mentions: int) -> None:
    documents = list(read_iob(CORPORA / "iob" / corpus / "test.tsv"))
    assert len(documents) == sentences
    assert Counter(m.label for d in documents for m in d.mentions) == {label: mentions}


@pytest.mark.parametrize(
    ("name", "format", "limit"),
    [
        ("ncbi-disease/test.PubTator.txt", "pubtator", 100),
        ("bc5cdr/test.PubTator.txt", "pubtator", 100),
        ("bc2gm/test.in", "bc2gm", 1000),
        ("iob/NCBI-disease/test.tsv", "iob", 940),
        ("iob/BC2GM/test.tsv", "iob", 1000),
    ],
)
def test_every_entity_is_a_mention_of_the_file(name: str, format: str, limit: int) -> None:
    """Text and order are untouched, what is on token boundaries is an entity, and the rest is counted."""
    nlp = spacy.blank("en")
    docs, report = convert(read_corpus(CORPORA / name), nlp, misaligned="drop", limit=limit)
    total = 0
    for doc, document in zip(docs, read_corpus(CORPORA / name, format), strict=False):
        assert doc.user_data["nerllama_id"] == document.id
        assert doc.text.removesuffix(" ") == document.text.removesuffix(" ")
        assert {(e.start_char, e.end_char, e.label_, e.text) for e in doc.ents} <= {
            (m.start, m.end, m.label, m.text) for m in document.mentions
        }
        total += len(document.mentions)
    assert report.documents == limit
    left_out = report.nested.total() + report.overlapping.total() + report.duplicates + report.dropped
    assert report.mentions.total() + left_out == total
    assert report.dropped < total / 30
    assert report.cut_boundaries == 0
    if format == "iob":
        assert report.mentions.total() == total
