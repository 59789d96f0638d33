# Where `make test-313` and `make test-314` run the tests: a Python with what they need.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
# A mirror of a testing release may be older than the date until which its index is valid.
RUN apt-get update -qq -o Acquire::Check-Valid-Until=false \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openssl curl faketime procps >/dev/null
COPY requirements-dev.lock /tmp/
RUN --mount=type=secret,id=pip-conf,target=/etc/pip.conf --mount=type=secret,id=ca-bundle \
    python3 -m venv /opt/tests \
    && /opt/tests/bin/pip install --quiet --no-cache-dir --require-hashes -r /tmp/requirements-dev.lock
