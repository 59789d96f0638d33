"""Rows of the fault table: GraphQL errors by name (contract section 2). The wordings are in `messages.py`."""

from collections.abc import Callable

from . import messages
from .circumstance import Circumstance
from .durations import parse_seconds
from .fault_kinds import Message

_CSR_WORDS = ("common-name", "country", "organization", "organizational-unit", "locality", "province")


def _says(message: str) -> Callable[[Circumstance, str], str]:
    return lambda _circumstance, _param: message


MESSAGES = (
    Message(
        "director-down",
        "the Director refuses connections",
        _says(messages.DIRECTOR_REFUSES_CONNECTIONS),
        operation="configuration",
    ),
    Message(
        "director-slow", "the Director exceeds 30 s", _says(messages.DIRECTOR_SLOW), operation="configuration"
    ),
    Message(
        "director-hangs",
        "the Director exceeds 30 s, and the error takes so long",
        _says(messages.DIRECTOR_SLOW),
        operation="configuration",
        default="30s",
        check=parse_seconds,
        delay=parse_seconds,
        weight=0.1,
    ),
    Message(
        "director-503", "the Director answers 503", _says(messages.DIRECTOR_503), operation="configuration"
    ),
    Message(
        "director-scopes",
        "the Director refuses the scopes",
        _says(messages.DIRECTOR_SCOPES),
        operation="configuration",
    ),
    Message(
        "director-not-found",
        "the Director knows no such system auth",
        _says(messages.DIRECTOR_NOT_FOUND),
        operation="configuration",
    ),
    Message(
        "consumer-type-unsupported",
        "an integration system calls",
        _says(messages.CONSUMER_TYPE_UNSUPPORTED),
        operation="configuration",
    ),
    Message(
        "consumer-type-missing",
        "broken auth context in front",
        _says(messages.CONSUMER_TYPE_MISSING),
        operation="configuration",
    ),
    Message(
        "tenant-missing",
        "broken auth context in front",
        _says(messages.TENANT_MISSING),
        operation="configuration",
    ),
    Message("unauthenticated", "no identity header reached the Connector", messages.unauthenticated),
    Message(
        "revoke-unauthenticated",
        "revoke without a certificate",
        _says(messages.REVOKE_WITHOUT_CERTIFICATE),
        operation="revoke",
    ),
    Message("csr-bad-base64", "the CSR is not base64", _says(messages.BAD_BASE64), operation="sign"),
    Message("csr-bad-pem", "the CSR is not PEM", _says(messages.BAD_PEM), operation="sign"),
    Message("csr-unparsable", "the CSR does not parse", _says(messages.UNPARSABLE), operation="sign"),
    Message(
        "csr-bad-signature", "the CSR's signature is wrong", _says(messages.BAD_SIGNATURE), operation="sign"
    ),
    Message("csr-not-rsa", "the CSR's key is not RSA", _says(messages.KEY_MISMATCH), operation="sign"),
    *(
        Message(
            f"csr-invalid-{word}",
            "a stale subject, or the operator changed it",
            _says(f"{messages.SIGNING}CSR: Invalid {word.replace('-', ' ')} provided."),
            operation="sign",
        )
        for word in _CSR_WORDS
    ),
    *(
        Message(
            f"csr-no-{word}",
            "the CSR lacks this attribute",
            _says(f"{messages.SIGNING}CSR: No {word.replace('-', ' ')} provided."),
            operation="sign",
        )
        for word in _CSR_WORDS[1:]
    ),
    Message("ca-secret-missing", "the CA secret is not loaded", _says(messages.CA_MISSING), operation="sign"),
    Message("ca-secret-bad-pem", "the CA secret is broken", _says(messages.CA_BAD_PEM), operation="sign"),
    Message(
        "ca-secret-bad-certificate",
        "the CA secret is broken",
        _says(messages.CA_BAD_CERTIFICATE),
        operation="sign",
    ),
    Message("ca-secret-bad-key", "the CA secret is broken", _says(messages.CA_BAD_KEY), operation="sign"),
    Message(
        "ca-secret-other-key",
        "the CA secret has the key of another CA",
        _says(messages.CA_OTHER_KEY),
        operation="sign",
    ),
    Message(
        "revocation-conflict",
        "a write conflict in the ConfigMap",
        _says(messages.REVOCATION_CONFLICT),
        operation="revoke",
    ),
    Message(
        "revocation-unavailable",
        "Kubernetes does not answer",
        _says(messages.REVOCATION_UNAVAILABLE),
        operation="revoke",
    ),
    Message(
        "revocation-missing",
        "the ConfigMap does not exist",
        _says(messages.REVOCATION_MISSING),
        operation="revoke",
    ),
    Message("revocation-full", "the ConfigMap is full", _says(messages.REVOCATION_FULL), operation="revoke"),
    Message("internal-system-error", "a resolver panicked", _says(messages.PANIC)),
    Message("error-text", "this text as the message", messages.given, default="something went wrong"),
    Message("error-control-characters", "terminal escapes and forged log lines", messages.control_characters),
    Message("error-bidi", "bidirectional overrides", messages.bidi),
    Message("error-long-base64", "four thousand characters of base64", messages.long_base64),
    Message("error-pem-key", "what looks like a private key", messages.private_key),
    Message("error-very-long", "a megabyte of text", messages.very_long),
)
