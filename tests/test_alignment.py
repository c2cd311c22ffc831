"""Free text to spans: what a careful reader would take a response to mean, and never an error."""

import re
from collections.abc import Collection, Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import LOOKALIKE, PLAIN, has_clean_edges, plain_words, sentences, spans_of

from spacy_nerllama.alignment import align
from spacy_nerllama.alignment.matching import _GAP, _NEVER, _REPLACED, _best_path
from spacy_nerllama.alignment.projection import MAX_UNCLOSED_TOKENS
from spacy_nerllama.marking import SINGLE, Markers, MarkingScheme, join, mark, typed_scheme
from spacy_nerllama.requests import Request, Sentence

GENE, DISEASE = ("GENE", "gene or protein"), ("DISEASE", "disease")


def sentence_of(text: str) -> Sentence:
    """Tokens as in `text`; a bar parts two without a space between them."""
    tokens = [*zip(re.split("[ |]", text), [*re.findall("[ |]", text), " "], strict=True)]
    return Sentence(tuple(word for word, _ in tokens), tuple(after == " " for _, after in tokens))


def found(text: str, response: str, *labels: tuple[str, str], scheme: MarkingScheme = SINGLE) -> list[str]:
    """The diagnosis, and the mentions as tokens with bars; with their labels where several were asked for."""
    sentence = sentence_of(text)
    spans, diagnosis = align(Request(sentence, labels or (GENE,)), response, scheme)
    mentions = ["|".join(sentence.words[span.start : span.end]) for span in spans]
    if len(labels) > 1:
        mentions = [f"{span.label}: {mention}" for span, mention in zip(spans, mentions, strict=True)]
    return [diagnosis, *mentions]


