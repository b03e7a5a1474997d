"""Items, listed."""

from pydantic import BaseModel, Field

from .fields import ItemSummary


class ItemPage(BaseModel):
    """A stretch of the catalogue."""

    items: list[ItemSummary] = Field(description="items in catalogue order")
    total: int = Field(ge=0, description="number of items in the whole catalogue")
    next_cursor: int | None = Field(ge=1, description="`cursor` of the stretch that follows; null at the end")
