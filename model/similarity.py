"""Views of an item and the paper's five similarities between views (section 4.3.1).

This module is the only definition of the similarities, of the views that each one compares, and of their order of
preference. It imports only the standard library and is used by all three packages.
"""

from enum import StrEnum


class View(StrEnum):
    """Vector of an item: of its text, of its image, or the renormalised mean of both."""

    TEXT = "text"
    IMAGE = "image"
    AVERAGE = "average"


class Similarity(StrEnum):
    """One of the paper's five similarities of a query and a target (section 4.3.1), in the paper's order."""

    TT = "TT"
    II = "II"
    TI = "TI"
    IT = "IT"
    AVG = "AVG"

    @property
    def views(self) -> tuple[View, View]:
        """View of the query and view of the target; the similarity is the cosine of the two vectors."""
        return _VIEWS[self]


PREFERRED_SIMILARITIES = (Similarity.AVG, Similarity.TT, Similarity.II, Similarity.TI, Similarity.IT)
"""Order of preference for items that may lack a view; the first similarity whose views are available is used."""

_VIEWS = {
    Similarity.TT: (View.TEXT, View.TEXT),
    Similarity.II: (View.IMAGE, View.IMAGE),
    Similarity.TI: (View.TEXT, View.IMAGE),
    Similarity.IT: (View.IMAGE, View.TEXT),
    Similarity.AVG: (View.AVERAGE, View.AVERAGE),
}
