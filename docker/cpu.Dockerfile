# Image for serving on a CPU. Build it from the root of the project: docker build -f docker/cpu.Dockerfile -t rcml .
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
WORKDIR /app

# The default build of torch includes several GB of CUDA. To avoid them, pass the URL of PyTorch's CPU index:
# docker build --build-arg TORCH_INDEX_URL=... (see pytorch.org, "Get started", platform CPU)
ARG TORCH_INDEX_URL=""
RUN pip install torch==2.13.0 ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"}

# All other packages, in the tested releases and checked by hash (docker/lock.sh).
COPY docker/cpu.lock ./
RUN pip install --require-hashes --no-deps -r cpu.lock

COPY pyproject.toml README.md LICENSE ./
COPY rcml rcml
COPY model model
COPY indexes indexes
COPY service service
# To use Milvus or Postgres: --build-arg EXTRAS=milvus,postgres
ARG EXTRAS=""
RUN pip install ".[cpu${EXTRAS:+,$EXTRAS}]"

RUN useradd --create-home rcml && mkdir /data && chown rcml /data
USER rcml
VOLUME /data
EXPOSE 8000

HEALTHCHECK --interval=10s --timeout=3s --start-period=15m \
    CMD python -c "import httpx; httpx.get('http://127.0.0.1:8000/readyz').raise_for_status()"

ENTRYPOINT ["rcml"]
# The sample shop needs no keys. Use keys for your own index (`rcml serve --help`).
CMD ["demo", "--out", "/data/demo", "--host", "0.0.0.0", "--unguarded"]