TEXT = "Loss of ATM and p53 causes ataxia in TGF - β1 deficient mice ."


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("Loss of @@ATM## and @@p53## causes ataxia in TGF - β1 deficient mice .", ["ATM", "p53"]),
        ("Loss of ATM and p53 causes ataxia in TGF - β1 deficient mice .", []),
        ("Loss of @@ATM## and @@p53##causes ataxia in TGF-β1 deficient\nmice.", ["ATM", "p53"]),
        (
            "Loss of @@ ATM ## and @@p53## causes ataxia in @@ TGF - β1 ## deficient mice .",
            ["ATM", "p53", "TGF|-|β1"],
        ),
        # what a preamble, a fence or further examples say is not the copy
        ("Here is the text:\nLoss of @@ATM## and p53 causes ataxia in TGF - β1 deficient mice .", ["ATM"]),
        ("Output: Loss of @@ATM## and p53 causes ataxia in TGF - β1 deficient mice .", ["ATM"]),
        (
            "```text\nLoss of @@ATM## and p53 causes ataxia in TGF - β1 deficient mice .\n```\nDone: @@p53##",
            ["ATM"],
        ),
        (
            f"{TEXT}\nInput:\np53 fell .\nOutput:\n@@p53## fell .",
            [],
        ),
        (f"{TEXT}\nInput:\np53\nOutput:\n@@p53##", []),
        (f"{TEXT}\n\nGenes: @@p53##, @@BRCA1##", []),
        # of a text that is given twice, the marked one counts
        (
            "Input: Loss of ATM and p53 causes ataxia in TGF - β1 deficient mice .\n"
            "Output: Loss of @@ATM## and p53 causes ataxia in TGF - β1 deficient mice .",
            ["ATM"],
        ),
        (f"{TEXT}\n@@Loss## of ATM and p53 causes ataxia in TGF - β1 deficient mice .", ["Loss"]),
        # drafts in a model's thoughts do not count
        (
            "<think>\n@@Loss of ATM## and p53 causes ataxia in TGF - β1 deficient mice .\n</think>\n\n"
            "Loss of @@ATM## and p53 causes ataxia in TGF - β1 deficient mice .",
            ["ATM"],
        ),
    ],
)
def test_a_faithful_copy(response: str, expected: list[str]) -> None:
    assert found(TEXT, response) == ["exact", *expected]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        # another form of the same characters
        ("Loss of @@ATM## and p53 causes ataxia in @@TGF-beta1## deficient mice.", ["ATM", "TGF|-|β1"]),
        ("loss of @@atm## and p53 causes ataxia in @@TGF – β１## deficient mice.", ["ATM", "TGF|-|β1"]),
        # letters changed, words dropped, repeated or added
        ("Loss of @@ATM## and p53 causes ataxa in TGF - β1 deficent mice .", ["ATM"]),
        ("Loss of ATM and @@p35## causes ataxia in @@TGF - β## deficient mice .", ["p53", "TGF|-|β1"]),
        ("Loss of @@p53## causes ataxia in @@TGF - β1## deficient mice .", ["p53", "TGF|-|β1"]),
        ("Loss of @@ATM## and and @@p53## causes ataxia in in TGF - β1 deficient mice .", ["ATM", "p53"]),
        ("Loss of p53 and @@p53## causes ataxia in TGF - β1 deficient mice .", ["p53"]),
        ("Loss of @@ATM## ATM and p53 causes ataxia in TGF - β1 deficient mice .", ["ATM"]),
        ("Loss of ATM @@ATM## and p53 causes ataxia in TGF - β1 deficient mice .", ["ATM"]),
        (
            "Loss of @@ATM kinase## and p53 causes severe ataxia in @@the TGF - β1## deficient mice .",
            ["ATM", "TGF|-|β1"],
        ),
        # made up, or moved
        ("@@Lossxia## in TGF - β1 deficient mice .", []),
        ("Loss of ATM and p53 causes @@BRCA1## ataxia in TGF - β1 deficient mice .", []),
        (
            "In @@TGF - β1## deficient mice , loss of @@ATM## and @@p53## causes ataxia .",
            ["ATM", "p53", "TGF|-|β1"],
        ),
        # the changed copy among other lines
        (
            "Sure!\n```\nLoss of @@ATM## and p53 cause ataxia in TGF - β1 deficient mice.\n```\n@@p53## too.",
            ["ATM"],
        ),
        # no copy, but a list
        ('["ATM", "TGF - β1"]', ["ATM", "TGF|-|β1"]),
        ('Here you are:\n```json\n["p53", "atm", "BRCA1"]\n```', ["ATM", "p53"]),
        ('{"genes": ["p53"]}', ["p53"]),
        ("['ATM', 'TGF - β1']", ["ATM", "TGF|-|β1"]),
        ('[{"gene": "ATM", "at": 8}, {"gene": "p53", "at": 16}]', ["ATM", "p53"]),
        ("@@ATM##, @@TGF-β1##", ["ATM", "TGF|-|β1"]),
        ("Genes: @@ATM##, @@BRCA1##", ["ATM"]),
        # or the text as it is, and a list
        (f"{TEXT}\n\nGenes: @@ATM##, @@p53##", ["ATM", "p53"]),
        (f"{TEXT}\n\n1. @@ATM##\n2. @@p53##\n", ["ATM", "p53"]),
        # or there are none
        ("[]", []),
        ("```json\n[]\n```", []),
        ('{"genes": []}', []),
        ("None", []),
        ("Genes: none.", []),
        ("n/a", []),
        ("No genes.", []),
        ("There are no genes here.", []),
        ("No entities of this kind.", []),
        (
            "The genes that I found are @@p53##, @@TGF-beta1## and @@BRCA1##; nothing else is one.",
            ["p53", "TGF|-|β1"],
        ),
    ],
)
def test_a_changed_copy(response: str, expected: list[str]) -> None:
    assert found(TEXT, response) == ["aligned", *expected]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("Loss of @@ATM## and @@p5", ["ATM", "p53"]),
        ("Loss of @@ATM## and p53 caus", ["ATM"]),
        ("Loss of @@ATM## and", ["ATM"]),
        ("Loss of @@ATM## and p53 causes ataxia in @@", ["ATM"]),
        # in a word, or where a mention goes on
        ("Output:\nLoss of @@ATM## an p53 causes ataxia in @@TG", ["ATM", "TGF"]),
        ("Output:\nLoss of @@ATM## an p53 causes ataxia in @@TGF -", ["ATM"]),
        ("Output:\nLoss of @@ATM## an p53 causes ataxia in @@TGF ", ["ATM"]),
    ],
)
def test_a_truncated_copy(response: str, expected: list[str]) -> None:
    assert found(TEXT, response) == ["truncated", *expected]


