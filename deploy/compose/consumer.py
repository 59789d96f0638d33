"""A neighbour of the sidecar, with nothing but the standard library.

Waits for each new chain at `SIDECAR_URL`, then calls the Connector at `CONNECTOR_URL` with the pair in
`PUBLISHED`, and prints one line about it.
"""

import hashlib
import json
import os
import signal
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

_PAUSE = 2
_WAIT = 60
_END = "-----END CERTIFICATE-----\n"


def main() -> None:
    # A container's process 1 outlives each signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    etag = ""
    while True:
        try:
            etag, fingerprint = next_chain(etag)
            if fingerprint is not None:
                call_connector(fingerprint)
        except (OSError, ValueError) as error:
            say(f"not yet: {error}")
            etag = ""
            time.sleep(_PAUSE)


def next_chain(etag: str) -> tuple[str, str | None]:
    """The ETag and the fingerprint of the chain once it is another one; None if it is still the same."""
    url = f"{os.environ['SIDECAR_URL']}/certificate?wait={_WAIT}s"
    request = urllib.request.Request(url, headers={"If-None-Match": etag} if etag else {})
    try:
        with urllib.request.urlopen(request, timeout=_WAIT + 30) as answer:
            return answer.headers["ETag"], json.load(answer)["fingerprint_sha256"]
    except urllib.error.HTTPError as error:
        if error.code != 304:
            raise
        return etag, None


def call_connector(fingerprint: str) -> None:
    # Resolved once: a key and a chain that belong together, even if they are replaced meanwhile.
    pair = Path(os.environ["PUBLISHED"], "..data").resolve()
    leaf = ssl.PEM_cert_to_DER_cert((pair / "tls.crt").read_text().partition(_END)[0] + _END)
    if hashlib.sha256(leaf).hexdigest() != fingerprint:
        raise ValueError("the published chain is another one than the served one")
    context = ssl.create_default_context(cafile=os.environ["CONNECTOR_CA_FILE"])
    context.load_cert_chain(pair / "tls.crt", pair / "tls.key")
    request = urllib.request.Request(
        os.environ["CONNECTOR_URL"],
        data=json.dumps({"query": "{ __typename }"}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, context=context, timeout=30) as answer:
        say(f"{fingerprint} opened the Connector: {json.load(answer)['data']}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
