"""`python -m spacy nerllama evaluate`, on small pipelines of our own."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.cli.evaluate import evaluate as spacy_evaluate
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span, SpanGroup
from typer.testing import CliRunner

from spacy_nerllama.cli import app_entry
from spacy_nerllama.cli.evaluate import evaluate
from spacy_nerllama.models.llama import BUNDLED_ADAPTER

ADAPTER = files("spacy_nerllama") / "assets" / BUNDLED_ADAPTER
ENGLISH = spacy.blank("en")

# Sentences of our own; [text|LABEL] is a gold entity.
GOLD = [
    "[Severe ataxia|DISEASE] after [lithium|CHEMICAL].",
    "[Epilepsy|DISEASE] and [lithium|CHEMICAL] again.",
    "Nothing is the matter here.",
    "A girl with [epilepsy|DISEASE] was well.",
    "Of [KCNH2|GENE] and more [ataxia|DISEASE].",
]
WORDS = {
    "ataxia": ("DISEASE", 0.9),
    "epilepsy": ("DISEASE", 0.6),
    "lithium": ("CHEMICAL", 0.8),
    "girl": ("GENE", 0.3),
}


@Language.factory("words_that_vote", assigns=["doc.ents", "doc.spans"], default_config={"threshold": 0.5})
def make_words_that_vote(nlp: Language, name: str, threshold: float) -> Any:
    """Votes for known words, and takes those that reach the threshold for entities."""

    def annotate(doc: Doc) -> Doc:
        known = [(token, *WORDS[token.lower_]) for token in doc if token.lower_ in WORDS]
        spans = [Span(doc, token.i, token.i + 1, label) for token, label, _ in known]
        votes = [vote for _, _, vote in known]
        doc.spans["nerllama"] = SpanGroup(doc, spans=spans, attrs={"scores": votes})
        doc.set_ents([span for span, vote in zip(spans, votes, strict=True) if vote >= threshold])
        return doc

    return annotate


@Language.component("loses_docs_without_a_girl", assigns=["doc.ents"])
def loses_docs_without_a_girl(doc: Doc) -> Doc:
    if "girl" not in doc.text:
        raise ValueError("no girl")
    return doc


@Language.component("joins_all", assigns=["doc.ents"])
def joins_all(doc: Doc) -> Doc:
    return Doc(doc.vocab, words=["".join(token.text for token in doc)])


def gold_doc(marked: str, *, own_tokens: bool = False) -> Doc:
    pieces = re.findall(r"\[(.+?)\|(\w+)\]|([^\[]+)", marked)
    text, spans = "", []
    for mention, label, between in pieces:
        if mention:
            spans.append((len(text), len(text) + len(mention), label))
        text += mention or between
    doc = ENGLISH.make_doc(text)
    doc.set_ents([doc.char_span(*span[:2], label=span[2]) for span in spans])
    if not own_tokens:
        return doc
    bare = Doc(ENGLISH.vocab, words=[token.text for token in doc])
    bare.set_ents([Span(bare, ent.start, ent.end, ent.label_) for ent in doc.ents])
    return bare


def write(path: Path, docs: list[Doc]) -> str:
    DocBin(docs=docs).to_disk(path)
    return str(path)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write(tmp_path / "data.spacy", [gold_doc(marked) for marked in GOLD])


@pytest.fixture
def voting(tmp_path: Path) -> str:
    """A pipeline that votes."""
    nlp = spacy.blank("en")
    nlp.add_pipe("words_that_vote")
    nlp.to_disk(tmp_path / "voting")
    return str(tmp_path / "voting")


@pytest.fixture
def rules(tmp_path: Path) -> str:
    """A pipeline that does not."""
    return ruler(tmp_path / "rules", {"epilepsy": "DISEASE", "severe ataxia": "DISEASE", "after": "CHEMICAL"})


def ruler(path: Path, patterns: dict[str, str]) -> str:
    nlp = spacy.blank("en")
    component = nlp.add_pipe("entity_ruler", config={"phrase_matcher_attr": "LOWER"})
    component.add_patterns([{"pattern": text, "label": label} for text, label in patterns.items()])
    nlp.to_disk(path)
    return str(path)


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app_entry, ["evaluate", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, re.sub(r"\s+", " ", result.stdout)


def test_the_terminal_json_and_page(voting: str, data: str, tmp_path: Path) -> None:
    output, html = tmp_path / "new" / "result.json", tmp_path / "page.html"
    code, printed = run(voting, data, "--output", output, "--html", html)
    assert code == 0
    for text in (
        "all (micro) 83.33 71.43 76.92",  # 5 of 6 predictions, of 7 gold mentions
        "severe ataxia DISEASE -> ataxia DISEASE",
        "expected calibration error 32.86 %",
        "5 documents in",
    ):
        assert text in printed, printed
    result = json.loads(output.read_text("utf8"))
    assert result["strict"]["micro"].items() >= {"right": 5, "predicted": 6, "gold": 7}.items()
    assert result["relaxed"]["micro"]["right"] == 6
    assert {kind: each["count"] for kind, each in result["errors"].items()} == {
        "boundary": 1,
        "type": 0,
        "boundary+type": 0,
        "spurious": 0,
        "missed": 1,
    }
    assert result["documents"] == len(result["counts"]["strict"]) == len(GOLD)
    assert result["speed"]["documents"] == len(GOLD)
    assert result["own_tokens"] is False
    assert html.read_text("utf8").count("<svg") == 2
    assert [path.name for path in output.parent.iterdir()] == ["result.json"], "nothing else is left there"


@pytest.mark.parametrize("gold_preproc", [False, True])
@pytest.mark.parametrize("own_tokens", [False, True])
def test_spacys_scores_are_those_of_spacy_evaluate(
    rules: str, tmp_path: Path, own_tokens: bool, gold_preproc: bool
) -> None:
    docs = [gold_doc(marked, own_tokens=own_tokens) for marked in GOLD]
    data = tmp_path / "data.spacy"
    write(data, docs)
    theirs = spacy_evaluate(rules, data, gold_preproc=gold_preproc)
    result, _ = evaluate(rules, data, gold_preproc=gold_preproc)
    assert 0 < theirs["ents_f"] < 1
    assert {key: result["spacy"][key] for key in theirs if key != "speed"} == {
        key: value for key, value in theirs.items() if key != "speed"
    }
    assert result["own_tokens"] is (own_tokens or gold_preproc)
    for short, name in {"p": "precision", "r": "recall", "f": "f1"}.items():
        assert result["strict"]["micro"][name] == pytest.approx(theirs[f"ents_{short}"]), "tokens agree here"


def test_the_json_is_deterministic(voting: str, data: str) -> None:
    one, other = (evaluate(voting, Path(data), seed=1)[0] for _ in range(2))
    for result in (one, other):
        del result["speed"]
    assert one == other


def test_a_pipeline_without_votes_lacks_their_part(rules: str, data: str) -> None:
    code, printed = run(rules, data)
    assert code == 0
    assert "Votes" not in printed
    result, _ = evaluate(rules, Path(data))
    assert result["calibration"] is result["thresholds"] is None


def test_settings_of_the_pipeline_can_be_overridden(voting: str, data: str) -> None:
    code, printed = run(voting, data, "--components.words_that_vote.threshold", 0.7)
    assert code == 0
    assert "all (micro) 75.00 42.86 54.55" in printed
    code, printed = run(voting, data, "--components.words_that_vote.treshold", 0.7)
    assert code == 1
    assert "treshold" in printed
    assert run(voting, data, "--ouput", "x.json")[0] == 2


def test_votes_for_nothing_on_own_tokens(voting: str, tmp_path: Path) -> None:
    """spaCy's command has no figure at all for this, and there is no candidate to plot."""
    data = write(tmp_path / "data.spacy", [gold_doc("Of [KCNH2|GENE] alone.", own_tokens=True)])
    code, printed = run(voting, data, "--html", tmp_path / "page.html")
    assert code == 0, printed
    assert "equal to seqeval's" in printed
    assert "spaCy's scores" not in printed