@pytest.mark.parametrize(
    "response",
    [
        "",
        " \n",
        "I cannot help with that.",
        "No problem!",
        "No sentence was given.",
        # names without any mark: they may be meant, or a piece of the text
        "ATM, p53",
        "1. ATM\n2. p53",
        "TGF - β1",
        '["BRCA1"]',
        "[1, 2]",
        "[" * 100_000,
        "[{" * 50_000,
        ", " * 50_000,
        "' " * 50_000,
        " \n" * 50_000,
        "@@" * 1000,
        "##",
        "@@##",
        "\0\ud800\uffff",
    ],
)
def test_what_cannot_be_used(response: str) -> None:
    assert found(TEXT, response) == ["unusable"]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        # adjacent mentions are two
        ("Loss of @@ATM## @@and## p53", ["ATM", "and"]),
        ("Loss of @@ATM##@@and## p53", ["ATM", "and"]),
        # repeated, lacking and empty markers
        ("Loss of @@@@ATM#### and @@p53###", ["ATM", "p53"]),
        ("Loss of @ATM## and @@p53#", ["ATM", "p53"]),
        ("Loss of @@##ATM and @@ ## p53", []),
        # the same marker on both sides
        ("Loss of @@ATM@@ and ##p53##", ["ATM", "p53"]),
        # nested: the longer one, as the vote rule has it
        ("Loss of @@ATM and @@p53## ##", ["ATM|and|p53"]),
        ("Loss of @@ATM and @@p53####", ["ATM|and|p53"]),
        ("Loss of @@@@ATM## and p53##", ["ATM|and|p53"]),
        ("Loss of @@@@ATM## and p53", ["ATM"]),
        # not closed: it ends with the text, unless another marker follows
        ("Loss of ATM and @@p53", ["p53"]),
        ("Loss of @@ATM and @@p53##", ["p53"]),
        ("Loss of @@ATM## and p53##", ["ATM"]),
        ("Loss ##of ATM and @@p53##", ["p53"]),
    ],
)
def test_markers(response: str, expected: list[str]) -> None:
    assert found("Loss of ATM and p53", response) == ["exact", *expected]


@pytest.mark.parametrize(
    "response",
    [
        "@@ATM##, @@p53## and @@ATM## bind @@p53##.",
        "@@ATM@@, @@p53## and @@ATM## bind @@p53##.",
        "##ATM##, @@p53## and ##ATM## bind @@p53##.",
        "@@ATM@@, @@p53@@ and @@ATM@@ bind @@p53@@.",
        "@ATM@, @p53@ and @ATM@ bind @p53@.",
        "@@ ATM @@ , @@ p53 @@ and @@ ATM @@ bind @@ p53 @@ .",
        "## ATM ## , ## p53 ## and ## ATM ## bind ## p53 ## .",
        "@ ATM @, @ p53 @ and @ ATM @ bind @ p53 @.",
    ],
)
def test_a_mention_may_occur_twice_and_have_the_same_marker_on_both_sides(response: str) -> None:
    assert found("ATM , p53 and ATM bind p53 .", response) == ["exact", "ATM", "p53", "ATM", "p53"]


@pytest.mark.parametrize("copy", [TEXT, f"Input: {TEXT}\nOutput:", f'You gave me "{TEXT}"'])
@pytest.mark.parametrize(
    "answer",
    [
        "Loss of @@ATM## and @@p53## causes ataxia in TGF-beta1 deficient mice.",  # of another form
        "loss of @@ATM## and @@p53## causes ataxia in TGF - β1 deficient mice .",
        "Loss of @@ATM## and @@p53## causes ataxia in deficient mice.",  # with a change
        "Loss of @@ATM## and @@p53## causes",  # broken off
        "@@ATM##, @@p53##",  # a list
        "Genes:\n- @@ATM## (a kinase)\n- @@p53##: a tumour suppressor",
    ],
)
def test_the_answer_may_follow_the_sentence(copy: str, answer: str) -> None:
    assert found(TEXT, f"{copy}\n{answer}")[1:] == ["ATM", "p53"]


def test_the_answer_may_come_before_the_sentence() -> None:
    answer = "Loss of @@ATM## and @@p53## causes ataxia in deficient mice."
    assert found(TEXT, f"{answer}\nOriginal: {TEXT}") == ["aligned", "ATM", "p53"]


