"""Broken corpora: every reader gives documents, or an error of ours that names the file; never another one."""

import re
import shutil
from pathlib import Path

import pytest
import spacy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spacy.tokens import DocBin

from spacy_nerllama.corpora import FORMATS, Report, detect_format, read_corpus, to_doc

NLP = spacy.blank("en")
SAMPLES = Path(__file__).parent / "corpora"
FILES = {
    "pubtator": "corpus.txt",
    "bioc": "corpus.xml",
    "bc2gm": "corpus.in",
    "iob": "corpus.tsv",
    "brat": "brat/one.ann",
    "mark": "corpus.mark",
    "jsonl": "corpus.jsonl",
}
CASES = [*FILES.items(), ("bioc", "corpus.json"), ("bioc", "corpus.ndjson")]
JUNK = [
    *(b"\t", b" ", b"\n", b"\r\n", b"\r", b"\x00", b"\xff", b"\xef\xbb\xbf", b"|", b"\xc3", b"\xe2\x80\xa8"),
    *(b"-1", b"7" * 40, b"9" * 5000, b"1e400", b"NaN", b"null", b"{}", b"[" * 3000, b'"', b"\\ud83d"),
    *(b"<", b"&x;", b"&#0;", b"<mark>", b"</mark>", b"<passage>" * 3000, b'<!DOCTYPE a [<!ENTITY x "y">]>'),
    *(b"encoding='latin-9'", b"encoding='utf-7'"),
    *(b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b", b"PK\x03\x04", b"[{"),
]
# The files of a corpus, of which one is broken.
SIDES = {"bc2gm": ["corpus.in", "corpus.GENE.eval"], "brat": ["brat/one.ann", "brat/one.txt"]}


@st.composite
def edits(draw: st.DrawFn, content: bytes) -> bytes:
    """A file with a few accidents: cut off, doubled, overwritten, with other line ends, or with junk in it."""
    for _ in range(draw(st.integers(1, 3))):
        at, to = sorted((draw(st.integers(0, len(content))), draw(st.integers(0, len(content)))))
        kind = draw(
            st.sampled_from(["cut", "delete", "double", "overwrite", "junk", "digit", "crlf", "bom", "latin"])
        )
        if kind == "cut":
            content = content[:to]
        elif kind == "delete":
            content = content[:at] + content[to:]
        elif kind == "double":
            content = content[:to] + content[at:]
        elif kind == "overwrite":
            content = content[:at] + draw(st.binary(min_size=1, max_size=3)) + content[at + 1 :]
        elif kind == "junk":
            content = content[:at] + draw(st.sampled_from(JUNK)) + content[at:]
        elif kind == "digit":
            digits = [m.start() for m in re.finditer(rb"\d", content)] or [0]
            i = draw(st.sampled_from(digits))
            content = content[:i] + draw(st.sampled_from([b"9", b"0", b"", b"-", b"99999"])) + content[i + 1 :]
        elif kind == "crlf":
            content = content.replace(b"\n", b"\r\n")
        elif kind == "bom":
            content = b"\xef\xbb\xbf" + content
        else:
            content = content.decode("utf-8", errors="replace").encode("latin-1", errors="replace")
    return content


def is_ours(error: Exception, name: str) -> bool:
    """Whether an error is from the catalogue and names the file."""
    return bool(re.match(r"\[NL1\d\d\] ", str(error))) and Path(name).stem in str(error)


def read(folder: Path, name: str, format: str) -> None:
    """Read a corpus as `convert` does, and check that only its own errors come out."""
    report, failure = Report(), None
    try:
        for document in read_corpus(folder / name, format, label="GENE"):
            assert all(document.text[m.start : m.end] == m.text for m in document.mentions)
            doc = to_doc(document, NLP, report=report)
            assert doc.text == document.text + " " * bool(document.words)
            DocBin(docs=[doc], store_user_data=True).to_bytes()
    except (ValueError, FileNotFoundError) as error:
        failure = error
    assert failure is None or is_ours(failure, name), repr(failure)


def detect(path: Path) -> None:
    """Recognise a format, or give one of our errors."""
    failure = None
    try:
        assert detect_format(path) in FORMATS
    except ValueError as error:
        failure = error
    assert failure is None or is_ours(failure, path.name), repr(failure)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(SAMPLES, tmp_path_factory.mktemp("fuzz") / "corpora"))


@pytest.mark.parametrize(("format", "name"), CASES)
@settings(max_examples=60)
@given(data=st.data())
def test_a_broken_file_gives_our_errors_only(folder: Path, format: str, name: str, data: st.DataObject) -> None:
    broken = data.draw(st.sampled_from(SIDES.get(format, [name])))
    whole = (SAMPLES / broken).read_bytes()
    try:
        (folder / broken).write_bytes(data.draw(edits(whole)))
        read(folder, name, format)
        detect(folder / name)
    finally:
        (folder / broken).write_bytes(whole)


@pytest.mark.parametrize(("format", "name"), CASES)
@settings(max_examples=40)
@given(content=st.one_of(st.binary(max_size=30), st.text(max_size=30).map(str.encode), st.sampled_from(JUNK)))
@example(content=b"")
@example(content=b"\xef\xbb\xbf")
def test_any_bytes_give_our_errors_only(folder: Path, format: str, name: str, content: bytes) -> None:
    try:
        (folder / name).write_bytes(content)
        read(folder, name, format)
        detect(folder / name)
    finally:
        (folder / name).write_bytes((SAMPLES / name).read_bytes())


@pytest.mark.parametrize(("format", "name"), CASES)
def test_the_samples_are_whole_and_recognised(format: str, name: str) -> None:
    documents = list(read_corpus(SAMPLES / name, format, label="GENE"))
    assert len(documents) >= 1
    assert sum(len(document.mentions) for document in documents) >= 2
    assert detect_format(SAMPLES / name) == format
