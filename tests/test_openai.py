"""Servers that answer in text: every document comes out, in order, whatever the server does."""

import json
import logging
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import spacy
from misbehaving import FAULTS, Server, mark
from spacy.language import Language
from spacy.tokens import Doc
from typer import Typer
from typer.testing import CliRunner

from spacy_nerllama.cli.annotate import FAILED, annotate_cli
from spacy_nerllama.corpora import read_corpus
from spacy_nerllama.errors import ModelUnavailableError
from spacy_nerllama.models import retries
from spacy_nerllama.models.guided import to_gbnf
from spacy_nerllama.models.openai import OpenAI, _texts
from spacy_nerllama.prompts import CompactPrompt, PaperPrompt
from spacy_nerllama.requests import Request, Sentence
from spacy_nerllama.voting import Votes, Voting

TEXTS = [f"The ataxia{i} gene fell." for i in range(40)]
TEXT = TEXTS[0]
ONE, PAPER = Voting(1), PaperPrompt()
REQUEST = Request(Sentence(("The", "ataxia", "fell", "."), (True, True, False, False)), (("DISEASE", "disease"),))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(retries, "LONGEST_WAIT", 0.1)


def pipeline(server: Server | str, samples: int | None = None, **settings: Any) -> Language:
    """A pipeline in which the server marks diseases."""
    url = server if isinstance(server, str) else server.url
    model = {"@llm_models": "nerllama.OpenAI.v1", "model": "m", "base_url": url, "timeout": 0.4, **settings}
    nlp = spacy.blank("en")
    voting = {"@misc": "nerllama.Voting.v1", "samples": samples}
    nlp.add_pipe("nerllama_ner", config={"labels": {"DISEASE": "disease"}, "model": model, "voting": voting})
    return nlp


def annotate(nlp: Language, texts: list[str] = TEXTS) -> tuple[list[Doc], dict[str, str]]:
    """Annotate texts, and give the docs and the error of each that failed."""
    failed: dict[str, str] = {}
    nlp.set_error_handler(lambda name, proc, docs, error: failed.update((doc.text, str(error)) for doc in docs))
    docs = list(nlp.pipe(texts))
    assert [doc.text for doc in docs] == texts
    for doc in docs:
        assert ("nerllama" in doc.spans) == (doc.text not in failed)
        found = [] if doc.text in failed else re.findall(r"ataxia\d*", doc.text)
        assert [ent.text for ent in doc.ents] == found
    return docs, failed


# What is sent


def test_a_server_marks_what_it_is_asked_for() -> None:
    with Server() as server:
        docs, failed = annotate(nlp := pipeline(server, timeout=60))
        assert failed == {}
        assert docs[0].ents[0]._.nerllama_vote == 1
        assert len(server.bodies) == len(TEXTS)
        assert nlp.get_pipe("nerllama_ner").model.diagnoses == {"exact": len(TEXTS)}
        sent = next(body for body in server.bodies if body["prompt"].startswith(TEXT))
        assert sent == {
            "model": "m",
            "prompt": f"{TEXT}\nMark disease:\n",
            "temperature": 0.0,
            "max_tokens": len(TEXT) + 5 * 4 + 32,
        }


def vote(server: Server, voting: Voting = ONE, prompt: Any = PAPER, **settings: Any) -> Votes:
    """The votes for one request; an error is raised."""
    [votes] = OpenAI("m", server.url, **settings).vote([REQUEST], prompt, voting, 0)
    if isinstance(votes, Exception):
        raise votes
    return votes


def test_a_prompt_with_a_system_message_is_a_chat() -> None:
    with Server() as server:
        assert vote(server).spans == {(1, 2, "DISEASE"): 1.0}
        prompt = PAPER(REQUEST)
        chat = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.text}]
        assert server.bodies[-1]["messages"] == chat
        assert vote(server, endpoint="completions").spans == {(1, 2, "DISEASE"): 1.0}
        assert server.bodies[-1]["prompt"] == f"{prompt.system}\n\n{prompt.text}"
        vote(server, prompt=CompactPrompt(), endpoint="chat")
        user = {"role": "user", "content": CompactPrompt()(REQUEST).text}
        assert server.bodies[-1]["messages"] == [user]