def test_another_sentence_beside_the_copy_is_no_answer() -> None:
    assert found(TEXT, f"{TEXT}\nLoss of @@ATM## in cells was not seen by us .") == ["exact"]
    assert found(TEXT, f"The loss of @@ATM## is bad for cells.\n{TEXT}") == ["exact"]


def test_a_mention_of_which_next_to_nothing_is_there_was_made_up() -> None:
    text = "Loss of the MDM2 protein was seen in cells ."
    assert found(text, "Loss of the @@cyclin E2## protein was seen in the cells.") == ["aligned"]
    assert found(text, "Loss of the @@HDM2## protein was seen in the cells.") == ["aligned", "MDM2"]


@pytest.mark.parametrize(
    ("text", "response", "expected"),
    [
        # of two that begin alike the copy has lost the first, or changed places
        ("IL - 2 and IL - 3 act on cells", "@@IL-3## act on cells", ["IL|-|3"]),
        ("the IL - 2 gene and the IL - 3 gene were lost", "the @@IL-3## gene were lost", ["IL|-|3"]),
        ("Both IL - 2 and IL - 3 act on cells", "Both @@IL-3## and IL-2 act on cells", ["IL|-|3"]),
        # a bracket belongs to what follows
        (
            "diffuse mesangial sclerosis ( DMS ) was seen",
            "@@diffuse mesangial sclerosis (human)## (DMS) was seen",
            ["diffuse|mesangial|sclerosis"],
        ),
    ],
)
def test_a_mention_is_not_torn_apart(text: str, response: str, expected: list[str]) -> None:
    assert found(text, response) == ["aligned", *expected]


@pytest.mark.parametrize(
    ("text", "response", "expected"),
    [
        ("CD4 in protein synthesis .", "@@CD4## in protien @@mice## synthesis.", ["CD4"]),
        ("Loss of p53 binding results in death .", "Loss of @@p53## binding @@interleukin 12## death.", ["p53"]),
        # but a short word that is all there is meant
        ("the DM locus is on 19q .", "the @@human DM protein## locus is on 19q.", ["DM"]),
    ],
)
def test_a_letter_or_two_do_not_make_a_mention(text: str, response: str, expected: list[str]) -> None:
    assert found(text, response) == ["aligned", *expected]


def test_headings_are_not_markers() -> None:
    text = "Rats were fed for two weeks ."
    assert found(text, f"### Output: {text}\n\n### Explanation: there are none.") == ["exact"]
    assert found(text, f"# {text}\n# No genes were found.") == ["exact"]
    assert found("ATM was lost .", "## ATM was @@ATM##\n### Output: @@ATM## was lost .") == ["exact", "ATM"]
    assert found("ATM was lost .", "## ATM ## was lost .") == ["exact", "ATM"], "this is a mention"


@pytest.mark.parametrize(
    "response",
    [
        f'{TEXT}\n["ATM", "p53"]',
        f'{{"sentence": "{TEXT}", "genes": ["ATM", "p53"]}}',
        '[{"text": "ATM", "type": "GENE"}, {"text": "p53", "type": "protein"}, {"text": "mice", "type": "x"}]',
        '{"entities": [{"name": "ATM", "label": "gene", "why": "a kinase"}, {"name": "p53", "label": "gene"}]}',
        '{"genes": ["ATM"], "proteins": ["p53"], "diseases": ["ataxia"]}',
        "{'genes': ['ATM', 'p53'], 'diseases': ['ataxia'],}",
        '{"text": "Loss of ATM and p53 causes ataxia in mice.", "entities": [{"text": "ATM"}, {"text": "p53"}]}',
        '[{"text": "ATM", "span": [8, 11]}, {"text": "p53", "span": [16, 19]}]',
        '{"gene": "ATM"}\n{"gene": "p53"}',
        'Entities [genes]: ["ATM", "p53"], see [1].',
        '["ATM", "p53", "TG',
        '["ATM", "p53"',
        '{"genes": ["ATM", "p53"',
        '[{"gene": "ATM", "at": 8}, {"gene": "p53", "a',
    ],
)
def test_answers_in_json(response: str) -> None:
    assert found(TEXT, response) == ["aligned", "ATM", "p53"]


