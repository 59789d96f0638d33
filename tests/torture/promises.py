"""What has to hold whatever happened, judged from the files and by the Connector, not by our own code."""

import itertools
import json
import os
import ssl
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.torture.forge import Forged


class Broken(AssertionError):
    """A promise was not kept."""


def check(kept: object, promise: str) -> None:
    """Raise `Broken` with the promise if it was not kept."""
    if not kept:
        raise Broken(promise)


def whole_pair(folder: Path, *, what: str) -> str:
    """The fingerprint of the pair in the folder, whose key and chain belong together."""
    try:
        key = load_pem_private_key((folder / "tls.key").read_bytes(), None)
        chain = x509.load_pem_x509_certificates((folder / "tls.crt").read_bytes())
    except (OSError, ValueError) as error:
        raise Broken(f"{what}: no whole pair: {error!r}") from error
    check(key.public_key() == chain[0].public_key(), f"{what}: key and chain belong together")
    for below, above in itertools.pairwise(chain):
        below.verify_directly_issued_by(above)
    return chain[0].fingerprint(SHA256()).hex()


def published_pair(folder: Path) -> str | None:
    """The fingerprint of what neighbours read, through `..data` resolved once; None before the first time."""
    if not os.path.lexists(folder / "..data"):
        return None
    data = folder / (folder / "..data").readlink()
    fingerprint = whole_pair(data, what="published")
    bundle = (data / "tls.key").read_bytes() + (data / "tls.crt").read_bytes()
    check((data / "bundle.pem").read_bytes() == bundle, "the published bundle is key and chain")
    return fingerprint


def current_pair(store: Path) -> str | None:
    """The fingerprint of the current generation, whose key has its certificate; None without one."""
    if not os.path.lexists(store / "current"):
        return None
    return whole_pair(store / "current", what="current")


def pending_record(store: Path) -> dict[str, object] | None:
    """What is under way according to the disk; None if nothing, or nothing whole."""
    try:
        record: dict[str, object] = json.loads((store / "pending" / "pending.json").read_bytes())
    except (OSError, ValueError):
        return None
    return record


def accepted(store: Path, url: str, ca_file: str) -> None:
    """The Connector takes the current pair: a real call."""
    context = ssl.create_default_context(cafile=ca_file)
    context.load_cert_chain(store / "current" / "tls.crt", store / "current" / "tls.key")
    with httpx.Client(verify=context, trust_env=False) as client:
        answer = client.post(url, json={"query": "query { __typename }"})
    check(answer.status_code == 200, f"the Connector accepts the current pair: {answer.status_code}")


def orderly(sidecar: Forged, store: Path, published: Path) -> None:
    """Running, ready, serving what is current and published; nothing half made is left, nothing was a bug."""
    served = sidecar.client.get("/certificate").json()["fingerprint_sha256"]
    current = current_pair(store)
    check(current == served, f"what is served is current: {served}, {current}")
    check(published_pair(published) == served, "what is served is published")
    said = sidecar.log
    check("Traceback" not in said and "internal-error" not in said, f"no bug: {said}")
    left = [str(path) for folder in (store, published) for path in folder.rglob(".tmp-*")]
    check(not left, f"nothing half made is left: {left}")
