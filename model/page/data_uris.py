"""Pictures as data URIs, which a page contains instead of loading files."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

from PIL import Image

MAX_PNG_BYTES = 300_000
"""Size above which a figure is embedded as JPEG: only figures full of pictures are larger."""

JPEG_QUALITY = 82


def data_uri(path: Path) -> str:
    """Return the picture at `path` as a data URI, a large PNG as JPEG."""
    content = path.read_bytes()
    if len(content) <= MAX_PNG_BYTES:
        return f"data:image/png;base64,{b64encode(content).decode()}"
    with Image.open(path) as picture:
        return jpeg_uri(picture.convert("RGB"), JPEG_QUALITY)


def jpeg_uri(picture: Image.Image, quality: int) -> str:
    """Return a picture as a data URI in JPEG."""
    file = BytesIO()
    picture.save(file, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