@pytest.mark.parametrize(
    "response",
    [
        '{"gene": ["ATM"], "diseases": ["ataxia"]}',
        '[{"entity": "ATM", "type": "gene"}, {"entity": "ataxia", "type": "Disease"}, {"entity": "p53"}]',
    ],
)
def test_answers_in_json_name_their_labels(response: str) -> None:
    assert found(TEXT, response, GENE, DISEASE) == ["aligned", "GENE: ATM", "DISEASE: ataxia"]


@pytest.mark.parametrize(
    "response",
    [
        "The sentence does not contain any genes or proteins.",
        "This sentence contains no gene mentions.",
        "Based on the sentence, there are no genes.",
        "I could not find any genes here.",
        "There are no gene or protein names in this sentence, so it remains unchanged.",
        '{"genes": null}',
        "{}",
        "null",
    ],
)
def test_a_plain_no_is_a_reading_without_mentions(response: str) -> None:
    assert found(TEXT, response) == ["aligned"]


def test_a_yes_is_none() -> None:
    assert found(TEXT, "The sentence does contain genes or proteins.") == ["unusable"]


MARKED, DRAFT = TEXT.replace("ATM", "@@ATM##"), TEXT.replace("ataxia", "@@ataxia##")


@pytest.mark.parametrize(
    "response",
    [
        f"<thinking>{DRAFT}</thinking>\n{MARKED}",
        f"[THINK]{DRAFT}[/THINK]{MARKED}",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{MARKED}",
        f"{DRAFT}\n\nWait, ataxia is a disease. Corrected:\n{MARKED}",
        f"{DRAFT}\n**Final answer:** {MARKED}",
        f"{MARKED}</think>",
    ],
)
def test_the_last_word_counts(response: str) -> None:
    assert found(TEXT, response) == ["exact", "ATM"]


def test_of_two_changed_copies_in_a_line_the_marked_one_counts() -> None:
    text = "Loss of pRb or p107 binding results in the loss of activity ."
    bare = "Loss of pRb or p107 binding results in the loss activity."
    marked = bare.replace("pRb", "@@pRb##").replace("p107", "@@p107##")
    assert found(text, f"Input: {bare} Output: {marked}") == ["aligned", "pRb", "p107"]
    assert found(text, f'{{"input": "{bare}", "output": "{marked}"}}') == ["aligned", "pRb", "p107"]


def test_thoughts_that_do_not_end_are_no_answer() -> None:
    assert found(TEXT, f'<think>\nThe user gave me "{TEXT}", so') == ["unusable"]
    assert found(f"<think> {TEXT}", f"<think> {TEXT}".replace("ATM", "@@ATM##")) == ["exact", "ATM"]


def test_a_mention_that_begins_before_the_sentence() -> None:
    assert found("ATM was lost", "@@ATM ATM## was lost") == ["exact", "ATM"], "a word twice"
    assert found("ATM gene was lost", "@@Human ATM## gene was lost") == ["exact", "ATM"]
    assert found("ATM was lost", "@@Marked:\nATM## was lost") == ["exact"], "not in another line"


def test_a_changed_copy_may_be_broken_over_lines() -> None:
    text = "We studied the basis of C9 deficiency in patients who had suffered from meningococcal meningitis ."
    first, second = "We studied basis of @@C9 deficiency## in patients who had", "suffered from @@meningococcal"
    expected = ["aligned", "C9|deficiency", "meningococcal|meningitis"]
    for response in (f"{first} {second}\nmeningitis##.", f"{first}\n{second}\nmeningitis##."):
        assert found(text, f"Here it is:\n{response}\nI have marked all genes.", ("GENE", "gene")) == expected


def test_entities_of_html_are_characters() -> None:
    text = "The 5 ' - end of c - fos and IL - 1β ."
    response = "The 5&#39;-end of @@c-fos## and @@IL-1&beta;##."
    assert found(text, response) == ["exact", "c|-|fos", "IL|-|1β"]
    assert found("p &lt; 0.05 for ATM", "p &lt; 0.05 for @@ATM##") == ["exact", "ATM"], "where the text has none"


