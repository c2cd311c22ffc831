"""`annotate --record`: a run that can be audited and played again without its model."""

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import spacy
import typer
from spacy.tokens import DocBin
from spacy_llm.registry import registry
from typer.testing import CliRunner

from spacy_nerllama.cli.annotate import annotate, annotate_cli
from spacy_nerllama.marking import SINGLE
from spacy_nerllama.models import Replay
from spacy_nerllama.models.cache import Recorder, text_key
from spacy_nerllama.models.records import Record
from spacy_nerllama.models.texts import Responses, TextModel
from spacy_nerllama.prompts import CompactPrompt
from spacy_nerllama.requests import Request, Sentence, TokenSpan
from spacy_nerllama.voting import Votes, Voting

LABELS = {"DISEASE": "disease", "GENE": "gene or protein"}
TEXTS = [
    "Mutations of the ATM gene cause ataxia telangiectasia.",
    "",
    "No lithium (2 mg) was given. TGF-β1 fell at night.",
    "p53",
    "Mutations of the ATM gene cause ataxia telangiectasia.",
    "Ataxia\n\nFew carriers had it; the @@ATM## gene was normal 😀.",
]

app = typer.Typer()
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(annotate_cli)


class Moody(TextModel):
    """Marks the first word, or another one each time it is asked; stops when it shall."""

    asked: list[str] = []
    stop_after: int | None = None

    def respond(self, prompts: Any, voting: Voting) -> Iterator[Responses]:
        for prompt in prompts:
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(prompt.shared)
            if "BROKEN" in prompt.shared:
                yield ValueError("broken")
                continue
            words = prompt.shared.split(" ")
            i = len(self.asked) % len(words)
            marked = " ".join([*words[:i], f"@@{words[i]}##", *words[i + 1 :]])
            yield [marked, f"Here it is:\n{marked}", prompt.shared, "I cannot."][: voting.samples or 1]


@pytest.fixture
def moody() -> dict[str, Any]:
    """The config of a component with this model."""
    Moody.asked, Moody.stop_after = [], None
    registry.llm_models.register("test.Moody.v1", func=Moody)
    return {
        "labels": LABELS,
        "model": {"@llm_models": "test.Moody.v1"},
        "voting": {"samples": 4, "threshold": 0.3},
    }


def pipeline(config: dict[str, Any], folder: Path) -> Path:
    nlp = spacy.blank("en")
    nlp.add_pipe("nerllama_ner", config=config)
    nlp.to_disk(folder)
    return folder


def texts(path: Path, of: Sequence[str] = TEXTS) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in of))
    return path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def annotated(path: Path) -> list[tuple[Any, ...]]:
    """All that the component sets."""
    docs = DocBin(store_user_data=True).from_disk(path).get_docs(spacy.blank("en").vocab)
    return [
        (
            doc.text,
            [(ent.start, ent.end, ent.label_) for ent in doc.ents],
            [(s.start, s.end, s.label_) for s in doc.spans["nerllama"]],
            doc.spans["nerllama"].attrs["scores"].tolist(),
        )
        for doc in docs
    ]


def entities(path: Path) -> list[list[str]]:
    docs = DocBin(store_user_data=True).from_disk(path).get_docs(spacy.blank("en").vocab)
    return [[ent.text for ent in doc.ents] for doc in docs]


def replay(config: dict[str, Any], records: Path, tmp_path: Path) -> None:
    """Do the recorded run again, without its model."""
    model = {"@llm_models": "nerllama.Replay.v1", "path": str(records)}
    folder = pipeline({**config, "model": model}, tmp_path / "replay")
    assert run(folder, tmp_path / "in.jsonl", tmp_path / "again.spacy")[0] == 0


