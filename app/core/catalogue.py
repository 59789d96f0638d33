"""The codes in status and journal in plain words: what each means, and what to do about it.

For everything that talks to people. `docs/operations.md` says the same at more length.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """Whole sentences."""

    meaning: str
    remedy: str


_CONNECT = "Hand over a new one-time token, or mount a certificate that was issued later."

# Why the state is not simply `connected`: every reason that `/status` can give.
REASONS: Mapping[str, Words] = {
    "not-connected": Words(
        "There is no certificate yet.",
        "Hand over a one-time token, or mount a certificate and its key.",
    ),
    "credential-expired": Words(
        "The certificate has expired, and is not served any more.",
        f"{_CONNECT} If the clock of this machine is wrong, set it: attempts go on.",
    ),
    "credential-revoked": Words("The certificate was revoked, and is not served any more.", _CONNECT),
    "renewal-failing": Words(
        "Three or more attempts to renew failed in a row.",
        "The last failure says why. Attempts go on by themselves.",
    ),
    "renewal-overdue": Words(
        "The certificate should have been renewed by now.",
        "The last failure says why. Attempts go on by themselves.",
    ),
    "proof-pending": Words(
        "A new certificate is signed, and the Connector has not accepted it yet.",
        "Wait: the proof is repeated, and the old certificate stays in use. If only the new one is refused, "
        "it is dropped after ten minutes.",
    ),
    "trust-anchor-changed": Words(
        "The certificate comes from another CA than the one before it.",
        "The newest event of that name names both. Ask the operator of Compass whether the CA was replaced. "
        "The next renewal by the same CA ends this.",
    ),
    "clock-skew": Words(
        "The clock of this machine and the Connector's are more than two minutes apart.",
        "Set the clock of this machine, or have it set by NTP.",
    ),
    "ca-expires-first": Words(
        "The CA ends before the certificate that it signed.",
        "The operator of Compass has to renew the CA.",
    ),
    "connector-ca-unusable": Words(
        "The trust anchors for the Connector cannot be read; those that were read last stay in use.",
        "The newest event of that name says what is wrong with COMPASS_CONNECTOR_CA_FILE.",
    ),
    "import-rejected": Words(
        "The mounted certificate and key cannot be used; the ones in the store still are.",
        "The newest event of that name says what is wrong with the files.",
    ),
    "token-unusable": Words(
        "The configured one-time token cannot be read, or has none of the known forms.",
        "The newest event of that name says which. Put a new token in its place.",
    ),
    "publish-failed": Words(
        "The files for the neighbours could not be written.",
        "Look at the space and the permissions of COMPASS_PUBLISH_DIR. It is tried again.",
    ),
    "connector-url-differs": Words(
        "The Connector names another URL than COMPASS_CONNECTOR_URL.",
        "Compare the two below. The one that is set is used.",
    ),
    "unproven": Words(
        "The certificate had to be used before the Connector accepted it.",
        "Nothing, if the Connector comes back: it is proven then.",
    ),
    "proof-failed": Words(
        "The Connector has not accepted the certificate in use yet.",
        "It is tried again every five minutes; the newest event of that name says why it failed.",
    ),
    "revocation-failed": Words(
        "A certificate could not be revoked yet.",
        "The newest event of that name says which and why. Retried until it is revoked or expires.",
    ),
}

_WAIT = "It is tried again by itself."
_DISK = "Look at the space and the permissions of COMPASS_STORE_DIR."
_ODD = "Something is wrong at the Connector, or something else answers in its place: ask its operator."

# What helps against a failure, by the `code` of errors.py.
REMEDIES: Mapping[str, str] = {
    "connector-unavailable": "Is its name resolved, does a proxy or firewall stand in the way, is it up? "
    + _WAIT,
    "connector-timeout": f"Is the network slow, or does a firewall swallow the packets? {_WAIT}",
    "connector-untrusted": "Does COMPASS_CONNECTOR_CA_FILE hold the CA of the Connector's server "
    "certificate, and does a proxy replace that certificate?",
    "connector-unauthenticated": "The certificate may be revoked or the token used up; it may also be a "
    "hiccup of the Connector. If it goes on, connect with a new one-time token.",
    "connector-rejected": "The Connector understood and refused: its operator knows why. " + _WAIT,
    "connector-protocol": _ODD,
    "connector-failed": _ODD,
    "bad-credential": _ODD,
    "malformed-credential": "The detail names the file and its fault. Correct the file or the passphrase.",
    "key-mismatch": "Mount the certificate and the key that belong together.",
    "untrusted-chain": "Mount the certificate together with the CA certificates that issued it.",
    "subject-mismatch": _ODD,
    "credential-expired": _CONNECT,
    "credential-not-yet-valid": "Is the clock of this machine right?",
    "credential-revoked": _CONNECT,
    "not-connected": _CONNECT,
    "store-write-failed": f"{_DISK} {_WAIT}",
    "store-failed": _DISK,
    "store-damaged": "The store is left as it is. " + _CONNECT,
    "internal-error": "This is a mistake in the sidecar; its log says more. " + _WAIT,
}

# What happened: every event of the journal.
EVENTS: Mapping[str, str] = {
    "announced-url-unusable": "The URL that the Connector names did not work; the known one is used",
    "attempt-failed": "An attempt failed",
    "certificates-left-out": "Certificates that the chain does not need were left out",
    "connect-needed": "A new one-time token is needed",
    "connected": "Connected with a one-time token",
    "connector-ca-unusable": "The trust anchors for the Connector cannot be read",
    "connector-url-differs": "The Connector names another URL than the one that is set",
    "expiring": "A tenth of the lifetime is left",
    "import-ignored": "The mounted certificate and key are not taken over",
    "import-rejected": "The mounted certificate and key cannot be used",
    "imported": "The mounted certificate and key were imported",
    "notification-failed": "A consumer could not be notified",
    "pending-dropped": "A renewal under way was given up",
    "pending-not-removed": "What was left of a renewal could not be removed",
    "proof-failed": "The Connector has not accepted the certificate in use yet",
    "proven": "The Connector accepted the certificate in use",
    "publish-failed": "The files for the neighbours could not be written",
    "published": "The files for the neighbours were written",
    "recovered": "Renewal works again",
    "renewal-failed": "Renewal keeps failing",
    "renewed": "Renewed",
    "revocation-failed": "A certificate could not be revoked",
    "revocation-not-scheduled": "The revocation of a certificate could not be noted in the store",
    "revoked": "The certificate was revoked",
    "store-damaged": "What is stored cannot be used",
    "superseded-revoked": "A superseded certificate was revoked",
    "token-retried": "It is not known whether the one-time token is spent; it is presented again",
    "token-not-remembered": "That the token is used could not be noted",
    "token-unusable": "The configured one-time token cannot be used",
    "trust-anchor-changed": "The new certificate comes from another CA",
    "used-unproven": "A new certificate is used before the Connector accepted it",
}
