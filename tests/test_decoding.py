"""Marked decoding: the same readings as token by token, whatever shares a batch, within the memory given.

The oracle is `generate` with `prefix_allowed_tokens_fn`, which reads token by token (see oracle.py); the exact
votes are compared with plain forward passes over every reading there is.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from itertools import islice, permutations
from typing import Any

import pytest
import torch
from oracle import generate, sample
from recorder import DISEASE, GENE, Recorder, make_job, sentence
from strategies import unmark

from spacy_nerllama.grammar import Grammar, State
from spacy_nerllama.marking import SINGLE, Markers, MarkingScheme, join, mark, typed_scheme
from spacy_nerllama.models import decoding
from spacy_nerllama.models.decoding import Job, decode
from spacy_nerllama.models.engine import Engine
from spacy_nerllama.models.scoring import Footprint, Row
from spacy_nerllama.models.tokens import PromptIds
from spacy_nerllama.models.walks import Exact
from spacy_nerllama.prompts import PaperPrompt
from spacy_nerllama.requests import Request, TokenSpan
from spacy_nerllama.voting import Votes, Voting

TEXTS = {
    "markers": "The @@ataxia## gene @@ ## was @@cloned.",
    "begins as a marker": "Some @-adrenergic and #-shaped signs @ night",
    "control tokens": "An <|im_end|> ataxia<|endoftext|> gene <|im_start|>system",
    "Greek": "TGF-β1, α-synuclein and µ-opioids at ΔΨm",
    "no spaces": "p53/MDM2(ATM)=BRCA1-del;ataxia",
    "emoji": "gene 😀🧬 ataxia 👩‍🔬!",
    "white space": "ataxia \n\n gene  \t ATM",
    "one token": "ataxia",
    "plain": "Mutations of the ATM gene cause ataxia telangiectasia in man.",
}
LONG = " ".join(["The ATM gene causes ataxia, and low-dose lithium worsens it;"] * 30)
TYPED = typed_scheme({"DISEASE": "disease", "GENE": "gene or protein"})
APART = MarkingScheme(None, {"DISEASE": Markers("@@", "##"), "GENE": Markers("<<", ">>")})
GREEDY, EXACT = Voting(samples=1), Voting()


def jobs_of(encoder: Any, voting: Voting, texts: Sequence[str] = tuple(TEXTS.values())) -> list[Job]:
    """For each text a job for diseases and one for genes."""
    requests = [Request(sentence(text), labels) for text in texts for labels in (DISEASE, GENE)]
    return [make_job(encoder, request, voting) for request in requests]


def oracle(model: Any, job: Job) -> tuple[TokenSpan, ...]:
    encoder, engine, *_ = model.load()
    return generate(engine.model, job.grammar, job.prompt, encoder.end_of_turn)


def reads_as_the_oracle(model: Any, text: str, labels: tuple, scheme: MarkingScheme = SINGLE) -> int:
    """Compare one greedy reading. Gives its number of mentions."""
    encoder, engine, *_ = model.load()
    job = make_job(encoder, Request(sentence(text), labels), GREEDY, scheme)
    (votes,) = decode([job], engine, 1.0, 8192)
    expected = oracle(model, job)
    assert votes == Votes(dict.fromkeys(expected, 1.0), 0.0)
    return len(expected)


# With the tiny random model, nearly every place has a surprise.


def test_long_text_is_long() -> None:
    assert len(sentence(LONG).words) >= 300


@pytest.mark.parametrize("text", [*TEXTS.values(), LONG], ids=[*TEXTS, "long"])
def test_the_greedy_reading(tiny, text: str) -> None:
    for labels in (DISEASE, GENE):
        reads_as_the_oracle(tiny, text, labels)


def test_the_texts_have_mentions_in_their_readings(tiny) -> None:
    assert sum(reads_as_the_oracle(tiny, text, DISEASE) for text in TEXTS.values()) > len(TEXTS)


@pytest.mark.parametrize("scheme", [TYPED, APART], ids=["sharing first ids", "apart"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_greedy_reading_of_several_labels(tiny, text: str, scheme: MarkingScheme) -> None:
    reads_as_the_oracle(tiny, text, (*DISEASE, *GENE), scheme)


# The real model, in float32, with its adapter where there is one.


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_greedy_reading_of_the_real_model(real, text: str) -> None:
    reads_as_the_oracle(real, text, DISEASE)


@pytest.mark.slow
def test_the_greedy_reading_of_the_real_model_in_a_long_text(real) -> None:
    reads_as_the_oracle(real, LONG, DISEASE)


@pytest.mark.slow
def test_the_real_model_in_batches(real) -> None:
    """What is compared above one by one, together: in float32 every reading stays the same."""
    encoder, engine, *_ = real.load()
    alone = [next(decode([job], engine, 1.0, 8192)) for job in jobs_of(encoder, GREEDY)]
    assert list(decode(jobs_of(encoder, GREEDY), engine, 1.0, 512)) == alone
    assert any(votes.spans for votes in alone)


# Exact votes are the probabilities of spans.


def every_reading(grammar: Grammar, state: State | None = None) -> Iterator[tuple[tuple[int, ...], tuple]]:
    """The ids and the spans of every reading."""
    state = state or State()
    choices = grammar.choices(state)
    if not choices:
        yield (), grammar.last_span(state)
    for choice in choices:
        following, span = grammar.advance(state, choice)
        for ids, spans in every_reading(grammar, following):
            yield (choice, *ids), ((span, *spans) if span else spans)


def probability(model: torch.nn.Module, job: Job, ids: tuple[int, ...], temperature: float) -> float:
    """The probability of a reading: one plain forward pass, each choice renormalised over the legal ids."""
    prompt = [*job.prompt.ids]
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 :].double() / temperature
    everything = logits.softmax(-1)
    state, product = State(), 1.0
    for at, chosen in zip(everything, ids, strict=False):
        legal = list(job.grammar.choices(state))
        product *= float(at[chosen] / at[legal].sum())
        state, _ = job.grammar.advance(state, chosen)
    return product


def brute_force(model: torch.nn.Module, job: Job, temperature: float) -> dict[TokenSpan, float]:
    votes: dict[TokenSpan, float] = {}
    for ids, spans in every_reading(job.grammar):
        mass = probability(model, job, ids, temperature)
        for span in spans:
            votes[span] = votes.get(span, 0.0) + mass
    return votes


CASES = [
    ("ATM @-x\n\n.", GENE, SINGLE, 1.0),
    ("low (ATM)", GENE, SINGLE, 0.5),
    ("no #1 β", DISEASE, SINGLE, 2.0),
    ("ATM fell", (*DISEASE, *GENE), TYPED, 1.0),
    ("p53 up", (*DISEASE, *GENE), APART, 1.0),
]


@pytest.mark.parametrize(("text", "labels", "scheme", "temperature"), CASES)
def test_exact_votes(tiny, text: str, labels: tuple, scheme: MarkingScheme, temperature: float) -> None:
    encoder, engine, *_ = tiny.load()
    job = make_job(encoder, Request(sentence(text), labels), Voting(min_mass=0.0), scheme)
    recorder = Recorder(engine)
    (votes,) = decode([job], recorder, temperature, 4096)
    expected = brute_force(engine.model, job, temperature)
    assert votes.spans == pytest.approx(expected, abs=1e-5)
    assert votes.unexplored == pytest.approx(0.0, abs=1e-9)
    lengths = {len(ids) for ids, _ in every_reading(job.grammar)}
    assert max(map(len, recorder.read)) <= len(job.prompt.ids) + max(lengths) <= job.size


def test_exact_votes_that_leave_out_branches(tiny) -> None:
    """They are renormalised by what was explored, and the rest is reported."""
    encoder, engine, *_ = tiny.load()
    request = Request(sentence("ATM and p53 fell"), GENE)
    (whole,) = decode([make_job(encoder, request, Voting(min_mass=0.0))], engine, 1.0, 4096)
    (part,) = decode([make_job(encoder, request, Voting(min_mass=0.1))], engine, 1.0, 4096)
    assert 0.0 < part.unexplored < 1.0
    assert part.spans.keys() < whole.spans.keys()
    for span, vote in whole.spans.items():
        explored = part.spans.get(span, 0.0) * (1 - part.unexplored)
        assert -1e-6 <= vote - explored <= part.unexplored + 1e-6


def test_samples_agree_with_exact_votes(tiny) -> None:
    encoder, engine, *_ = tiny.load()
    request, k = Request(sentence("ATM and p53 fell"), GENE), 500
    (exact,) = decode([make_job(encoder, request, Voting(min_mass=0.0))], engine, 1.0, 4096)
    (drawn,) = decode([make_job(encoder, request, Voting(samples=k))], engine, 1.0, 4096)
    assert drawn.unexplored == 0.0
    assert drawn.spans.keys() <= exact.spans.keys()
    for span, vote in exact.spans.items():
        assert abs(drawn.spans.get(span, 0.0) - vote) <= 4.5 * math.sqrt(vote * (1 - vote) / k) + 1 / k
    assert all(share == round(share * k) / k for share in drawn.spans.values()), "k votes are counted exactly"


def test_samples_are_drawn_as_the_oracle_draws_them(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole readings of k samples that share passes, against k runs token by token: Pearson's chi-square test of
    two samples at the level of one in a thousand, readings seen less than 16 times pooled."""
    encoder, engine, *_ = tiny.load()
    k, ours = 600, Counter()
    add = decoding._Result.add

    def counting(self: Any, spans: Sequence[TokenSpan], share: float) -> None:
        ours[tuple(spans)] += round(k * share)
        add(self, spans, share)

    monkeypatch.setattr(decoding._Result, "add", counting)
    job = make_job(encoder, Request(sentence("low (ATM)"), GENE), Voting(samples=k))
    list(decode([job], engine, 1.0, 4096))
    theirs = Counter(sample(engine.model, job.grammar, job.prompt, encoder.end_of_turn, k, seed=0))
    assert ours.total() == theirs.total() == k
    rare = [reading for reading in ours | theirs if ours[reading] + theirs[reading] < 16]
    cells = [(ours[reading], theirs[reading]) for reading in ours | theirs if reading not in rare]
    cells += [(sum(ours[reading] for reading in rare), sum(theirs[reading] for reading in rare))] if rare else []
    statistic = sum((a - b) ** 2 / (a + b) for a, b in cells)
    freedom = len(cells) - 1
    assert freedom > 4
    # Wilson and Hilferty's approximation of the quantile at 0.999
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