def test_settings_of_the_server_replace_ours_and_null_leaves_one_out() -> None:
    extra = {"max_tokens": None, "max_completion_tokens": 99, "temperature": 0.7, "top_p": 0.9}
    with Server() as server:
        vote(server, extra_body=extra, max_tokens=7)
        sent = {key: value for key, value in server.bodies[-1].items() if key != "messages"}
        assert sent == {"model": "m", "max_completion_tokens": 99, "temperature": 0.7, "top_p": 0.9}
        vote(server, max_tokens=7)
        assert server.bodies[-1]["max_tokens"] == 7
        vote(server, Voting(2), extra_body={"seed": None, "temperature": 0.3})
        assert ("seed" in server.bodies[-1], server.bodies[-1]["temperature"]) == (False, 0.3)


def test_the_key_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of another server")
    monkeypatch.setenv("MY_KEY", "secret")
    with Server() as server:
        vote(server, api_key_env="MY_KEY")
        vote(server)
        assert [headers["authorization"] for headers in server.headers] == ["Bearer secret", "Bearer none"]
    monkeypatch.delenv("MY_KEY")
    nlp = pipeline("http://127.0.0.1:9/v1", api_key_env="MY_KEY")
    nlp.set_error_handler(lambda *_: pytest.fail("it is the fault of no doc"))
    with pytest.raises(ValueError, match=r"^\[NL191\] .* MY_KEY "):
        list(nlp.pipe(TEXTS))
    with pytest.raises(ValueError, match=r"^\[NL191\]"):
        nlp.get_pipe("nerllama_ner").warm_up()


def test_nothing_else_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client reads there is meant for OpenAI, and this is any server."""
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, f"secret-{name}")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer secret\nX-Mine: secret")
    with Server() as server:
        vote(server)
        assert "secret" not in str(server.headers)
        assert server.headers[-1]["authorization"] == "Bearer none"


@pytest.mark.parametrize("guided", ["vllm", "llama.cpp"])
def test_the_grammar_goes_along(guided: str) -> None:
    with Server() as server:
        vote(server, guided=guided)
        grammar = to_gbnf(REQUEST, PAPER.scheme)
        sent = server.bodies[-1]
        assert (sent["grammar"] if guided == "llama.cpp" else sent["structured_outputs"]["grammar"]) == grammar


# Samples


def test_samples_are_choices_of_one_request() -> None:
    with Server() as server:
        answers = iter([mark("The ataxia fell."), "The ataxia fell."])
        server.answer = lambda _: next(answers)
        assert vote(server, Voting(5, temperature=0.8, seed=3)).spans == {(1, 2, "DISEASE"): 1.0}
        [sent] = server.bodies
        assert (sent["n"], sent["temperature"], sent["seed"]) == (5, 0.8, 3)


@pytest.mark.parametrize("guided", [None, "vllm", "llama.cpp"])
def test_samples_are_drawn_from_all_tokens(guided: str | None) -> None:
    """Else llama.cpp's server leaves out what is less than 5 % as likely as the likeliest: it never votes."""
    with Server() as server:
        vote(server, Voting(2), guided=guided)
        vote(server, Voting(1), guided=guided)
        vote(server, Voting(2), guided=guided, extra_body={"top_k": None, "min_p": 0.1})
        names = ("top_p", "top_k", "min_p")
        sampled, greedy, replaced = ({key: body[key] for key in names if key in body} for body in server.bodies)
        assert sampled == ({"top_p": 1.0, "top_k": 0, "min_p": 0.0} if guided else {}), "others may not know them"
        assert greedy == {}
        assert replaced == ({"top_p": 1.0, "min_p": 0.1} if guided else {"min_p": 0.1})


@pytest.mark.parametrize("max_n", [1, 2])
def test_a_server_that_gives_fewer_choices_is_asked_again(max_n: int) -> None:
    with Server(max_n=max_n) as server:
        answers = iter(["The @@ataxia## fell.", "The ataxia fell."] * 9)
        server.answer = lambda _: next(answers)
        model = OpenAI("m", server.url)
        votes = list(model.vote([REQUEST], PAPER, Voting(4), 0))
        assert sum(model.diagnoses.values()) == 4
        assert votes[0].spans == {(1, 2, "DISEASE"): 0.5 if max_n == 1 else 0.75}
        seeds = [body["seed"] for body in server.bodies]
        assert seeds == ([0, 1, 2, 3] if max_n == 1 else [0, 2, 3]), "no sample is drawn twice"
        list(model.vote([REQUEST], PAPER, Voting(4), 0))
        assert "n" not in server.bodies[-4], "it is known now"


