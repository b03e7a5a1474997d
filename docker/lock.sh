#!/usr/bin/env bash
# Pins what the images install, with hashes: docker/cpu.lock and docker/gpu.lock, from the extras of pyproject.toml.
# Needs uv (`pip install uv`). Run it after the dependencies change, from anywhere.
set -euo pipefail
cd "$(dirname "$0")/.."
TORCH=$(sed -n 's/.*install --quiet \(torch==[0-9.]*\).*/\1/p' Makefile)

pin() {  # pin EXTRA [OPTION...]: what the extra needs, on any Linux with Python 3.11
    uv pip compile pyproject.toml --extra "$1" "${@:2}" --constraints <(echo "$TORCH") --python-version 3.11 \
        --python-platform linux --generate-hashes --no-annotate --no-header --upgrade --quiet \
        --output-file "docker/$1.lock"
}

pin gpu
# torch's CPU build lies on PyTorch's own index and needs none of CUDA's packages: the image installs it beforehand.
pin cpu --no-emit-package torch --no-emit-package triton \
    $(sed -nE 's/^((nvidia|cuda)-[a-z0-9-]+)==.*/--no-emit-package \1/p' docker/gpu.lock)
