from pathlib import Path

import pytest

from spacy_nerllama.corpora import Mention, Passage, detect_format, read_corpus, read_hf

datasets = pytest.importorskip("datasets")

KB = {
    "id": "0",
    "document_id": "77",
    "passages": [
        {"id": "p1", "type": "title", "text": ["Ataxia."], "offsets": [[0, 7]]},
        {"id": "p2", "type": "abstract", "text": ["Breast and ovarian cancer."], "offsets": [[9, 35]]},
    ],
    "entities": [
        {"id": "e1", "type": "Disease", "text": ["Ataxia"], "offsets": [[0, 6]]},
        {
            "id": "e2",
            "type": "Disease",
            "text": ["Breast", "cancer"],
            "offsets": [[9, 15], [28, 34]],
            "normalized": [],
        },
        {"id": "e3", "type": "Disease", "text": ["ovarian cancer"], "offsets": [[20, 34]]},
    ],
}
TAGS = {"id": ["0", "1"], "tokens": [["Rare", "ataxia"], ["No", "pain"]], "ner_tags": [[0, 1], [0, 0]]}


def class_labels(names: list[str]):
    label = datasets.ClassLabel(names=names)
    return datasets.Features(
        {"id": datasets.Value("string"), "tokens": datasets.Sequence(datasets.Value("string")),
         "ner_tags": datasets.Sequence(label)}
    )  # fmt: skip


def test_bigbio_passages_and_entities(tmp_path: Path) -> None:
    datasets.Dataset.from_list([KB]).save_to_disk(tmp_path / "kb")
    (document,) = read_hf(tmp_path / "kb")
    assert (document.id, document.text) == ("77", "Ataxia. Breast and ovarian cancer.")
    assert document.passages == (Passage(0, 7, 0, "title"), Passage(8, 34, 9, "abstract"))
    assert document.mentions == (Mention(0, 6, "Disease", "Ataxia"), Mention(19, 33, "Disease", "ovarian cancer"))
    assert document.discontinuous == 1
    assert detect_format(tmp_path / "kb") == "hf"


def test_class_labels_of_a_split(tmp_path: Path) -> None:
    part = datasets.Dataset.from_dict(TAGS, features=class_labels(["O", "B-Disease", "I-Disease"]))
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(tmp_path / "tags")
    first, second = read_corpus(tmp_path / "tags", split="test")
    assert (first.words, first.mentions) == (("Rare", "ataxia"), (Mention(5, 11, "Disease", "ataxia"),))
    assert (second.id, second.mentions, second.is_sentence) == ("1", (), True)
    with pytest.raises(ValueError, match=r"NL124.*no split None, but train, test.*--split"):
        list(read_hf(tmp_path / "tags"))


@pytest.mark.parametrize("folder", [True, False])
def test_parquet_with_numbers_for_bare_tags(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "tags" / "train.parquet"
    path.parent.mkdir()
    datasets.Dataset.from_dict(TAGS).to_parquet(path)
    source = path.parent if folder else path
    first, _ = read_corpus(source, label="DISEASE")
    assert first.mentions == (Mention(5, 11, "DISEASE", "ataxia"),)
    with pytest.raises(ValueError, match=r"NL109.*row 0.*--label"):
        list(read_corpus(source))


def test_parquet_keeps_class_labels(tmp_path: Path) -> None:
    features = class_labels(["O", "B-Disease", "I-Disease"])
    datasets.Dataset.from_dict(TAGS, features=features).to_parquet(tmp_path / "train.parquet")
    first, _ = read_corpus(tmp_path)
    assert first.mentions == (Mention(5, 11, "Disease", "ataxia"),)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"text": ["Ataxia."]}, r"NL123.*columns text"),
        ({"tokens": [["a", "b"]], "ner_tags": [["O"]]}, r"NL117.*row 0"),
        ({"tokens": [["a", " "]], "ner_tags": [["O", "O"]]}, r"NL117.*row 0"),
        ({"tokens": [["a"]], "ner_tags": [["Q"]]}, r"NL108.*row 0"),
        ({"tokens": [["a"]], "ner_tags": [[7]]}, r"NL108.*row 0"),
        ({"passages": [["a"]], "entities": [["b"]]}, r"NL117.*row 0"),
        ({"passages": [[]], "entities": [[{"type": "X", "text": ["a"], "offsets": [[0, 1]]}]]}, r"NL130.*row 0"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, rows: dict[str, list], message: str) -> None:
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "broken")
    with pytest.raises(ValueError, match=message):
        list(read_corpus(tmp_path / "broken", "hf"))


def test_a_dataset_that_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(ValueError, match="NL122"):
        list(read_hf(tmp_path))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(ValueError, match="NL122"):
        list(read_hf(tmp_path / "a.parquet"))
    with pytest.raises(ValueError, match=r"NL122.*hub"):  # and the tests are offline
        list(read_hf("nobody/no-such-dataset"))