def test_a_server_that_refuses_several_choices_is_asked_for_one() -> None:
    with Server() as server:
        server.refuses_n = True
        model = OpenAI("m", server.url)
        for _ in range(2):
            [votes] = model.vote([REQUEST], PAPER, Voting(3), 0)
            assert votes.spans == {(1, 2, "DISEASE"): 1.0}
        assert ["n" in body for body in server.bodies] == [True, *[False] * 6]


def test_without_log_probabilities_exact_votes_are_one_reading() -> None:
    with Server() as server:
        assert vote(server, Voting()) == vote(server, Voting(1))
        assert server.bodies[0] == server.bodies[1]


# A server that misbehaves

LASTING = [name for name in FAULTS if name not in ("wrong text", "401", "404")]


@pytest.mark.parametrize("fault", LASTING)
def test_a_fault_that_lasts_fails_one_document(fault: str) -> None:
    """The others of its batch are asked for once."""
    texts = TEXTS[:5]
    with Server(lasting={texts[2]: fault}) as server:
        _, failed = annotate(pipeline(server, retries=2), texts)
        assert list(failed) == [texts[2]]
        assert re.match(r"\[NL193\] http.*\bataxia2 gene fell\.'\. The last error: .", failed[texts[2]])
        times = 1 if fault == "400" else 3
        assert server.seen == {text: times if text == texts[2] else 1 for text in texts}


def test_by_default_a_request_that_fails_raises() -> None:
    """As in spaCy's own pipes."""
    with Server(lasting={TEXTS[3]: "500"}) as server:
        docs = pipeline(server, retries=1).pipe(TEXTS)
        assert [doc.text for doc in islice(docs, 3)] == TEXTS[:3]
        with pytest.raises(ConnectionError, match=r"^\[NL193\]"):
            next(docs)
        with pytest.raises(ConnectionError, match=r"^\[NL193\]"):
            pipeline(server, retries=1)(TEXTS[3])


def test_several_hundred_requests_to_a_server_that_misbehaves() -> None:
    temporary = [name for name in LASTING if name != "400"]
    texts = [f"The ataxia{i} gene fell." for i in range(300)]
    with Server({**dict.fromkeys(temporary, 0.02), "400": 0.01, "wrong text": 0}) as server:
        _, failed = annotate(nlp := pipeline(server, retries=3), texts)
        assert 0 < len(failed) < 20
        assert sum(n for fault, n in server.did.items() if fault != "answered") > 80
        assert set(server.did) == {"answered", "400", *temporary}
        assert max(server.seen.values()) <= 4
        assert server.most_in_flight <= 16 + server.did["timeout"] + server.did["slow body"]
        assert nlp.get_pipe("nerllama_ner").model.diagnoses == {"exact": len(texts) - len(failed)}


