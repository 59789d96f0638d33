"""Rows of the fault table: results that a client must not believe.

Odd configurations, chains that are not ours, and results that break the schema or JSON itself. The forging
is in `forgeries.py`.
"""

import base64
import secrets

from . import forgeries, messages, result_faults, rewrites
from .durations import parse_seconds
from .fault_kinds import ConfigurationResult, Rewrite, SignResult

_RARELY = 0.1  # in chaos: what costs a client much memory
_TOKEN_LIKE = base64.urlsafe_b64encode(secrets.token_bytes(64)).decode()


CONFIGURATIONS = (
    ConfigurationResult("null-token", "token is null", result_faults.null("token")),
    ConfigurationResult(
        "null-csr-info",
        "certificateSigningRequestInfo is null",
        result_faults.null("certificateSigningRequestInfo"),
    ),
    ConfigurationResult(
        "null-management-plane", "managementPlaneInfo is null", result_faults.null("managementPlaneInfo")
    ),
    ConfigurationResult(
        "null-director-url",
        "directorURL is null",
        result_faults.null_inside("managementPlaneInfo", "directorURL"),
    ),
    ConfigurationResult(
        "null-connector-url",
        "certificateSecuredConnectorURL is null",
        result_faults.null_inside("managementPlaneInfo", "certificateSecuredConnectorURL"),
    ),
    ConfigurationResult(
        "empty-token", "token is empty: the Director failed unnoticed", result_faults.empty_token
    ),
    ConfigurationResult(
        "other-director-url",
        "directorURL changed",
        result_faults.url("directorURL"),
        default="https://director.invalid/",
    ),
    ConfigurationResult(
        "other-connector-url",
        "certificateSecuredConnectorURL changed",
        result_faults.url("certificateSecuredConnectorURL"),
        default="https://connector.invalid/connector/graphql",
    ),
    ConfigurationResult(
        "connector-url-bad-name",
        "certificateSecuredConnectorURL has a host name that IDNA forbids",
        result_faults.fixed_url("certificateSecuredConnectorURL", "https://xn--a/connector/graphql"),
        weight=0,
    ),
    ConfigurationResult(
        "connector-url-port-0",
        "certificateSecuredConnectorURL has port 0",
        result_faults.fixed_url("certificateSecuredConnectorURL", "https://127.0.0.1:0/connector/graphql"),
        weight=0,
    ),
    ConfigurationResult(
        "connector-url-unreachable",
        "nothing listens at certificateSecuredConnectorURL",
        result_faults.fixed_url("certificateSecuredConnectorURL", "https://127.0.0.1:1/connector/graphql"),
        weight=0,
    ),
    ConfigurationResult(
        "connector-url-not-https",
        "certificateSecuredConnectorURL begins with http",
        result_faults.fixed_url("certificateSecuredConnectorURL", "http://127.0.0.1/connector/graphql"),
        weight=0,
    ),
    ConfigurationResult(
        "connector-url-nonsense",
        "certificateSecuredConnectorURL is no URL",
        result_faults.fixed_url("certificateSecuredConnectorURL", "https://[::1/connector graphql"),
        weight=0,
    ),
    ConfigurationResult(
        "other-key-algorithm", "keyAlgorithm is this", result_faults.other_key_algorithm, default="ecdsa-p256"
    ),
    ConfigurationResult(
        "odd-subject",
        "the subject is this text ({cn} and {subject} are filled in)",
        result_faults.given_subject,
        default="CN={cn}",
    ),
    ConfigurationResult("subject-empty", "the subject is empty", result_faults.subject("")),
    ConfigurationResult(
        "subject-reordered",
        "legal: the order of the schema's comment",
        result_faults.subject("OU=OrgUnit,O=Org,L=locality,ST=province,C=DE,CN={cn}"),
    ),
    ConfigurationResult("subject-without-cn", "no CN", result_faults.subject("O=Org,OU=OrgUnit,C=DE")),
    ConfigurationResult(
        "subject-other-cn",
        "somebody else's CN",
        result_faults.subject(
            "O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN=00000000-0000-4000-8000-000000000000"
        ),
    ),
    ConfigurationResult("subject-twice", "every key twice", result_faults.subject("{subject},{subject}")),
    ConfigurationResult(
        "subject-control-characters", "escapes in it", result_faults.subject("O=\x1b[31m\r\n,CN={cn}")
    ),
    ConfigurationResult(
        "subject-very-long", "a hundred thousand characters", result_faults.subject("O=" + "x" * 100_000)
    ),
)

