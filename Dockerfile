# One image for all programs: the hooks (default), the agent (`localmodel-agent run`), and
# `localmodel-takeover`.
FROM python:3.11-slim@sha256:3c1dfceb3f1267d4d378e7883cddf35c58757bab98d70bba30b6e02e808fa21d AS base

FROM base AS build
WORKDIR /src
RUN python -m venv /opt/localmodel
COPY locks/runtime.txt locks/
RUN /opt/localmodel/bin/pip install --no-cache-dir --require-hashes -r locks/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY agent agent
COPY crds crds
COPY deploy/kube deploy/kube
COPY deploy/kubectl deploy/kubectl
COPY deploy/takeover deploy/takeover
COPY deploy/wheel.py deploy/wheel.py
COPY hooks hooks
RUN /opt/localmodel/bin/pip install --no-cache-dir --no-deps .

FROM base
LABEL org.opencontainers.image.title="localmodel" \
      org.opencontainers.image.description="Keeps model files on the disks of the nodes that will serve them" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /opt/localmodel /opt/localmodel
ENV PATH=/opt/localmodel/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8080
CMD ["gunicorn", "--config=python:localmodel.hooks.gunicorn_conf", "localmodel.hooks.app:create_app()"]