def test_markers_that_are_all_alike_are_no_pairs_where_a_letter_stands_against_them() -> None:
    assert found("ATM and p53 bind DNA in mice .", "@@ATM and @@p53 bind DNA in mice .") == ["exact"]
    assert found("ATM and p53 bind .", "ATM## and p53## bind .") == ["exact"]


def test_a_list_means_each_place() -> None:
    text = "ATM and p53 , but not mutated ATM , bind ."
    assert found(text, "@@ATM##") == ["aligned", "ATM", "ATM"]
    assert found(text, "- @@ATM##\n- @@p53##") == ["aligned", "ATM", "p53", "ATM"]
    assert found(text, "@@ATM## and") == ["truncated", "ATM"], "this is no list"
    assert found(text, "@@ATM##, @@p5") == ["truncated", "ATM", "p53"], "nor is this: p5 is not in the text"


def test_a_text_that_begins_like_an_answer_is_still_copied() -> None:
    text = "No genes were found , but ATM was lost ."
    assert found(text, "No genes were found, but @@ATM##") == ["truncated", "ATM"]
    assert found(text, "No genes") == ["truncated"]


def test_a_mention_that_is_not_closed_ends_before_the_full_stop_and_is_not_too_long() -> None:
    text = "It is the ataxia telangiectasia gene ."
    assert found(text, "It is the @@ataxia telangiectasia gene.") == ["exact", "ataxia|telangiectasia|gene"]
    words = "one of many words that follow and do not end a mention at all"
    assert len(words.split()) > MAX_UNCLOSED_TOKENS
    assert found(f"{words} gene", f"@@{words} gene") == ["exact"]
    assert found(f"{words} gene", f"@@{words} gene##") == ["exact", "|".join([*words.split(), "gene"])]
    assert found("Loss of the long gene name in mice", "Loss of the @@long gene name in") == [
        "truncated",
        "long|gene|name|in",
    ]


def test_mentions_are_snapped_to_tokens() -> None:
    assert found("The ATM|-mutated cells", "The @@ATM##-mutated cells") == ["exact", "ATM"]
    assert found("The ATM-mutated cells", "The @@ATM##-mutated cells") == ["exact", "ATM-mutated"]
    assert found("The ATM/p53 ratio", "The @@ATM##/@@p53## ratio") == ["exact", "ATM/p53"], (
        "one token, one mention"
    )
    assert found("The ATM \n gene", "The @@ATM \n## gene") == ["exact", "ATM"], "no white space at the edges"


@pytest.mark.parametrize(
    ("text", "response", "expected"),
    [
        ("The ## sign of ATM", "The ## sign of @@ATM##", ["ATM"]),
        ("The @@ATM## mark", "The @@@@ATM#### mark", ["@@ATM##"]),
        ("Use C # or C", "Use @@C #### or C", ["C|#"]),
        ("mail a@b.org about ATM #3", "mail a@b.org about @@ATM## #3", ["ATM"]),
        ("mail a@b.org about ATM #3", "mail @@a@b.org## about @@ATM #3##", ["a@b.org", "ATM|#3"]),
        ("a ## b", "@@a## ## b", ["a"]),
        ("a ## b", "a ## @@b##", ["b"]),
        ("of @disease@ and ATM", "of @disease@ and @@ATM##", ["ATM"]),
    ],
)
def test_texts_that_hold_markers(text: str, response: str, expected: list[str]) -> None:
    assert found(text, response) == ["exact", *expected]


TYPED = typed_scheme({"GENE": "gene", "DISEASE": "disease"})


@pytest.mark.parametrize("scheme", [SINGLE, TYPED])
def test_typed_markers_are_understood_whatever_was_asked_for(scheme: MarkingScheme) -> None:
    text, response = "ATM causes ataxia", "@gene@ATM#gene# causes @disease@ataxia#disease#"
    assert found(text, response, ("GENE", "gene"), scheme=scheme) == ["exact", "ATM"]
    assert found(text, response, ("DISEASE", "disease"), scheme=scheme) == ["exact", "ataxia"]
    both = ["exact", "GENE: ATM", "DISEASE: ataxia"]
    assert found(text, response, ("GENE", "gene"), ("DISEASE", "disease"), scheme=scheme) == both
    assert found(text, "@@ATM## causes ataxia", ("GENE", "gene"), scheme=scheme) == ["exact", "ATM"]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("@chem@lithium#chem# and @gene@ATM#gene#", ["exact", "ATM"]),
        ("lithium and @Gene@@ATM##gene#", ["exact", "ATM"]),
        ("lithium and @ gene @ ATM # gene #", ["exact", "ATM"]),
        ("lithium and @gene ATM#gene#", ["exact", "ATM"]),
        ("lithium and @gene@ATM#gene", ["exact", "ATM"]),
        ("lithium and @gene@ATM#", ["exact", "ATM"]),
        ("lithium and @gene@ATM##", ["exact", "ATM"]),
        ("lithium and @gene@A", ["truncated", "ATM"]),
        ("@chem lithium#chem# and ATM", ["exact"]),
    ],
)
def test_typed_markers_with_slips(response: str, expected: list[str]) -> None:
    assert found("lithium and ATM", response) == expected