def test_what_is_no_marking_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A sentence without a usable response has no spans; it did get an answer, and asking again gives the same."""
    with Server(lasting={TEXT: "wrong text"}) as server, caplog.at_level(logging.INFO, "spacy_nerllama"):
        nlp = pipeline(server)
        docs = list(nlp.pipe(TEXTS[:3]))
        assert [len(doc.ents) for doc in docs] == [0, 1, 1]
        assert caplog.messages[-1] == f"Responses of m at {server.url}: 2 exact, 1 unusable"
        server.answer, server.lasting = lambda _: None, {}  # as a model that refuses
        assert list(nlp(TEXT).ents) == []


def test_several_sentences_and_labels_share_the_fate_of_their_document() -> None:
    texts = [f"{TEXTS[0]} {TEXTS[1]}", f"{TEXTS[2]} {TEXTS[3]}"]
    with Server(lasting={TEXTS[1]: "400"}) as server:
        nlp = pipeline(server)
        nlp.add_pipe("sentencizer", first=True)
        _, failed = annotate(nlp, texts)
        assert list(failed) == texts[:1]
        assert server.seen == dict.fromkeys(TEXTS[:4], 1)


def test_a_request_that_the_prompt_refuses_fails_alone() -> None:
    """And it is no failure of the server."""
    both = Request(REQUEST.sentence, (("DISEASE", "disease"), ("GENE", "gene")))
    with Server() as server:
        model = OpenAI("m", server.url, max_failures=1)
        first, second, third = model.vote([REQUEST, both, REQUEST], PAPER, ONE, 0)
        assert first == third == Votes({(1, 2, "DISEASE"): 1.0})
        assert isinstance(second, ValueError)
        assert "NL036" in str(second)
        assert len(server.bodies) == 2


# Outages


def test_a_server_that_is_gone_ends_the_run() -> None:
    """No document is taken for one that failed; none is asked for in vain for long."""
    with Server() as server:
        url = server.url
    nlp = pipeline(url, retries=1, max_failures=7, concurrency=2)
    nlp.set_error_handler(lambda *_: pytest.fail("it is the fault of no doc"))
    with pytest.raises(ModelUnavailableError, match=r"^\[NL194\] The last 7 requests to http.*Connect"):
        list(nlp.pipe(TEXTS))


@pytest.mark.parametrize("fault", ["401", "404"])
def test_a_wrong_key_or_model_ends_the_run_at_once(fault: str) -> None:
    with Server({fault: 1.0}) as server:
        nlp = pipeline(server, concurrency=1)
        nlp.set_error_handler(lambda *_: pytest.fail("it is the fault of no doc"))
        with pytest.raises(ModelUnavailableError, match=rf"^\[NL195\] http.*{fault}"):
            list(nlp.pipe(TEXTS))
        assert len(server.bodies) == 1


def test_a_server_without_the_endpoint_of_the_prompt() -> None:
    """As one for chats only, with a prompt that has no system message."""
    with Server({"404": 1.0}) as server:
        for prompt, endpoint in ((CompactPrompt(), "completions"), (PAPER, "chat")):
            message = rf"^\[NL195\] .*has the endpoint {endpoint}: the setting `endpoint` .*`prompt`"
            with pytest.raises(ModelUnavailableError, match=message):
                vote(server, prompt=prompt)


def test_few_documents_fail_one_by_one() -> None:
    with Server({"500": 1.0}) as server:
        _, failed = annotate(pipeline(server, retries=1, max_failures=7), TEXTS[:6])
        assert list(failed) == TEXTS[:6]


app = Typer()
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(annotate_cli)


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def test_annotate_goes_on_after_an_outage(tmp_path: Path) -> None:
    """What came out before is kept, what the outage touched is not failed, and what fails for good is named."""
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    with Server(lasting={TEXTS[9]: "400"}) as server:
        healthy = server.fault_of
        settings = {"retries": 1, "max_failures": 5, "concurrency": 2}
        pipeline(server, **settings).to_disk(tmp_path / "pipeline")
        command = (tmp_path / "pipeline", tmp_path / "in.jsonl", tmp_path / "out.jsonl")

        server.fault_of = lambda sentence: "500" if sum(server.seen.values()) >= 20 else healthy(sentence)
        code, printed = run(*command)
        assert (code, "NL194" in printed) == (1, True)
        assert not (tmp_path / "out.jsonl").exists()
        asked = dict(server.seen)

        server.fault_of = healthy
        code, printed = run(*command)
        assert (code, "1 documents could not be annotated" in printed) == (FAILED, True)
        assert "nerllama_ner: [NL193]" in printed
        again = [text for text in TEXTS if server.seen[text] > asked.get(text, 0)]
        assert again == TEXTS[-len(again) :], "it went on where it stopped"
        assert 20 <= len(again) <= 23, "at most the two in flight and the failed one are asked for again"
    documents = list(read_corpus(tmp_path / "out.jsonl"))
    assert [document.text for document in documents] == TEXTS
    assert [len(document.mentions) for document in documents] == [int(text != TEXTS[9]) for text in TEXTS]


# In flight


def test_so_many_requests_are_in_flight_and_memory_is_bounded() -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            yield f"The ataxia{taken} gene fell."
            taken += 1

    slow = threading.Event()
    with Server() as server:
        server.answer = lambda text: mark(text) if slow.wait(0.02) else mark(text)
        docs = pipeline(server, concurrency=4, max_failures=1).pipe(endless())
        assert [doc.ents[0].text for doc in islice(docs, 100)] == [f"ataxia{i}" for i in range(100)]
        assert server.most_in_flight == 4
        assert taken <= 100 + 8 * 4
        docs.close()
        slow.wait(0.5)  # what was on its way arrives, on a busy machine late
        server.bodies.clear()
        slow.wait(0.1)
        assert len(server.bodies) == 0, "nothing is asked for any more"


def test_an_answer_does_not_wait_for_docs_that_are_still_to_come() -> None:
    with Server() as server:

        def trickle() -> Iterator[str]:
            yield TEXT
            while not server.did["answered"]:
                time.sleep(0.01)
            time.sleep(0.05)
            yield TEXTS[1]
            pytest.fail("the first doc was not given back")

        docs = pipeline(server).pipe(trickle())
        assert next(docs).ents[0].text == "ataxia0"


def test_no_thread_is_left() -> None:
    """When a stream has ended, or is not wanted any more."""

    def ours() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("nerllama")]

    with Server(lasting=dict.fromkeys(TEXTS[1:], "timeout")) as server:
        docs = pipeline(server, timeout=60).pipe(TEXTS)
        assert next(docs).text == TEXT
        assert len(ours()) == 1
        docs.close()
        assert ours() == []
        annotate(pipeline(server), TEXTS[:1])
        assert ours() == []


def test_in_an_event_loop_that_is_running() -> None:
    """As in a notebook."""
    import asyncio

    async def cell() -> Doc:
        return pipeline(server)(TEXT)

    with Server() as server:
        assert [ent.text for ent in asyncio.run(cell()).ents] == ["ataxia0"]


INTERRUPTED = """
import signal
import sys
import spacy
from spacy_nerllama.models.openai import OpenAI
from spacy_nerllama.pipe import NerLlama
from spacy_nerllama.prompts import CompactPrompt
from spacy_nerllama.voting import Voting
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell

