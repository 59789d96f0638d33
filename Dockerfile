# docker build -t compass-sidecar .                     the sidecar
# docker build -t compass-emulator --target emulator .  the Connector emulator
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
COPY requirements.lock requirements-emulator.lock /tmp/
RUN python3 -m venv /opt/sidecar \
    && /opt/sidecar/bin/pip install --no-cache-dir --require-hashes -r /tmp/requirements.lock \
    && python3 -m venv /opt/emulator \
    && /opt/emulator/bin/pip install --no-cache-dir --require-hashes -r /tmp/requirements-emulator.lock

FROM ${PYTHON_IMAGE} AS emulator
COPY --from=build /opt/emulator /opt/emulator
COPY emulator /srv/emulator
ENV PYTHONPATH=/srv PYTHONUNBUFFERED=1
RUN mkdir /state && chown 65532:65532 /state
USER 65532:65532
VOLUME /state
EXPOSE 8443 8444
ENTRYPOINT ["/opt/emulator/bin/python", "-m", "emulator", "--dir", "/state"]

FROM ${PYTHON_IMAGE} AS sidecar
COPY --from=build /opt/sidecar /opt/sidecar
COPY app /srv/app
ENV PYTHONPATH=/srv PYTHONUNBUFFERED=1 COMPASS_STORE_DIR=/var/lib/compass-sidecar
RUN mkdir -p /var/lib/compass-sidecar /var/run/compass-sidecar \
    && chown 65532:65532 /var/lib/compass-sidecar /var/run/compass-sidecar
USER 65532:65532
VOLUME ["/var/lib/compass-sidecar", "/var/run/compass-sidecar"]
EXPOSE 8080
ENTRYPOINT ["/opt/sidecar/bin/python", "-m", "app"]