CHAINS = (
    SignResult("wrong-key", "for another key than the request's", forgeries.wrong_key),
    SignResult("wrong-subject", "with another client's CN", forgeries.wrong_subject),
    SignResult("expired", "ended an hour ago", forgeries.expired),
    SignResult(
        "not-yet-valid", "begins so much later", forgeries.not_yet_valid, default="1d", check=parse_seconds
    ),
    SignResult(
        "short-lived", "legal: good for this long", forgeries.short_lived, default="60s", check=parse_seconds
    ),
    SignResult("stranger", "signed by an unknown key, announcing the known CA", forgeries.stranger),
    SignResult("new-ca", "consistent, from a CA that the door does not accept", forgeries.new_ca),
    SignResult("shuffled", "the chain in reverse order", forgeries.shuffled),
    SignResult("leaf-mismatch", "clientCertificate differs from the chain's first", forgeries.leaf_mismatch),
    SignResult("leaf-only", "nothing above the leaf", forgeries.leaf_only),
    SignResult("ca-only", "the chain lacks its leaf", forgeries.ca_only),
    SignResult("empty-chain", "three empty texts", forgeries.empty_chain),
    SignResult("no-certificate", "PEM of a public key", forgeries.no_certificate),
    SignResult("private-key-in-pem", "a private key among the certificates", forgeries.private_key_in_pem),
    SignResult("broken-base64", "a character outside the alphabet", forgeries.broken_base64),
    SignResult("broken-pem", "certificates that do not parse", forgeries.broken_pem),
    SignResult("der", "DER where PEM belongs", forgeries.der),
    SignResult("line-broken-base64", "legal: base64 in lines", forgeries.line_broken_base64),
    SignResult("crlf-pem", "legal: PEM with CRLF", forgeries.crlf_pem),
    SignResult("wrapped-in-text", "legal: text around the blocks", forgeries.wrapped_in_text),
    SignResult("server-auth-eku", "for servers only", forgeries.server_usage),
    SignResult(
        "root-not-attached",
        "legal: from an issuing CA whose root is not in the chain",
        forgeries.root_not_attached,
    ),
    SignResult(
        "ca-without-ski",
        "legal: a CA without a key identifier, and so a leaf without the authority's",
        forgeries.ca_without_ski,
    ),
    SignResult(
        "ca-of-helm", "legal: a CA with the extensions that Helm's genCA gives it", forgeries.ca_of_helm
    ),
    SignResult(
        "ca-1024-bits", "from a CA with a key that OpenSSL refuses", forgeries.ca_of_1024_bits, weight=0
    ),
    SignResult(
        "ca-sha1",
        "from an issuing CA that its root signed with SHA-1",
        forgeries.ca_signed_with_sha1,
        weight=0,
    ),
    SignResult("leaf-sha1", "the leaf is signed with SHA-1", forgeries.leaf_signed_with_sha1, weight=0),
    SignResult(
        "leaf-subject",
        "the leaf's subject has this text as one attribute more",
        forgeries.with_this_title,
        default="unexpected",
    ),
    SignResult(
        "leaf-subject-control-characters",
        "the same with terminal escapes and forged log lines",
        forgeries.titled(messages.CONTROL_CHARACTERS),
    ),
    SignResult("leaf-subject-bidi", "the same with bidirectional overrides", forgeries.titled(messages.BIDI)),
    SignResult("leaf-subject-base64", "the same with what looks like a token", forgeries.titled(_TOKEN_LIKE)),
    SignResult("leaf-subject-very-long", "the same with 60,000 characters", forgeries.titled("x" * 60_000)),
    SignResult("ca-name", "from a CA with this name", forgeries.ca_of_this_name, default="Another CA"),
    SignResult(
        "ca-name-control-characters",
        "from a CA with terminal escapes in its name",
        forgeries.ca_named(messages.CONTROL_CHARACTERS),
    ),
    SignResult(
        "ca-name-bidi",
        "from a CA with bidirectional overrides in its name",
        forgeries.ca_named(messages.BIDI),
    ),
)

REWRITES = (
    Rewrite(
        "wrong-content-type", "the honest body under this type", rewrites.content_type, default="text/plain"
    ),
    Rewrite("null-data", "data is null, and there is no error", rewrites.instead(b'{"data":null}')),
    Rewrite("no-data", "neither data nor errors", rewrites.instead(b"{}")),
    Rewrite("empty-200", "an empty body", rewrites.instead(b"")),
    Rewrite("json-list", "a list instead of an object", rewrites.instead(b'["data"]')),
    Rewrite("not-json", "text that claims to be JSON", rewrites.instead(b"{'data': nope}")),
    Rewrite("not-utf-8", "JSON in another encoding", rewrites.instead(b'{"data":{"result":"\xe9\xff"}}')),
    Rewrite(
        "empty-errors", "an empty list of errors, and no data", rewrites.instead(b'{"errors":[],"data":null}')
    ),
    Rewrite(
        "odd-errors",
        "errors that are no objects",
        rewrites.instead(b'{"errors":["boom",null,7],"data":null}'),
    ),
    Rewrite("errors-and-data", "a result together with an error", rewrites.errors_and_data),
    Rewrite("null-result", "the result is null", rewrites.null_result),
    Rewrite("missing-result", "data has no result", rewrites.instead(b'{"data":{}}')),
    Rewrite(
        "missing-token",
        "no token in the result",
        lambda a, c, _p: rewrites.missing_field(a, c, "token"),
        operation="configuration",
    ),
    Rewrite(
        "missing-csr-info",
        "no certificateSigningRequestInfo in the result",
        lambda a, c, _p: rewrites.missing_field(a, c, "certificateSigningRequestInfo"),
        operation="configuration",
    ),
    Rewrite(
        "missing-management-plane",
        "no managementPlaneInfo in the result",
        lambda a, c, _p: rewrites.missing_field(a, c, "managementPlaneInfo"),
        operation="configuration",
    ),
    Rewrite(
        "missing-field", "the result lacks this field", rewrites.missing_field, default="certificateChain"
    ),
    Rewrite(
        "null-field", "this field of the result is null", rewrites.null_field, default="certificateChain"
    ),
    Rewrite("wrong-types", "numbers for texts, lists for objects", rewrites.wrong_types),
    Rewrite("deep-json", "nested two hundred thousand times", rewrites.deep_json),
    Rewrite(
        "huge-body",
        "so many MiB of white space in front",
        rewrites.huge_body,
        default="64",
        check=rewrites.whole_number,
        weight=_RARELY,
    ),
    Rewrite(
        "gzip-bomb",
        "the same, compressed a thousandfold",
        rewrites.gzip_bomb,
        default="512",
        check=rewrites.whole_number,
        weight=_RARELY,
    ),
)
