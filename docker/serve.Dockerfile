# The server and the bot: reading with a model folder, without what only training needs (torch, Snakemake).
#
#   docker build -f docker/serve.Dockerfile -t caffe-expressions-serve .
#   docker run --rm -p 127.0.0.1:8000:8000 --read-only --cap-drop ALL -e SERVE_TOKEN="$(openssl rand -hex 32)" \
#       caffe-expressions-serve --proxy 172.16.0.0/12
#
# In a container it listens at every address, so it wants a token, and TLS files (mount them, --tls-cert, --tls-key) or the
# addresses of the proxy that does the TLS. More: docs/server.md
FROM python:3.11-slim AS build
WORKDIR /source
COPY . .
# Compiles pipeline/caffe/proto/caffe.proto as well.
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY constraints.txt docker/serve-requirements.txt /tmp/
RUN pip install --no-cache-dir -c /tmp/constraints.txt -r /tmp/serve-requirements.txt
COPY --from=build /wheels /tmp/wheels
RUN pip install --no-cache-dir --no-deps --target /app /tmp/wheels/*.whl
COPY docker/health.py /app/health.py
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin reader
USER reader
WORKDIR /app
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["python", "/app/health.py"]
ENTRYPOINT ["python", "-m", "pipeline", "serve", "--host", "0.0.0.0"]