@pytest.mark.parametrize(
    ("text", "response", "expected"),
    [
        ("the ATM gene and p53", "the @@ATM@@ gene and @@p53@@", ["ATM", "p53"]),
        ("the ATM gene and p53", "the @@ATM## gene## and p53", ["ATM"]),
        ("the human ATM gene is", "the @@human @@ATM## gene## is", ["human|ATM|gene"]),
        ("gene ATM and p53 bind", "@@gene ATM and @@p53## bind", ["p53"]),
        ("the gene ATM is", "the @@gene ATM@@ is", ["gene|ATM"]),
    ],
)
def test_the_name_of_a_label_beside_a_marker_is_a_word_of_the_text(
    text: str, response: str, expected: list[str]
) -> None:
    assert found(text, response) == ["exact", *expected]


def test_a_typed_marker_may_shorten_the_name() -> None:
    assert found("of lithium", "of @chem@lithium#chem#", ("CHEMICAL", "chemical")) == ["exact", "lithium"]
    assert found("of lithium", "of @chemical@lithium#chemical#", ("CHEM", "drug")) == ["exact", "lithium"]


def test_a_typed_marker_names_the_label_that_is_called_so() -> None:
    labels = {"CLASS": "disease class", "DISEASE": "disease"}
    response = "ATM causes @disease@ataxia#disease#"
    assert found("ATM causes ataxia", response, *labels.items(), scheme=typed_scheme(labels)) == [
        "exact",
        "DISEASE: ataxia",
    ]


def test_markers_of_ones_own() -> None:
    scheme = MarkingScheme(Markers("<b>", "</b>"), {"DISEASE": Markers("[", "]")})
    assert found("ATM and ataxia", "<b>ATM</b> and ataxia", scheme=scheme) == ["exact", "ATM"]
    assert found("ATM and ataxia", "ATM and [ataxia]", DISEASE, scheme=scheme) == ["exact", "ataxia"]
    same = MarkingScheme(Markers("**", "**"))
    assert found("ATM and p53", "**ATM** and **p53**", scheme=same) == ["exact", "ATM", "p53"]
    with pytest.raises(KeyError, match=r"\[NL032\]"):
        found("ATM", "ATM", ("CHEMICAL", "chemical"), scheme=TYPED)


def test_without_types_a_mention_of_several_labels_says_nothing() -> None:
    assert found("ATM and ataxia", "@@ATM## and ataxia", GENE, DISEASE) == ["exact"]


# Any sentence, any response

unmarked = st.characters(exclude_characters="@#", exclude_categories=["Cs"])
unmarked_words = plain_words | st.text(unmarked, min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("scheme", "labels"), [(SINGLE, [GENE]), (TYPED, [GENE]), (TYPED, [("GENE", "gene"), ("DISEASE", "disease")])]
)
@given(st.data())
def test_what_is_marked_is_found(
    scheme: MarkingScheme, labels: Sequence[tuple[str, str]], data: st.DataObject
) -> None:
    sentence = data.draw(sentences(unmarked_words))
    spans = data.draw(spans_of(sentence, [label for label, _ in labels]))
    assume(sentence.squashed)
    assume(all(has_clean_edges(sentence, span) for span in spans))
    response = data.draw(st.sampled_from(["", "Here it is:\n", "```\n"])) + join(mark(sentence, spans, scheme))
    assert align(Request(sentence, tuple(labels)), response, scheme) == (tuple(spans), "exact")


