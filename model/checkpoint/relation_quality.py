"""What `rcml evaluate` measured of each relation, read back; free of torch.

The service tells it beside each relation, so that a shop knows which to trust. A report counts only for the checkpoint
that it is of.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from model.artifact import open_artifact
from model.errors import ArtifactError, MismatchError


class RelationQuality(BaseModel):
    """The figures of one relation on test items; None where the test part has no such question.

    `hit_at_5` is by AVG similarity, over `queries`; `validity_auc` and `validity_ece` are of calibrated probabilities
    over `claims`, about half of them true. Few questions make a figure rough.
    """

    model_config = ConfigDict(frozen=True)

    relation_id: str
    queries: int = Field(ge=0)
    hit_at_5: float | None = Field(ge=0, le=1)
    claims: int = Field(ge=0)
    validity_auc: float | None = Field(ge=0, le=1)
    validity_ece: float | None = Field(ge=0, le=1)


_RELATIONS = TypeAdapter(tuple[RelationQuality, ...])


@dataclass(frozen=True)
class Quality:
    """The report at `path`, of digest `digest`, as far as it is about relations, by relation id."""

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
        return cls(path, manifest.digest, {one.relation_id: one for one in relations})
