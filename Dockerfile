# tokengate in a container. tests/k8s/test_image.py runs these steps; docs/kubernetes.md says how to build it.
#
#     docker build --build-arg VERSION=0.1.0 --tag tokengate:0.1.0 .
#
# Where images must be pinned by digest: --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:...
# With OpenTelemetry, for [tracing]: --build-arg REQUIREMENTS=traced
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG REQUIREMENTS=runtime
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Dependencies before the source: this layer stays until they change. Nothing is compiled, and a file whose hash is
# not in requirements/ is refused. Without pip of its own: nothing is installed at run time.
COPY requirements/ requirements/
RUN python -m venv --without-pip /opt/tokengate \
    && python -m venv /opt/build \
    && /opt/build/bin/python -m pip install --no-deps --only-binary :all: --require-hashes -r requirements/build.txt \
    && /opt/build/bin/python -m pip --python /opt/tokengate/bin/python install \
        --no-deps --only-binary :all: --require-hashes -r "requirements/${REQUIREMENTS}.txt"
COPY pyproject.toml README.md ./
COPY clients/javascript/src/ clients/javascript/src/
COPY config/ config/
COPY gateway/ gateway/
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /opt/wheel . \
    && /opt/build/bin/python -m pip --python /opt/tokengate/bin/python install --no-deps --no-index /opt/wheel/*.whl

FROM ${PYTHON_IMAGE}
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="tokengate" \
      org.opencontainers.image.description="An authenticating reverse proxy with exact revocation" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /opt/tokengate /opt/tokengate
# No bytecode is written: the root file system is read-only, and what is installed is compiled already.
ENV PATH=/opt/tokengate/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /
# The group and user of distroless images, by number: Kubernetes checks runAsNonRoot by it.
USER 65532:65532
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# For engines without probes of their own (Kubernetes has its own and ignores this); management on its default port.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9090/livez', timeout=2)"]
ENTRYPOINT ["tokengate"]
CMD ["serve", "--config", "/etc/tokengate/gateway.toml"]
