"""Baselines of relation type: the frequency of the relations, and the membership of both items."""

import numpy as np
import pytest

from model.data.edge_table import EdgeTable
from model.evaluation.baselines.evidence import Evidence
from model.evaluation.baselines.relation_frequency import frequency_scores, member_scores

TRAINING = EdgeTable(np.arange(6), np.arange(6) + 1, np.array([1, 1, 1, 2, 2, 3]))
EVIDENCE = Evidence(("",) * 9, np.arange(9), TRAINING, 4, None, None)
KNOWN = np.array([1, 2, 3])
ASKED = EdgeTable(np.array([0, 2]), np.array([1, 3]), np.array([1, 1]))


def test_frequency_counts_training_edges_plus_one() -> None:
    expected = np.log(np.array([4, 3, 2]) / 9)
    assert frequency_scores(EVIDENCE, ASKED, KNOWN) == pytest.approx(np.tile(expected, (2, 1)))


def test_membership_multiplies_the_probabilities_of_both_items() -> None:
    log_odds = np.random.default_rng(0).normal(size=(4, 9))
    member = 1 / (1 + np.exp(-log_odds))
    found = np.exp(member_scores(EVIDENCE, ASKED, KNOWN, log_odds))
    for edge, (a, b) in enumerate([(0, 1), (2, 3)]):
        for place, relation in enumerate(KNOWN):
            frequency = (4 - place) / 9
            assert found[edge, place] == pytest.approx(frequency * member[relation, a] * member[relation, b])