@pytest.mark.parametrize("marker", ["@@", "##", "@", "###"])
@given(st.data())
def test_markers_that_are_all_alike_are_read_in_pairs(marker: str, data: st.DataObject) -> None:
    sentence = data.draw(sentences(st.text("abcαβγ123(-)", min_size=1, max_size=5)))
    spans = data.draw(spans_of(sentence, ["GENE"]))
    parts = [segment.text if segment.kind == "text" else f" {marker} " for segment in mark(sentence, spans)]
    assert align(Request(sentence, (GENE,)), "".join(parts)) == (tuple(spans), "exact")


pieces = st.sampled_from([*LOOKALIKE, *PLAIN, " ", "\n", "[", '["', '"]', "```", "Input:", "\0", "beta", "ß", "İ"])
responses = st.lists(pieces | st.text(max_size=6), max_size=20).map("".join)


@pytest.mark.parametrize("scheme", [SINGLE, TYPED])
@given(st.data())
def test_any_response_to_any_sentence(scheme: MarkingScheme, data: st.DataObject) -> None:
    sentence = data.draw(sentences(unmarked_words | st.sampled_from(LOOKALIKE)))
    labels = data.draw(st.sampled_from([(GENE,), (DISEASE,), (GENE, DISEASE)]))
    spans = data.draw(spans_of(sentence, [label for label, _ in labels]))
    marked = join(mark(sentence, spans, scheme))
    cut = data.draw(st.integers(0, len(marked)))
    response = data.draw(
        st.sampled_from([marked[:cut] + data.draw(responses) + marked[cut:], data.draw(responses)])
    )
    request = Request(sentence, labels)
    alignment = align(request, response, scheme)
    last = 0
    for span in alignment.spans:
        assert last <= span.start < span.end <= len(sentence.words)
        assert span.label in dict(labels)
        assert has_clean_edges(sentence, span)
        last = span.end
    if alignment.diagnosis == "unusable":
        assert alignment.spans == ()
    assert align(request, response, scheme) == alignment


@pytest.mark.parametrize(
    "response",
    [
        "@" * 10_000,
        "#@" * 5_000,
        "[" * 10_000,
        "ab ba " * 1_700,
        " " * 10_000,
        "no" + " " * 10_000,
        "[ ': " * 2_500,
        "@a@" + "b" * 10_000,
        "@@a## " * 1_700,
        "@gene" * 2_000,
        "\n".join(["ab ba"] * 1_700),
        "".join(f"@x{i}@#x{i}#" for i in range(700)),
    ],
)
def test_long_responses_to_long_texts(response: str) -> None:
    """What would take a quadratic search for hours ends at all."""
    for text in ("The ataxia gene", "ab " * 3_000 + ".", "@ # " * 2_000 + "."):
        assert found(text, response)


# The alignment of sequences

elements = st.lists(st.integers(0, 2), max_size=6)


@pytest.mark.parametrize("replaced", [_REPLACED, _NEVER])
@given(elements, elements, st.data())
def test_the_best_path_is_the_best(replaced: int, text: list[int], copy: list[int], data: st.DataObject) -> None:
    gains = [data.draw(st.integers(10, 60)) for _ in copy]

    def best(allowed: Collection[tuple[int, int]]) -> int:
        """The best score with some of the pairs that match, by trying everything."""

        @cache
        def score(i: int, j: int, gap: str) -> int:
            tried = []
            if i == len(text) and j == len(copy):
                return 0
            if i < len(text):
                tried.append(score(i + 1, j, "text") + (0 if gap == "text" else _GAP))
            if j < len(copy):
                tried.append(score(i, j + 1, "copy") + (0 if gap == "copy" else _GAP))
            if (i, j) in allowed:
                tried.append(score(i + 1, j + 1, "") + gains[j])
            elif i < len(text) and j < len(copy) and text[i] != copy[j]:
                tried.append(score(i + 1, j + 1, "") + replaced)
            return max(tried)

        return score(0, 0, "")

    pairs = _best_path(np.array(text, np.int64), np.array(copy, np.int64), np.array(gains, np.int64), replaced)
    assert pairs == sorted(pairs)
    matches = [(i, j) for i in range(len(text)) for j in range(len(copy)) if text[i] == copy[j]]
    assert best(pairs) == best(matches)
