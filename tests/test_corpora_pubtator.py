from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_nerllama.corpora import Document, Mention, Passage, read_corpus, read_pubtator, write_pubtator

FILE = """
1|t|Aspirin for migraine.
1|a|It helped.
1\t0\t7\tAspirin\tChemical\tD001241
1\t12\t20\tmigraine\tDisease\tD008881
1\tCID\tD001241\tD008881

2|t|Ataxia.
2|a|Hereditary breast and ovarian cancer, and ataxia.
2\t8\t44\tHereditary breast and ovarian cancer\tCompositeMention\tD061325|D001943\tmore
2\t50\t56\tataxia\tDisease\tD001259
"""


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "corpus.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_title_abstract_and_mentions_are_read_and_relations_skipped(tmp_path: Path) -> None:
    first, second = read_pubtator(write(tmp_path, FILE))
    assert first == Document(
        "1",
        "Aspirin for migraine. It helped.",
        (Mention(0, 7, "Chemical", "Aspirin"), Mention(12, 20, "Disease", "migraine")),
        passages=(Passage(0, 21, 0, "title"), Passage(22, 32, 22, "abstract")),
    )
    assert [mention.label for mention in second.mentions] == ["CompositeMention", "Disease"]


@pytest.mark.parametrize("encode", [lambda s: s.replace("\n", "\r\n").encode(), lambda s: s.encode("utf-8-sig")])
def test_crlf_and_byte_order_mark_change_nothing(tmp_path: Path, encode) -> None:
    expected = list(read_pubtator(write(tmp_path, FILE)))
    assert list(read_pubtator(write(tmp_path, encode(FILE.lstrip())))) == expected


def test_a_document_without_abstract_or_blank_line_is_kept(tmp_path: Path) -> None:
    content = "1|t|Ataxia.\n1\t0\t6\tAtaxia\tDisease\n2|t|Migraine.\n2|a|\n1|t|Ataxia."
    documents = list(read_pubtator(write(tmp_path, content)))
    assert [(document.id, document.text) for document in documents] == [
        ("1", "Ataxia."),
        ("2", "Migraine."),
        ("1", "Ataxia."),  # NCBI-disease has one document twice
    ]


def test_padding_around_a_mention_that_its_offsets_leave_out_is_not_its_text(tmp_path: Path) -> None:
    (document,) = read_pubtator(write(tmp_path, "1|t|An ataxia here\n1\t3\t9\tataxia  \tDisease\n"))
    assert document.mentions == (Mention(3, 9, "Disease", "ataxia"),)


def test_offsets_that_miss_the_mention_by_little_are_corrected_and_counted(tmp_path: Path) -> None:
    (document,) = read_pubtator(write(tmp_path, "1|t|An ataxia here\n1\t4\t10\tataxia\tDisease\n"))
    assert document.mentions == (Mention(3, 9, "Disease", "ataxia"),)
    assert document.corrected == 1


HEAD = "1|t|Ataxia is rare.\n1|a|Very.\n"


