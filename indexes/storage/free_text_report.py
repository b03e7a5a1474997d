"""Report on the search under free-text relations: how many candidates it needs, and what it finds with them.

    tokens/
      report.json          the report; absent if the index was built by an earlier version of rcml
      probes.safetensors   free-text forms of the relations it was measured with, one row each

The probes are kept because a compaction, which has no network, measures again.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import load_file, save

from model.embeddings.free_text import FreeTextRelation
from model.plain_file import decoding, read_model

from .relation_table import free_text_arrays, free_text_relation

REPORT_FILE = "report.json"
PROBES_FILE = "probes.safetensors"

CANDIDATES_PER_RESULT = 8
"""Number of candidates to score for each result, in an index without a report."""

MIN_CANDIDATES = 80
"""Minimum number of candidates in an index without a report."""


class FreeTextReport(BaseModel):
    """Measured figures of the search under free-text relations.

    `candidates` is the number of candidates that are scored exactly for ten results; more in proportion for more
    results. It is None if no number reaches the minimum recall: every item is then scored. `overlap_at_10` is the share
    of the ten best items that the candidates contain, the lowest of all similarities. `items` is the number of items
    at the time of the measurement, and `probes` the number of relations. Without a measurement, `overlap_at_10` is
    None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    items: int = Field(0, ge=0)
    probes: int = Field(0, ge=0)
    candidates: int | None = Field(MIN_CANDIDATES, ge=10)
    overlap_at_10: float | None = Field(None, ge=0, le=1)

    @classmethod
    def read(cls, folder: Path) -> "FreeTextReport":
        """Read the report in `folder`; without a file, return the figures that earlier versions used.

        Raises:
            ArtifactError: the file is damaged.
        """
        path = folder / REPORT_FILE
        return read_model(cls, path) if path.exists() else cls()

    def candidates_for(self, k: int) -> int | None:
        """Return the number of candidates for `k` results; None if every item must be scored."""
        return None if self.candidates is None else -(-self.candidates * max(k, 10) // 10)

    @property
    def description(self) -> str:
        """The report in words."""
        if self.candidates is None:
            return f"every item is scored, because estimates find {self.overlap_at_10:.4f} of the ten best"
        if self.overlap_at_10 is None:
            return f"{self.candidates} candidates, not measured"
        return f"{self.candidates} candidates, overlap@10 {self.overlap_at_10:.4f}, measured with {self.items:,} items"

    def write(self, folder: Path, probes: Sequence[FreeTextRelation]) -> None:
        """Write the report and the relations that it was measured with.

        Raises:
            OSError: the disk is full or failing.
        """
        text = self.model_dump_json(indent=2) + "\n"
        (folder / REPORT_FILE).write_text(text, encoding="utf-8")
        if probes:
            (folder / PROBES_FILE).write_bytes(save(free_text_arrays(probes)))


def read_probes(folder: Path) -> list[FreeTextRelation]:
    """Read the relations that the report in `folder` was measured with; none if there is no report.

    Raises:
        ArtifactError: the file is damaged.
    """
    path = folder / PROBES_FILE
    with suppress(FileNotFoundError), decoding(path):
        arrays = load_file(path)
        return [free_text_relation(arrays, number, "") for number in range(len(arrays["query"]))]
    return []
