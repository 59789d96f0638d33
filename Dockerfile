# Two images: `make image` builds both, or
#   docker build --target sidecar -t compass-sidecar .
#   docker build --target emulator -t compass-emulator .
# Nothing here needs a shell at run time, and nothing that is needed at build time stays in the image.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
COPY requirements.lock requirements-emulator.lock requirements-build.lock ./
# The secrets are for those whose index needs them (see deploy/image/build), and may be missing.
ENV PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_QUIET=1
RUN --mount=type=secret,id=pip-conf,target=/etc/pip.conf --mount=type=secret,id=ca-bundle \
    python3 -m venv /opt/tools \
    && for image in sidecar emulator; do python3 -m venv --without-pip /opt/$image; done \
    && PATH=/opt/tools/bin:$PATH \
    && pip install --require-hashes -r requirements-build.lock \
    && pip --python /opt/sidecar install --require-hashes -r requirements.lock \
    && pip --python /opt/emulator install --require-hashes -r requirements-emulator.lock
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY emulator emulator
COPY deploy/image/tidy.py /opt/tools/
RUN PATH=/opt/tools/bin:$PATH \
    && pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheel . \
    && for image in sidecar emulator; do pip --python /opt/$image install --no-deps --no-index /wheel/*; done \
    && rm -r /opt/sidecar/bin/compass-emulator /opt/sidecar/lib/python3*/site-packages/compass_emulator \
             /opt/emulator/bin/compass-sidecar /opt/emulator/lib/python3*/site-packages/compass_sidecar \
    && python3 /opt/tools/tidy.py /opt/sidecar /opt/emulator \
    && mkdir /empty

FROM ${PYTHON_IMAGE} AS emulator
COPY --from=build /opt/emulator /opt/emulator
ENV PATH=/opt/emulator/bin:${PATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN --mount=type=bind,source=deploy/image/finish.py,target=/tmp/finish.py \
    ["python", "/tmp/finish.py", "compass_emulator.__main__", "urllib.request"]
COPY --from=build --chown=65532:65532 /empty /state
USER 65532:65532
WORKDIR /
VOLUME /state
EXPOSE 8443 8444
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["python", "-c", \
    "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8445/healthz', timeout=2)"]
ENTRYPOINT ["compass-emulator", "--dir", "/state"]
ARG PYTHON_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="compass-emulator" \
      org.opencontainers.image.description="A Compass Connector for development and tests" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM ${PYTHON_IMAGE} AS sidecar
COPY --from=build /opt/sidecar /opt/sidecar
ENV PATH=/opt/sidecar/bin:${PATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    COMPASS_STORE_DIR=/var/lib/compass-sidecar
RUN --mount=type=bind,source=deploy/image/finish.py,target=/tmp/finish.py \
    ["python", "/tmp/finish.py", "compass_sidecar.__main__", "compass_sidecar.main", "compass_sidecar.cli.commands", \
     "compass_sidecar.cli.healthcheck"]
COPY --from=build --chown=65532:65532 /empty /var/lib/compass-sidecar
COPY --from=build --chown=65532:65532 /empty /run/compass-sidecar
USER 65532:65532
WORKDIR /
# The store, and where COMPASS_PUBLISH_DIR may point.
VOLUME ["/var/lib/compass-sidecar", "/run/compass-sidecar"]
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["compass-sidecar", "healthcheck"]
ENTRYPOINT ["compass-sidecar"]
ARG PYTHON_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="compass-sidecar" \
      org.opencontainers.image.description="Holds, renews and serves an application's SAP/Kyma Compass client certificate" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
