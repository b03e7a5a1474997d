# Serving and training on CUDA. Build from the project's root: docker build -f docker/cuda.Dockerfile -t rcml:cuda .
# Run with: docker run --gpus all ...
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
WORKDIR /app

COPY pyproject.toml README.md LICENSE ./
COPY model model
COPY indexes indexes
COPY service service
# torch brings its own CUDA libraries. faiss-gpu and faiss-cpu provide the same module, so one has to go.
RUN pip install ".[gpu]" && pip uninstall -y faiss-cpu faiss-gpu && pip install "faiss-gpu>=1.14,<2"

RUN useradd --create-home rcml && mkdir /data && chown rcml /data
USER rcml
VOLUME /data
EXPOSE 8000

HEALTHCHECK --interval=10s --timeout=3s --start-period=15m \
    CMD python -c "import httpx; httpx.get('http://127.0.0.1:8000/readyz').raise_for_status()"

ENTRYPOINT ["rcml"]
# Unguarded, since the sample shop has no secrets; an index of your own wants keys (`rcml serve --help`).
CMD ["demo", "--out", "/data/demo", "--host", "0.0.0.0", "--unguarded"]
