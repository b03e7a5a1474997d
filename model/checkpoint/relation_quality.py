"""Quality of each relation as measured by `rcml evaluate`, without torch.

The evaluation writes the figures into its report. The service returns them with each relation to show which relations
are reliable. A report is valid only for its own checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from model.artifact import open_artifact
from model.errors import ArtifactError, MismatchError
from model.plain_file import read_json


class RelationQuality(BaseModel):
    """Figures of one relation on test items; a figure from few queries or claims is imprecise."""

    model_config = ConfigDict(frozen=True)

    relation_id: str = Field(description="ID of the relation")
    description: str = Field("", description="description of the relation")
    queries: int = Field(ge=0, description="number of test queries under the relation")
    hit_at_5: float | None = Field(
        ge=0, le=1, description="Hit@5 of these queries by AVG similarity; null if there are none"
    )
    claims: int = Field(
        ge=0, description="number of test claims about the relation; about half of them are true"
    )
    validity_auc: float | None = Field(
        ge=0,
        le=1,
        description="AUC of the calibrated probabilities; null unless there are both true and false claims",
    )
    validity_ece: float | None = Field(
        ge=0,
        le=1,
        description="expected calibration error of these probabilities; null if there are no claims",
    )


MAX_REPORT_BYTES = 2**26
"""Maximum size of `report.json`, which lists figures for every relation and system."""

_RELATIONS = TypeAdapter(tuple[RelationQuality, ...])


@dataclass(frozen=True)
class Quality:
    """Figures by relation ID from the report at `path`; `digest` is the digest of the report."""

    path: Path
    digest: str
    relations: Mapping[str, RelationQuality]

    @classmethod
    def open(cls, path: Path, checkpoint_digest: str) -> "Quality":
        """Open the report at `path` for the checkpoint with the digest `checkpoint_digest`.

        Raises:
            ArtifactError: the report is missing or damaged, or an earlier version of rcml wrote it.
            MismatchError: the report belongs to another checkpoint.
        """
        manifest = open_artifact(path, "report")
        of = manifest.parents.get("rcml", "none")
        if of != checkpoint_digest:
            raise MismatchError(
                f"The report at {path} belongs to checkpoint {of[:12]}, not to {checkpoint_digest[:12]}. Run `rcml "
                "evaluate` on the checkpoint in use, or provide its report."
            )
        report = read_json(path / "report.json", limit=MAX_REPORT_BYTES)
        try:
            relations = _RELATIONS.validate_python(report["relations"])
        except (KeyError, TypeError, ValidationError):
            raise ArtifactError(
                f"The report at {path} has no figures by relation, because an earlier version of rcml wrote it. "
                "Run `rcml evaluate` again."
            ) from None
        return cls(path, manifest.digest, {quality.relation_id: quality for quality in relations})
