"""Texts -> alignment -> votes: what models have in common that answer in free text."""

from collections import Counter
from collections.abc import Iterable

from ..alignment import Diagnosis, align
from ..marking import MarkingScheme
from ..requests import Request, TokenSpan
from ..voting import Votes


def count_votes(
    request: Request, responses: Iterable[str], scheme: MarkingScheme
) -> tuple[Votes, list[Diagnosis]]:
    """Let the responses to a request vote (SCNP): each is a reading, a span's vote the share of them that hold it.

    request: The sentence, and the labels that were asked for.
    responses: What a model wrote, any texts at all. One that is unusable is no reading.
    scheme: The markers that were asked for.
    RETURNS: The votes, none if there are no readings; and the diagnosis of each response.
    RAISES: KeyError if the scheme has no markers for one of the labels.
    """
    counts: Counter[TokenSpan] = Counter()
    diagnoses: list[Diagnosis] = []
    for response in responses:
        spans, diagnosis = align(request, response, scheme)
        counts.update(spans)
        diagnoses.append(diagnosis)
    readings = len(diagnoses) - diagnoses.count("unusable")
    return Votes({span: count / readings for span, count in sorted(counts.items())}), diagnoses