# Batches change nothing but time and memory.


@pytest.mark.parametrize("voting", [GREEDY, Voting(samples=5), EXACT], ids=["greedy", "samples", "exact"])
@pytest.mark.parametrize("max_batch_tokens", [160, 700, 4096])
def test_a_batch_gives_the_same_as_one_by_one(tiny, voting: Voting, max_batch_tokens: int) -> None:
    encoder, engine, *_ = tiny.load()
    alone = [votes for job in jobs_of(encoder, voting) for votes in decode([job], engine, 1.0, 4096)]
    recorder = Recorder(engine)
    together = list(decode(jobs_of(encoder, voting), recorder, 1.0, max_batch_tokens))
    assert len(together) == len(alone)
    for one, other in zip(together, alone, strict=True):
        assert one.spans == pytest.approx(other.spans, abs=1e-4)
        assert one.unexplored == pytest.approx(other.unexplored, abs=1e-4)
    assert max(recorder.batches) <= max_batch_tokens
    assert max(recorder.rows) > 1


def test_the_order_of_jobs_changes_only_the_order_of_votes(tiny) -> None:
    encoder, engine, *_ = tiny.load()
    texts = [TEXTS["plain"], TEXTS["markers"], TEXTS["one token"]]
    by_text = {text: list(decode(jobs_of(encoder, GREEDY, [text]), engine, 1.0, 4096)) for text in texts}
    assert len(set(map(str, by_text.values()))) == 3
    for order in permutations(texts):
        votes = list(decode(jobs_of(encoder, GREEDY, order), engine, 1.0, 4096))
        assert votes == [vote for text in order for vote in by_text[text]]


