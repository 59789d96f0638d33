"""A client of Compass: it renews its certificate at the Connector, and calls the Director with it."""

import base64
import json
import ssl
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

SIGN = "mutation ($csr: String!) { result: signCertificateSigningRequest(csr: $csr) { certificateChain } }"


class Refused(Exception):
    """The server answered with an error."""


@dataclass(frozen=True)
class Client:
    """A certificate with its key in files, and whom to trust."""

    certificate: Path
    key: Path
    ca: Path

    def call(self, url: str, query: str, **variables: str) -> dict[str, Any]:
        """The data of one GraphQL call; raises Refused or OSError."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.certificate, self.key)
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            content = json.load(answer)
        if content.get("errors"):
            raise Refused(content["errors"][0]["message"])
        return dict(content["data"])

    def renew(self, connector: str) -> None:
        """Replaces certificate and key, in this order of caution: nothing is written before all is known."""
        subject = x509.load_pem_x509_certificate(self.certificate.read_bytes()).subject
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        pem = base64.b64encode(csr.public_bytes(serialization.Encoding.PEM)).decode()
        chain = base64.b64decode(self.call(connector, SIGN, csr=pem)["result"]["certificateChain"])
        if x509.load_pem_x509_certificates(chain)[0].public_key() != key.public_key():
            raise Refused("the certificate is for another key")
        self.certificate.write_bytes(chain)
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
