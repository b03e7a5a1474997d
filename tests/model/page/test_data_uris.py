"""Pictures become data URIs that decode to the same picture."""

from base64 import b64decode
from io import BytesIO
from pathlib import Path

from PIL import Image

from model.page.data_uris import data_uri


def test_large_figure_is_embedded_as_jpeg(tmp_path: Path) -> None:
    Image.effect_noise((700, 700), 90).convert("RGB").save(tmp_path / "noise.png")
    uri = data_uri(tmp_path / "noise.png")
    assert uri.startswith("data:image/jpeg;base64,")
    with Image.open(BytesIO(b64decode(uri.partition(",")[2]))) as picture:
        assert picture.size == (700, 700)