@pytest.mark.parametrize("voting", [GREEDY, Voting(samples=5), EXACT], ids=["greedy", "samples", "exact"])
@pytest.mark.parametrize("scheme", [SINGLE, TYPED], ids=["single", "typed"])
def test_every_reading_without_its_markers_is_its_sentence(tiny, voting: Voting, scheme: MarkingScheme) -> None:
    encoder, engine, *_ = tiny.load()
    labels = DISEASE if scheme is SINGLE else (*DISEASE, *GENE)
    jobs = [make_job(encoder, Request(sentence(text), labels), voting, scheme) for text in TEXTS.values()]
    recorder = Recorder(engine)
    list(decode(jobs, recorder, 1.0, 4096))
    prompts, whole = {job.prompt.ids: job for job in jobs}, 0
    for read in recorder.read:
        ((prompt, job),) = [(p, job) for p, job in prompts.items() if read[: len(p)] == p]
        whole += check_reading(encoder, job.grammar, scheme, read[len(prompt) :])
    assert whole >= len(jobs)


def check_reading(encoder: Any, grammar: Grammar, scheme: MarkingScheme, ids: tuple[int, ...]) -> bool:
    """Check a reading, or its beginning where a draft stopped inside of a mention. Gives whether it is whole."""
    state, spans = State(), []
    for token_id in ids:
        assert token_id in grammar.choices(state)
        state, span = grammar.advance(state, token_id)
        spans += [span] if span else []
    if grammar.choices(state):
        assert state.label is not None
        return False
    left_open = grammar.last_span(state)
    marked = mark(grammar.sentence, [*spans, *left_open], scheme)
    written = encoder.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
    assert written == join(marked[:-1] if left_open else marked)
    assert unmark(marked)[0] == grammar.sentence.text
    return True


