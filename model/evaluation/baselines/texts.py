"""TF-IDF vectors of item texts, fitted on training items, and the baseline that compares them."""

import scipy.sparse as sp

from .baseline import ItemCosine
from .evidence import Evidence


def text_vectors(evidence: Evidence) -> sp.csr_array:
    """Return unit TF-IDF vectors of the texts of all items, with the words and weights of the training items."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Single letters and signs count as words, so that no catalogue is without words.
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\w+|[^\w\s]+")
    vectorizer.fit([evidence.texts[row] for row in evidence.training])
    return sp.csr_array(vectorizer.transform(evidence.texts))


def text_cosine(evidence: Evidence) -> ItemCosine:
    """Return the baseline that ranks by the cosine of TF-IDF vectors, whatever the relation."""
    return ItemCosine(
        "text", "TF-IDF cosine of the two texts, whatever the relation", (text_vectors(evidence),)
    )
