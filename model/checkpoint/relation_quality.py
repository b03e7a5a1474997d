"""Quality of each relation, as `rcml evaluate` measured it; free of torch.

The evaluation writes it into its report, and the service shows it with each relation, so that a shop knows which to
trust. A report counts only for its own checkpoint.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from model.artifact import open_artifact
from model.errors import ArtifactError, MismatchError


class RelationQuality(BaseModel):
    """Figures of one relation on test items; few questions make a figure rough."""

    model_config = ConfigDict(frozen=True)

    relation_id: str = Field(description="id of the relation")
    description: str = Field("", description="its text")
    queries: int = Field(ge=0, description="test queries under it")
    hit_at_5: float | None = Field(
        ge=0, le=1, description="Hit@5 of these queries by AVG similarity; null without queries"
    )
    claims: int = Field(ge=0, description="test claims about it, about half of them true")
    validity_auc: float | None = Field(
        ge=0,
        le=1,
        description="AUC of the calibrated probabilities; null unless there are true and false claims",
    )
    validity_ece: float | None = Field(
        ge=0, le=1, description="expected calibration error of these probabilities; null without claims"
    )


_RELATIONS = TypeAdapter(tuple[RelationQuality, ...])


@dataclass(frozen=True)
class Quality:
    """The figures by relation of the report at `path`, whose digest is `digest`; by relation id."""

    path: Path
    digest: str
    relations: Mapping[str, RelationQuality]

    @classmethod
    def open(cls, path: Path, checkpoint_digest: str) -> "Quality":
        """Open the report at `path`, of the checkpoint of this digest.

        Raises:
            ArtifactError: there is none, it is damaged, or an earlier rcml made it without figures by relation.
            MismatchError: it is the report of another checkpoint.
        """
        manifest = open_artifact(path, "report")
        of = manifest.parents["rcml"]
        if of != checkpoint_digest:
            raise MismatchError(
                f"The report at {path} is of checkpoint {of[:12]}, not of {checkpoint_digest[:12]}. Run `rcml "
                "evaluate` on this one, or name its report."
            )
        report = json.loads((path / "report.json").read_text(encoding="utf-8"))
        try:
            relations = _RELATIONS.validate_python(report["relations"])
        except (KeyError, ValidationError):
            raise ArtifactError(
                f"The report at {path} has no figures by relation; an earlier rcml made it. Run `rcml evaluate` again."
            ) from None
        return cls(path, manifest.digest, {quality.relation_id: quality for quality in relations})