def test_the_beginning_that_prompts_share_is_read_once(tiny) -> None:
    encoder, engine, *_ = tiny.load()
    jobs = jobs_of(encoder, EXACT, [TEXTS["plain"], TEXTS["Greek"]])
    recorder = Recorder(engine)
    together = list(decode(jobs, recorder, 1.0, 4096))
    for job in jobs[::2]:
        assert recorder.read.count(job.prompt.shared) == 1
    apart = [jobs[i] for i in (0, 2, 1, 3)]  # jobs of one sentence do not follow each other: nothing is shared
    recorder = Recorder(engine)
    votes = list(decode(apart, recorder, 1.0, 4096))
    assert jobs[0].prompt.shared not in recorder.read
    for one, other in zip(together, [votes[i] for i in (0, 2, 1, 3)], strict=True):
        assert one.spans == pytest.approx(other.spans, abs=1e-4)


def test_prompts_that_are_all_shared(tiny) -> None:
    """A prompt may have nothing of its own; then there is nothing to go on from after a shared pass."""
    encoder, engine, *_ = tiny.load()
    grammar = Grammar(Request(sentence("ATM fell"), GENE), SINGLE, encoder.piece)
    job = Job(PromptIds((), (5, 6, 7), ()), grammar, Exact(0.0))
    (alone,) = decode([job], engine, 1.0, 4096)
    assert alone.spans
    for votes in decode([job, job], engine, 1.0, 4096):
        assert votes.spans == pytest.approx(alone.spans, abs=1e-5)


