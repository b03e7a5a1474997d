"""Costs are the shortest times of a clock, divided by items, under as many relations as asked."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from model.embeddings.encoding import Encoding
from model.evaluation.efficiency import Costs, EfficiencySample, Subject
from model.records import Relation

WARM = Relation("warm", "Worn in winter.")
COLD = Relation("cold", "Worn in summer.")
TEXTS = ("a hat", "a cap")
PICTURES = (Path("hat.png"), Path("cap.png"))
DIM = 3


class ManualClock:
    """Clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowModel:
    """Model whose passes take a fixed time; one call in three is interrupted for 100 seconds."""

    def __init__(self, clock: ManualClock, seconds: float, each_relation: bool) -> None:
        self.clock = clock
        self.seconds = seconds
        self.each_relation = each_relation
        self.calls: list[tuple[int, int]] = []

    def passes(self, relations: Sequence[Relation]) -> int:
        return len(relations) if self.each_relation else 1

    def encoder(self, relations: Sequence[Relation]) -> Callable[[Sequence[str], Sequence[Path]], Encoding]:
        self.clock.now += 50  # relations are encoded once and do not count

        def encode(texts: Sequence[str], pictures: Sequence[Path]) -> Encoding:
            assert len(texts) == len(pictures)
            self.calls.append((len(texts), len(relations)))
            self.clock.now += self.seconds * len(texts) * self.passes(relations)
            self.clock.now += 100 if len(self.calls) % 3 == 2 else 0
            return encoding(len(texts))

        return encode

    @property
    def subject(self) -> Subject:
        return Subject(77, self.encoder, self.passes, lambda relations: 2 * len(relations))


def encoding(items: int) -> Encoding:
    vectors = np.eye(items, DIM, dtype=np.float32)[:, None]
    return Encoding(vectors, vectors)


def sample(items: int = 2) -> EfficiencySample:
    return EfficiencySample(TEXTS[:items], PICTURES[:items], (WARM, COLD))


def test_time_per_item_is_the_shortest_under_each_number_of_relations() -> None:
    clock = ManualClock()
    network = SlowModel(clock, 0.25, each_relation=False)
    costs = Costs(sample(), clock)
    costs.measure("rcml", network.subject, encoding(3))
    found = costs.figures["rcml"]
    assert found.ms_per_item == {1: 250, 10: 250, 100: 250}
    assert network.calls == [(2, 1)] * 5 + [(2, 10)] * 5 + [(2, 100)] * 5
    assert found.parameters == 77


def test_slow_system_encodes_fewer_items_under_many_relations() -> None:
    clock = ManualClock()
    system = SlowModel(clock, 0.5, each_relation=True)
    costs = Costs(EfficiencySample(TEXTS * 16, PICTURES * 16, (WARM,)), clock)
    costs.measure("clip", system.subject, encoding(3))
    assert [items for items, _ in system.calls] == [32] * 5 + [12] * 5 + [1] * 5
    assert costs.figures["clip"].ms_per_item == pytest.approx({1: 500, 10: 5_000, 100: 50_000})


def test_bytes_are_those_of_the_vectors_in_half_precision() -> None:
    clock = ManualClock()
    costs = Costs(sample(), clock)
    costs.measure("rcml", SlowModel(clock, 1, each_relation=False).subject, encoding(3))
    assert costs.figures["rcml"].bytes_per_item == {1: 2 * DIM * 2, 10: 20 * DIM * 2, 100: 200 * DIM * 2}


def test_time_per_query_is_that_of_one_ranking() -> None:
    ticks = iter(range(1000))
    costs = Costs(sample(), lambda: next(ticks) ** 2 / 1000)
    costs.measure("rcml", SlowModel(ManualClock(), 1, each_relation=False).subject, encoding(3))
    # 15 encodings read the clock 30 times. Query n then lasts from (30 + 2n)^2 to (31 + 2n)^2 milliseconds.
    assert costs.figures["rcml"].ms_per_query == pytest.approx(61)


def test_further_checkpoints_of_a_network_are_not_measured() -> None:
    clock = ManualClock()
    first, second = (SlowModel(clock, seconds, each_relation=False) for seconds in (1, 2))
    costs = Costs(sample(), clock)
    for model in (first, second):
        costs.measure("rcml", model.subject, encoding(3))
    assert second.calls == []
    assert costs.figures["rcml"].ms_per_item[1] == 1000


def test_table_lists_networks_first() -> None:
    clock = ManualClock()
    costs = Costs(sample(), clock)
    for name in ("clip:large", "rcml", "blind"):
        costs.measure(name, SlowModel(clock, 1, each_relation=False).subject, encoding(3))
    table = costs.table("a machine", ["rcml", "blind"])
    assert list(table.systems) == ["rcml", "blind", "clip:large"]
    assert (table.machine, table.items, table.candidates) == ("a machine", 2, 3)


def test_repeated_relations_have_different_descriptions() -> None:
    found = sample().first_relations(5)
    assert [one.relation_id for one in found] == ["warm", "cold", "warm 2", "cold 2", "warm 3"]
    assert [one.description for one in found[2:4]] == ["Worn in winter. (2)", "Worn in summer. (2)"]
    assert len({one.description for one in found}) == 5
