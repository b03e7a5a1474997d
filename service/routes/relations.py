"""The relations that questions may name."""

from fastapi import APIRouter

from ..loading import ReadyEngine
from ..openapi import problems
from ..schemas import RelationDetail, RelationList

router = APIRouter(tags=["catalogue"])


@router.get("/relations", summary="List the relations", responses=problems(503))
async def list_relations(engine: ReadyEngine) -> RelationList:
    """List all relations, the one of an item with itself first."""
    index = engine.index
    return RelationList(
        in_words=engine.takes_words,
        relations=[
            RelationDetail(
                relation_id=relation.relation_id,
                description=relation.description,
                intra=relation.intra,
                pairs=index.pairs[relation.relation_id],
            )
            for relation in index.relations
        ],
    )
