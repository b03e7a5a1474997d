# Image for serving and training on a CPU. Build it from the root of the project:
# docker build -f docker/cpu.Dockerfile -t rcml .
FROM python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3 AS build

WORKDIR /build
# The packages go into a folder of their own, without pip. It is all that the final stage takes.
RUN python -m venv --without-pip /opt/rcml
ENV PIP_PYTHON=/opt/rcml/bin/python PIP_NO_CACHE_DIR=1 PIP_NO_DEPS=1

# The tested releases, checked by hash (docker/lock.sh). LOCK=distributed adds the clients of Milvus and Postgres.
ARG LOCK=cpu
COPY docker/cpu.lock docker/distributed.lock docker/torch.lock ./
RUN pip install --require-hashes -r "$LOCK.lock"

# The release of torch on PyPI, which is in the lock, comes with several GB of CUDA libraries. PyTorch's CPU index has a
# release without: pass its URL (pytorch.org, "Get started", platform CPU) with --build-arg TORCH_INDEX_URL=...
ARG TORCH_INDEX_URL=""
RUN if [ -n "$TORCH_INDEX_URL" ]; then pip install --index-url "$TORCH_INDEX_URL" torch==2.13.0; \
    else pip install --require-hashes -r torch.lock; fi

COPY pyproject.toml README.md LICENSE ./
COPY rcml rcml
COPY model model
COPY indexes indexes
COPY service service
RUN pip install --no-build-isolation . && pip check

# Remove the tests of the packages, and the headers of torch: the image has no compiler.
RUN find /opt/rcml -type d \( -name tests -o -path '*/torch/test' -o -path '*/torch/include' \) -prune -exec rm -r {} +

FROM python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3

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