def test_seen_and_unseen_mentions(voting: str, data: str, tmp_path: Path) -> None:
    train = write(tmp_path / "train.spacy", [gold_doc("[EPILEPSY|DISEASE], [kcnh2|GENE]; [lithium|DISEASE].")])
    result, _ = evaluate(voting, Path(data), train=Path(train))
    assert {name: (each["right"], each["gold"]) for name, each in result["seen"]["labels"].items()} == {
        "CHEMICAL": (0, 0),
        "DISEASE": (2, 2),
        "GENE": (0, 1),
    }
    assert result["seen"]["micro"]["gold"] + result["unseen"]["micro"]["gold"] == result["strict"]["micro"]["gold"]
    assert "unseen R" in run(voting, data, "--train", train)[1]


def test_a_comparison_with_a_pipeline_is_one_with_its_result(
    voting: str, rules: str, data: str, tmp_path: Path
) -> None:
    output = tmp_path / "rules.json"
    assert run(rules, data, "-o", output)[0] == 0
    with_json, _ = evaluate(voting, Path(data), compare=str(output))
    with_pipeline, _ = evaluate(voting, Path(data), compare=rules)
    for measure in ("strict", "relaxed"):
        assert with_json["comparison"][measure] == with_pipeline["comparison"][measure]
    micro = with_json["comparison"]["strict"]["micro"]
    rules_f1 = json.loads(output.read_text("utf8"))["strict"]["micro"]["f1"]
    assert micro["f1"] - micro["other_f1"] == pytest.approx(micro["difference"])
    assert micro["other_f1"] == rules_f1
    assert set(with_json["comparison"]["strict"]["labels"]) == {"CHEMICAL", "DISEASE", "GENE"}
    code, printed = run(voting, data, "--compare", output)
    assert code == 0
    assert "not better" in printed


