"""Which in-context examples a prompt shows: never any of the document that is annotated."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab

from spacy_nerllama.examples import Example, Examples, _shuffled, read_examples
from spacy_nerllama.prompts import InstructPrompt, PaperPrompt, make_instruct_prompt
from spacy_nerllama.requests import Request, Sentence, TokenSpan, squash

DOCS = [
    "Ataxia is rare . Mutations of ATM cause ataxia . Carriers are well .",
    "Lithium helps . Two mice were given lithium at night . All lived .",
    "Methods . Mutations were found by sequencing . Carriers are well .",
    "The tremor of mice was mild . Lithium was stopped .",
]


def sentence(text: str) -> Sentence:
    words = tuple(text.split(" "))
    return Sentence(words, (True,) * len(words))


def sentences_of(text: str) -> list[str]:
    return [f"{part} ." for part in text.removesuffix(" .").split(" . ")]


POOL = [Example(sentence(part), (), squash(text)) for text in DOCS for part in sentences_of(text)]


def shown(examples: list[Example]) -> list[str]:
    return [example.sentence.text for example in examples]


@given(st.sampled_from(POOL), st.integers(0, 12), st.sampled_from(["random", "similar"]), st.integers())
def test_no_example_is_from_a_document_that_holds_the_sentence(
    source: Example, n: int, selection: str, seed: int
) -> None:
    """However it is cut into sentences or windows, and with or without spaces."""
    words = source.sentence.words
    for part in (source.sentence, Sentence(words, (False,) * len(words)), Sentence(words[1:], (True,) * 9)):
        chosen = Examples(POOL).choose(part, "GENE", n, selection, seed)  # type: ignore[arg-type]
        assert not any(part.squashed in example.doc for example in chosen)
        allowed = [example for example in POOL if part.squashed not in example.doc]
        assert len(chosen) == min(n, len(allowed))
        assert len({id(example) for example in chosen}) == len(chosen)


def test_a_whole_document_in_one_sentence_is_told_too() -> None:
    chosen = Examples(POOL).choose(sentence(DOCS[1]), "GENE", 99, "random", 0)
    assert not set(shown(chosen)) & set(sentences_of(DOCS[1]))
    alone = [Example(example.sentence, ()) for example in POOL]  # of a corpus of sentences
    chosen = Examples(alone).choose(sentence(DOCS[1]), "GENE", 99, "random", 0)
    assert not set(shown(chosen)) & set(sentences_of(DOCS[1]))


def test_the_most_similar_is_nearest_to_the_sentence() -> None:
    chosen = Examples(POOL).choose(sentence("Mutations of BRCA1 cause cancer ."), "GENE", 3, "similar", 0)
    assert shown(chosen)[1:] == ["Mutations were found by sequencing .", "Mutations of ATM cause ataxia ."]


def test_a_rare_word_says_more_than_a_common_one() -> None:
    chosen = Examples(POOL).choose(sentence("LITHIUM at night ?"), "GENE", 2, "similar", 0)
    assert shown(chosen)[-1] == "Two mice were given lithium at night ."
    pool = [Example(sentence(text), ()) for text in ("the the liver", "the heart", "the lung", "the rare tumour")]
    assert shown(Examples(pool).choose(sentence("the tumour of the"), "GENE", 1, "similar", 0)) == [
        "the rare tumour"
    ]


def test_where_no_word_is_shared_examples_are_drawn() -> None:
    chosen = Examples(POOL).choose(sentence("xyz"), "GENE", 4, "similar", 0)
    assert len(chosen) == 4
    assert shown(chosen) == shown(Examples(POOL).choose(sentence("xyz"), "GENE", 4, "random", 0))[::-1]


def test_without_examples() -> None:
    assert Examples(()).choose(sentence("xyz"), "GENE", 4, "similar", 0) == []


@given(st.integers(0, 60), st.integers())
def test_the_order_is_a_permutation(n: int, seed: int) -> None:
    order = list(_shuffled(n, random.Random(seed)))
    assert sorted(order) == list(range(n))
    assert order == list(_shuffled(n, random.Random(seed)))


def test_documents_are_read_with_their_texts(tmp_path: Path) -> None:
    doc = Doc(Vocab(), words=["Ataxia", "fell", ".", "ATM", "rose", "."], sent_starts=[1, 0, 0, 1, 0, 0])
    doc.set_ents([Span(doc, 3, 4, "GENE")])
    DocBin(docs=[doc]).to_disk(tmp_path / "train.spacy")
    examples = read_examples(tmp_path / "train.spacy")
    assert [example.doc for example in examples] == ["Ataxiafell.ATMrose."] * 2
    prompt = make_instruct_prompt(str(tmp_path / "train.spacy"), n_examples=1, selection="similar")
    assert "Copy: @@ATM## rose .\n" in prompt(Request(sentence("Is ATM here ?"), (("GENE", "gene"),))).text
    assert "ATM rose" not in prompt(Request(sentence("Ataxia fell ."), (("GENE", "gene"),))).text


def test_a_mention_that_a_sentence_cuts_is_not_shown_as_none(tmp_path: Path) -> None:
    words = "Mutants of E. coli grew . It fell .".split(" ")
    doc = Doc(Vocab(), words=words, sent_starts=[i in (0, 3, 6) for i in range(len(words))])
    doc.set_ents([Span(doc, 2, 4, "SPECIES")])
    DocBin(docs=[doc]).to_disk(tmp_path / "train.spacy")
    assert shown(read_examples(tmp_path / "train.spacy")) == ["It fell ."]


# The prompt for models that were not fine-tuned


def test_the_instruct_prompt_reads_well() -> None:
    example = Example(sentence("Two mice ."), (TokenSpan(1, 2, "SPECIES"), TokenSpan(0, 1, "OTHER")))
    request = Request(sentence("E. coli grew ."), (("SPECIES", "organisms named by species or strain"),))
    prompt = InstructPrompt((example,))(request)
    assert prompt.system == (
        "You annotate biomedical texts. Copy the text that you are given, letter for letter, and put @@ directly "
        "before and ## directly after each mention of what you are asked to mark. If there is none, copy the text "
        "without marks. Write nothing but the copy."
    )
    assert prompt.text == (
        "Mark: organisms named by species or strain\n\n"
        "Text: Two mice .\nCopy: Two @@mice## .\n\n"
        "Text: E. coli grew .\nCopy:"
    )
    assert prompt.prefix == "Mark: organisms named by species or strain\n\n", "it is the same for all sentences"


def test_it_asks_for_one_label() -> None:
    request = Request(sentence("No ataxia ."), (("DISEASE", "disease"), ("GENE", "gene")))
    for prompt in (InstructPrompt(), PaperPrompt()):
        with pytest.raises(ValueError, match=r"^\[NL036\]"):
            prompt(request)
