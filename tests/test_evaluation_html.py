"""The HTML page: it is well-formed, fetches nothing, and shows text as text."""

from html.parser import HTMLParser

import pytest

from spacy_nerllama.evaluation import CharSpan, DocSpans
from spacy_nerllama.evaluation.html import CONTEXT, page
from spacy_nerllama.evaluation.result import measure
from spacy_nerllama.evaluation.svg import plot
from spacy_nerllama.requests import TokenSpan

VOID = {"meta", "br"}
NASTY = '<script>alert(1)</script> & "ataxia" {x}'


class Reader(HTMLParser):
    """Checks that elements are closed in order, and collects elements, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def made_page(docs: list[DocSpans]) -> Reader:
    result = {
        "pipeline": "<b>pipeline</b>",
        "data": "data.spacy",
        "spacy": {},
        "speed": {"documents": len(docs), "documents_per_second": 1.0},
        "own_tokens": False,
        "warnings": ["<i>careful</i>"],
        **measure(docs, samples=10),
    }
    return Reader(page(result, docs))


@pytest.fixture(scope="module")
def reader() -> Reader:
    gold, predicted = CharSpan(29, 35, "<DISEASE>"), CharSpan(0, 8, "<DISEASE>")
    candidate = TokenSpan(0, 1, "<DISEASE>")
    return made_page(
        [DocSpans(NASTY, (gold,), (predicted,), votes={candidate: 0.9}, chars={candidate: predicted})]
    )


def test_nothing_is_fetched(reader: Reader) -> None:
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(reader.elements)
    assert not {"src", "href", "xlink:href", "action", "data"} & {name for name, _ in reader.attributes}
    assert not any(word in (value or "") for _, value in reader.attributes for word in ("url(", "http:", "//"))
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in reader.attributes


def test_what_came_from_outside_is_text(reader: Reader) -> None:
    assert not {"b", "i"} & set(reader.elements)
    for text in ("<b>pipeline</b>", "<i>careful</i>", "<DISEASE>", "<script>"):
        assert text in reader.text
    shown = " ".join(reader.text.replace("<DISEASE>", "").split())
    assert "<script> alert(1)</script>" in shown
    assert '& "ataxia" {x}' in shown or '& "ataxia " {x}' in shown


def test_plots_and_tables_are_there(reader: Reader) -> None:
    assert reader.elements.count("svg") == 2
    for title in ("Strict", "Relaxed", "Votes: are they calibrated?", "Errors by kind"):
        assert title in reader.text


def test_without_votes_there_are_no_plots() -> None:
    reader = made_page([DocSpans("ataxia", (CharSpan(0, 6, "DISEASE"),), ())])
    assert "svg" not in reader.elements
    assert "Votes" not in reader.text


def test_a_long_doc_is_shown_where_its_errors_are() -> None:
    words = [f"w{i:04}" for i in range(1000)]
    text = " ".join(words)
    missed = [CharSpan(text.index(word), text.index(word) + 5, "GENE") for word in ("w0300", "w0303", "w0900")]
    reader = made_page([DocSpans(text, tuple(missed), ())])
    assert reader.attributes.count(("class", "view")) == 2, "errors that are near share a view"
    assert all(word in reader.text for word in ("w0295", "w0308", "w0895"))
    assert not any(word in reader.text for word in ("w0200", "w0600", "w0999"))
    assert len(reader.text) < 20 * CONTEXT + 2000


def test_the_worst_docs_come_first() -> None:
    gene = [CharSpan(i, i + 1, "GENE") for i in range(0, 6, 2)]
    docs = [
        DocSpans("a b c good", tuple(gene), tuple(gene)),
        DocSpans("a b c fair", tuple(gene), tuple(gene[:2])),
        DocSpans("a b c poor", tuple(gene), ()),
    ]
    text = made_page(docs).text
    assert "good" not in text
    assert text.index("poor") < text.index("fair")


def test_a_plot_has_its_points_where_they_belong() -> None:
    svg = plot("votes", "right <share>", {"a": [(0.0, 0.0, "x"), (1.0, 1.0, "<y>")]}, diagonal=True)
    reader = Reader(svg)
    assert ("points", "45.0,345.0 345.0,45.0") in reader.attributes, "the y axis goes up"
    assert "right <share>" in reader.text
    assert "<y>" in reader.text