@pytest.mark.parametrize("change", ["text", "gold", "labels", "limit"])
def test_results_on_other_data_are_not_compared(voting: str, data: str, tmp_path: Path, change: str) -> None:
    output = tmp_path / "result.json"
    assert run(voting, data, "-o", output)[0] == 0
    options = {"labels": ["--labels", "DISEASE"], "limit": ["--limit", 4]}.get(change, [])
    other = {"text": "A girl with [epilepsy|DISEASE] is well.", "gold": "A girl with epilepsy was well."}
    marked = [*GOLD[:3], other.get(change, GOLD[3]), GOLD[4]]
    changed = write(tmp_path / "other.spacy", [gold_doc(each) for each in marked])
    code, printed = run(voting, changed, "--compare", output, *options)
    assert (code, "NL097" in printed) == (1, True)


def test_a_sample_is_the_same_every_time(voting: str, data: str) -> None:
    texts = [[doc.text for doc in evaluate(voting, Path(data), limit=3, seed=s)[1]] for s in (0, 0, 1)]
    everything = [doc.text for doc in evaluate(voting, Path(data), limit=99)[1]]
    assert texts[0] == texts[1] != texts[2]
    assert len(everything) == len(GOLD)
    assert texts[0] == [text for text in everything if text in texts[0]], "in the order of the data"


def test_only_the_labels_that_are_judged_are_asked_for(tmp_path: Path) -> None:
    """Others would take time, and win over them where they overlap."""
    text = "Severe ataxia after lithium."
    responses = {"DISEASE": "@@Severe ataxia## after lithium.", "GENE": "@@Severe ataxia after## lithium."}
    lines = [json.dumps({"text": text, "label": label, "response": said}) for label, said in responses.items()]
    (tmp_path / "records.jsonl").write_text("\n".join(lines), "utf8")
    nlp = spacy.blank("en")
    model = {"@llm_models": "nerllama.Replay.v1", "path": str(tmp_path / "records.jsonl")}
    nlp.add_pipe("nerllama_ner", config={"labels": {"GENE": "gene", "DISEASE": "disease"}, "model": model})
    nlp.to_disk(tmp_path / "pipeline")
    data = Path(write(tmp_path / "data.spacy", [gold_doc("[Severe ataxia|DISEASE] after lithium.")]))
    for labels, right in (None, 0), (["DISEASE"], 1), (["DISEASE", "GENE"], 0):
        result, _ = evaluate(str(tmp_path / "pipeline"), data, labels=labels)
        assert result["strict"]["labels"]["DISEASE"]["right"] == right
    judged, _ = evaluate(str(tmp_path / "pipeline"), data, labels=["DISEASE", "CHEMICAL"])
    assert judged["spacy"]["ents_f"] == 1.0


