"""`/certificate`: the chain in every form, waiting for the next one, and the bundles with the key."""

import asyncio
import logging
from typing import Annotated

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import PrivateFormat, pkcs12
from fastapi import APIRouter, Query, Request, Response

from ..core.catalogue import Event
from ..core.credential import Credential
from .guard import Access
from .longpoll import WAIT_PATTERN, LongPoll, parse_wait
from .negotiation import MEDIA_TYPES, PEM_CHAIN, PEM_FILE, choose, gather, matches
from .openapi import IF_NONE_MATCH, PASSWORD, UNCHANGED, Responses, content, extra, headers, problems
from .paths import BUNDLE_P12, BUNDLE_PEM, CA_FILE, CERTIFICATE, CHAIN_FILE, LEAF_FILE, Path
from .problems import Answer, Refusal
from .schemas import CertificateChain
from .served import Served

PKCS12 = "application/pkcs12"
_ROUNDS = 100_000  # of PBKDF2: 30 ms in a thread
_UNUSABLE = ("not-connected", "credential-expired", "credential-revoked")
_ETAG = headers({"ETag": "Strong, of this very form", "Cache-Control": "`no-cache`"})
_NEGOTIATED: Responses = {200: {**content(PEM_CHAIN, PEM_FILE)[200], **_ETAG}, **UNCHANGED}
_WAIT = Query(
    description="How long to wait for another certificate than `If-None-Match` names, at most 5 minutes",
    examples=["30s"],
    json_schema_extra={"pattern": f"^({WAIT_PATTERN})$"},  # described, and checked by parse_wait
)
_log = logging.getLogger("compass_sidecar.api")


def certificate_routes(served: Served, longpoll: LongPoll) -> APIRouter:
    router = APIRouter(tags=["certificate"])

    @router.get(
        CERTIFICATE.path,
        response_model=CertificateChain,
        responses={**_NEGOTIATED, **problems(CERTIFICATE, *_UNUSABLE, "not-acceptable")},
        openapi_extra=extra(CERTIFICATE, IF_NONE_MATCH),
    )
    async def certificate(
        request: Request,
        wait: Annotated[str | None, _WAIT] = None,
    ) -> Response:
        """The current chain, by `Accept`: JSON, or PEM with the leaf first. With `wait` it answers as soon
        as there is another certificate than `If-None-Match` names, or a first one; when the time (at most
        5 minutes) is over, with what there is."""
        fields = gather(request.scope)
        form = choose(fields.get(b"accept", b""))
        if form is None:
            raise Refusal("not-acceptable", f"There are {', '.join(MEDIA_TYPES)}.")
        seen = fields.get(b"if-none-match")

        def another() -> bool:
            rendered = served.usable()
            return rendered is not None and not matches(rendered.forms[form].etag, seen)

        if wait is not None:
            await longpoll.wait(another, parse_wait(wait), request.receive)
        return served.current().forms[form].answer(seen).response()

    def file(path: Path, media_type: str, summary: str, *codes: str) -> None:
        @router.get(
            path.path,
            name=path.path.rpartition("/")[2].replace(".", "_"),
            summary=summary,
            response_class=Response,
            responses={
                200: {**content(media_type)[200], **_ETAG},
                **UNCHANGED,
                **problems(path, *_UNUSABLE, *codes),
            },
            openapi_extra=extra(path, IF_NONE_MATCH),
        )
        async def read(request: Request) -> Response:
            representation = served.current().forms.get(path.path)
            if representation is None:
                raise Refusal("not-found", "The imported credential came without its issuers.")
            return representation.answer(gather(request.scope).get(b"if-none-match")).response()

    file(CHAIN_FILE, PEM_CHAIN, "The chain, leaf first")
    file(LEAF_FILE, PEM_FILE, "The leaf alone")
    file(
        CA_FILE, PEM_FILE, "The issuers of the client certificate; never for verifying a server", "not-found"
    )
    return router


def bundle_routes(served: Served, access: Access) -> APIRouter:
    router = APIRouter(tags=["bundle"])

    def handed_out(request: Request) -> Credential:
        chain = served.current().generation.chain
        _log.info(
            Event.PRIVATE_KEY_READ,
            extra={
                "by": access.caller(request.scope),
                "fingerprint": chain.fingerprint,
                "path": request.url.path,
            },
        )
        return served.current().generation.credential

    @router.get(
        BUNDLE_PEM.path,
        response_class=Response,
        responses=content(PEM_FILE) | problems(BUNDLE_PEM, *_UNUSABLE),
        openapi_extra=extra(BUNDLE_PEM),
    )
    async def bundle_pem(request: Request) -> Response:
        """Key, then chain. Only where `COMPASS_EXPOSE_PRIVATE_KEY` is set, and never over a network."""
        credential = handed_out(request)
        return _secret(PEM_FILE, credential.key_pem + credential.chain.pem)

    @router.get(
        BUNDLE_P12.path,
        response_class=Response,
        responses=content(PKCS12) | problems(BUNDLE_P12, *_UNUSABLE),
        openapi_extra=extra(BUNDLE_P12, PASSWORD),
    )
    async def bundle_p12(request: Request) -> Response:
        """Key and chain as PKCS#12 (AES-256-CBC, HMAC-SHA256)."""
        password = _password(request)
        return _secret(PKCS12, await asyncio.to_thread(_render_pkcs12, handed_out(request), password))

    return router


def _password(request: Request) -> bytes:
    given = [value.encode("latin-1") for value in request.headers.getlist("compass-bundle-password")]
    try:
        (password,) = given
        password.decode("utf-8")
    except ValueError as error:
        raise Refusal("bad-request", "Send one Compass-Bundle-Password header, in UTF-8.") from error
    if not password:
        raise Refusal("bad-request", "The Compass-Bundle-Password header is empty.")
    return password


def _secret(media_type: str, body: bytes) -> Response:
    return Answer.of(200, {"Content-Type": media_type, "Cache-Control": "no-store"}, body).response()


def _render_pkcs12(credential: Credential, password: bytes) -> bytes:
    key = serialization.load_pem_private_key(credential.key_pem, None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, rsa.RSAPrivateKey)  # noqa: S101 - a credential has no other kind
    encryption = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(_ROUNDS)
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(password)
    )
    leaf, authorities = credential.chain.leaf, list[x509.Certificate](credential.chain.authorities)
    return pkcs12.serialize_key_and_certificates(b"compass-sidecar", key, leaf, authorities, encryption)
