# One image for all programs: the hooks by default, the agent with `localmodel-agent run`, and
# `localmodel-takeover`.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/localmodel
COPY locks/runtime.txt locks/
RUN /opt/localmodel/bin/pip install --no-cache-dir --require-hashes -r locks/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY agent agent
COPY crds crds
COPY deploy/__init__.py deploy/__init__.py
COPY deploy/kube deploy/kube
COPY deploy/takeover deploy/takeover
COPY hooks hooks
RUN /opt/localmodel/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11-slim
LABEL org.opencontainers.image.title="localmodel" \
      org.opencontainers.image.description="Keeps model files on the disks of the nodes that will serve them" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /opt/localmodel /opt/localmodel
ENV PATH=/opt/localmodel/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8080
CMD ["gunicorn", "--config=python:hooks.gunicorn_conf", "hooks.app:create_app()"]
