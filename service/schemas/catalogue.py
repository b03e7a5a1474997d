"""Schema of `GET /items`."""

from pydantic import BaseModel, Field

from .fields import ItemSummary


class ItemPage(BaseModel):
    """One page of the catalogue."""

    items: list[ItemSummary] = Field(description="items in catalogue order")
    total: int = Field(ge=0, description="number of items in the whole catalogue")
    next_cursor: int | None = Field(ge=1, description="`cursor` of the next page; null on the last page")
