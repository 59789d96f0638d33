"""The answer to a signing request: three fields, each single-line base64 of PEM (contract section 1)."""

import base64
from collections.abc import Sequence

from cryptography import x509

from .authority import certificates_pem


def certification_result(leaf: x509.Certificate, above: Sequence[x509.Certificate]) -> dict[str, str]:
    """What the Connector answers: the chain is exactly the leaf plus `caCertificate`."""
    leaf_pem, ca_pem = certificates_pem([leaf]), certificates_pem(list(above))
    return encoded(leaf=leaf_pem, ca=ca_pem, chain=leaf_pem + ca_pem)


def encoded(*, leaf: bytes, ca: bytes, chain: bytes) -> dict[str, str]:
    """Any three PEM texts in the fields of a CertificationResult."""
    return {
        "certificateChain": base64.b64encode(chain).decode(),
        "caCertificate": base64.b64encode(ca).decode(),
        "clientCertificate": base64.b64encode(leaf).decode(),
    }
