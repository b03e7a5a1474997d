"""An index folder that disappears fails readiness and pictures with a problem, and what is in memory is served."""

import shutil
from pathlib import Path

import pytest

from service.settings import ServeConfig
from tests.indexes.fakes import write_shop
from tests.service.conftest import served


@pytest.mark.parametrize("moved", ["whole index", "generations", "unmounted"])
def test_a_missing_folder_is_reported_until_it_is_back(tmp_path: Path, moved: str) -> None:
    index = write_shop(tmp_path).index
    with served(ServeConfig(index=index)) as client:
        picture = client.get("/items/twin-1/image").content
        away = tmp_path / "away"
        if moved == "generations":
            shutil.copytree(index, away)
            for folder in index.iterdir():
                if folder.is_dir():
                    shutil.rmtree(folder)
        else:
            index.rename(away)
        if moved == "unmounted":  # the mount point stays, and is empty
            index.mkdir()
        for path in ("/readyz", "/items/twin-1/image"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:rcml:problem:not-ready")
            assert "has disappeared" in answer.json()["detail"]
            assert answer.headers["retry-after"] == "1"
        assert client.get("/livez").status_code == 200
        assert client.get("/items/twin-1").json()["title"]
        shutil.rmtree(index, ignore_errors=True)
        away.rename(index)
        assert client.get("/readyz").status_code == 200
        assert client.get("/items/twin-1/image").content == picture