def replayed(config: dict[str, Any], records: Path, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What the recorded run gives without its model."""
    replay(config, records, tmp_path)
    return annotated(tmp_path / "again.spacy")


TOGETHER = {"prompt": {"@misc": "nerllama.MultiTaskPrompt.v1", "names": {"DISEASE": "disease", "GENE": "gene"}}}


@pytest.mark.parametrize(
    ("voting", "prompt"),
    [
        ({"samples": 1}, {}),
        ({"samples": 5, "threshold": 0.3}, {}),
        ({"samples": None, "threshold": 0.2}, {}),
        ({"samples": None, "threshold": 0.2}, TOGETHER),
    ],
    ids=["greedy", "samples", "exact votes", "all labels together"],
)
def test_marked_decoding_is_played_again(
    tiny_config: dict[str, Any], tmp_path: Path, voting: dict[str, Any], prompt: dict[str, Any]
) -> None:
    config = {**tiny_config, "voting": voting, **prompt}
    folder = pipeline(config, tmp_path / "pipeline")
    texts(tmp_path / "in.jsonl")
    assert run(folder, tmp_path / "in.jsonl", tmp_path / "out.spacy", "--record", tmp_path / "run.jsonl")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.spacy", "pipeline", "run.jsonl"]
    expected = annotated(tmp_path / "out.spacy")
    assert any(scores for *_, scores in expected)
    assert replayed(config, tmp_path / "run.jsonl", tmp_path) == expected
    assert run(folder, tmp_path / "in.jsonl", tmp_path / "plain.spacy")[0] == 0
    plain = annotated(tmp_path / "plain.spacy")
    assert [x[:3] for x in plain] == [x[:3] for x in expected], "recording changes nothing"


def test_texts_are_played_again(moody: dict[str, Any], tmp_path: Path) -> None:
    """Also of a model that answers otherwise when it is asked again: a sentence has one answer in a run."""
    folder = pipeline(moody, tmp_path / "pipeline")
    texts(tmp_path / "in.jsonl")
    assert run(folder, tmp_path / "in.jsonl", tmp_path / "out.spacy", "--record", tmp_path / "run.jsonl")[0] == 0
    expected = annotated(tmp_path / "out.spacy")
    assert expected[0] == expected[4]
    assert replayed(moody, tmp_path / "run.jsonl", tmp_path) == expected
    first = json.loads((tmp_path / "run.jsonl").read_text("utf8").splitlines()[0])
    assert (first["text"], first["label"]) == (TEXTS[0], "DISEASE")
    assert first["responses"] == [
        "Mutations @@of## the ATM gene cause ataxia telangiectasia.",
        "Here it is:\nMutations @@of## the ATM gene cause ataxia telangiectasia.",
        TEXTS[0],
        "I cannot.",
    ]


@pytest.mark.parametrize("stop_after", [0, 1, 3, 6, 9])
def test_a_stopped_run_records_all(moody: dict[str, Any], tmp_path: Path, stop_after: int) -> None:
    folder = pipeline(moody, tmp_path / "pipeline")
    texts(tmp_path / "in.jsonl")
    command = folder, tmp_path / "in.jsonl", tmp_path / "out.spacy", "--record", tmp_path / "run.jsonl"
    Moody.stop_after = stop_after
    assert run(*command)[0] == 130
    assert not (tmp_path / "run.jsonl").exists()
    Moody.stop_after = None
    assert run(*command)[0] == 0
    assert replayed(moody, tmp_path / "run.jsonl", tmp_path) == annotated(tmp_path / "out.spacy")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_doc_that_failed_is_played_again_without_annotation(moody: dict[str, Any], tmp_path: Path) -> None:
    """Also in the sentences that were answered, as in the run: half an annotation would look like a whole one."""
    folder = pipeline(moody, tmp_path / "pipeline")
    texts(tmp_path / "in.jsonl", ["Gout hurts.\n\nIt is BROKEN here.", "Gout hurts.", "BROKEN"])
    command = folder, tmp_path / "in.jsonl", tmp_path / "out.spacy", "--record", tmp_path / "run.jsonl"
    code, printed = run(*command)
    assert (code, "2 documents could not be annotated" in printed) == (3, True)
    _, expected, _ = docs = entities(tmp_path / "out.spacy")
    assert docs == [[], expected, []]
    assert expected
    replay(moody, tmp_path / "run.jsonl", tmp_path)
    assert entities(tmp_path / "again.spacy") == docs


def test_a_text_that_failed_once_is_played_again_as_it_was_answered_elsewhere(tmp_path: Path) -> None:
    request = Request(Sentence(("Gout", "hurts"), (True, False)), (("DISEASE", "disease"),))
    recorder = Recorder(tmp_path / "answers")
    answer = Votes({TokenSpan(0, 1, "DISEASE"): 0.9})
    ask = recorder.through(lambda requests: (answer for _ in requests), text_key, SINGLE)
    assert list(ask(iter([request]))) == [answer]
    recorder.write(tmp_path / "run.jsonl", failed=[request])
    (line,) = (tmp_path / "run.jsonl").read_text("utf8").splitlines()
    assert json.loads(line)["votes"][0]["vote"] == 0.9


def test_a_record_with_gaps_ends_the_run(
    moody: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full, and then is not: the same command goes on, and its record is whole."""
    folder = pipeline(moody, tmp_path / "pipeline")
    texts(tmp_path / "in.jsonl")
    command = folder, tmp_path / "in.jsonl", tmp_path / "out.spacy", "--record", tmp_path / "run.jsonl"
    whole = Record.to_line

    def full(record: Record) -> str:
        if len(Moody.asked) > 3:
            raise sqlite3.OperationalError("database or disk is full")
        return whole(record)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "to_line", full)
        code, printed = run(*command)
    assert (code, "[NL208]" in printed, "disk is full" in printed) == (1, True, True)
    assert run(*command)[0] == 0
    assert replayed(moody, tmp_path / "run.jsonl", tmp_path) == annotated(tmp_path / "out.spacy")


