# The images of the hooks and of the agent: `--target hooks`, `--target agent`, or `make images`.
# docs/images.md says what they contain, and how to build them without a registry.

# Another image with Python 3.11 and pip on Debian.
ARG BASE=python

FROM python:3.11-slim@sha256:3c1dfceb3f1267d4d378e7883cddf35c58757bab98d70bba30b6e02e808fa21d AS python

FROM ${BASE} AS build
WORKDIR /src
COPY locks/build.txt locks/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt \
    python3 -m venv /build \
 && /build/bin/pip install --no-cache-dir --require-hashes -r locks/build.txt

FROM build AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY agent agent
COPY crds crds
COPY deploy/__init__.py deploy/wheel.py deploy/
COPY deploy/image deploy/image
COPY deploy/kube deploy/kube
COPY deploy/kubectl deploy/kubectl
COPY deploy/takeover deploy/takeover
COPY hooks hooks
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist .

FROM build AS hooks-root
COPY locks/hooks.txt locks/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt \
    python3 -m venv --without-pip /opt/localmodel \
 && /build/bin/pip --python /opt/localmodel/bin/python install --no-cache-dir --no-compile \
      --no-deps --require-hashes -r locks/hooks.txt
COPY --from=wheel /src /src
RUN /build/bin/pip --python /opt/localmodel/bin/python install --no-compile --no-deps dist/*.whl \
 && /opt/localmodel/bin/python -m deploy.image.root hooks /image \
 && /build/bin/python -m deploy.image.sbom hooks --root /image

FROM build AS agent-root
COPY locks/agent.txt locks/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt \
    python3 -m venv --without-pip /opt/localmodel \
 && /build/bin/pip --python /opt/localmodel/bin/python install --no-cache-dir --no-compile \
      --no-deps --require-hashes -r locks/agent.txt
COPY --from=wheel /src /src
RUN /build/bin/pip --python /opt/localmodel/bin/python install --no-compile --no-deps dist/*.whl \
 && /opt/localmodel/bin/python -m deploy.image.root agent /image \
 && /build/bin/python -m deploy.image.sbom agent --root /image

FROM scratch AS image
LABEL org.opencontainers.image.vendor="localmodel" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
ENV PATH=/opt/localmodel/bin \
    PYTHONUNBUFFERED=1
USER 65532:65532

FROM image AS agent
LABEL org.opencontainers.image.title="localmodel-agent" \
      org.opencontainers.image.description="Downloads, verifies and evicts the model files of a Kubernetes node"
COPY --from=agent-root /image /
# Its pod runs it as root without capabilities: root owns the directory of the models on the node.
CMD ["localmodel-agent", "run"]

FROM image AS hooks
LABEL org.opencontainers.image.title="localmodel-hooks" \
      org.opencontainers.image.description="Webhooks for Metacontroller that decide which model files belong on which Kubernetes nodes"
COPY --from=hooks-root /image /
EXPOSE 8080
CMD ["gunicorn", "--config=python:localmodel.hooks.gunicorn_conf", "localmodel.hooks.app:create_app()"]