def test_jobs_are_a_stream(tiny) -> None:
    """Of endless jobs only some are taken ahead, also where all of them are the same sentence."""
    encoder, engine, *_ = tiny.load()
    taken = 0

    def endless(texts: Sequence[str]) -> Iterator[Job]:
        nonlocal taken
        while True:
            for job in jobs_of(encoder, EXACT, texts):
                taken += 1
                yield job

    for texts in (list(TEXTS.values()), [TEXTS["plain"]]):
        taken = 0
        assert len(list(islice(decode(endless(texts), engine, 1.0, 256), 20))) == 20
        assert taken < 1000, "the pool goes round a few times before the first jobs are done"


@pytest.mark.parametrize("voting", [GREEDY, EXACT], ids=["greedy", "exact"])
def test_passes_are_two_and_one_for_each_mention(real, voting: Voting) -> None:
    """Where the model is sure: the copy, the first mention, and then what closes one opens the next."""
    encoder, engine, *_ = real.load()
    text = "Mutations of the ATM gene cause ataxia and diabetes, not ataxia telangiectasia."
    job = make_job(encoder, Request(sentence(text), DISEASE), voting)
    recorder = Recorder(engine)
    (votes,) = decode([job], recorder, 0.1, 4096)
    assert len([vote for vote in votes.spans.values() if vote > 0.5]) >= 2
    assert len(recorder.batches) <= 2 + len(votes.spans)


def test_a_gpu_without_memory_halves_its_batches(tiny, caplog: pytest.LogCaptureFixture) -> None:
    encoder, engine, *_ = tiny.load()
    recorder, limit = Recorder(engine), 300

    def score(rows: list) -> Any:
        footprint = Footprint()
        for row in rows:
            footprint.add(row)
        if footprint.total(rows[-1]) > limit and len(rows) > 1:
            raise torch.OutOfMemoryError
        return Recorder.score(recorder, rows)

    class Small:
        efficient, prefix, at_once, submit = engine.efficient, engine.prefix, engine.at_once, Engine.submit

    small: Any = Small()
    small.score = score
    jobs = jobs_of(encoder, EXACT)
    found = list(decode(jobs, small, 1.0, 4096))
    for one, other in zip(found, decode(jobs_of(encoder, EXACT), engine, 1.0, 4096), strict=True):
        assert one.spans == pytest.approx(other.spans, abs=1e-4)
    assert "[NLW002] The GPU has no memory for batches of 4096 tokens" in caplog.text
    limit = 0
    small.score = lambda rows: exec("raise torch.OutOfMemoryError", {"torch": torch})
    with pytest.raises(MemoryError):
        next(decode(jobs, small, 1.0, 4096))


@pytest.mark.parametrize("at_once", [1, 8])
def test_rows_that_fail_fail_their_job_alone(tiny, at_once: int) -> None:
    """Where their error is that of the future, as a server's is. No more rows of the job are sent after that."""
    encoder, engine, *_ = tiny.load()
    jobs = jobs_of(encoder, EXACT, list(TEXTS.values())[:3])
    plain, recorder, refused = Recorder(engine), Recorder(engine), ValueError("refused")
    expected = list(decode(jobs, plain, 1.0, 4096))
    ids = jobs[1].prompt.ids

    def rows_of_it(recorder: Recorder) -> int:
        return sum(read[: len(ids)] == ids for read in recorder.read)

    class Served:
        efficient, prefix = 1, engine.prefix

        def submit(self, rows: Sequence[Row]) -> Future[Any]:
            before = rows_of_it(recorder)
            future = recorder.submit(rows)
            if (before, rows_of_it(recorder)) == (1, 2):
                future = Future()
                future.set_exception(refused)
            return future

    served: Any = Served()
    served.at_once = at_once
    found = list(decode(jobs, served, 1.0, 4096))
    assert [i for i, votes in enumerate(found) if votes is refused] == [1]
    for one, other in zip(found, expected, strict=True):
        assert one is refused or one.spans == pytest.approx(other.spans, abs=1e-4)
    assert rows_of_it(plain) > 2
    assert rows_of_it(recorder) < 2 + at_once, "what was under way"


