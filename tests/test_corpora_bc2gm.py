from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_nerllama.corpora import Mention, read_bc2gm, read_corpus
from spacy_nerllama.corpora.bc2gm import character_span

SENTENCES = "S1 The KCNH2 and  SCN5A  genes.\nS2 Nothing here.\nS3 Loss of Gal4/Gal11 protein.\n"
MENTIONS = "S1|3 7|KCNH2\nS1|11 15|SCN5A\nS3|11 22|Gal11 protein\n"


def write(folder: Path, sentences: str, mentions: str) -> Path:
    (folder / "part.GENE.eval").write_text(mentions, encoding="utf-8")
    path = folder / "part.in"
    path.write_text(sentences, encoding="utf-8")
    return path


def test_offsets_do_not_count_white_space(tmp_path: Path) -> None:
    first, second, third = read_bc2gm(write(tmp_path, SENTENCES, MENTIONS))
    assert first.text == "The KCNH2 and  SCN5A  genes."
    assert first.mentions == (Mention(4, 9, "GENE", "KCNH2"), Mention(15, 20, "GENE", "SCN5A"))
    assert (second.id, second.mentions) == ("S2", ())
    assert third.mentions == (Mention(13, 26, "GENE", "Gal11 protein"),)
    assert first.is_sentence


def test_the_mentions_may_lie_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path, SENTENCES, MENTIONS)
    elsewhere = (tmp_path / "part.GENE.eval").rename(tmp_path / "gold")
    assert len(list(read_bc2gm(path, elsewhere))) == 3
    with pytest.raises(FileNotFoundError, match=r"NL105.*part\.GENE\.eval"):
        list(read_bc2gm(path))


@pytest.mark.parametrize("offsets", ["10 22", "12 23", "9 20"])
def test_offsets_that_miss_the_mention_by_little_are_corrected_and_counted(tmp_path: Path, offsets: str) -> None:
    *_, third = read_bc2gm(write(tmp_path, SENTENCES, f"S3|{offsets}|Gal11 protein\n"))
    assert third.mentions == (Mention(13, 26, "GENE", "Gal11 protein"),)
    assert third.corrected == 1


@pytest.mark.parametrize(
    ("sentences", "mentions", "message"),
    [
        (SENTENCES, "S1|3 7|KCNH2\nS1|17 21|SCN5A\n", r"NL102.*eval, line 2.*SCN5A"),  # behind the mention
        (SENTENCES, "S1|3 70|KCNH2\n", r"NL130.*eval, line 1"),  # behind the end
        (SENTENCES, "S1|7 3|KCNH2\n", r"NL130.*eval, line 1"),
        (SENTENCES, "S3|6 22|Gal\n", r"NL102.*eval, line 1"),  # twice within the offsets
        (SENTENCES, "S1|3 7\n", r"NL107.*eval, line 1"),
        (SENTENCES, "S1|a b|KCNH2\n", r"NL107.*eval, line 1"),
        (SENTENCES, "S1|3 7|KCNH2\nS9|3 7|KCNH2\n", r"NL106.*eval, line 2.*S9"),
        (SENTENCES + "S1 Again.\n", "", r"NL104.*part\.in, line 4"),
        ("S1\n", "", r"NL104.*part\.in, line 1"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, sentences: str, mentions: str, message: str) -> None:
    path = write(tmp_path, sentences, mentions)
    with pytest.raises(ValueError, match=message):
        list(read_corpus(path, "bc2gm"))


@given(st.text(st.sampled_from("aB1 \t\u00a0\u03b1-"), min_size=1), st.data())
def test_character_span_inverts_counting(text: str, data: st.DataObject) -> None:
    """For a mention that neither begins nor ends in white space, its two counts give its characters back."""
    solid = [i for i, character in enumerate(text) if not character.isspace()]
    if not solid:
        assert character_span(text, 0, 0) is None
        return
    start = data.draw(st.sampled_from(solid))
    last = data.draw(st.sampled_from([i for i in solid if i >= start]))
    before = len("".join(text[:start].split()))
    length = len("".join(text[start : last + 1].split()))
    assert character_span(text, before, before + length - 1) == (start, last + 1)
