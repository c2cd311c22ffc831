"""Annotate a text, and show its entities in the terminal and as a displaCy page.

python examples/demo.py [FILE.txt] [--output demo.html]
"""

import logging
import re
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import spacy
import typer
from spacy import displacy
from spacy.displacy.templates import TPL_ENT
from spacy.language import Language
from spacy.tokens import Doc, Span
from wasabi import color, msg
from wasabi.util import supports_ansi

from spacy_nerllama.sentences import sentence_spans

ABSTRACT = Path(__file__).with_name("abstract.txt")
RUNNERS_UP = 8

# A colour for each label, in turn: for the page, and of the terminal's 256 the nearest.
PALETTE = (("#ffafaf", 217), ("#afd7ff", 153), ("#afd7af", 151), ("#ffd7af", 223), ("#d7afff", 183))


def main(
    file: Annotated[Path, typer.Argument(help="Text to annotate, UTF-8", show_default="our sample")] = ABSTRACT,
    output: Annotated[Path, typer.Option("--output", "-o", help="Page to write")] = Path("demo.html"),
) -> None:
    """Annotate a text, and show its entities in the terminal and as a displaCy page."""
    warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 calls what transformers 5 has renamed
    logging.basicConfig(format="%(message)s")
    logging.getLogger("spacy_nerllama").setLevel(logging.INFO)  # says when a base is converted
    try:
        text = file.read_text(encoding="utf8").strip()
        nlp = make_pipeline()
        doc = annotate(nlp, text)
        output.write_text(page(doc), encoding="utf8")
    except (OSError, UnicodeDecodeError) as error:
        msg.fail(str(error), exits=1)
    show(doc)
    msg.good(f"The same as a page: {output.resolve()}")


def make_pipeline() -> Language:
    """Make a blank English pipeline with the component, and load its model."""
    nlp = spacy.blank("en")
    component = nlp.add_pipe("nerllama_ner")
    msg.info("Loading the model (on first use its base is converted, once) ...")
    component.model.load()
    return nlp


def annotate(nlp: Language, text: str) -> Doc:
    """Annotate a text, and say how long it took."""
    doc = nlp.make_doc(text)
    n = len(sentence_spans(doc))
    msg.info(f"Marking {n} sentences for {', '.join(nlp.get_pipe('nerllama_ner').labels)} ...")
    start = time.perf_counter()
    doc = nlp(doc)
    msg.good(f"Found {len(doc.ents)} entities in {time.perf_counter() - start:.1f} seconds")
    return doc


def show(doc: Doc) -> None:
    """Print the text with its entities, a table of them, and the runners-up."""
    colors = {label: code for label, (_, code) in label_colors(doc).items()}
    sentences = sentence_spans(doc)
    number = {i: n for n, (start, end) in enumerate(sentences, 1) for i in range(start, end)}
    print()
    for n, (start, end) in enumerate(sentences, 1):
        print(f"{n:>3}  {marked(doc[start:end], colors)}")
    header = ("entity", "label", "vote", "sentence")
    entities = [row(ent, ent._.nerllama_vote, number) for ent in doc.ents]
    print_table(entities, header)
    others = [row(span, vote, number) for span, vote in runners_up(doc)]
    if others:
        shown = others[:RUNNERS_UP]
        print(f"Runners-up: spans that got a vote and were not kept ({len(shown)} of {len(others)})")
        print_table(shown, header)


def marked(span: Span, colors: dict[str, int]) -> str:
    """Write a sentence on one line, each entity in brackets with its label, coloured on a terminal."""
    doc, parts, i = span.doc, [], span.start
    for ent in (ent for ent in doc.ents if span.start <= ent.start < span.end):
        last = ent[-1].whitespace_
        entity = one_line(f"[{ent.text} {ent.label_}]")
        if sys.stdout.isatty() and supports_ansi():
            entity = color(entity, fg=16, bg=colors[ent.label_])
        parts += [one_line(doc[i : ent.start].text_with_ws), entity, last]
        i = ent.end
    return "".join([*parts, one_line(doc[i : span.end].text_with_ws)]).strip()


def runners_up(doc: Doc) -> Iterator[tuple[Span, float]]:
    """Give the spans with a vote that are not entities, likeliest first."""
    group = doc.spans["nerllama"]
    kept = {(ent.start, ent.end, ent.label) for ent in doc.ents}
    scored = sorted(zip(group, group.attrs["scores"], strict=True), key=lambda pair: -pair[1])
    return ((span, vote) for span, vote in scored if (span.start, span.end, span.label) not in kept)


def row(span: Span, vote: float, number: dict[int, int]) -> tuple[str, str, str, int]:
    """Write a line of the table: text, label, vote and the number of the sentence."""
    return one_line(span.text), span.label_, f"{vote:.2f}", number[span.start]


def print_table(rows: list[tuple[str, str, str, int]], header: tuple[str, ...]) -> None:
    """Print a table; nothing is cut off."""
    width = max([len(cell) for line in rows for cell in line if isinstance(cell, str)], default=10)
    msg.table(rows, header=header, divider=True, aligns=("l", "l", "r", "r"), max_col=width)


def one_line(text: str) -> str:
    """Make white space, line breaks included, single spaces."""
    return re.sub(r"\s+", " ", text)


def page(doc: Doc) -> str:
    """Write a self-contained displaCy page, the vote after each label."""
    ents: list[dict[str, Any]] = [
        {
            "start": ent.start_char,
            "end": ent.end_char,
            "label": ent.label_,
            "params": {"vote": f"{ent._.nerllama_vote:.2f}"},
        }
        for ent in doc.ents
    ]
    colors = {label: html for label, (html, _) in label_colors(doc).items()}
    options = {"colors": colors, "template": TPL_ENT.replace("{label}", "{label} {vote}")}
    html = displacy.render(
        {"text": doc.text, "ents": ents}, style="ent", manual=True, page=True, options=options, jupyter=False
    )
    return html.replace("<head>", '<head>\n        <meta charset="utf-8">', 1)


def label_colors(doc: Doc) -> dict[str, tuple[str, int]]:
    """Give each label that got a vote its colours."""
    labels = sorted({span.label_ for span in doc.spans["nerllama"]})
    return {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(labels)}


if __name__ == "__main__":
    typer.run(main)