def test_an_engine_that_raises_itself_ends_the_run(tiny) -> None:
    """As the local one does: nothing says that its next rows would fare better."""
    encoder, engine, *_ = tiny.load()

    class Broken:
        efficient, prefix, at_once = engine.efficient, engine.prefix, engine.at_once
        submit = staticmethod(lambda rows: 1 // 0)

    broken: Any = Broken()
    with pytest.raises(ZeroDivisionError):
        list(decode(jobs_of(encoder, EXACT), broken, 1.0, 4096))


def test_what_all_prompts_begin_with_is_read_once(tiny) -> None:
    """Once for each label, as long as the model is loaded; and nothing changes by it."""
    encoder, engine, *_ = tiny.load()
    requests = [
        Request(sentence(text), labels) for text in ("ATM fell", "No ataxia.") for labels in (DISEASE, GENE)
    ]
    prompts = [encoder.prompt(PaperPrompt()(request)) for request in requests]

    def jobs(parted: bool) -> list[Job]:
        return [
            Job(
                prompt if parted else PromptIds((), (), prompt.ids),
                Grammar(request, SINGLE, encoder.piece),
                Exact(0.02),
            )
            for prompt, request in zip(prompts, requests, strict=True)
        ]

    whole = list(decode(jobs(parted=False), engine, 1.0, 4096))
    engine.prefix.cache_clear()
    for _ in range(2):
        for one, other in zip(decode(jobs(parted=True), engine, 1.0, 4096), whole, strict=True):
            assert one.spans == pytest.approx(other.spans, abs=1e-4)
    assert engine.prefix.cache_info().misses == len({prompt.prefix for prompt in prompts}) == 2


def test_first_results_come_before_all_jobs_are_taken(tiny) -> None:
    encoder, engine, *_ = tiny.load()
    recorder, jobs = Recorder(engine), jobs_of(encoder, GREEDY, ["ATM fell"] * 300)
    next(decode(jobs, recorder, 1.0, 1024))
    assert len(recorder.read) < len(jobs)


def test_a_job_that_is_long_in_coming_holds_up_a_bounded_number(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a server is asked for its row again and again, and answers the others."""
    monkeypatch.setattr(decoding, "MOST_HELD", 100)
    encoder, engine, *_ = tiny.load()
    recorder, taken = Recorder(engine), 0
    late: dict[Future[Any], Sequence[Row]] = {}

    def submit(rows: Sequence[Row]) -> Future[Any]:
        future: Future[Any] = Future()
        if late:
            future.set_result(recorder.score(rows))
        else:
            late[future] = rows
        return future

    def waited(futures: dict[Future[Any], Any], **settings: Any) -> Any:
        if futures.keys() == late.keys():  # it comes when there is nothing else to wait for
            ((future, rows),) = late.items()
            future.set_result(recorder.score(rows))
        return wait(futures, **settings)

    def jobs() -> Iterator[Job]:
        nonlocal taken
        for job in jobs_of(encoder, GREEDY, ["ATM fell"] * 300):
            taken += 1
            yield job

    recorder.at_once = 2
    monkeypatch.setattr(recorder, "submit", submit)
    monkeypatch.setattr(decoding, "wait", waited)
    next(decode(jobs(), recorder, 1.0, 1024))
    assert taken < 100 + 2 * 64, "a group of jobs is taken whole"


def test_no_jobs(tiny) -> None:
    assert list(decode([], tiny.load().engine, 1.0, 4096)) == []
