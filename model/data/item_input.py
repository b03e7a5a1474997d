"""The input format of items: which texts of an item the text tower reads, in which order, and the size of its picture.

`rcml prepare` chooses it by its options and `rcml index` keeps it with the catalogue, so that an item added later is
read like the first ones. Free of torch.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict

from model.config import TextField

from .images import DEFAULT_PICTURE_SIDE, decode_picture

ITEM_FORMAT_FILE = "composition.json"


class ItemFormat(BaseModel):
    """The options of `rcml prepare` that items added later need too."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text_fields: tuple[TextField, ...] = ("title", "categories", "description")
    picture_size: int = DEFAULT_PICTURE_SIDE

    @classmethod
    def read(cls, path: Path) -> "ItemFormat":
        """Those in a file: what `write` left, or the options of a prepared data set; the usual ones without it."""
        return cls.model_validate_json(path.read_bytes()) if path.is_file() else cls()

    def write(self, folder: Path) -> None:
        """Keep them in `folder`."""
        (folder / ITEM_FORMAT_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def text(self, title: str, categories: Sequence[str], description: str) -> str:
        """Compose what the text tower reads of an item; empty if the item has none of that."""
        return compose_text(self.text_fields, title, categories, description)

    def picture(self, content: bytes) -> tuple[bytes, str]:
        """Scale and re-encode an untrusted picture as it is kept; return its bytes and the suffix of its file.

        Raises:
            PictureError: it cannot be decoded.
        """
        return encode_picture(decode_picture(content, self.picture_size), content.startswith(b"\x89PNG"))


def compose_text(fields: Sequence[TextField], title: str, categories: Sequence[str], description: str) -> str:
    """Join these fields of an item into one text, in their order, without the empty ones."""
    parts: dict[TextField, str] = {
        "title": title.strip(),
        "categories": ", ".join(categories),
        "description": description.strip(),
    }
    return ". ".join(parts[name] for name in fields if parts[name])


def encode_picture(picture: Image.Image, lossless: bool) -> tuple[bytes, str]:
    """Encode a scaled picture as JPEG, or as PNG if it is `lossless`; return the bytes and the suffix."""
    file = BytesIO()
    if lossless:
        picture.save(file, "PNG", compress_level=1)
        return file.getvalue(), ".png"
    picture.save(file, "JPEG", quality=90)
    return file.getvalue(), ".jpg"


def decoded(content: bytes) -> Image.Image:
    """Decode what `encode_picture` made, in RGB: the same pixels as read from the kept file."""
    with Image.open(BytesIO(content)) as picture:
        return picture.convert("RGB")
