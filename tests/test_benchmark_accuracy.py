"""The accuracy benchmark in small: its peers learn, are kept and scored as ours is, and nothing is done twice."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import spacy
from spacy.tokens import Doc

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SPLITS = {
    "train": ["Anna", "Bert", "Carla", "David", "Emma", "Felix"],
    "devel": ["Gina", "Hugo"],
    "test": ["Ida", "Jan", "Klara"],
}
ILLNESSES = ["gout", "asthma", "atopic eczema"]


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """A folder with one corpus, in which the words after "has" are a disease."""
    folder = tmp_path / "corpora" / "iob" / "NCBI-disease"
    folder.mkdir(parents=True)
    for split, people in SPLITS.items():
        lines = []
        for who in people:
            lines += [f"{who}\tO", "is\tO", "well\tO", ".\tO", ""]
            for illness in ILLNESSES:
                first, *rest = illness.split()
                tags = [f"{first}\tB-Disease", *(f"{word}\tI-Disease" for word in rest)]
                lines += [f"{who}\tO", "has\tO", *tags, ".\tO", ""]
        (folder / f"{split}.tsv").write_text("\n".join(lines))
    return tmp_path / "corpora"


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder with random weights, which knows letters and their continuations."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    characters = [chr(i) for i in range(33, 127)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *characters, *(f"##{each}" for each in characters)]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    folder = tmp_path_factory.mktemp("letters")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(vocab), max_position_embeddings=40, **sizes)
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers train for seconds, in this process."""
    import accuracy
    import few_labels
    import peers

    monkeypatch.setattr(peers, "NER", {"max_steps": 81, "eval_frequency": 80})
    for name, value in {"EPOCHS": 12, "LEAST_STEPS": 1, "BATCH": 4, "RATE": 3e-3}.items():
        monkeypatch.setattr(peers, name, value)
    for module in (accuracy, few_labels):
        monkeypatch.setattr(module, "alone", lambda function, *arguments: function(*arguments))


def command(monkeypatch: pytest.MonkeyPatch, main, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, arguments)])
    main()


def results(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf8").splitlines()]


@pytest.mark.usefixtures("small")
def test_peers_learn_and_are_trained_and_scored_once(
    corpora: Path,
    letters: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import accuracy

    peers = ["spaCy ner", "MiniLM tagger"]
    arguments = ["--corpora", corpora, "--models", tmp_path / "models", "--encoder", letters, "--systems", *peers]
    arguments += ["--only", "NCBI-disease", "--limit", 8, "--output", tmp_path / "out.jsonl"]
    (tmp_path / "docs").mkdir()
    marked = "before\n<!-- accuracy table -->\nold\n<!-- end of accuracy table -->\nafter"
    (tmp_path / "README.md").write_text(marked)
    (tmp_path / "docs" / "results.md").write_text(marked)
    command(monkeypatch, accuracy.main, *arguments, "--update", tmp_path)
    first = results(tmp_path / "out.jsonl")
    assert [(each["system"], each["sentences"]) for each in first] == [(peer, 8) for peer in peers]
    for each in first:
        micro = each["strict"]["micro"]
        assert micro["f1"] > 0.6, "the test sentences are like the training sentences"
        assert micro["gold"] == 7
        assert each["sentences_per_second"] > 0
        assert each["peak_memory"] > each["size"] > 10_000
    assert f"| spaCy ner | {first[0]['strict']['micro']['f1']:.3f} (" in capsys.readouterr().out
    table = (tmp_path / "README.md").read_text()
    assert table.startswith("before\n<!-- accuracy table -->\n| F1")
    assert table.endswith("|\n<!-- end of accuracy table -->\nafter")
    assert (tmp_path / "docs" / "results.png").stat().st_size > 10_000

    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "models").rglob("*")}
    command(monkeypatch, accuracy.main, *arguments)
    assert results(tmp_path / "out.jsonl") == first, "nothing was done again"
    command(monkeypatch, accuracy.main, *arguments, "--limit", 4)
    assert len(results(tmp_path / "out.jsonl")) == 4, "another limit is another result"
    assert trained == {path: path.stat().st_mtime_ns for path in (tmp_path / "models").rglob("*")}


