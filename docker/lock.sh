#!/usr/bin/env bash
# Pins the packages of the Docker images with hashes: docker/*.lock, from the extras of pyproject.toml. Needs uv
# (`pip install uv`). Run it from any folder after the dependencies have changed.
set -euo pipefail
cd "$(dirname "$0")/.."
TORCH=$(sed -n 's/.*install --quiet \(torch==[0-9.]*\).*/\1/p' Makefile)
UPGRADE=${UPGRADE---upgrade}  # `UPGRADE= docker/lock.sh` keeps the releases that are pinned already

pin() {  # pin NAME SOURCE [OPTION...]: lock the requirements of a source for Linux and Python 3.11
    uv pip compile "${@:2}" --constraints <(echo "$TORCH") --python-version 3.11 --python-platform linux \
        --generate-hashes --no-annotate --no-header $UPGRADE --quiet --output-file "docker/$1.lock"
}

without() {  # without LOCK PATTERN: the options that leave packages of a lock out of another
    sed -nE "s/^($2)==.*/--no-emit-package \1/p" "docker/$1.lock"
}

pin gpu pyproject.toml --extra gpu
# The CPU image installs torch separately: its CPU build from PyTorch's own index, or torch.lock.
without_torch=$(without gpu 'torch|triton|(nvidia|cuda)-[a-z0-9-]+')
pin cpu pyproject.toml --extra cpu $without_torch
pin distributed pyproject.toml --extra cpu --extra milvus --extra postgres --constraints docker/cpu.lock $without_torch
# torch with CUDA, and what it requires that is in no other lock of the CPU image.
echo "$TORCH" | pin torch - --constraints docker/gpu.lock $(without cpu '[a-z0-9.-]+')