@Language.component("adds_a_girl_without_a_vote", assigns=["doc.spans"])
def adds_a_girl_without_a_vote(doc: Doc) -> Doc:
    girls = [Span(doc, token.i, token.i + 1, "GIRL") for token in doc if token.text == "girl"]
    doc.spans["nerllama"].extend(girls)
    return doc


@Language.component("votes_in_long_docs_only", assigns=["doc.spans"])
def votes_in_long_docs_only(doc: Doc) -> Doc:
    if len(doc) < 6:
        del doc.spans["nerllama"]
    return doc


@pytest.mark.parametrize(
    ("component", "message"),
    [
        ("adds_a_girl_without_a_vote", "NLW092.*in 1 of 5 docs.*'A girl with epilepsy.*'nerllama'.*finite number"),
        ("votes_in_long_docs_only", "NLW093.*2 of 5 docs.*'Severe ataxia after.*'nerllama'.*empty"),
    ],
)
def test_docs_whose_votes_cannot_be_had_are_told(
    voting: str, data: str, tmp_path: Path, component: str, message: str
) -> None:
    """They cost all docs the calibration, and no other figure."""
    nlp = spacy.load(voting)
    nlp.add_pipe(component)
    nlp.to_disk(tmp_path / component)
    result, _ = evaluate(str(tmp_path / component), Path(data))
    (warning,) = result["warnings"]
    assert re.search(message, warning), warning
    assert result["calibration"] is result["thresholds"] is None
    assert result["strict"] == evaluate(voting, Path(data))[0]["strict"]


def test_a_group_that_is_asked_for_and_not_there_is_told(voting: str, rules: str, data: str) -> None:
    code, printed = run(voting, data, "--spans-key", "nerlama")
    assert code == 0
    assert "NLW093" in printed
    assert "5 of 5 docs" in printed
    assert "--spans-key" in printed
    assert "NLW" not in run(rules, data)[1], "a pipeline that does not vote is not asked for votes"


def test_the_group_of_the_component_is_read(data: str, tmp_path: Path) -> None:
    """Without --spans-key, whatever its name is."""
    text = "A girl with epilepsy was well."
    samples = ["A girl with @@epilepsy## was well.", text]
    answer = {"text": text, "label": "DISEASE", "responses": samples}
    (tmp_path / "answers.jsonl").write_text(json.dumps(answer) + "\n")
    nlp = spacy.blank("en")
    model = {"@llm_models": "nerllama.Replay.v1", "path": str(tmp_path / "answers.jsonl")}
    nlp.add_pipe("nerllama_ner", config={"labels": {"DISEASE": "disease"}, "model": model, "spans_key": "mine"})
    nlp.to_disk(tmp_path / "pipeline")
    assert evaluate(str(tmp_path / "pipeline"), Path(data))[0]["calibration"] is not None
    assert evaluate(str(tmp_path / "pipeline"), Path(data), spans_key="nerllama")[0]["calibration"] is None


def test_labels_that_do_not_meet_are_told(data: str, tmp_path: Path) -> None:
    pipeline = ruler(tmp_path / "rules", {"epilepsy": "Disease", "nothing": "SYMPTOM", "lithium": "CHEMICAL"})
    code, printed = run(pipeline, data)
    assert code == 0
    assert "NLW090" in printed
    assert "Disease (2 times) and the gold docs have DISEASE" in printed
    assert "have no SYMPTOM, so its 1 predictions are all errors" in printed
    assert "--labels CHEMICAL,DISEASE,GENE" in printed
    result, _ = evaluate(pipeline, Path(data), labels=["CHEMICAL"])
    assert (result["warnings"], result["strict"]["micro"]["predicted"]) == ([], 2)
    result, _ = evaluate(pipeline, Path(data), labels=["CHEMICAL", "GENES"])
    assert [warning for warning in result["warnings"] if "GENES" in warning] == [
        "[NLW094] --labels names GENES, which the gold docs do not have. They have: CHEMICAL, DISEASE, GENE."
    ]


