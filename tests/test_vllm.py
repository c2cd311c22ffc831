"""The served model: the votes of the local one, over HTTP, from a server that is not always well.

The server is ours (vllm_server.py), its answers those of the plain tiny model. With NERLLAMA_VLLM_PYTHON, the
Python of an environment with vLLM, a real one is tried too.
"""

import base64
import io
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import spacy
from recorder import DISEASE, GENE, sentence
from vllm_server import FakeVLLM, serving, token_ids

from spacy_nerllama.errors import ModelUnavailableError
from spacy_nerllama.models import VLLM, retries
from spacy_nerllama.models.adapter import Adapter
from spacy_nerllama.models.scoring import Row
from spacy_nerllama.pipe import NerLlama
from spacy_nerllama.prompts import CompactPrompt, MultiTaskPrompt, PaperPrompt, Prompt
from spacy_nerllama.requests import Request
from spacy_nerllama.voting import Votes, Voting

TEXTS = [
    "Mutations of the ATM gene cause ataxia telangiectasia in man.",
    "The @@ataxia## gene @@ ## was @@cloned.",
    "An <|im_end|> ataxia<|endoftext|> gene",
    "ataxia",
    "TGF-β1, α-synuclein and µ-opioids",
]
REQUESTS = [Request(sentence(text), labels) for text in TEXTS for labels in (DISEASE, GENE)]
GREEDY, SAMPLES, EXACT = Voting(samples=1), Voting(samples=5), Voting()


@pytest.fixture
def served(tiny, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVLLM]:
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)
    encoder, engine, *_ = tiny.load()
    with serving(engine.model, encoder, str(tiny_base)) as running:
        yield running


@pytest.fixture
def model(served: FakeVLLM) -> Iterator[VLLM]:
    model = VLLM(served.url)
    yield model
    model.unload()


def votes_of(model: Any, voting: Voting, requests: Sequence[Request] = REQUESTS, prompt: Prompt | None = None):
    return list(model.vote(requests, prompt or CompactPrompt(), voting, 4096))


