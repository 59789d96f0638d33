"""The Connector proper: three resolvers behind an identity that somebody else established.

It authenticates nobody: `Caller` is what the hydrators in front of it found out (contract section 0). What
a fault changes about a result is asked of the `Occasion`; the resolvers themselves are honest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cryptography import x509

from . import messages
from .authority import ClientAuthority, LeafRequest, issue_leaf
from .certification import certification_result
from .clock import Clock
from .csr import Refused, check_subject, decode, signing_parameters
from .director import Director, SystemAuth
from .fault_kinds import ConfigurationResult, SignResult
from .fault_plan import Occasion
from .forgeries import Forge
from .journal import Journal
from .registry import Registry
from .subjects import SubjectConstants, as_go_writes

KEY_ALGORITHM = "rsa2048"  # a constant in the real one, and not enforced


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whose call it is; the fingerprint only at the certificate-secured door."""

    auth: SystemAuth
    fingerprint: str | None = None


@dataclass(slots=True, kw_only=True)
class OperatorConfiguration:
    """What the operator set, and may change at any time."""

    subject: SubjectConstants
    director_url: str
    token_secured_connector_url: str
    adapter_url: str
    certificate_secured_connector_url: str
    lifetime: timedelta
    authority: ClientAuthority


class Connector:
    """Answers `configuration`, `signCertificateSigningRequest` and `revokeCertificate`."""

    def __init__(
        self,
        *,
        configuration: OperatorConfiguration,
        director: Director,
        registry: Registry,
        journal: Journal,
        clock: Clock,
    ) -> None:
        self.operator = configuration
        self._director = director
        self._registry = registry
        self._journal = journal
        self._clock = clock

    def resolvers(self, caller: Caller, occasion: Occasion) -> Mapping[str, Callable[..., Any]]:
        """The root value of one execution."""
        return {
            "configuration": lambda _info: self._configuration(caller, occasion),
            "signCertificateSigningRequest": lambda _info, csr: self._sign(caller, csr, occasion),
            "revokeCertificate": lambda _info: self._revoke(caller),
        }

    def issue(self, request: x509.CertificateSigningRequest) -> x509.Certificate:
        """The certificate for a request that was checked."""
        leaf = issue_leaf(self.operator.authority.issuer, self.leaf_request(request))
        self._registry.record(leaf)
        self._journal.events["signatures"] += 1
        return leaf

    def leaf_request(self, request: x509.CertificateSigningRequest) -> LeafRequest:
        """The Connector's template: from now, for the configured time, with the request's algorithm."""
        hash_algorithm, pss = signing_parameters(request)
        not_before = self._clock.now().replace(microsecond=0)
        return LeafRequest(
            subject=as_go_writes(request.subject),
            public_key=request.public_key(),
            not_before=not_before,
            not_after=not_before + self.operator.lifetime,
            hash_algorithm=hash_algorithm,
            pss=pss,
        )

    def _configuration(self, caller: Caller, occasion: Occasion) -> dict[str, Any]:
        """The three objects; asks for a token whether or not it was selected, as the real one does."""
        if caller.auth.consumer_type == "Integration System":
            raise Refused(messages.CONSUMER_TYPE_UNSUPPORTED)
        token, _ = self._director.mint(caller.auth, now=self._clock.now())
        self._journal.events["tokens_minted"] += 1
        result: dict[str, Any] = {
            "token": {"token": token},
            "certificateSigningRequestInfo": {
                "subject": self.operator.subject.render(caller.auth.id),
                "keyAlgorithm": KEY_ALGORITHM,
            },
            "managementPlaneInfo": {
                "directorURL": self.operator.director_url,
                "certificateSecuredConnectorURL": self.operator.certificate_secured_connector_url,
            },
        }
        taken = occasion.take(ConfigurationResult)
        return taken.fault.act(result, taken.param) if taken else result

    def _sign(self, caller: Caller, csr: str, occasion: Occasion) -> dict[str, str]:
        request = decode(csr)
        check_subject(request, constants=self.operator.subject, client_id=caller.auth.id)
        signing_parameters(request)
        leaf = self.issue(request)
        taken = occasion.take(SignResult)
        if taken is None:
            return certification_result(leaf, self.operator.authority.certificates)
        forge = Forge(self.operator.authority, self.leaf_request(request), self._registry)
        return taken.fault.act(forge, leaf, taken.param)

    def _revoke(self, caller: Caller) -> bool:
        if caller.fingerprint is None:
            raise Refused(messages.REVOKE_WITHOUT_CERTIFICATE)
        self._registry.revoke(caller.fingerprint)
        self._journal.events["revocations"] += 1
        return True