@pytest.mark.usefixtures("small")
def test_ours_and_the_bare_base(
    corpora: Path, tiny_base: Path, tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import accuracy

    arguments = ["--corpora", corpora, "--base", tiny_base, "--adapter", tiny_adapter, "--limit", 2]
    arguments += ["--models", tmp_path / "models", "--only", "NCBI-disease", "--output", tmp_path / "out.jsonl"]
    command(monkeypatch, accuracy.main, *arguments, "--systems", *accuracy.OURS, *accuracy.SHOTS)
    found = {each["system"]: each for each in results(tmp_path / "out.jsonl")}
    assert list(found) == [*accuracy.OURS, *accuracy.SHOTS]
    assert found["ours, exact"]["settings"]["thresholds"] == {"DISEASE": 0.2}
    assert "adapter" not in found["base, 3-shot"]["settings"]
    assert found["ours, exact"]["size"] > found["base, 3-shot"]["size"], "an adapter adds to its base"
    assert found["ours, exact"]["calibration"]["ece"] >= 0
    assert len({each["data"] for each in found.values()}) == 1


@pytest.mark.usefixtures("small")
def test_few_labels(
    corpora: Path,
    letters: Path,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import few_labels

    unseen = corpora / "iob" / "BC5CDR-disease"
    unseen.mkdir()
    (unseen / "test.tsv").write_text("Ida\tO\nhas\tO\nscurvy\tB-Disease\n.\tO\n")
    arguments = ["--corpora", corpora, "--models", tmp_path / "models", "--encoder", letters, "--limit", 4]
    arguments += ["--base", tiny_base, "--sizes", 50, "--output", tmp_path / "few.jsonl"]
    command(monkeypatch, few_labels.main, *arguments, "--systems", "ours, exact", "MiniLM tagger")
    ours, unseen, tagger, _ = results(tmp_path / "few.jsonl")
    assert (ours["corpus"], unseen["corpus"]) == ("NCBI-disease", "BC5CDR-disease")
    assert ours["data"] != unseen["data"]
    assert (ours["labelled"], ours["settings"]["epochs"]) == (50, few_labels.TRAINING[50]["epochs"])
    assert tagger["strict"]["micro"]["f1"] > 0.3
    out = capsys.readouterr().out
    assert "| tested on | system | 50 sentences |" in out
    assert f"| NCBI-disease | MiniLM tagger | {tagger['strict']['micro']['f1']:.3f} (" in out
    command(monkeypatch, few_labels.main, *arguments, "--systems", "ours, exact", "MiniLM tagger")
    assert len(results(tmp_path / "few.jsonl")) == 4, "what is there is not run again"


def test_the_tagger_reads_the_first_piece_of_each_token_and_travels(letters: Path, tmp_path: Path) -> None:
    import peers  # noqa: F401 (registers the component)

    nlp = spacy.blank("en")
    tagger = nlp.add_pipe("encoder_tagger")
    tagger.load(letters, id2label={0: "O", 1: "B-DISEASE", 2: "I-DISEASE"})
    inputs, first = tagger._encode([["has", "gout", "."], ["a" * 90, "b"]])
    assert inputs["input_ids"].shape == (2, tagger.limit)
    assert first == [{0: 1, 1: 4, 2: 8}, {0: 1}], "what is beyond the longest input has no place"
    docs = [Doc(nlp.vocab, words=["Ida", "has", "gout", "."]), Doc(nlp.vocab, words=["well"]), nlp.make_doc("")]
    expected = [[(e.start, e.end, e.label_) for e in doc.ents] for doc in nlp.pipe(docs)]
    nlp.to_disk(tmp_path / "pipeline")
    again = spacy.load(tmp_path / "pipeline")
    docs = [Doc(again.vocab, words=["Ida", "has", "gout", "."]), Doc(again.vocab, words=["well"]), again("")]
    assert [[(e.start, e.end, e.label_) for e in doc.ents] for doc in again.pipe(docs)] == expected


def test_a_process_of_its_own() -> None:
    import accuracy

    assert accuracy.alone(os.getpid) != os.getpid()


def test_gold_docs_are_the_same_sample_every_time(corpora: Path) -> None:
    import accuracy

    nlp = spacy.blank("en")
    whole = [doc.text for doc in accuracy.gold_docs(corpora, "NCBI-disease", nlp)]
    five = [doc.text for doc in accuracy.gold_docs(corpora, "NCBI-disease", nlp, 5)]
    seven = [doc.text for doc in accuracy.gold_docs(corpora, "NCBI-disease", nlp, 7)]
    assert len(whole) == 12
    assert len(five) == 5
    assert five == seven[:5]
    assert five != whole[:5]
    train = accuracy.gold_docs(corpora, "NCBI-disease", nlp, split="train")
    assert len(train) == 24
    assert {ent.label_ for doc in train for ent in doc.ents} == {"DISEASE"}


def result(system: str, right: list[int]) -> dict:
    """A result on documents of one gold and one predicted entity each, right (1) or wrong (0)."""
    from spacy_nerllama.evaluation import CharSpan, DocSpans
    from spacy_nerllama.evaluation.result import measure

    docs = [
        DocSpans("gout or not", (CharSpan(0, 4, "GENE"),), (CharSpan(0, 4 if each else 7, "GENE"),))
        for each in right
    ]
    figures = measure(docs)
    speed = {"sentences": len(right), "sentences_per_second": 12.5, "threads": 2}
    return {
        **{"system": system, "corpus": "BC2GM", "data": "same", "peak_memory": 5e8, "size": 2e8},
        **{**speed, **figures},
    }


def test_the_tables(tmp_path: Path) -> None:
    import accuracy

    found = [result("ours, exact", [1, 1, 1, 0]), result("spaCy ner", [1, 0, 0, 0])]
    short = accuracy.short_table(found).splitlines()
    assert short[0] == "| F1 (95 % interval) | BC2GM |"
    assert short[3].startswith("| ours, exact | 0.750 (")
    assert "| *BiomedBERT, 110M, quoted* | *0.845* |" in short
    ours, peer = (line.split(" | ") for line in accuracy.long_table(found).splitlines()[2:])
    assert ours[7:9] == ["", ""], "what the others are compared with"
    assert peer[3:6] == ["0.2500"] * 3
    assert peer[7] == "-0.5000"
    assert peer[9:] == ["4", "12.5", "2", "500", "200 |"]
    other = {**found[1], "data": "another"}
    assert accuracy.difference(other, found[0], "GENE") == ["", ""], "other sentences are not compared"


def test_a_result_is_of_an_adapter_and_its_thresholds(tiny_base: Path, tiny_adapter: Path) -> None:
    import accuracy

    settings = SimpleNamespace(limit=5, base=str(tiny_base), adapter=str(tiny_adapter), quantization=None)
    ours = accuracy.what_counts("ours, greedy", settings)
    assert ours["thresholds"] == {"DISEASE": 0.2}
    assert accuracy.what_counts("spaCy ner", settings) == {"limit": 5}
    settings.adapter = None
    assert accuracy.what_counts("ours, greedy", settings) == accuracy.what_counts("base, 3-shot", settings)
