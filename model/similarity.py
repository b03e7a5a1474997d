"""Views of an item and the paper's five similarities between them (section 4.3.1).

What the similarities are, which views each compares, and in which order they are preferred is written down here and
nowhere else. Free of everything but the standard library, used by all three packages.
"""

from enum import StrEnum


class View(StrEnum):
    """A vector of an item: of its text, of its picture, or the renormalised mean of the two."""

    TEXT = "text"
    IMAGE = "image"
    AVERAGE = "average"


class Similarity(StrEnum):
    """A way to compare a query with a target: the paper's five (section 4.3.1), in its order."""

    TT = "TT"
    II = "II"
    TI = "TI"
    IT = "IT"
    AVG = "AVG"

    @property
    def views(self) -> tuple[View, View]:
        """The (query, target) views whose cosine this similarity is."""
        return _VIEWS[self]


PREFERRED_SIMILARITIES = (Similarity.AVG, Similarity.TT, Similarity.II, Similarity.TI, Similarity.IT)
"""The order in which a similarity is chosen for items that may lack a view: the first whose views both have."""

_VIEWS = {
    Similarity.TT: (View.TEXT, View.TEXT),
    Similarity.II: (View.IMAGE, View.IMAGE),
    Similarity.TI: (View.TEXT, View.IMAGE),
    Similarity.IT: (View.IMAGE, View.TEXT),
    Similarity.AVG: (View.AVERAGE, View.AVERAGE),
}
