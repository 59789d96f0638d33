"""The shapes of requests and answers: the public names, and where each value comes from."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from ..core.credential import Chain, key_algorithm, render, serial_number
from ..core.generation import Generation
from ..core.policy import left
from ..core.status import State, Status, state_of
from ..core.text import printable, rfc3339
from ..engine.renewal import Renewed

_FINGERPRINT = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

Timestamp = Annotated[
    datetime,
    PlainSerializer(rfc3339),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-23T20:03:00Z"]}),
]
Fingerprint = Annotated[
    str, Field(description="SHA-256 of the DER leaf, lower-case hex", examples=[_FINGERPRINT])
]
PEM = Annotated[str, Field(examples=["-----BEGIN CERTIFICATE-----\nMIIE...\n-----END CERTIFICATE-----\n"])]


class Certificate(BaseModel):
    """What a certificate says. Its identity is the fingerprint: every serial number is 2."""

    fingerprint_sha256: Fingerprint
    subject: str = Field(description="RFC 4514", examples=["CN=1e5d8a2c,L=local,O=Org,C=DE"])
    issuer: str = Field(description="RFC 4514", examples=["CN=Compass CA,C=DE"])
    serial_number: str = Field(description="A decimal number", examples=["2"])
    not_before: Timestamp
    not_after: Timestamp
    effective_not_after: Timestamp = Field(description="The earliest end in the chain")
    key_algorithm: str = Field(examples=["RSA-4096"])
    chain_length: int = Field(description="Certificates in the chain, the leaf included", examples=[2])

    @staticmethod
    def facts_of(chain: Chain) -> dict[str, Any]:
        return {
            "fingerprint_sha256": chain.fingerprint,
            "subject": chain.subject,
            "issuer": chain.issuer,
            "serial_number": serial_number(chain.leaf),
            "not_before": chain.not_before,
            "not_after": chain.not_after,
            "effective_not_after": chain.effective_not_after,
            "key_algorithm": key_algorithm(chain.leaf),
            "chain_length": len(chain.certificates),
        }


class CertificateStatus(Certificate):
    """The certificate in use."""

    proven_at: Timestamp | None = Field(description="When the Connector accepted it; null if unproven")

    @classmethod
    def of(cls, generation: Generation) -> Self:
        return cls(**cls.facts_of(generation.chain), proven_at=generation.facts.proven_at)


class CertificateChain(Certificate):
    """The certificate in use, with its PEM texts."""

    leaf: PEM
    chain: PEM = Field(description="Leaf first, in issuing order")
    ca: PEM | None = Field(
        description="The chain without its leaf: for verifying the *client* certificate, never a server's"
    )

    @classmethod
    def of(cls, chain: Chain) -> Self:
        return cls(
            **cls.facts_of(chain),
            leaf=render([chain.leaf]).decode(),
            chain=chain.pem.decode(),
            ca=chain.ca_pem.decode() if chain.ca_pem is not None else None,
        )


class ErrorNote(BaseModel):
    """Why the last attempt failed."""

    code: str = Field(examples=["connector-unavailable"])
    detail: str
    retryable: bool
    at: Timestamp


class RenewalStatus(BaseModel):
    """How renewal goes."""

    due_at: Timestamp | None
    next_attempt_at: Timestamp | None
    last_attempt_at: Timestamp | None
    last_success_at: Timestamp | None
    consecutive_failures: int
    last_error: ErrorNote | None
    in_progress: bool

    @classmethod
    def of(cls, status: Status) -> Self:
        return cls(due_at=status.due_at, next_attempt_at=status.next_attempt_at, **asdict(status.progress))


class ConnectorStatus(BaseModel):
    """Where the Connector is."""

    url: str | None
    director_url: str | None
    announced_url: str | None = Field(
        default=None,
        description="Only there when the Connector names another URL than the one that is set",
        exclude_if=lambda url: url is None,
    )


class StatusAnswer(BaseModel):
    """What the sidecar says of itself."""

    state: State
    reasons: list[str] = Field(description="Why it is not simply `connected`", examples=[["clock-skew"]])
    certificate: CertificateStatus | None
    remaining_seconds: int | None = Field(
        description="Until `effective_not_after`; null without a certificate"
    )
    renewal: RenewalStatus
    connector: ConnectorStatus
    clock_skew_seconds: float | None = Field(description="The Connector's clock minus ours")
    events: list[Mapping[str, Any]] = Field(description="The newest 20 of the journal, newest last")
    version: str
    started_at: Timestamp

    @classmethod
    def of(cls, status: Status, now: datetime) -> Self:
        state, reasons = state_of(status, now)
        generation, skew = status.generation, status.clock_skew
        return cls(
            state=state,
            reasons=list(reasons),
            certificate=CertificateStatus.of(generation) if generation else None,
            remaining_seconds=int(left(generation.chain, now).total_seconds()) if generation else None,
            renewal=RenewalStatus.of(status),
            connector=ConnectorStatus(
                url=_shown(status.connector_url),
                director_url=_shown(status.director_url),
                announced_url=_shown(status.announced_url),
            ),
            clock_skew_seconds=skew.total_seconds() if skew is not None else None,
            events=list(status.events[-20:]),
            version=status.version,
            started_at=status.started_at,
        )


def _shown(url: str | None) -> str | None:
    return printable(url) if url is not None else None


class RenewAnswer(BaseModel):
    """There is a new certificate."""

    renewed: Literal[True] = True
    previous_fingerprint_sha256: Fingerprint | None
    certificate: CertificateStatus
    duration_seconds: float = Field(examples=[0.412])

    @classmethod
    def of(cls, renewed: Renewed) -> Self:
        return cls(
            previous_fingerprint_sha256=renewed.previous,
            certificate=CertificateStatus.of(renewed.generation),
            duration_seconds=round(renewed.duration / timedelta(seconds=1), 3),
        )


class ConnectAnswer(RenewAnswer):
    """There is a new certificate, by a one-time token."""

    connected: Literal[True] = True


class RevokeAnswer(BaseModel):
    """The certificate is revoked."""

    revoked: Literal[True] = True
    fingerprint_sha256: Fingerprint


class PendingAnswer(BaseModel):
    """Not done yet; it goes on, and `GET /status` shows how."""

    renewed: Literal[False] = False
    pending: Fingerprint | None = Field(description="A signed certificate that waits for its proof")


class ConnectRequest(BaseModel):
    """A one-time token. As JSON, base64 of JSON, or a URL it brings its URL along."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    token: str = Field(
        min_length=1,
        repr=False,
        description="Plain, JSON (`raw`), base64 of that (`rawEncoded`), or a URL with `?token=`",
        examples=["..."],
    )
    connector_url: str | None = Field(
        default=None,
        description="Token-Secured Connector URL: https, no user information; its query is not used",
        examples=["https://compass-gateway.example.org/connector/graphql"],
    )


class RevokeRequest(BaseModel):
    """The current certificate, so that nobody revokes another than the one in mind."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    confirm: Fingerprint


class Problem(BaseModel):
    """RFC 9457."""

    type: str = Field(examples=["urn:compass-sidecar:problem:not-connected"])
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable, kebab-case", examples=["not-connected"])
    retryable: bool
    valid_until: Timestamp | None = Field(
        default=None, description="Until when the credential in use is good"
    )
    checks: dict[str, bool] | None = Field(default=None, description="`/readyz?verbose` only")