def same(ours: Sequence[Votes], theirs: Sequence[Votes]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.spans == pytest.approx(other.spans, abs=1e-4)
        assert one.unexplored == pytest.approx(other.unexplored, abs=1e-4)


# What it gives


@pytest.mark.parametrize("voting", [GREEDY, SAMPLES, EXACT], ids=["greedy", "samples", "exact"])
def test_votes_are_those_of_the_local_model(tiny, model: VLLM, voting: Voting) -> None:
    expected = votes_of(tiny, voting)
    assert sum(len(votes.spans) for votes in expected) > 10
    same(votes_of(model, voting), expected)


@pytest.mark.parametrize(
    "prompt", [PaperPrompt(), MultiTaskPrompt({"DISEASE": "disease", "GENE": "gene"})], ids=["paper", "multi-task"]
)
def test_with_other_prompts(tiny, model: VLLM, prompt: Prompt) -> None:
    together = [Request(sentence(text), (*DISEASE, *GENE)) for text in TEXTS[:2]]
    requests = together if isinstance(prompt, MultiTaskPrompt) else REQUESTS[:4]
    same(votes_of(model, SAMPLES, requests, prompt), votes_of(tiny, SAMPLES, requests, prompt))


def test_a_request_reads_no_further_than_its_last_decision(model: VLLM, served: FakeVLLM) -> None:
    """Scores are asked for from the first decision on, so that all before it may come from the prefix cache."""
    votes_of(model, GREEDY, REQUESTS[:1])
    for body in served.bodies:
        wanted = body["sampling_params"]["prompt_logprob_token_ids"]
        assert len(wanted[0]) > 1
        assert len(wanted[-1]) > 1
        assert len(body["token_ids"]) == body["sampling_params"]["prompt_logprob_start"] + len(wanted) + 1
    first, *later = token_ids(served.bodies[1:])  # the very first is the trial of `load`
    assert later
    assert all(ids[: len(first) // 2] == first[: len(first) // 2] for ids in later)


def test_a_row_that_the_server_knows_by_heart_is_asked_for_again(tiny, model: VLLM, served: FakeVLLM) -> None:
    served.caches = True
    requests = REQUESTS[:4]
    once = votes_of(model, SAMPLES, requests)
    before = len(served.bodies)
    same(votes_of(model, SAMPLES, requests), once)
    skipped = [body["sampling_params"]["skip_reading_prefix_cache"] for body in served.bodies[before:]]
    assert skipped.count(True) == skipped.count(False) == len(skipped) / 2
    same(once, votes_of(tiny, SAMPLES, requests))


def test_many_requests_are_under_way_and_votes_come_in_order(tiny, served: FakeVLLM) -> None:
    model = VLLM(served.url, concurrency=4)
    model.load()
    served.most = 0
    served.mishaps.extend([0.2, 0.01, 0.1, 0.0, 0.05] * 4)
    same(votes_of(model, GREEDY), votes_of(tiny, GREEDY))
    assert served.most == 4
    model.unload()


def test_a_sentence_longer_than_the_servers_context_is_windowed(tiny, served: FakeVLLM, model: VLLM) -> None:
    served.cards[0]["max_model_len"] = 200
    long = [Request(sentence(" ".join(TEXTS[:1] * 8)), DISEASE)]
    (votes,) = votes_of(model, GREEDY, long)
    assert max(map(len, token_ids(served.bodies))) < 200
    (local,) = tiny.vote(long, CompactPrompt(), GREEDY, 198)
    assert votes.spans.keys() == local.spans.keys()


# Trouble on the way


@pytest.mark.parametrize("mishap", [500, 425, 429, 408, "close", "truncated", "garbage", "deep"])
def test_an_attempt_that_fails_is_repeated(tiny, model: VLLM, served: FakeVLLM, mishap: Any) -> None:
    model.load()
    served.mishaps.extend([mishap, None, mishap, mishap])
    same(votes_of(model, GREEDY, REQUESTS[:4]), votes_of(tiny, GREEDY, REQUESTS[:4]))
    assert served.attempts > len({*token_ids(served.bodies)})


@pytest.mark.parametrize("mishap", [1.0, "trickle"])
def test_an_answer_that_takes_too_long_is_asked_for_again(tiny, served: FakeVLLM, mishap: Any) -> None:
    model = VLLM(served.url, timeout=0.3)
    model.load()
    served.mishaps.append(mishap)
    start = time.monotonic()
    same(votes_of(model, GREEDY, REQUESTS[:1]), votes_of(tiny, GREEDY, REQUESTS[:1]))
    assert time.monotonic() - start < 20, "the answer that trickles takes 30 seconds"
    model.unload()


def test_the_delay_that_a_busy_server_asks_for(model: VLLM, served: FakeVLLM) -> None:
    model.load()
    served.headers["Retry-After"] = "1"
    served.mishaps.append(429)
    start = time.monotonic()
    votes_of(model, GREEDY, REQUESTS[:1])
    assert time.monotonic() - start >= 1.0
    served.headers["Retry-After"] = formatdate(time.time() + 2, usegmt=True)  # to whole seconds
    served.mishaps.append(429)
    start = time.monotonic()
    votes_of(model, GREEDY, REQUESTS[:1])
    assert time.monotonic() - start >= 0.9


def test_nothing_is_repeated_for_ever(served: FakeVLLM) -> None:
    """A request that fails for good has its error in its place, where the server still answers another."""
    model = VLLM(served.url, retries=2, concurrency=1)
    model.load()
    served.mishaps.extend([500] * 3)
    attempts = served.attempts
    first, second = votes_of(model, GREEDY, REQUESTS[:2])
    assert isinstance(first, ConnectionError)
    assert re.match(rf"\[NL181\] The server {served.url} .*3 times \(500 the engine", str(first))
    assert isinstance(second, Votes)
    assert served.attempts > attempts + 3 + 1
    served.mishaps.extend([500] * 6)
    attempts = served.attempts
    with pytest.raises(ModelUnavailableError, match=r"^\[NL181\] "):
        votes_of(model, GREEDY, REQUESTS[:2])
    assert served.attempts == attempts + 3 + 3, "the request, and the trial"
    assert votes_of(model, GREEDY, REQUESTS[:1]), "it goes on where the server is well again"
    model.unload()


@pytest.mark.parametrize("answer", [[], {"error": "not now"}])
def test_an_answer_that_is_none_is_asked_for_again(
    served: FakeVLLM, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    generate, answers = served.generate, [answer]
    monkeypatch.setattr(served, "generate", lambda body: answers.pop() if answers else generate(body))
    VLLM(served.url).warm_up()
    assert not answers


def test_a_gateway_that_refuses_the_key(served: FakeVLLM) -> None:
    served.refuse["/inference/v1/generate"] = (403, "Forbidden: invalid API key")
    with pytest.raises(PermissionError, match=r"^\[NL182\] "):
        VLLM(served.url).warm_up()


def test_a_server_that_is_busy_is_no_server_that_is_gone(served: FakeVLLM) -> None:
    """It is asked what it serves as often as anything else."""
    model = VLLM(served.url, retries=2, concurrency=1)
    model.load()
    served.mishaps.extend([500] * 3)
    served.blips = 2
    assert [type(votes) for votes in votes_of(model, GREEDY, REQUESTS[:2])] == [ConnectionError, Votes]
    assert served.blips == 0
    model.unload()
    served.blips = 3
    with pytest.raises(ConnectionError, match=r"^\[NL181\] .*3 times \(503 "):
        VLLM(served.url, retries=2).warm_up()


def component(model: VLLM) -> NerLlama:
    nlp = spacy.blank("en")
    return NerLlama(nlp.vocab, model, labels={"GENE": "gene"}, prompt=CompactPrompt(), voting=GREEDY)


def test_a_doc_that_the_server_refuses_is_reported_and_the_others_are_annotated(model, served, encoder) -> None:
    nlp, failed = spacy.blank("en"), []
    lithium = served.forbidden_id = encoder.piece(" lithium")[0]
    ner = component(model)
    ner.set_error_handler(lambda name, proc, docs, error: failed.append((docs[0].text, str(error))))
    texts = ["Mutations of the ATM gene.", "Low-dose lithium.", "Of man and mouse."]
    docs = list(ner.pipe(map(nlp, texts)))
    assert [doc.text for doc in docs] == texts
    ((text, error),) = failed
    assert text == texts[1]
    assert error.startswith(f"[NL187] The server {served.url} refused a request (400: Token id")
    assert [list(doc.spans) for doc in docs] == [["nerllama"], [], ["nerllama"]]
    assert sum(lithium in ids for ids in token_ids(served.asked)) == 1
    assert len(served.bodies) == len({*token_ids(served.bodies)}) + 1, "others are not asked again, but a trial is"


def test_a_server_that_goes_away_ends_the_run(tiny, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done is out; what was under way has not failed, so that `annotate` does it again."""
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)
    nlp, done = spacy.blank("en"), []
    encoder, engine, *_ = tiny.load()
    with serving(engine.model, encoder, str(tiny_base)) as served:
        model = VLLM(served.url, retries=1)
        ner = component(model)
        ner.set_error_handler(lambda *_: pytest.fail("it is the fault of no doc"))
        stream = ner.pipe(nlp(f"ATM fell {i} times.") for i in range(100_000))
        done.append(next(stream))
    with pytest.raises(ModelUnavailableError, match=r"^\[NL180\] There is no server at "):
        done.extend(stream)
    assert [doc.text for doc in done] == [f"ATM fell {i} times." for i in range(len(done))]
    assert all("nerllama" in doc.spans for doc in done)
    model.unload()


@pytest.mark.parametrize(("status", "error"), [(401, "NL182"), (404, "NL183")])
def test_a_key_or_model_that_is_withdrawn_ends_the_run(model, served: FakeVLLM, status: int, error: str) -> None:
    nlp, done = spacy.blank("en"), []
    ner = component(model)
    ner.set_error_handler(lambda *_: pytest.fail("it is the fault of no doc"))
    stream = ner.pipe(nlp(f"ATM fell {i} times.") for i in range(100_000))
    done.append(next(stream))
    if status == 401:
        served.api_key = "another"
    else:
        served.cards[0]["id"] = "another"
    with pytest.raises(ModelUnavailableError, match=rf"^\[{error}\]"):
        done.extend(stream)
    assert [doc.text for doc in done] == [f"ATM fell {i} times." for i in range(len(done))]


INTERRUPTED = """
import signal
import sys
from spacy_nerllama.models import VLLM
from spacy_nerllama.prompts import CompactPrompt
from spacy_nerllama.requests import Request, Sentence
from spacy_nerllama.voting import Voting
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
model = VLLM(sys.argv[1])
model.load()
print("loaded", flush=True)
request = Request(Sentence(("ATM", "fell"), (True, False)), (("GENE", "gene"),))
list(model.vote([request] * 100, CompactPrompt(), Voting(), 4096))
"""


def test_an_interrupt_does_not_hang(served: FakeVLLM) -> None:
    served.mishaps.extend([None, *[20.0] * 100])
    command = [sys.executable, "-c", INTERRUPTED, served.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "loaded\n"
        deadline = time.monotonic() + 10
        while served.most < 32 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - start < 15, "the answers would have taken 20 seconds"
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode in (-signal.SIGINT, 130)


# What cannot work is said before a doc is taken


def test_no_server() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=rf"^\[NL180\] There is no server at {url} \(ConnectError"):
            VLLM(url, retries=0).warm_up()
    for url in ("localhost:8000", "http://[::1"):
        with pytest.raises((ConnectionError, ValueError), match=r"^\[NL180\] "):
            VLLM(url, retries=0).warm_up()


def test_a_model_that_is_not_served(served: FakeVLLM) -> None:
    with pytest.raises(ValueError, match=r"^\[NL183\] .* serves no model 'other'\. .* served are: tiny, lora$"):
        VLLM(served.url, "other").warm_up()
    served.cards.append({**served.cards[0], "id": "second"})
    with pytest.raises(ValueError, match=r"^\[NL183\] .* serves no model None"):
        VLLM(served.url).warm_up()


def test_a_lora_module(tiny, served: FakeVLLM) -> None:
    """It is named in each request; context and tokenizer are its base's."""
    model = VLLM(f"{served.url}/v1/", "lora")
    same(votes_of(model, GREEDY), votes_of(tiny, GREEDY))
    assert {body["model"] for body in served.bodies} == {"lora"}
    assert model.load().server.context == 4094
    model.unload()


def test_the_key_comes_from_the_environment(served: FakeVLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    served.api_key = "sesame"
    with pytest.raises(PermissionError, match=r"^\[NL182\] .*api_key_env"):
        VLLM(served.url).warm_up()
    model = VLLM(served.url, api_key_env="MY_KEY")
    with pytest.raises(ValueError, match=r"^\[NL191\] .*MY_KEY"):
        model.warm_up()
    monkeypatch.setenv("MY_KEY", "sesame")
    model.warm_up()
    assert b"sesame" not in pickle.dumps(model)
    model.unload()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "Not Found"),
        (403, "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them."),
        (400, "prompt_logprob_token_ids requires the V2 model runner (VLLM_USE_V2_MODEL_RUNNER=1)."),
    ],
)
def test_a_server_that_cannot_score(served: FakeVLLM, status: int, message: str) -> None:
    served.refuse["/inference/v1/generate"] = (status, message)
    with pytest.raises(
        ValueError, match=r"^\[NL184\] .*--enable-scale-out; docs/serving.md has the command\.$"
    ) as e:
        VLLM(served.url).warm_up()
    assert f"{status} {message}" in str(e.value)


def test_a_server_that_is_no_vllm_of_this_year(served: FakeVLLM) -> None:
    served.ignores_scores = True
    with pytest.raises(ValueError, match=r"^\[NL184\] .*gives no prompt_token_id_logprobs"):
        VLLM(served.url).warm_up()
    del served.cards[0]["max_model_len"]
    with pytest.raises(ValueError, match=r"^\[NL184\] .*max_model_len"):
        VLLM(served.url).warm_up()


def encoded(*scores: float) -> str:
    """What the server would send of one decision."""
    file = io.BytesIO()
    np.save(file, np.array([scores], np.float32))
    return base64.b64encode(file.getvalue()).decode()


INF = float("inf")
RUBBISH = [
    "AAAA",
    "k05VTVBZ",
    7,
    "UEsDBA==",
    encoded(0),
    encoded(0, float("nan")),
    encoded(0, INF),
    encoded(-INF, -INF),
]


@pytest.mark.parametrize("text", [*RUBBISH, encoded(-INF, -INF)])
def test_an_answer_that_is_not_understood(served: FakeVLLM, monkeypatch: pytest.MonkeyPatch, text: Any) -> None:
    monkeypatch.setattr(served, "generate", lambda body: {"prompt_token_id_logprobs": text})
    with pytest.raises(ValueError, match=r"^\[NL188\] "):
        VLLM(served.url).warm_up()


@pytest.mark.parametrize("models", [None, 7, ["tiny"], [{"id": ["tiny"], "parent": {}}]])
def test_a_list_of_models_that_is_not_understood(served: FakeVLLM, models: Any) -> None:
    served.cards = models
    with pytest.raises(ValueError, match=r"^\[NL18[348]\] "):
        VLLM(served.url).warm_up()


def test_the_tokenizer_is_that_of_the_server(served: FakeVLLM, tiny_base: Path, monkeypatch) -> None:
    served.cards[0]["root"] = "HuggingFaceTB/SmolLM2-135M-Instruct"
    with pytest.raises(
        FileNotFoundError, match=r"^\[NL185\] .* serves HuggingFaceTB/SmolLM2-135M-Instruct, which"
    ):
        VLLM(served.url).warm_up()
    model = VLLM(served.url, tokenizer=str(tiny_base))
    model.warm_up()
    model.unload()

    class Other:
        piece = staticmethod(lambda text: (5, 6, 7))

    monkeypatch.setattr(served, "encoder", Other)
    with pytest.raises(ValueError, match=r"^\[NL186\] .*the probe is \(5, 6, 7\)"):
        VLLM(served.url, tokenizer=str(tiny_base)).warm_up()


def test_labels_and_thresholds_of_an_adapter(served: FakeVLLM, tiny_adapter: Path, tmp_path: Path) -> None:
    folder = tmp_path / "meta"
    folder.mkdir()
    model = VLLM(served.url, adapter=str(folder))
    assert model.meta == {}
    with pytest.raises(FileNotFoundError, match=r"^\[NL043\] .* has no meta\.json"):
        _ = model.adapter
    meta = (tiny_adapter / "meta.json").read_text("utf8")
    (folder / "meta.json").write_text(meta, "utf8")
    model = VLLM(served.url, adapter=str(folder))
    assert model.meta["thresholds"] == {"DISEASE": 0.2}
    ner = component(model)
    ner.add_label("DISEASE", "disease")
    assert list(ner.pipe([spacy.blank("en")(TEXTS[0])]))[0].spans["nerllama"]
    model.unload()
    for weights in (False, True):  # a pipeline holds what there was of the adapter
        if weights:
            shutil.copytree(tiny_adapter, folder, dirs_exist_ok=True)
        nlp = spacy.blank("en")
        setting = {"@llm_models": "nerllama.VLLM.v1", "base_url": served.url, "adapter": str(folder)}
        nlp.add_pipe("nerllama_ner", config={"model": setting}).to_disk(tmp_path / "ner")
        folder.rename(tmp_path / "away")
        loaded = spacy.blank("en").add_pipe("nerllama_ner", config={"model": setting}).from_disk(tmp_path / "ner")
        (tmp_path / "away").rename(folder)
        assert loaded.label_data == {"DISEASE": "disease", "GENE": "gene or protein"}
        assert loaded.model.meta["thresholds"] == {"DISEASE": 0.2}
        assert bool(loaded.model.adapter.weights) == weights
    (folder / "meta.json").write_text('{"base": {"name": "Other", "tokenizer": "0"}}', "utf8")
    with pytest.raises(ValueError, match=r"^\[NL044\] .*another base \(Other\): its tokenizer is 0"):
        VLLM(served.url, adapter=str(folder)).warm_up()


def test_settings_out_of_range() -> None:
    for wrong in ({"concurrency": 0}, {"timeout": 0.0}, {"timeout": float("nan")}, {"retries": -1}):
        with pytest.raises(ValueError, match=r"^\[NL189\] "):
            VLLM("http://localhost:8000", **wrong)


def test_a_pipeline_of_a_config_asks_a_server_that_wants_no_key(served: FakeVLLM, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    model = {"@llm_models": "nerllama.VLLM.v1", "base_url": served.url}
    voting = {"@misc": "nerllama.Voting.v1", "samples": 1}
    nlp.add_pipe("nerllama_ner", config={"labels": {"GENE": "gene"}, "model": model, "voting": voting})
    nlp.to_disk(tmp_path / "pipeline")
    for each in (nlp, spacy.load(tmp_path / "pipeline")):
        assert "nerllama" in each("ATM fell.").spans
        each.get_pipe("nerllama_ner").unload()


def test_a_cache_tells_served_models_apart(served: FakeVLLM, tiny_adapter: Path, tmp_path: Path) -> None:
    """By the name, which the server is asked for where no setting has it, and by the adapter."""
    nowhere = "http://127.0.0.1:9"
    one, other = (VLLM(nowhere, name).fingerprint() for name in ("tiny", "lora"))
    assert one != other
    unnamed = VLLM(served.url)
    assert unnamed.fingerprint() == VLLM(served.url, "tiny").fingerprint()
    unnamed.unload()
    with pytest.raises(ConnectionError, match=r"^\[NL180\] "):
        VLLM(nowhere, retries=0).fingerprint()

    trained, again = tmp_path / "trained", tmp_path / "again"
    for folder in (trained, again):
        shutil.copytree(tiny_adapter, folder)
    (again / "adapter_model.safetensors").write_bytes(b"other weights")
    prints = {
        VLLM(nowhere, "tiny", adapter=str(folder)).fingerprint() for folder in (tiny_adapter, trained, again)
    }
    assert len({one, *prints}) == 3, "a copy is the same adapter"
    brought = VLLM(nowhere, "tiny")
    brought.set_adapter(Adapter.from_folder(trained))
    assert brought.fingerprint() != one


def test_another_process_connects_for_itself(model: VLLM) -> None:
    model.load()
    other = pickle.loads(pickle.dumps(model))
    assert votes_of(other, GREEDY, REQUESTS[:2]) == votes_of(model, GREEDY, REQUESTS[:2])
    other.unload()


def test_rows_without_decisions_cost_no_request(model: VLLM, served: FakeVLLM) -> None:
    _, engine = model.load()
    attempts = served.attempts
    scores = engine.submit([Row((1, 2), (3, 4, 5), ())]).result()
    assert (len(scores.logits[0]), scores.past(0, 2)) == (0, (1, 2, 3, 4))
    assert engine.prefix((1, 2)) == (1, 2)
    assert served.attempts == attempts


@pytest.mark.slow
def test_a_real_server(real, tmp_path: Path) -> None:
    python = os.environ.get("NERLLAMA_VLLM_PYTHON")
    if not python:
        pytest.skip("NERLLAMA_VLLM_PYTHON does not name the Python of an environment with vLLM")
    encoder, engine, *_ = real.load()
    engine.model.save_pretrained(tmp_path / "model")
    encoder.tokenizer.save_pretrained(tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tmp_path / "model")]
    command += ["--dtype", "float32", "--max-model-len", "1024", "--enforce-eager", "--enable-scale-out"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    environment = {"VLLM_USE_V2_MODEL_RUNNER": "1", "VLLM_CPU_KVCACHE_SPACE": "1", **os.environ}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if httpx.get(f"{url}/health", timeout=5).is_success:
                    break
            except httpx.TransportError:
                time.sleep(1)
        assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
        model = VLLM(url)
        for voting in (GREEDY, EXACT):
            for one, other in zip(votes_of(model, voting), votes_of(real, voting), strict=True):
                assert one.spans == pytest.approx(other.spans, abs=1e-3)
        model.unload()
    finally:
        process.terminate()
        process.wait(60)
