"""The store as version 0.1.0 wrote and read it. Frozen: no later version changes this file."""

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

INSTANCE = "0123456789abcdef0123456789abcdef"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _seal(record: Mapping[str, Any]) -> bytes:
    seal = _digest(json.dumps(record, sort_keys=True).encode())
    return json.dumps({**record, "sha256": seal}, indent=1).encode() + b"\n"


def _unseal(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_bytes())
    assert record.pop("sha256") == _digest(json.dumps(record, sort_keys=True).encode()), path
    return record


def _fingerprint(pem: bytes) -> str:
    lines = pem.split(b"-----END CERTIFICATE-----")[0].split(b"-----BEGIN CERTIFICATE-----\n")[1]
    return _digest(base64.b64decode(lines))


def write(
    directory: Path,
    *,
    key: bytes,
    chain: bytes,
    ca: bytes,
    pending: Mapping[str, Any] | None = None,
    **facts: Any,
) -> str:
    """A store with one generation, and a renewal under way if `pending` is given; the generation's name.

    `facts` has at least `origin`, `connector_url` and `activated_at` (RFC 3339).
    """
    activated_at = datetime.fromisoformat(facts["activated_at"])
    name = f"{activated_at:%Y%m%dT%H%M%SZ}-{_fingerprint(chain)[:12]}"
    contents = {"tls.key": key, "tls.crt": chain, "ca.crt": ca}
    others = dict.fromkeys(("director_url", "proven_at", "replaced_end", "revoke_at", "revoked_at"))
    record = {**others, **facts, "files": {each: _digest(content) for each, content in contents.items()}}
    folder = directory / "generations" / name
    folder.mkdir(parents=True, mode=0o700)
    for each, content in {**contents, "generation.json": _seal(record)}.items():
        (folder / each).write_bytes(content)
        (folder / each).chmod(0o600)
    (directory / "current").symlink_to(f"generations/{name}")
    (directory / "instance.json").write_bytes(_seal({"instance_id": INSTANCE, "used_tokens": ["a" * 64]}))
    (directory / "journal.jsonl").write_text('{"at": "2026-11-24T10:00:00Z", "event": "imported"}\n')
    if pending is not None:
        (directory / "pending").mkdir(mode=0o700)
        (directory / "pending" / "pending.json").write_bytes(_seal(pending))


def read(directory: Path) -> dict[str, Any]:
    """What 0.1.0 makes of a store, or an AssertionError, KeyError or ValueError where that finds damage."""
    instance = _unseal(directory / "instance.json")
    assert len(instance["instance_id"]) == 32
    folder = directory / (directory / "current").readlink()
    facts = _unseal(folder / "generation.json")
    for name, digest in facts["files"].items():
        assert _digest((folder / name).read_bytes()) == digest, name
    assert facts["origin"] in {"import", "connect", "renew"}
    assert facts["connector_url"].startswith("https://")
    _moments(facts, "activated_at")
    _moments(
        facts, *(each for each in ("proven_at", "replaced_end", "revoke_at", "revoked_at") if facts.get(each))
    )
    under_way = directory / "pending" / "pending.json"
    pending = _unseal(under_way) if under_way.exists() else None
    if pending is not None:
        for name in ("begun_by", "sign_url", "connector_url", "subject", "key_pem", "csr_pem"):
            pending[name]
        _moments(pending, "begun_at")
        if (signed := pending.get("signed")) is not None:
            signed["chain"]["pem"], signed["chain"]["ca"]
            _moments(signed, "signed_at")
    return {
        "fingerprint": _fingerprint((folder / "tls.crt").read_bytes()),
        "facts": facts,
        "pending": pending,
    }


def _moments(record: Mapping[str, Any], *names: str) -> None:
    for name in names:
        assert datetime.fromisoformat(record[name]).tzinfo is not None, name
