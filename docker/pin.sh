#!/usr/bin/env bash
# Pins the base image of the Dockerfiles by digest: docker/pin.sh 3.11.15-slim-bookworm. Needs Docker with buildx and
# access to Docker Hub. Run it from any folder to take a newer release or the latest security fixes of the same release.
set -euo pipefail
cd "$(dirname "$0")/.."
tag=${1:?name a tag of the image python, such as 3.11.15-slim-bookworm}
digest=$(docker buildx imagetools inspect "python:$tag" --format '{{.Manifest.Digest}}')
[[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || { echo "docker gave no digest of python:$tag: $digest" >&2; exit 1; }
sed -i -E "s/python:[^ ]+@sha256:[0-9a-f]{64}/python:$tag@$digest/" docker/*.Dockerfile
