"""What a model reads before it marks a sentence."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab
from strategies import sentences

from spacy_nerllama.marking import Markers, MarkingScheme, typed_scheme
from spacy_nerllama.prompts import (
    CompactPrompt,
    Example,
    InstructPrompt,
    MultiTaskPrompt,
    PaperPrompt,
    PromptText,
    make_paper_prompt,
    scheme_of,
)
from spacy_nerllama.requests import Request, Sentence, TokenSpan

DISEASE = (("DISEASE", "disease"),)


def sentence(text: str) -> Sentence:
    words = tuple(text.split(" "))
    return Sentence(words, (True,) * len(words))


def example(text: str, *spans: tuple[int, int, str]) -> Example:
    return Example(sentence(text), tuple(TokenSpan(*span) for span in spans))


EXAMPLES = tuple(example(f"Case {i} had ataxia .", (3, 4, "DISEASE"), (0, 1, "OTHER")) for i in range(20))


def shown(text: str) -> list[str]:
    """The inputs of a paper prompt's examples."""
    return [part.split("\n")[0] for part in text.split("Input:\n")[1:-1]]


@given(sentences())
def test_compact_shows_the_sentence_first_and_then_the_label(source: Sentence) -> None:
    """So that the sentence is read once for all of its labels."""
    disease = CompactPrompt()(Request(source, DISEASE))
    gene = CompactPrompt()(Request(source, (("GENE", "gene"),)))
    assert disease == PromptText(source.text, "\nMark disease:\n")
    assert gene == PromptText(source.text, "\nMark gene:\n")


def test_compact_names_all_labels_of_a_request() -> None:
    request = Request(sentence("Ataxia ."), (*DISEASE, ("GENE", "gene")))
    assert CompactPrompt()(request).own == "\nMark disease, gene:\n"


def test_the_multi_task_prompt_has_markers_of_its_own_for_each_label() -> None:
    prompt = MultiTaskPrompt({"DISEASE": "disease", "GENE": "gene"})
    assert scheme_of(prompt)["GENE"] == Markers("@gene@", "#gene#")
    assert scheme_of(prompt).tells_labels
    assert not scheme_of(CompactPrompt()).tells_labels
    assert not scheme_of(lambda request: PromptText("", "")).tells_labels


def test_paper_is_the_papers_to_the_letter() -> None:
    """Its released code writes the instruction in raw strings: the backslashes are what its model has read."""
    prompt = PaperPrompt((example("He had ataxia .", (2, 3, "DISEASE")),))
    shared, own, system, prefix = prompt(Request(sentence("No ataxia ."), DISEASE))
    assert system == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request"
    )
    assert shared == ""
    assert prefix + own == (
        'You are an high intelligent biomedical named entity recognition tool, extract \\"disease\\" entities '
        "from the given text, only mark the entity on the original input by highlighting them with @@ and ##, do "
        "not make any other changes. if there is no entity recognized, output the same sentence.\\n"
        "Below are some examples:\\n"
        "Input:\nHe had ataxia .\nOutput:\nHe had @@ataxia## .\n"
        "Be cautious here is the Input:\nNo ataxia ."
    )


def test_paper_shows_only_the_labels_mentions() -> None:
    own = PaperPrompt(EXAMPLES[:1])(Request(sentence("No ataxia ."), DISEASE)).own
    assert "Output:\nCase 0 had @@ataxia## .\n" in own
    with pytest.warns(UserWarning, match=r"\[NLW005\].*mention of GENE.*has mentions of: DISEASE, OTHER"):
        own = PaperPrompt(EXAMPLES[:1])(Request(sentence("No ataxia ."), (("GENE", "gene"),))).own
    assert "Output:\nCase 0 had ataxia .\n" in own


