"""`model` can be imported without the packages that only the indexes and the service need."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import model

ROOT = Path(__file__).parents[2]
SERVICE = (
    "faiss",
    "fastapi",
    "uvicorn",
    "sqlalchemy",
    "pydantic_settings",
    "peft",
    "wandb",
    "trackio",
    "openvino",
)


def test_every_module_of_model_imports_without_service_packages() -> None:
    modules = {found.name for found in pkgutil.walk_packages(model.__path__, "model.")}
    names = sorted(modules - {"model.network.inference.openvino"})
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({SERVICE!r})); import importlib\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=600)
