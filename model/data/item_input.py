"""Input format of items: the texts that the text tower reads, their order, and the size of pictures.

The options of `rcml prepare` define the format. `rcml index` stores it with the catalogue, so items added later have
the same format. This module does not import torch.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict

from model.config import TextField
from model.plain_file import read_model
from model.records import FIELD_END

from .pictures.images import DEFAULT_PICTURE_SIDE, decode_picture
from .pictures.stored_pictures import encode_picture

ITEM_FORMAT_FILE = "composition.json"


class ItemFormat(BaseModel):
    """Options of `rcml prepare` that also apply to items added later."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text_fields: tuple[TextField, ...] = ("title", "categories", "description")
    picture_size: int = DEFAULT_PICTURE_SIDE

    @classmethod
    def read(cls, path: Path) -> "ItemFormat":
        """Read the format from the file that `write` wrote, or from the `config.json` of prepared data.

        If `path` does not exist, return the default format.

        Raises:
            ArtifactError: the file is damaged.
        """
        try:
            return read_model(cls, path)
        except FileNotFoundError:
            return cls()

    def write(self, folder: Path) -> None:
        """Write the format to a file in `folder`."""
        (folder / ITEM_FORMAT_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def text(self, title: str, categories: Sequence[str], description: str) -> str:
        """Join the fields of an item into the text that the text tower reads; it is empty if all fields are empty."""
        return compose_text(self.text_fields, title, categories, description)

    def picture(self, content: bytes) -> tuple[bytes, str]:
        """Scale and re-encode an untrusted picture for storage; return its bytes and its file suffix.

        Raises:
            PictureError: the picture cannot be decoded.
        """
        return encode_picture(decode_picture(content, self.picture_size), content.startswith(b"\x89PNG"))


def compose_text(fields: Sequence[TextField], title: str, categories: Sequence[str], description: str) -> str:
    """Join `fields` of an item into one text, in the given order, without empty fields.

    `FIELD_END` separates the fields; line breaks within a field become spaces.
    """
    parts: dict[TextField, str] = {
        "title": title,
        "categories": ", ".join(categories),
        "description": description,
    }
    lines = [" ".join(parts[name].split()) for name in fields]
    return FIELD_END.join(line for line in lines if line)


def decoded(content: bytes) -> Image.Image:
    """Decode the output of `encode_picture` to RGB; `load_picture` returns the same pixels for the stored file."""
    with Image.open(BytesIO(content)) as picture:
        return picture.convert("RGB")
