"""Two baselines that know nothing of the question: a random order, and popularity."""

import numpy as np

from .baseline import ItemPrior
from .evidence import Evidence


def random_order(evidence: Evidence) -> ItemPrior:
    """Return the baseline that gives all candidates the same score, and so has exactly the figures of chance."""
    return ItemPrior("random", "a random order of the candidates", np.zeros((1, evidence.items)))


def popularity(evidence: Evidence) -> ItemPrior:
    """Return the baseline that ranks items by their number of users, or of partners if there is no log."""
    if evidence.users is None:
        meaning = "partners of the candidate in the training graph; a new item has none"
    else:
        meaning = (
            "users of the candidate in the whole log, test items included; an item new to the shop has none"
        )
    return ItemPrior("popularity", meaning, evidence.popularity()[None].astype(np.float64))