def test_paper_takes_its_markers_from_the_scheme() -> None:
    prompt = PaperPrompt(EXAMPLES[:1], scheme=MarkingScheme(Markers("<m>", "</m>")))
    own = prompt(Request(sentence("No ataxia ."), DISEASE)).text
    assert "with <m> and </m>, do not" in own
    assert "had <m>ataxia</m> ." in own
    with pytest.raises(KeyError, match=r"\[NL032\]"):
        PaperPrompt(scheme=typed_scheme({"GENE": "gene"}))(Request(sentence("No ."), DISEASE))


@given(st.integers(0, 19), st.integers(0, 25), st.integers())
def test_paper_never_shows_the_sentence_itself(i: int, n_examples: int, seed: int) -> None:
    prompt = PaperPrompt((*EXAMPLES, *EXAMPLES), n_examples, seed=seed)
    for text in [f"Case {i} had ataxia .", f"Case {i} had ataxia."]:  # however it is tokenised
        inputs = shown(prompt(Request(sentence(text), DISEASE)).own)
        assert len(inputs) == n_examples
        assert f"Case {i} had ataxia ." not in inputs


def test_paper_draws_depend_on_seed_sentence_and_label_alone() -> None:
    requests = [
        Request(sentence(f"Ataxia {i} ."), (label,)) for i in range(5) for label in [*DISEASE, ("OTHER", "o")]
    ]
    first = [tuple(shown(PaperPrompt(EXAMPLES, seed=1)(request).own)) for request in requests]
    again = [tuple(shown(PaperPrompt(EXAMPLES, seed=1)(request).own)) for request in reversed(requests)]
    other = [tuple(shown(PaperPrompt(EXAMPLES, seed=2)(request).own)) for request in requests]
    assert first == again[::-1]
    assert len(set(first)) == len(first), "each request has a draw of its own"
    assert not set(first) & set(other)
    assert all(len(set(inputs)) == 3 for inputs in first)


@pytest.mark.parametrize("prompt", [PaperPrompt(EXAMPLES), InstructPrompt(EXAMPLES)])
def test_few_shot_prompts_ask_for_one_label(prompt: PaperPrompt | InstructPrompt) -> None:
    with pytest.raises(ValueError, match=r"^\[NL036\] This prompt .* has 2 \(DISEASE, GENE\)"):
        prompt(Request(sentence("No ataxia ."), (*DISEASE, ("GENE", "gene"))))
    with pytest.raises(ValueError, match=r"^\[NL036\] .* has 0 "):
        prompt(Request(sentence("No ataxia ."), ()))


def test_paper_reads_its_examples_from_a_spacy_file(tmp_path: Path) -> None:
    words = ["Ataxia", "fell", ".", "\n", "ATM", "rose", "."]
    doc = Doc(Vocab(), words=words, sent_starts=[True, False, False, False, True, False, False])
    doc.set_ents([Span(doc, 0, 1, "DISEASE"), Span(doc, 4, 5, "GENE")])
    DocBin(docs=[doc]).to_disk(tmp_path / "train.spacy")
    prompt = make_paper_prompt(str(tmp_path / "train.spacy"), n_examples=2, seed=3)
    assert (prompt.n_examples, prompt.seed) == (2, 3)
    assert prompt.examples == (
        example("Ataxia fell .", (0, 1, "DISEASE")),
        example("ATM rose .", (0, 1, "GENE")),
    )


def test_paper_without_examples() -> None:
    prompt = make_paper_prompt()
    assert prompt.examples == ()
    own = prompt(Request(sentence("No ataxia ."), DISEASE)).own
    assert own.endswith("examples:\\nBe cautious here is the Input:\nNo ataxia .")


def test_a_file_of_examples_that_is_not_there_or_is_no_spacy_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"\[NL037\] .*none\.spacy"):
        make_paper_prompt(str(tmp_path / "none.spacy"))
    with pytest.raises(FileNotFoundError, match=r"\[NL037\]"):
        make_paper_prompt(str(tmp_path))
    (tmp_path / "text.spacy").write_text("Ataxia\tB-DISEASE\n", encoding="utf8")
    with pytest.raises(ValueError, match=r"^\[NL090\] .*E1014"):
        make_paper_prompt(str(tmp_path / "text.spacy"))