@pytest.mark.parametrize(
    ("content", "line", "code"),
    [
        (HEAD + "1\t0\t6\tAtaxia\n", 3, "NL101"),  # no type
        (HEAD + "1\t0\t6\tAtaxia\t \n", 3, "NL101"),  # empty type
        (HEAD + "1\tx0\t6\tAtaxia\tDisease\n", 3, "NL101"),  # broken start
        (HEAD + "1\t0\tsix\tAtaxia\tDisease\n", 3, "NL101"),  # broken end
        (HEAD + "1 0 6 Ataxia Disease\n", 3, "NL103"),  # spaces for tabs
        (HEAD + "1\t0\n", 3, "NL101"),  # cut off
        (HEAD + "1|a|Again.\n", 3, "NL101"),  # a second abstract
        (HEAD + "2\t0\t6\tAtaxia\tDisease\n", 3, "NL103"),  # another document's
        ("1|a|No title.\n", 1, "NL103"),
        ("\n\n1\t0\t6\tAtaxia\tDisease\n", 3, "NL103"),
        (HEAD + "1\t7\t13\tAtaxia\tDisease\n", 3, "NL102"),  # another word
        (HEAD + "1\t90\t96\tAtaxia\tDisease\n", 3, "NL130"),  # behind the end
        (HEAD + "1\t-15\t-9\tAtaxia\tDisease\n", 3, "NL101"),  # Python would count from the end
        (HEAD + "1\t6\t7\t \tDisease\n", 3, "NL130"),  # white space is no mention
        (HEAD + "1\t3\t3\t\tDisease\n", 3, "NL130"),
        (HEAD.encode() + "1|a|Ménière".encode("latin-1"), 3, "NL100"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, content: str | bytes, line: int, code: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=rf"\[{code}\] .*corpus\.txt, line {line}\b"):
        list(read_corpus(path, "pubtator"))


@pytest.mark.parametrize(("start", "end"), [(10, 14), (18, 22), (15, 19), (19, 23)])
def test_a_mention_that_is_near_is_found(tmp_path: Path, start: int, end: int) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text(f"1|t|A title about G12V, rest\n1|a|\n1\t{start}\t{end}\tG12V\tMutation\n")
    (document,) = read_corpus(path)
    assert (document.mentions, document.corrected) == ((Mention(14, 18, "Mutation", "G12V"),), 1)


def test_the_nearest_of_several_is_meant_and_one_may_be_behind_the_end(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("1|t|G12V/G12V here\n1|a|aspirin\n1\t6\t10\tG12V\tM\n1\t16\t23\taspirin\tC\n")
    (document,) = read_corpus(path)
    assert [(mention.start, mention.end) for mention in document.mentions] == [(5, 9), (15, 22)]
    path.write_text("1|t|G12V G12V here\n1|a|\n1\t2\t7\tG12V\tM\n")
    with pytest.raises(ValueError, match="NL102"):
        list(read_corpus(path))


def test_what_cannot_be_placed_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text(f"{HEAD}1\t7\t13\tAtaxia\tDisease\n1\t0\t6\tAtaxia\tDisease\n1\t90\t96\tAtaxia\tDisease\n")
    (document,) = read_corpus(path, misplaced="drop")
    assert document.mentions == (Mention(0, 6, "Disease", "Ataxia"),)
    assert [message[:7] for message in document.misplaced] == ["[NL102]", "[NL130]"]
    with pytest.raises(ValueError, match="NL128"):
        read_corpus(path, misplaced="skip")


def test_case_and_unicode_form_of_a_mention_are_those_of_the_text(tmp_path: Path) -> None:
    path = write(tmp_path, "1|t|Ménière\n1|a|\n1\t0\t7\tME\u0301NIE\u0300RE\tDisease\n")
    (document,) = read_pubtator(path)
    assert document.mentions == (Mention(0, 7, "Disease", "Ménière"),)
    assert document.corrected == 0


@pytest.mark.parametrize("relation", ["CID\tD1\tD2", "CPR:3\tA\tB", "R1\tCID\tA\tB", "Positive_Correlation\tA\tB"])
def test_relations_are_skipped(tmp_path: Path, relation: str) -> None:
    (document,) = read_pubtator(write(tmp_path, HEAD + f"1\t{relation}\n1\t0\t6\tAtaxia\tDisease\n"))
    assert [mention.text for mention in document.mentions] == ["Ataxia"]


def test_without_mentions_nothing_is_wrong_with_them(tmp_path: Path) -> None:
    (document,) = read_pubtator(write(tmp_path, HEAD + "1\t7\t13\tAtaxia\tDisease\n"), mentions=False)
    assert document.mentions == ()


def test_documents_before_a_broken_line_are_streamed(tmp_path: Path) -> None:
    documents = read_pubtator(write(tmp_path, FILE + "\n3|t|Broken\n3\t0\n"))
    assert [next(documents).id, next(documents).id] == ["1", "2"]
    with pytest.raises(ValueError, match="NL101"):
        next(documents)


LINE = st.text(st.characters(exclude_characters="\t\r\n", exclude_categories=["Cs"]))


@given(st.data())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    documents = []
    for i in range(data.draw(st.integers(0, 3))):
        title, abstract = data.draw(LINE), data.draw(LINE.filter(bool))
        text = f"{title} {abstract}"
        bounds = st.lists(st.integers(0, len(text)), min_size=2, max_size=2, unique=True).map(sorted)
        spans = [(a, b) for a, b in data.draw(st.lists(bounds, max_size=3)) if text[a:b].strip()]
        mentions = tuple(Mention(a, b, "Disease", text[a:b]) for a, b in spans)
        passages = (
            Passage(0, len(title), 0, "title"),
            Passage(len(title) + 1, len(text), len(title) + 1, "abstract"),
        )
        documents.append(Document(str(i), text, mentions, passages=passages))
    path = tmp_path_factory.getbasetemp() / "corpus.txt"
    write_pubtator(documents, path)
    assert list(read_pubtator(path)) == documents
