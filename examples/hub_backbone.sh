#!/usr/bin/env bash
# Trains on a pretrained CLIP of the Hugging Face Hub, builds the index and serves it at http://127.0.0.1:8000.
#
#   examples/hub_backbone.sh var/prepared var/hub
#   BACKBONE=google/siglip2-base-patch16-224 examples/hub_backbone.sh var/prepared var/hub --steps 500
#
# The towers stay frozen, so each item is encoded once, and a CPU is enough. On a GPU, replace `--tune frozen` by
# `--batch-size 512` to train the towers too. Further options go to `rcml train`.
set -euo pipefail

PREPARED=${1:?"Give the folder that rcml prepare wrote."}
OUT=${2:?"Give a new folder for the checkpoint and the index."}
BACKBONE=${BACKBONE:-openai/clip-vit-base-patch32} # a name on the Hub, or a folder in the layout of transformers

rcml train --prepared "$PREPARED" --out "$OUT/rcml" --backbone "$BACKBONE" --tune frozen "${@:3}"
rcml index build --checkpoint "$OUT/rcml" --prepared "$PREPARED" --out "$OUT/index" --token-store
exec rcml serve --index "$OUT/index" --port "${PORT:-8000}"
