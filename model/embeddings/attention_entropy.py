"""Entropy of the attention over the tokens of an item: whether the attention selects anything, without torch."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

UNIFORM_ENTROPY = 0.99
"""Relative entropy above which the attention counts as uniform."""


class AttentionEntropy(BaseModel):
    """Entropy of the attention (A of eq. 5), divided by the entropy of uniform attention: log(number of tokens).

    It is a mean over items and inter-sample relations. It is 1 if every token has the same weight, and 0 if one token
    has all of it. Items with a single token have no such figure; None if no item has one.
    """

    model_config = ConfigDict(frozen=True)

    text: float | None = Field(description="mean over the texts; null if no text has several tokens")
    image: float | None = Field(description="mean over the pictures; null if no picture has several tokens")

    @classmethod
    def mean(cls, measured: Sequence["AttentionEntropy"]) -> "AttentionEntropy":
        """Average the figures of several checkpoints of a network."""
        return cls(text=_mean([one.text for one in measured]), image=_mean([one.image for one in measured]))

    def warnings(self) -> list[str]:
        """Return a warning for each modality with uniform attention."""
        return [
            f"The attention over the {tokens} is almost uniform: its entropy is {value:.4f} of log(number of tokens), "
            "averaged over the relations, so the relation does not select anything. Compare with a training that has "
            "another --conditioning, a higher --attention-gain or a lower --beta."
            for tokens, value in (("words", self.text), ("patches", self.image))
            if value is not None and value > UNIFORM_ENTROPY
        ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