def test_the_record_is_another_file_than_input_and_output(moody: dict[str, Any], tmp_path: Path) -> None:
    folder, source = pipeline(moody, tmp_path / "pipeline"), texts(tmp_path / "in.jsonl")
    before = source.read_text()
    for record in (source, tmp_path / "out.jsonl"):
        code, printed = run(folder, source, tmp_path / "out.jsonl", "--record", record)
        assert (code, "[NL076]" in printed) == (1, True)
    assert (source.read_text(), Moody.asked) == (before, [])


def test_unusable_responses_are_told(moody: dict[str, Any], tmp_path: Path) -> None:
    folder = pipeline(moody, tmp_path / "pipeline")
    code, printed = run(folder, texts(tmp_path / "in.jsonl", ["p53 fell."]), tmp_path / "out.jsonl")
    assert code == 0
    assert "6 exact, 2 unusable" in printed


def test_a_run_that_began_without_a_record_has_none(moody: dict[str, Any], tmp_path: Path) -> None:
    folder = pipeline(moody, tmp_path / "pipeline")
    command = folder, texts(tmp_path / "in.jsonl"), tmp_path / "out.spacy"
    Moody.stop_after = 7
    assert run(*command)[0] == 130
    Moody.stop_after = None
    code, printed = run(*command, "--record", tmp_path / "run.jsonl")
    assert (code, "NL071" in printed) == (1, True)
    assert run(*command, "--record", tmp_path / "run.jsonl", "--restart")[0] == 0
    assert replayed(moody, tmp_path / "run.jsonl", tmp_path) == annotated(tmp_path / "out.spacy")


def test_what_a_run_left_behind_is_not_mixed_in(moody: dict[str, Any], tmp_path: Path) -> None:
    folder = pipeline(moody, tmp_path / "pipeline")
    command = folder, tmp_path / "in.jsonl", tmp_path / "out.spacy", "--record", tmp_path / "run.jsonl"
    texts(tmp_path / "in.jsonl")
    Moody.stop_after = 7
    assert run(*command)[0] == 130
    Moody.stop_after = None
    texts(tmp_path / "in.jsonl", ["p53 fell."])
    assert run(*command, "--restart")[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text("utf8").splitlines()]
    assert [line["text"] for line in lines] == ["p53 fell."] * 2


def test_what_cannot_be_recorded_is_said_before_the_work(moody: dict[str, Any], tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    source, output, record = texts(tmp_path / "in.jsonl"), tmp_path / "out.spacy", tmp_path / "run.jsonl"
    with pytest.raises(ValueError, match=r"^\[NL203\] .* 0 components"):
        annotate(nlp, source, output, "auto", "spacy", record=record)
    for name in ("one", "two"):
        nlp.add_pipe("nerllama_ner", name, config=moody)
    with pytest.raises(ValueError, match=r"^\[NL203\] .* 2 components"):
        annotate(nlp, source, output, "auto", "spacy", record=record)
    nlp.remove_pipe("two")
    with pytest.raises(FileExistsError, match=r"^\[NL073\]"):
        annotate(nlp, source, output, "auto", "spacy", record=tmp_path)
    assert Moody.asked == []


def test_recorded_votes_on_other_tokens(tmp_path: Path) -> None:
    """They go where their characters went, widened to whole tokens."""
    line = {"text": "TGF-β 1 fell", "label": "GENE", "unexplored": 0.1}
    line["votes"] = [{"start": 0, "end": 7, "label": "GENE", "vote": 0.75}]
    (tmp_path / "run.jsonl").write_text(json.dumps(line))
    for words, span in ((("TGF", "-", "β", "1", "fell"), (0, 4)), (("TGF-β1", "fell"), (0, 1))):
        request = Request(Sentence(words, (False,) * len(words)), (("GENE", "gene"),))
        [votes] = Replay(str(tmp_path / "run.jsonl")).vote([request], CompactPrompt(), Voting(), 0)
        assert votes.spans == {(*span, "GENE"): 0.75}
        assert votes.unexplored == 0.1


@pytest.mark.parametrize(
    "broken",
    [
        {"votes": {}},
        {"votes": [1]},
        {"votes": [{"start": 0, "end": 4, "label": "GENE", "vote": 1}]},
        {"votes": [{"start": 1, "end": 1, "label": "GENE", "vote": 1}]},
        {"votes": [{"start": 0, "end": 3, "label": "OTHER", "vote": 1}]},
        {"votes": [{"start": 0, "end": 3, "label": "GENE", "vote": 1.5}]},
        {"votes": [{"start": 0, "end": 3, "label": "GENE"}]},
        {"votes": [], "unexplored": None},
    ],
)
def test_broken_votes_are_named(tmp_path: Path, broken: dict[str, Any]) -> None:
    (tmp_path / "run.jsonl").write_text("\n" + json.dumps({"text": "p53", "label": "GENE", **broken}))
    with pytest.raises(ValueError, match=r"^\[NL200\] .*run\.jsonl, line 2\b"):
        Replay(str(tmp_path / "run.jsonl")).warm_up()
