"""Views of an item and the paper's five similarities between them (section 4.3.1).

Free of everything but the standard library, used by all three packages.
"""

from enum import StrEnum


class View(StrEnum):
    """Which vector of an item: of its text, of its picture, or the renormalised mean of the two."""

    TEXT = "text"
    IMAGE = "image"
    AVERAGE = "average"


class Similarity(StrEnum):
    """How a query is compared with a target: the paper's five (section 4.3.1)."""

    TT = "TT"
    II = "II"
    TI = "TI"
    IT = "IT"
    AVG = "AVG"

    @property
    def views(self) -> tuple[View, View]:
        """The (query, target) views whose cosine this similarity is."""
        return _VIEWS[self]


_VIEWS = {
    Similarity.TT: (View.TEXT, View.TEXT),
    Similarity.II: (View.IMAGE, View.IMAGE),
    Similarity.TI: (View.TEXT, View.IMAGE),
    Similarity.IT: (View.IMAGE, View.TEXT),
    Similarity.AVG: (View.AVERAGE, View.AVERAGE),
}
