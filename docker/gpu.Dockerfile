# Image for training and serving on CUDA. Build it from the root of the project:
# docker build -f docker/gpu.Dockerfile -t rcml:cuda .
# Run it with: docker run --gpus all ...
FROM python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3 AS build

WORKDIR /build
# The packages go into a folder of their own, without pip. It is all that the final stage takes.
RUN python -m venv --without-pip /opt/rcml
ENV PIP_PYTHON=/opt/rcml/bin/python PIP_NO_CACHE_DIR=1 PIP_NO_DEPS=1

# The tested releases, checked by hash (docker/lock.sh). torch comes with its own CUDA libraries.
COPY docker/gpu.lock ./
RUN pip install --require-hashes -r gpu.lock

COPY pyproject.toml README.md LICENSE ./
COPY rcml rcml
COPY model model
COPY indexes indexes
COPY service service
RUN pip install --no-build-isolation . && pip check

# Remove the tests of the packages. The headers of torch stay for torch.compile.
RUN find /opt/rcml -type d \( -name tests -o -path '*/torch/test' \) -prune -exec rm -r {} +

FROM python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3

# torch.compile builds the launchers of its kernels with a C compiler.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*

RUN useradd --uid 1000 --home-dir /data --no-create-home --shell /usr/sbin/nologin rcml && \
    install --directory --owner=rcml --group=rcml /data
COPY --from=build /opt/rcml /opt/rcml
# The root file system may be read-only: caches and settings of all packages go to the home folder, which is /data.
ENV PATH=/opt/rcml/bin:$PATH PYTHONUNBUFFERED=1 HOME=/data TORCHINDUCTOR_CACHE_DIR=/data/.cache/inductor
USER 1000:1000
WORKDIR /data
VOLUME /data
EXPOSE 8000

HEALTHCHECK --interval=10s --timeout=3s --start-period=15m \
    CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8000, timeout=2); c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]

ENTRYPOINT ["rcml"]
# The sample shop needs no keys. Use keys for your own index (`rcml serve --help`).
CMD ["demo", "--out", "/data/demo", "--host", "0.0.0.0", "--unguarded"]
