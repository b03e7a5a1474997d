"""Cost of each network and system: size, time per item and per query, and memory (the paper's Table 2).

The cost of a network hardly grows with the number of relations, because its towers encode an item once. A system whose
towers read the relation needs another pass for each relation. Every cost is therefore given for several numbers of
relations.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from model.embeddings.encoding import Encoding, average
from model.encoder.encoder import Encoder
from model.network.image_cache import PictureFiles
from model.records import Relation
from model.systems.system import System

from .evaluation_set import EvaluationSet
from .figures import EfficiencyFigures, EfficiencyTable

RELATION_COUNTS = (1, 10, 100)
"""Numbers of relations for which the costs are given."""

SAMPLE_ITEMS = 32
"""Maximum number of items that are encoded."""

MAX_PASSES = 128
"""Maximum number of texts that are encoded at a time: with many relations, a slow system encodes fewer items."""

REPETITIONS = 5
"""Number of times that the items are encoded; the figure is the shortest time, because other load only adds to it."""

QUERIES = 32
"""Number of queries that are ranked, one at a time; the figure is the shortest time."""

HALF_PRECISION = 2
"""Bytes of a component of a vector in an index."""

Clock = Callable[[], float]
"""Clock in seconds."""


@dataclass(frozen=True)
class Subject:
    """Network or system to measure.

    `encoder` returns a function that encodes items under the given relations; only the latter is timed, because
    relations are encoded once for all items. `passes` and `vectors` are, for one item under the given relations, the
    number of texts that the tower encodes and the number of different text and image vectors.
    """

    parameters: int
    encoder: Callable[[Sequence[Relation]], Callable[[Sequence[str], Sequence[Path]], Encoding]]
    passes: Callable[[Sequence[Relation]], int]
    vectors: Callable[[Sequence[Relation]], int]

    @classmethod
    def of_network(cls, encoder: Encoder, parameters: int) -> "Subject":
        """Describe a network: one pass for all relations, a text vector and an image vector for each relation.

        Relations that condition the network in the same way count once: a CLIP baseline needs one vector.
        """

        def conditioning(relations: Sequence[Relation]) -> list[Relation]:
            return list(dict.fromkeys(encoder.network.conditioning_relation(one) for one in relations))

        return cls(
            parameters=parameters,
            encoder=lambda relations: partial(_encode_files, encoder.with_relations(conditioning(relations))),
            passes=lambda relations: 1,
            vectors=lambda relations: 2 * len(conditioning(relations)),
        )

    @classmethod
    def of_system(cls, system: System) -> "Subject":
        """Describe a system: every pass of a tower gives one vector."""

        def vectors(relations: Sequence[Relation]) -> int:
            passes = system.passes(1, len(relations))
            return passes.text + passes.image

        return cls(
            parameters=system.parameters,
            encoder=lambda relations: partial(system.encode, relations=relations),
            passes=lambda relations: system.passes(1, len(relations)).text,
            vectors=vectors,
        )


def _encode_files(encoder: Encoder, texts: Sequence[str], pictures: Sequence[Path]) -> Encoding:
    """Encode items as `Encoder.encode_part` does, but without a progress bar."""
    preprocessor = encoder.preprocessor
    return encoder.encode_inputs(preprocessor.tokenize(texts), PictureFiles(preprocessor, pictures))


@dataclass(frozen=True)
class EfficiencySample:
    """Items and relations to measure with; the texts of the items have about the median length."""

    texts: tuple[str, ...]
    pictures: tuple[Path, ...]
    relations: tuple[Relation, ...]

    @classmethod
    def of(cls, questions: EvaluationSet, relations: Sequence[Relation]) -> "EfficiencySample":
        """Choose the test items whose texts are closest to the median length, the closest first."""
        lengths = np.array([len(text) for text in questions.texts])
        rows = np.argsort(np.abs(lengths - np.median(lengths)), kind="stable")[:SAMPLE_ITEMS].tolist()
        return cls(
            texts=tuple(questions.texts[row] for row in rows),
            pictures=tuple(questions.pictures[row] for row in rows),
            relations=tuple(relations[row] for row in questions.known.tolist()),
        )

    def first_relations(self, count: int) -> list[Relation]:
        """Return `count` different relations; if there are fewer, their descriptions are repeated with a number."""
        found = []
        for place in range(count):
            number, row = divmod(place, len(self.relations))
            relation = self.relations[row]
            if number:
                name = f"{relation.relation_id} {number + 1}"
                relation = replace(
                    relation, relation_id=name, description=f"{relation.description} ({number + 1})"
                )
            found.append(relation)
        return found


class Costs:
    """Costs of networks and systems by name, measured one after another with the same items and relations."""

    def __init__(self, sample: EfficiencySample, clock: Clock = time.perf_counter) -> None:
        self._sample = sample
        self._clock = clock
        self._candidates = 0
        self.figures: dict[str, EfficiencyFigures] = {}

    def measure(self, name: str, subject: Subject, encoding: Encoding) -> None:
        """Measure a network or system whose vectors of all test items are `encoding`.

        Further checkpoints of the same network have the same cost and are not measured.
        """
        if name in self.figures:
            return
        relations = {count: self._sample.first_relations(count) for count in RELATION_COUNTS}
        # The last relation is one between different items; which one makes no difference to the time.
        vectors = average(encoding.text[:, -1], encoding.image[:, -1], encoding.text_share)
        size = HALF_PRECISION * vectors.shape[1]
        self._candidates = len(vectors)
        self.figures[name] = EfficiencyFigures(
            parameters=subject.parameters,
            ms_per_item={count: self._ms_per_item(subject, own) for count, own in relations.items()},
            ms_per_query=self._ms_per_query(vectors),
            bytes_per_item={count: size * subject.vectors(own) for count, own in relations.items()},
        )

    def table(self, machine: str, networks: Sequence[str]) -> EfficiencyTable:
        """Return all costs, those of the networks first."""
        return EfficiencyTable(
            machine=machine,
            items=len(self._sample.texts),
            candidates=self._candidates,
            systems={name: self.figures[name] for name in dict.fromkeys((*networks, *self.figures))},
        )

    def _ms_per_item(self, subject: Subject, relations: Sequence[Relation]) -> float:
        items = min(len(self._sample.texts), max(1, MAX_PASSES // subject.passes(relations)))
        texts, pictures = self._sample.texts[:items], self._sample.pictures[:items]
        encode = subject.encoder(relations)
        return self._milliseconds(lambda _: encode(texts, pictures), REPETITIONS) / items

    def _ms_per_query(self, vectors: Float32[ndarray, "items dim"]) -> float:
        """Order all items by their cosine with one of them."""
        return self._milliseconds(
            lambda number: np.argsort(vectors @ vectors[number % len(vectors)]), QUERIES
        )

    def _milliseconds(self, run: Callable[[int], object], repetitions: int) -> float:
        """Return the shortest time of a call; `run` gets the number of the repetition."""
        times = []
        for number in range(repetitions):
            start = self._clock()
            run(number)
            times.append(self._clock() - start)
        return 1000 * min(times)
