"""The name of the machine has the GPU, if it is used, the CPU and the number of threads."""

import pytest

from model.network.devices import machine_name


def test_name_without_gpu_has_the_cpu_and_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathlib.Path.read_text", lambda path, encoding: "cores\t: 2\nmodel name\t: Z80 A\n")
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    assert machine_name("cpu") == "Z80 A, 1 thread"
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert machine_name("cpu") == "Z80 A, 8 threads"


def test_name_with_gpu_starts_with_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = machine_name("cpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Voodoo 2")
    assert machine_name("cuda") == f"Voodoo 2; {cpu}"


def test_name_without_proc_is_what_python_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: object, encoding: str) -> str:
        raise FileNotFoundError

    monkeypatch.setattr("pathlib.Path.read_text", missing)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert machine_name("cpu").startswith("riscv64, ")
