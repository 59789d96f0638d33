"""What the Connector says in a GraphQL error, word for word (contract section 2).

Only the text tells a client what is wrong: there is no code. Details behind the stable prefixes are what
the libraries underneath say (machinebox/graphql, client-go, crypto/x509).
"""

MINTING = "Failed to get one-time token during fetching configuration process: could not get one time token: "
DIRECTOR = MINTING + "while calling director for CSR one time token: "
SIGNING = "Error while signing Certificate Signing Request: "
_DECODING = "Error while decoding Certificate Signing Request: "
_NO_CERTIFICATE = "Failed to authenticate with Certificate. Invalid subject."
NO_IDENTITY = (
    "Failed to authenticate request. Token authentication error: "
    f"Failed to authenticate with one time token.. Certificate authentication error: {_NO_CERTIFICATE}"
)

DIRECTOR_REFUSES_CONNECTIONS = (
    DIRECTOR + 'Post "http://compass-director.compass-system.svc.cluster.local:3000/graphql": '
    "dial tcp 10.0.0.1:3000: connect: connection refused"
)
DIRECTOR_SLOW = (
    DIRECTOR + 'Post "http://compass-director.compass-system.svc.cluster.local:3000/graphql": '
    "net/http: request canceled (Client.Timeout exceeded while awaiting headers)"
)
DIRECTOR_503 = DIRECTOR + "graphql: server returned a non-200 status code: 503"
DIRECTOR_SCOPES = (
    DIRECTOR
    + "graphql: insufficient scopes provided, required: [application:write], actual: [application:read]"
)
DIRECTOR_NOT_FOUND = DIRECTOR + "graphql: Object not found [object=systemAuth]"
CONSUMER_TYPE_UNSUPPORTED = MINTING + "No token generation for consumer type Integration System"
CONSUMER_TYPE_MISSING = (
    "Failed to authenticate request, consumer type not found: cannot read ConsumerType key from context"
)
TENANT_MISSING = "Failed to authenticate request, tenant not found: cannot read TenantKey key from context"
REVOKE_WITHOUT_CERTIFICATE = f"Failed to authenticate with certificate: {_NO_CERTIFICATE}"
BAD_BASE64 = _DECODING + "Error while parsing base64 content. Incorrect value provided."
BAD_PEM = SIGNING + "Error while decoding pem block."
UNPARSABLE = SIGNING + "Error while parsing CSR: asn1: syntax error: data truncated"
BAD_SIGNATURE = SIGNING + "CSR signature invalid: crypto/rsa: verification error"
KEY_MISMATCH = (
    SIGNING
    + "Error while creating certificate: x509: requested SignatureAlgorithm does not match private key type"
)
CA_OTHER_KEY = (
    SIGNING + "Error while creating certificate: x509: provided PrivateKey doesn't match parent's PublicKey"
)
CA_MISSING = SIGNING + "Certificate data not found in the cache."
CA_BAD_PEM = SIGNING + "Error while decoding pem block"
CA_BAD_CERTIFICATE = SIGNING + "Error while parsing certificate: x509: malformed certificate"
CA_BAD_KEY = SIGNING + "Error while parsing private key: asn1: structure error: length too large"
REVOCATION_CONFLICT = (
    "Failed to add hash to revocation list: "
    'Operation cannot be fulfilled on configmaps "revocations-config": '
    "the object has been modified; please apply your changes to the latest version and try again"
)
REVOCATION_UNAVAILABLE = (
    'Failed to add hash to revocation list: Get "https://10.0.0.1:443/api/v1/namespaces/compass-system/'
    'configmaps/revocations-config": dial tcp 10.0.0.1:443: i/o timeout'
)
REVOCATION_MISSING = 'Failed to add hash to revocation list: configmaps "revocations-config" not found'
REVOCATION_FULL = (
    'Failed to add hash to revocation list: ConfigMap "revocations-config" is invalid: []: '
    "Too long: must have at most 1048576 bytes"
)
PANIC = "internal system error"
CONTROL_CHARACTERS = 'boom\x1b[2J\x1b[31m\x07\x00\r\n{"level":"info","event":"renewed"}\n\x9b1m\x7f'
BIDI = "access \u202egnidnep\u202c \u2066user\u2069 \u200f\u061c\ufeffgranted"