def test_bad_data(voting: str, data: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.spacy"
    broken.write_bytes(b"no DocBin")
    empty = write(tmp_path / "empty.spacy", [])
    bare = write(tmp_path / "bare.spacy", [gold_doc("Nothing is the matter here.")])
    (tmp_path / "list.json").write_text('[{"counts": {}}]', encoding="utf8")
    (tmp_path / "broken.json").write_text("{", encoding="utf8")
    for arguments, message in [
        ([tmp_path / "missing.spacy"], "NL064"),
        ([broken], "NL090"),
        ([tmp_path / "broken.json"], "NL090"),
        ([empty], "NL091"),
        ([bare], "NL092"),
        ([data, "--labels", "Disease"], "Labels that it has: CHEMICAL, DISEASE, GENE"),
        ([data, "--train", broken], "NL090"),
        ([data, "--compare", tmp_path / "missing.json"], "NL096"),
        ([data, "--compare", tmp_path / "broken.json"], "NL096"),
        ([data, "--compare", tmp_path / "list.json"], "NL096"),
        ([data, "--compare", tmp_path / "pipeline"], "E050"),
    ]:
        code, printed = run(voting, *arguments)
        assert (code, message in printed) == (1, True), printed


def test_bad_pipelines(data: str, tmp_path: Path) -> None:
    for name, message in {
        "sentencizer": "sets no entities (its components: sentencizer)",
        "joins_all": "NL094",
    }.items():
        nlp = spacy.blank("en")
        nlp.add_pipe(name)
        nlp.to_disk(tmp_path / name)
        code, printed = run(tmp_path / name, data)
        assert (code, message in printed) == (1, True), printed
    code, printed = run(tmp_path / "missing", data)
    assert (code, "E050" in printed) == (1, True)


def test_lost_docs_are_an_error(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("loses_docs_without_a_girl")
    nlp.set_error_handler(lambda *_: None)
    monkeypatch.setattr(spacy, "load", lambda name, config: nlp)
    code, printed = run("pipeline", data)
    assert (code, "took 5 docs and gave 1" in printed) == (1, True), printed


def test_code_of_the_user_is_imported(data: str, tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text(
        "from spacy.language import Language\n"
        '@Language.component("from_a_file", assigns=["doc.ents"])\n'
        "def from_a_file(doc):\n    return doc\n",
        encoding="utf8",
    )
    nlp = spacy.blank("en")
    nlp.to_disk(tmp_path / "pipeline")
    config = (tmp_path / "pipeline" / "config.cfg").read_text("utf8")
    config = config.replace("pipeline = []", 'pipeline = ["from_a_file"]')
    config = config.replace("[components]", '[components]\n\n[components.from_a_file]\nfactory = "from_a_file"')
    (tmp_path / "pipeline" / "config.cfg").write_text(config, encoding="utf8")
    assert run(tmp_path / "pipeline", data)[0] == 1
    status, printed = run(tmp_path / "pipeline", data, "--code", code)
    assert status == 0, printed
    assert "all (micro) 0.00 0.00 0.00" in printed


def test_an_output_that_cannot_be_written(voting: str, data: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder.json"
    folder.mkdir()
    for option in ("--output", "--html"):
        code, printed = run(voting, data, option, folder)
        assert (code, "Nothing was evaluated" in printed, "NL073" in printed) == (1, True, True)
    code, printed = run(voting, data, "--output", Path(data) / "x.json")
    assert (code, "Nothing was evaluated" in printed) == (1, True)
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())


def test_help_teaches() -> None:
    code, printed = run("--help")
    assert code == 0
    assert "--components.nerllama_ner.voting.samples 1" in printed


@pytest.mark.slow
@pytest.mark.usefixtures("base_path")
def test_the_bundled_model(data: str, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("nerllama_ner")
    nlp.to_disk(tmp_path / "pipeline")
    result, docs = evaluate(str(tmp_path / "pipeline"), Path(data), limit=2)
    assert all(doc.votes is not None for doc in docs)
    assert result["strict"]["micro"]["f1"] == pytest.approx(result["spacy"]["ents_f"])
    assert result["calibration"]["bins"][-1]["n"] > 0
    assert result["relaxed"]["micro"]["f1"] > 0.5
