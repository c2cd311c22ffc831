"""The benchmarks of a training step and of merging, in small: their tables, and that both sides run."""

import dataclasses
import gc
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def rows(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_training_step_is_measured_both_ways(monkeypatch, capsys) -> None:
    import finetune as benchmark

    settings = ["--shape", "tiny", "--lengths", "32", "--batches", "1", "--steps", "1"]
    monkeypatch.setattr(sys, "argv", ["finetune.py", *settings])
    benchmark.main()
    head, *_, row = rows(capsys.readouterr().out)
    found = dict(zip(head, row, strict=True))
    assert found["batch x length"] == "1 x 32"
    assert all(
        float(found[f"{way}, {what}"].replace(",", "")) > 0
        for way in benchmark.WAYS
        for what in ("MB", "tokens/s")
    )
    assert float(found["speed ratio"]) > 0


def test_products_in_float32_change_neither_what_is_counted_nor_the_dtype() -> None:
    from live import LiveTensors

    counted = {}
    for float32_products in (False, True):
        with LiveTensors(float32_products) as live:
            left = torch.ones(8, 16, dtype=torch.bfloat16, requires_grad=True)
            product = left @ torch.ones(16, 4, dtype=torch.bfloat16)
            product.sum().backward()
            counted[float32_products] = live.peak, live.now
            assert product.dtype == left.grad.dtype == torch.bfloat16
        assert live.peak >= 2 * (8 * 16 + 16 * 4 + 8 * 4 + 8 * 16)
        del left, product
        assert live.now == 0
    assert counted[False] == counted[True]


def test_the_base_is_never_there_unquantised() -> None:
    """Only the tables are bfloat16; a layer's weights are there for as long as it takes to quantise them."""
    import finetune as benchmark
    from live import LiveTensors

    shape = dataclasses.replace(benchmark.SHAPES["tiny"], layers=16)
    with LiveTensors() as live:
        base = benchmark.random_base(shape, torch.bfloat16, "cpu")
        gc.collect()
    tables = 2 * 2 * shape.vocabulary * shape.width
    linear = shape.layers * sum(i * o for i, o in shape.linear.values())
    assert live.now < tables + 0.6 * linear
    assert live.peak < tables + linear
    assert not any(parameter.is_meta for parameter in base.parameters())


def test_merged_and_beside_take_turns(
    corpus: Path, tiny_base: Path, tiny_adapter: Path, monkeypatch, capsys
) -> None:
    import merging as benchmark

    settings = ["--data", str(corpus / "devel.spacy"), "--limit", "2", "--rounds", "2", "--dtype", "float32"]
    settings += ["--name", str(tiny_base), "--adapter", str(tiny_adapter)]
    monkeypatch.setattr(sys, "argv", ["merging.py", *settings])
    benchmark.main()
    head, *found = rows(capsys.readouterr().out)
    assert [row[0] for row in found if row[0] != "---"] == ["one greedy reading", "exact"]
    assert all(len(row) == len(head) for row in found)
