# Image for training and serving on CUDA. Build it from the root of the project:
# docker build -f docker/gpu.Dockerfile -t rcml:cuda .
# Run with: docker run --gpus all ...
FROM python:3.11-slim

# torch.compile builds its kernels with a C compiler.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
WORKDIR /app

# The tested releases, checked by hash (docker/lock.sh). torch includes its own CUDA libraries.
COPY docker/gpu.lock ./
RUN pip install --require-hashes --no-deps -r gpu.lock

COPY pyproject.toml README.md LICENSE ./
COPY rcml rcml
COPY model model
COPY indexes indexes
COPY service service
RUN pip install ".[gpu]"

RUN useradd --create-home rcml && mkdir /data && chown rcml /data
USER rcml
VOLUME /data
EXPOSE 8000

HEALTHCHECK --interval=10s --timeout=3s --start-period=15m \
    CMD python -c "import httpx; httpx.get('http://127.0.0.1:8000/readyz').raise_for_status()"

ENTRYPOINT ["rcml"]
# The sample shop needs no keys. Use keys for your own index (`rcml serve --help`).
CMD ["demo", "--out", "/data/demo", "--host", "0.0.0.0", "--unguarded"]
