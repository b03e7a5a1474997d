"""Schemas of `GET /items` and `GET /categories`."""

from pydantic import BaseModel, Field

from .fields import ItemSummary


class ItemPage(BaseModel):
    """One page of the catalogue."""

    items: list[ItemSummary] = Field(description="items in catalogue order")
    total: int = Field(ge=0, description="number of items in the whole catalogue")
    next_cursor: int | None = Field(ge=1, description="`cursor` of the next page; null on the last page")


class CategoryCount(BaseModel):
    """Category of the catalogue."""

    category: str = Field(description="name of the category")
    items: int = Field(ge=1, description="number of items in the category")


class CategoryList(BaseModel):
    """Categories of the catalogue."""

    categories: list[CategoryCount] = Field(
        description="categories, the largest first; equally large ones are in alphabetical order"
    )
    total: int = Field(ge=0, description="number of all categories")
