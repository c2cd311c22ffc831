"""One HTML page of a result, with plots and displaCy views of the errors; it fetches nothing."""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import islice

from spacy import displacy

from .errors_by_kind import Error, errors
from .result import Result
from .spans import CharSpan, DocSpans
from .svg import plot
from .tables import Table, tables

CONTEXT = 80  # characters before and after an error
VIEWS = 200
COLORS = ("#ffd8b1", "#c7e9c0", "#c6dbef", "#fbb4c4", "#dadaeb", "#ffffb3")  # of labels, in order

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 16px/1.4 sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 0.5rem 0 }}
td, th {{ border-bottom: 1px solid #ddd; padding: 0.2rem 0.7rem; text-align: right }}
.left {{ text-align: left }}
.view {{ border: 1px solid #ddd; border-radius: 4px; margin: 1rem 0; padding: 0.5rem 1rem }}
.note {{ color: #666 }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(result: Result, docs: Sequence[DocSpans]) -> str:
    """Make a page of a result.

    docs: What was judged, for the views of errors.
    RETURNS: The whole HTML document.
    """
    title = f"{result['pipeline']} on {result['data']}"
    speed = result["speed"]
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{speed['documents']} documents, {speed['documents_per_second']:.1f} a second.</p>",
        *(f"<p><strong>{escape(warning)}</strong></p>" for warning in result["warnings"]),
        *map(_table, tables(result)),
        *_plots(result),
        *_views(docs, result["counts"]["labels"]),
    ]
    return PAGE.format(title=escape(title), body="\n".join(body))


def _table(table: Table) -> str:
    kinds = ['class="left"' if i in table.left else "" for i in range(len(table.header))]
    head = "".join(f"<th {kind}>{escape(cell)}</th>" for kind, cell in zip(kinds, table.header, strict=True))
    rows = [
        "<tr>"
        + "".join(f"<td {kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in table.rows
    ]
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f"<h2>{escape(table.title)}</h2>{note}<table><tr>{head}</tr>{''.join(rows)}</table>"


def _plots(result: Result) -> Iterator[str]:
    if not result["calibration"]:
        return
    yield "<h2>Votes</h2>"
    bins = [each for each in result["calibration"]["bins"] if each["n"]]
    points = [(each["vote"], each["right"], f"{each['n']} candidates") for each in bins]
    yield plot("mean vote", "share that is right", {"candidates": points}, diagonal=True)
    lines = {
        name: [
            (each["threshold"], each[key], f"{100 * each[key]:.2f} at {each['threshold']:.2f}")
            for each in result["thresholds"]
        ]
        for key, name in {"precision": "precision", "recall": "recall", "f1": "F1"}.items()
    }
    yield plot("threshold", "strict score", lines)


def _views(docs: Sequence[DocSpans], labels: Sequence[str]) -> Iterator[str]:
    """Show the places where there are errors, those of the worst docs first."""
    wrong = sorted(((errors(doc), doc) for doc in docs), key=lambda pair: -len(pair[0]))
    places = [(doc, *place) for found, doc in wrong for place in _places(found, doc.text)]
    yield "<h2>Errors</h2>"
    yield f'<p class="note">{min(VIEWS, len(places))} of {len(places)} places, those of the worst docs first</p>'
    colors = {escape(label): COLORS[i % len(COLORS)] for i, label in enumerate(labels)}
    for doc, start, end in islice(places, VIEWS):
        yield (
            '<div class="view">'
            f"gold {_view(doc.text, doc.gold, start, end, colors)}"
            f"predicted {_view(doc.text, doc.predicted, start, end, colors)}"
            "</div>"
        )


def _places(found: Sequence[Error], text: str) -> list[tuple[int, int]]:
    """Give the stretches of a text around its errors, at white space; those that touch are one."""
    places: list[tuple[int, int]] = []
    for error in found:
        spans = [span for span in error[1:] if span is not None]
        start = max(min(span.start for span in spans) - CONTEXT, 0)
        end = min(max(span.end for span in spans) + CONTEXT, len(text))
        while start > 0 and not text[start - 1].isspace():
            start -= 1
        while end < len(text) and not text[end].isspace():
            end += 1
        if places and start <= places[-1][1]:
            start, end = places[-1][0], max(places.pop()[1], end)
        places.append((start, end))
    return places


def _view(text: str, spans: Sequence[CharSpan], start: int, end: int, colors: dict[str, str]) -> str:
    """Show a stretch of a text; displaCy escapes the text, and not the labels."""
    inside = [
        {"start": max(span.start, start) - start, "end": min(span.end, end) - start, "label": escape(span.label)}
        for span in spans
        if span.start < end and start < span.end
    ]
    view = {"text": text[start:end], "ents": inside, "title": None}
    return displacy.render(view, style="ent", manual=True, jupyter=False, options={"colors": colors})
