#!/usr/bin/env bash
# Pins the packages of the Docker images with hashes: docker/cpu.lock and docker/gpu.lock, from the extras of
# pyproject.toml. Needs uv (`pip install uv`). Run it from any folder after the dependencies have changed.
set -euo pipefail
cd "$(dirname "$0")/.."
TORCH=$(sed -n 's/.*install --quiet \(torch==[0-9.]*\).*/\1/p' Makefile)

pin() {  # pin EXTRA [OPTION...]: lock the dependencies of an extra for Linux and Python 3.11
    uv pip compile pyproject.toml --extra "$1" "${@:2}" --constraints <(echo "$TORCH") --python-version 3.11 \
        --python-platform linux --generate-hashes --no-annotate --no-header --upgrade --quiet \
        --output-file "docker/$1.lock"
}

pin gpu
# The CPU image installs torch's CPU build first, from PyTorch's own index; it needs none of the CUDA packages.
pin cpu --no-emit-package torch --no-emit-package triton \
    $(sed -nE 's/^((nvidia|cuda)-[a-z0-9-]+)==.*/--no-emit-package \1/p' docker/gpu.lock)