nlp = spacy.blank("en")
model = OpenAI("m", sys.argv[1], timeout=600)
ner = NerLlama(nlp.vocab, model, labels={"DISEASE": "disease"}, prompt=CompactPrompt(), voting=Voting(1))
for doc in ner.pipe(nlp.make_doc(f"ataxia{i} fell") for i in range(1000)):
    print(doc.text, flush=True)
"""


@pytest.mark.parametrize("fault", ["slow body", "429 for an hour"])
def test_an_interrupt_ends_it_at_once(fault: str) -> None:
    """With requests in flight, or waiting to be sent again."""
    with Server(lasting={f"ataxia{i} fell": fault for i in range(1, 1000)}) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout.readline() == "ataxia0 fell\n"
            while server.did[fault] < 8:
                time.sleep(0.01)
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, printed = process.communicate(timeout=30)
        finally:
            process.kill()
        assert time.monotonic() - begun < 15
        assert "\nKeyboardInterrupt\n" in printed
        assert "destroyed" not in printed, "all tasks were cancelled"
        assert process.returncode != 0


# Settings


@pytest.mark.parametrize(
    "settings",
    [
        {"concurrency": 0},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"retries": -1},
        {"max_failures": 0},
        {"max_tokens": 0},
        {"endpoint": "responses"},
        {"guided": "lark"},
    ],
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=rf"^\[NL192\] .*'{name}'"):
        OpenAI("m", "http://127.0.0.1:9/v1", **settings)


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'spacy-nerllama[openai]'")):
        pipeline("http://127.0.0.1:9/v1")(TEXT)


def test_it_travels(tmp_path: Path) -> None:
    with Server() as server:
        nlp = pipeline(server, extra_body={"top_p": 0.5})
        nlp.to_disk(tmp_path / "pipeline")
        assert [ent.text for ent in spacy.load(tmp_path / "pipeline")(TEXT).ents] == ["ataxia0"]
        model = pickle.loads(pickle.dumps(nlp.get_pipe("nerllama_ner").model))
        assert [list(votes.spans) for votes in model.vote([REQUEST], PAPER, Voting(), 0)] == [[(1, 2, "DISEASE")]]
        docs = nlp.pipe(TEXTS[:8], n_process=2, batch_size=2)
        assert [doc.ents[0].text for doc in docs] == [f"ataxia{i}" for i in range(8)]


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"message": {"content": "No gout."}, "finish_reason": "stop"}, "No gout."),
        ({"message": {"content": "No"}, "finish_reason": "length"}, "No"),
        ({"message": {"content": None, "refusal": "no"}}, ""),
        ({"message": {"role": "assistant"}, "finish_reason": "length"}, ""),  # it has only thought
        (
            {"message": {"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "No gout."}]}},
            "No gout.",
        ),
    ],
)
def test_what_a_choice_says(choice: dict[str, Any], text: str) -> None:
    assert _texts(json.dumps({"choices": [choice]}), chat=True) == [text]


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": ""}, "finish_reason": "error", "error": {"code": 502}},
        {"message": {"content": "The "}, "finish_reason": "abort"},
        {"message": {"content": 7}},
        {"message": {"content": [7]}},
        {"message": None},
        {},
        7,
    ],
)
def test_a_choice_that_failed_is_no_text_without_mentions(choice: Any) -> None:
    """It is asked for again."""
    with pytest.raises(retries.TemporaryError, match=r"^\[NL196\]"):
        _texts(json.dumps({"choices": [choice]}), chat=True)
