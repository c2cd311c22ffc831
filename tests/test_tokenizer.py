from pathlib import Path

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.language import Language

CONFIG = {"nlp": {"tokenizer": {"@tokenizers": "nerllama.BioTokenizer.v1"}}}
NLP = spacy.blank("en", config=CONFIG)


def words(text: str, nlp: Language = NLP) -> list[str]:
    return [token.text for token in nlp(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p16(INK4A) and G(q)/G(11)", "p16 ( INK4A ) and G ( q ) / G ( 11 )"),
        ("(AAP)-induced", "( AAP ) -induced"),
        ("L-[3H]nicotine", "L- [ 3H ] nicotine"),
        ("ketamine- or saline+DMSO", "ketamine - or saline + DMSO"),
        ("K+ and Ca(2+)", "K + and Ca ( 2 + )"),
        ("hepatitis C. No", "hepatitis C . No"),
        ("TGF-β1/Smad3", "TGF - β1 / Smad3"),
        ("p53-/- or 1.2+/-0.3", "p53 -/- or 1.2 +/- 0.3"),
    ],
)
def test_mentions_fall_on_tokens(text: str, expected: str) -> None:
    assert words(text) == expected.split()


@pytest.mark.parametrize(
    "text", ["1,000 mg", "7.4", "K-12", "IL-2Rα", "https://a.org/b(c)/d+e", "e.g.", "U.S.", "5-HT", "p<0.05"]
)
def test_the_rest_is_as_spacy_has_it(text: str) -> None:
    assert words(text) == words(text, spacy.blank("en"))


@given(st.text(st.sampled_from("aB1.,;:()[]-+/−β \n'"), max_size=20))
def test_no_character_is_lost(text: str) -> None:
    assert NLP(text).text == text


def test_it_is_saved_with_its_pipeline(tmp_path: Path) -> None:
    text = "p53-/- mice (AAP)-induced, hepatitis C."
    NLP.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    assert words(text, loaded) == words(text)
    assert loaded.config["nlp"]["tokenizer"] == CONFIG["nlp"]["tokenizer"]
    assert words(text, spacy.blank("en").from_bytes(NLP.to_bytes())) == words(text), "its settings are its state"
    assert words(text, spacy.util.load_model_from_config(NLP.config)) == words(text)
