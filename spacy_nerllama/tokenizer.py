"""A tokenizer for biomedical English: spaCy's, with more places to cut, so that mentions fall on tokens."""

from collections.abc import Callable

from spacy.lang.char_classes import ALPHA_UPPER
from spacy.language import Language
from spacy.tokenizer import Tokenizer
from spacy.util import compile_infix_regex, compile_prefix_regex, compile_suffix_regex

_SIGNS = r"[-\u2212+]/[-\u2212+]"  # one token: "1.2 +/- 0.3", "p53-/-"; U+2212 is the minus sign
_EDGE = r"[-\u2212/+]"  # "ketamine-", "K+", "JNK/"
_DOT = rf"(?<=[{ALPHA_UPPER}])(?<!\.[{ALPHA_UPPER}])\."  # "hepatitis C." at the end of a sentence, but "U.S."
_INSIDE = r"[()\[\]/+]"  # "p16(INK4A)", "AAP)-induced", "[3H]nicotine", "G(q)/G(11)", "saline+DMSO"


def make_bio_tokenizer() -> Callable[[Language], Tokenizer]:
    """Make the tokenizer of a pipeline: that of its language, with more places to cut.

    It also cuts at brackets, `/` and `+` inside of words, at hyphens at their edges, and before a dot after a
    capital; in between, hyphens, digits and Greek letters are left as spaCy has them. What it changes lies in
    the settings of spaCy's tokenizer, which a saved pipeline keeps. Registered as `nerllama.BioTokenizer.v1`.
    """

    def create(nlp: Language) -> Tokenizer:
        defaults = nlp.Defaults
        return Tokenizer(
            nlp.vocab,
            rules=defaults.tokenizer_exceptions,
            prefix_search=compile_prefix_regex([_SIGNS, *(defaults.prefixes or []), _EDGE]).search,
            suffix_search=compile_suffix_regex([_SIGNS, *(defaults.suffixes or []), _EDGE, _DOT]).search,
            infix_finditer=compile_infix_regex([_SIGNS, *(defaults.infixes or []), _INSIDE]).finditer,
            token_match=defaults.token_match,
            url_match=defaults.url_match,
        )

    return create
