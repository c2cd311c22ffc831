from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_nerllama.corpora import Document, Mention, detect_format, read_corpus, read_iob


def write(folder: Path, content: str) -> Path:
    path = folder / "test.tsv"
    path.write_bytes(content.encode())
    return path


def test_one_document_a_sentence(tmp_path: Path) -> None:
    content = (
        "-DOCSTART-\tO\n\nAtaxia\tB-Disease\n-\tI-Disease\ntelangiectasia\tI-Disease\n.\tO\n\n\n"
        "No\tO\nmigraine\tB-Disease\nataxia\tB-Disease"
    )
    first, second = read_iob(write(tmp_path, content))
    assert first == Document(
        "test-1",
        "Ataxia - telangiectasia .",
        (Mention(0, 23, "Disease", "Ataxia - telangiectasia"),),
        words=("Ataxia", "-", "telangiectasia", "."),
        is_sentence=True,
    )
    assert second.mentions == (Mention(3, 11, "Disease", "migraine"), Mention(12, 18, "Disease", "ataxia"))


def test_crlf_byte_order_mark_and_middle_columns_change_nothing(tmp_path: Path) -> None:
    content = "\ufeffAtaxia\tNN\tB-Disease\r\n . \t.\tO\r\n\r\nNone\tNN\tO\r\n"
    first, second = read_iob(write(tmp_path, content))
    assert (first.words, first.mentions) == (("Ataxia", "."), (Mention(0, 6, "Disease", "Ataxia"),))
    assert second.words == ("None",)


def test_bare_tags_need_a_label(tmp_path: Path) -> None:
    path = write(tmp_path, "Rare\tO\nataxia\tB\ntype\tI\n")
    (document,) = read_iob(path, "DISEASE")
    assert document.mentions == (Mention(5, 16, "DISEASE", "ataxia type"),)
    with pytest.raises(ValueError, match=r"NL109.*test\.tsv, line 2.*--label"):
        list(read_iob(path))


def test_an_inside_tag_that_continues_nothing_begins_a_mention(tmp_path: Path) -> None:
    (document,) = read_iob(write(tmp_path, "a\tI-X\nb\tI-X\nc\tI-Y\nd\tO\ne\tI-X\n"))
    assert [(mention.text, mention.label) for mention in document.mentions] == [
        ("a b", "X"),
        ("c", "Y"),
        ("e", "X"),
    ]


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("IOBES", "O S-Gene S-Gene B-Disease I-Disease E-Disease O"),
        ("BILOU", "O U-Gene U-Gene B-Disease I-Disease L-Disease O"),
        ("BMES", "O S-Gene S-Gene B-Disease M-Disease E-Disease O"),
        ("bare BILOU", "O U U B I L O"),
    ],
)
def test_schemes_that_tag_the_end(tmp_path: Path, scheme: str, tags: str) -> None:
    words = "Of ATM BRCA2 ataxia - telangiectasia too".split()
    path = write(tmp_path, "".join(f"{word}\t{tag}\n" for word, tag in zip(words, tags.split(), strict=True)))
    assert detect_format(path) == "iob"
    (document,) = read_iob(path, "ANY")
    assert [mention.text for mention in document.mentions] == ["ATM", "BRCA2", "ataxia - telangiectasia"], scheme
    labels = ["ANY"] * 3 if "bare" in scheme else ["Gene", "Gene", "Disease"]
    assert [mention.label for mention in document.mentions] == labels


@pytest.mark.parametrize("line", ["-DOCSTART-", "-DOCSTART- -X- -X- O", "-DOCSTART- (7)\tO", "-DOCSTART-\t-X-\tO"])
def test_lines_that_begin_documents_are_skipped(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, f"{line}\n\nataxia\tB-X\n")
    assert detect_format(path) == "iob"
    assert [document.words for document in read_iob(path)] == [("ataxia",)]


@pytest.mark.parametrize("space", ["\u00a0", "\u2009", "\u0085", "\u2028"])
def test_a_token_may_be_or_hold_white_space_of_unicode(tmp_path: Path, space: str) -> None:
    rows = [("a", "B-X"), (space, "I-X"), (f"b{space}c", "I-X")]
    for separator in ("\t", " "):
        path = write(tmp_path, "".join(f"{word}{separator}{tag}\n" for word, tag in rows))
        (document,) = read_iob(path, separator=None if separator == " " else separator)
        assert document.words == tuple(word for word, _ in rows)
        assert [mention.text for mention in document.mentions] == [" ".join(document.words)]
    assert detect_format(write(tmp_path, f"b{space}c\tB-X\n")) == "iob"


def test_columns_may_be_parted_by_spaces(tmp_path: Path) -> None:
    content = "-DOCSTART- -X- O O\n\nRare JJ B-NP O\nataxia NN I-NP B-X\n. . O O\n\nNone NN B-NP O\n"
    first, second = read_corpus(write(tmp_path, content))
    assert first.mentions == (Mention(5, 11, "X", "ataxia"),)
    assert second.text == "None"
    with pytest.raises(ValueError, match="NL125"):
        detect_format(write(tmp_path, "Hepatitis B\n"))


def test_headers_and_comments_are_no_tokens(tmp_path: Path) -> None:
    """As in JNLPBA and in CoNLL-U."""
    content = "###MEDLINE:95369245\n\nIL-2\tB-DNA\ngene\tI-DNA\n# id = 2\n#\tO\n# comment\nx\tO\n"
    assert [document.text for document in read_corpus(write(tmp_path, content))] == ["IL-2 gene", "#", "x"]


def test_nothing_goes_on_after_its_end_and_an_end_may_be_missing(tmp_path: Path) -> None:
    (document,) = read_iob(write(tmp_path, "a\tS-X\nb\tI-X\nc\tE-X\nd\tI-X\ne\tL-Y\nf\tB-X\ng\tO\n"))
    assert [mention.text for mention in document.mentions] == ["a", "b c", "d", "e", "f"]


@pytest.mark.parametrize("line", ["ataxia", "ataxia B-Disease", "\tB-Disease", "ataxia\tX-Disease", "ataxia\tB-"])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, f"Rare\tO\n{line}\n")
    with pytest.raises(ValueError, match=r"NL108.*test\.tsv, line 2\b"):
        list(read_iob(path))


WORD = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=4)
TAGGED = st.lists(st.tuples(WORD, st.sampled_from(["O", "B-X", "B-Y", "I"])), min_size=1)


@given(st.lists(TAGGED, max_size=3))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, sentences: list[list[tuple[str, str]]]) -> None:
    tagged = []
    for sentence in sentences:
        rows: list[tuple[str, str]] = []
        for word, tag in sentence:  # "I" continues the mention before it, and is outside where there is none
            before = rows[-1][1] if rows else "O"
            rows.append((word, tag if tag != "I" else "O" if before == "O" else f"I-{before[2:]}"))
        tagged.append(rows)
    content = "".join("".join(f"{word}\t{tag}\n" for word, tag in rows) + "\n" for rows in tagged)
    path = write(tmp_path_factory.getbasetemp(), content)
    assert [tags(document) for document in read_iob(path)] == tagged


def tags(document: Document) -> list[tuple[str, str]]:
    """Write a document's mentions back as tags."""
    rows, start = [], 0
    for word in document.words or ():
        tag = "O"
        for mention in document.mentions:
            if mention.start <= start < mention.end:
                tag = f"{'B' if mention.start == start else 'I'}-{mention.label}"
        rows.append((word, tag))
        start += len(word) + 1
    return rows
