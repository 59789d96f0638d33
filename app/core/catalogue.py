"""Every event, reason and code in plain words: what each means, and what to do about it.

Log, journal, page, command line and the generated tables of the documents read it.
"""

from collections.abc import Mapping
from enum import StrEnum

_CONNECT = "Hand over a new one-time token, or mount a certificate that was issued later."


class Reason(StrEnum):
    """Why the state is not simply `connected`: the name, which is a promise, its meaning, and a remedy.

    `runbook` is the heading in docs/operations.md that has more.
    """

    meaning: str
    remedy: str
    runbook: str

    def __new__(cls, name: str, meaning: str, remedy: str, runbook: str = "") -> "Reason":
        reason = str.__new__(cls, name)
        reason._value_ = name
        reason.meaning, reason.remedy, reason.runbook = meaning, remedy, runbook
        return reason

    # fmt: off
    NOT_CONNECTED = ("not-connected",
        "There is no certificate yet.",
        "Hand over a one-time token, or mount a certificate and its key.",
        "compasssidecarconnectneeded")
    CREDENTIAL_EXPIRED = ("credential-expired",
        "The certificate has expired, and is not served any more.",
        f"{_CONNECT} If the clock of this machine is wrong, set it: attempts go on.",
        "compasssidecarconnectneeded")
    CREDENTIAL_REVOKED = ("credential-revoked",
        "The certificate was revoked, and is not served any more.",
        _CONNECT,
        "compasssidecarconnectneeded")
    RENEWAL_FAILING = ("renewal-failing",
        "Three or more attempts to renew failed in a row.",
        "The last failure says why. Attempts go on by themselves.",
        "compasssidecarrenewalfailing")
    RENEWAL_OVERDUE = ("renewal-overdue",
        "The certificate should have been renewed by now.",
        "The last failure says why. Attempts go on by themselves.",
        "compasssidecarrenewaloverdue")
    PROOF_PENDING = ("proof-pending",
        "A new certificate is signed, and the Connector has not accepted it yet.",
        ("Wait: the proof is repeated, and the old certificate stays in use. If only the new one is refused, "
        "it is dropped after ten minutes."))
    TRUST_ANCHOR_CHANGED = ("trust-anchor-changed",
        "The certificate comes from another CA than the one before it.",
        ("The newest event trust-anchor-changed names both. Ask the operator of Compass whether the CA was "
        "replaced. The next renewal by the same CA ends this."))
    CLOCK_SKEW = ("clock-skew",
        "The clock of this machine and the Connector's are more than two minutes apart.",
        "Set the clock of this machine, or have it set by NTP.",
        "compasssidecarclockskew")
    CA_EXPIRES_FIRST = ("ca-expires-first",
        "The CA ends before the certificate that it signed.",
        "The operator of Compass has to renew the CA.",
        "compasssidecarcaexpiresfirst")
    CONNECTOR_CA_UNUSABLE = ("connector-ca-unusable",
        "The trust anchors for the Connector cannot be read; those that were read last stay in use.",
        "The newest event connector-ca-unusable says what is wrong with COMPASS_CONNECTOR_CA_FILE.")
    IMPORT_REJECTED = ("import-rejected",
        "The mounted certificate and key cannot be used; the ones in the store still are.",
        "The newest event import-rejected says what is wrong with the files.")
    TOKEN_UNUSABLE = ("token-unusable",
        "The configured one-time token cannot be read, or has none of the known forms.",
        "The newest event token-unusable says which. Put a new token in its place.")
    PUBLISH_FAILED = ("publish-failed",
        "The files for consumers could not be written.",
        "Look at the space and the permissions of COMPASS_PUBLISH_DIR. Retried every 30 seconds.",
        "compasssidecarpublishfailed")
    CONNECTOR_URL_DIFFERS = ("connector-url-differs",
        "The Connector names another URL than COMPASS_CONNECTOR_URL.",
        "Compare connector.url and connector.announced_url in /status. COMPASS_CONNECTOR_URL is used.")
    UNPROVEN = ("unproven",
        "The certificate had to be used before the Connector accepted it.",
        "Wait until the Connector can be reached: it is asked again.")
    PROOF_FAILED = ("proof-failed",
        "The Connector has not accepted the certificate in use yet.",
        "Retried every five minutes. The newest event proof-failed says why the last try failed.")
    STORE_OPEN_TO_OTHERS = ("store-open-to-others",
        "Every user of the machine can write in the store's folder.",
        ("Give the folder to the sidecar's user alone (chmod 0700), and restart the sidecar. Entries of "
        "other users are not used."))
    REVOCATION_FAILED = ("revocation-failed",
        "A certificate could not be revoked yet.",
        "The newest event revocation-failed says which and why. Retried until it is revoked or expires.")
    # fmt: on


REASONS: Mapping[str, Reason] = {each.value: each for each in Reason}

_WAIT = "The sidecar retries."
_DISK = "Look at the space and the permissions of COMPASS_STORE_DIR."
_ODD = "Something is wrong at the Connector, or something else answers in its place: ask its operator."


class Code(StrEnum):
    """Why something failed: the name, which is a promise, its HTTP status, its title, and a remedy.

    Those that no renewal or connection ends with have no remedy. `posted` is the status for a POST.
    """

    status: int
    words: str
    remedy: str
    posted: int

    def __new__(cls, name: str, status: int, words: str, remedy: str = "", posted: int = 0) -> "Code":
        code = str.__new__(cls, name)
        code._value_ = name
        code.status, code.words, code.remedy, code.posted = status, words, remedy, posted or status
        return code

    # fmt: off
    BAD_REQUEST = ("bad-request", 400, "The request cannot be understood")
    TOKEN_INVALID = ("token-invalid", 401, "The API token is missing or wrong")
    CROSS_ORIGIN = ("cross-origin", 403, "Requests from other sites are refused")
    LOOPBACK_REQUIRED = ("loopback-required", 403, "This is never sent over a network")
    TOKEN_REQUIRED = ("token-required", 403, "This needs an API token, and none is configured")
    NOT_FOUND = ("not-found", 404, "There is nothing here")
    METHOD_NOT_ALLOWED = ("method-not-allowed", 405, "The method is not allowed here")
    NOT_ACCEPTABLE = ("not-acceptable", 406, "None of the accepted media types is available")
    REQUEST_TIMEOUT = ("request-timeout", 408, "The request took too long")
    BUSY = ("busy", 409, "Another change is under way")
    NOT_CURRENT = ("not-current", 409, "This is not the current certificate")
    TOO_LARGE = ("too-large", 413, "The request's body is too large")
    UNSUPPORTED_MEDIA_TYPE = ("unsupported-media-type", 415, "The body must be JSON")
    MISDIRECTED = ("misdirected", 421, "The host name is not an allowed one")
    RENEWED_RECENTLY = ("renewed-recently", 429, "The last renewal was too recent")
    HEADERS_TOO_LARGE = ("headers-too-large", 431, "The request's header fields are too large")
    INTERNAL_ERROR = ("internal-error", 500, "The sidecar has a bug",
        "This is a bug of the sidecar; its log says more. " + _WAIT)
    BAD_SETTINGS = ("bad-settings", 500, "The configuration cannot be used")
    STORE_DAMAGED = ("store-damaged", 500, "What is stored cannot be used",
        "The store is left as it is. " + _CONNECT)
    STORE_FAILED = ("store-failed", 500, "The store failed", _DISK)
    NOTIFICATION_FAILED = ("notification-failed", 500, "A consumer could not be notified")
    BAD_CREDENTIAL = ("bad-credential", 502, "The new credential must not be used", _ODD)
    MALFORMED_CREDENTIAL = ("malformed-credential", 502, "The new credential cannot be read",
        "The detail names the file and its fault. Correct the file or the passphrase.")
    KEY_MISMATCH = ("key-mismatch", 502, "The new certificate is for another key",
        "Mount the certificate and the key that belong together.")
    UNTRUSTED_CHAIN = ("untrusted-chain", 502, "The new chain does not hold together",
        "Mount the certificate together with the CA certificates that issued it.")
    SUBJECT_MISMATCH = ("subject-mismatch", 502, "The new certificate has another subject", _ODD)
    CREDENTIAL_NOT_YET_VALID = ("credential-not-yet-valid", 502, "The new certificate is not valid yet",
        "Is the clock of this machine right?")
    CONNECTOR_FAILED = ("connector-failed", 502, "The Connector failed", _ODD)
    CONNECTOR_PROTOCOL = ("connector-protocol", 502, "The Connector's answer breaks the contract", _ODD)
    CONNECTOR_REJECTED = ("connector-rejected", 502, "The Connector refused",
        "The Connector understood and refused: its operator knows why. " + _WAIT)
    CONNECTOR_UNAUTHENTICATED = ("connector-unauthenticated", 502,
        "The Connector did not accept the certificate or token",
        ("The certificate may be revoked or the token used up; it may also be a "
        "hiccup of the Connector. If it goes on, connect with a new one-time token."))
    CONNECTOR_UNTRUSTED = ("connector-untrusted", 502, "The Connector's server certificate does not verify",
        ("Does COMPASS_CONNECTOR_CA_FILE hold the CA of the Connector's server "
        "certificate, and does a proxy replace that certificate?"))
    CONNECTOR_UNAVAILABLE = ("connector-unavailable", 503, "The Connector is not available",
        "Is its name resolved, does a proxy or firewall stand in the way, is it up? " + _WAIT)
    STORE_LOCKED = ("store-locked", 503, "Another sidecar has the store")
    STALLED = ("stalled", 503, "The sidecar makes no progress")
    TOO_MANY_CONNECTIONS = ("too-many-connections", 503, "Too many clients are connected")
    TOO_MANY_WAITERS = ("too-many-waiters", 503, "Too many clients are waiting")
    NOT_CONNECTED = ("not-connected", 503, "There is no credential yet", _CONNECT, 409)
    CREDENTIAL_EXPIRED = ("credential-expired", 503, "The credential has expired", _CONNECT, 409)
    CREDENTIAL_REVOKED = ("credential-revoked", 503, "The credential is revoked", _CONNECT, 409)
    CONNECTOR_TIMEOUT = ("connector-timeout", 504, "The Connector took too long",
        f"Is the network slow, or does a firewall swallow the packets? {_WAIT}")
    STORE_WRITE_FAILED = ("store-write-failed", 507, "The store cannot be written",
        f"{_DISK} {_WAIT}")
    # fmt: on


CODES: Mapping[str, Code] = {each.value: each for each in Code}


class Event(StrEnum):
    """What can happen: the name, which is a promise, its level in the log, its fields, and what it means.

    The journal has those with `words`, which page and command line show. A few have a milder level at times.
    """

    level: str
    fields: str
    meaning: str
    words: str

    def __new__(cls, name: str, level: str, fields: str, meaning: str, words: str = "") -> "Event":
        event = str.__new__(cls, name)
        event._value_ = name
        event.level, event.fields, event.meaning, event.words = level, fields, meaning, words
        return event

    # fmt: off
    IMPORTED = ("imported", "info", "fingerprint not_after",
        "The mounted certificate and key are the credential in use now.",
        "The mounted certificate and key were imported")
    CONNECTED = ("connected", "info", "fingerprint not_after duration_seconds",
        "A connection with a one-time token succeeded, and its credential is in use now.",
        "Connected with a one-time token")
    RENEWED = ("renewed", "info", "fingerprint not_after duration_seconds",
        "A renewal succeeded, and its credential is in use now.",
        "Renewed")
    ATTEMPT_FAILED = ("attempt-failed", "warning", "code detail wanted duration_seconds",
        ("An attempt to renew or to connect failed; `wanted` is the event that a success would have had. The "
        "credential in use stays in use."),
        "An attempt failed")
    RENEWAL_FAILED = ("renewal-failed", "warning", "detail",
        "Three attempts failed in a row. Repeated once a day while attempts fail.",
        "Renewal keeps failing")
    RECOVERED = ("recovered", "info", "fingerprint failures",
        "An attempt succeeded after three or more failures in a row.",
        "Renewal works again")
    EXPIRING = ("expiring", "warning", "detail",
        "A tenth of the lifetime of the credential is left. Repeated once a day.",
        "A tenth of the lifetime is left")
    CONNECT_NEEDED = ("connect-needed", "warning", "detail",
        "The sidecar needs a one-time token or a certificate that was issued later. Repeated once a day.",
        "A new one-time token is needed")
    REVOKED = ("revoked", "info", "fingerprint detail",
        ("`POST /revoke` revoked the credential in use. If the Connector's answer was lost, `detail` says "
        "how the revocation is known."),
        "The certificate was revoked")
    SUPERSEDED_REVOKED = ("superseded-revoked", "info", "fingerprint detail",
        ("The previous certificate was revoked, as `COMPASS_REVOKE_SUPERSEDED_AFTER` says. If the "
        "Connector's answer was lost, `detail` says how the revocation is known."),
        "A superseded certificate was revoked")
    REVOCATION_NOT_SCHEDULED = ("revocation-not-scheduled", "warning", "code detail",
        ("The store could not record that a certificate is to be revoked. A restart may forget the "
        "revocation."),
        "The revocation of a certificate could not be noted in the store")
    REVOCATION_FAILED = ("revocation-failed", "warning", "code detail fingerprint",
        ("A certificate could not be revoked. The sidecar retries until the certificate is revoked or "
        "expires."),
        "A certificate could not be revoked")
    PUBLISHED = ("published", "info", "fingerprint",
        "`COMPASS_PUBLISH_DIR` has the current credential.",
        "The files for consumers were written")
    PUBLISH_FAILED = ("publish-failed", "warning", "code detail",
        ("The current credential could not be written to `COMPASS_PUBLISH_DIR`, which still has the previous "
        "one. The sidecar retries."),
        "The files for consumers could not be written")
    NOTIFICATION_FAILED = ("notification-failed", "warning", "kind detail",
        "A consumer could not be notified; `kind` is `command` or `webhook`.",
        "A consumer could not be notified")
    TRUST_ANCHOR_CHANGED = ("trust-anchor-changed", "warning", "issuer previous_issuer fingerprint",
        ("The Connector signed with another CA than before. Also logged at a start until another renewal "
        "comes from the same CA."),
        "The new certificate comes from another CA")
    USED_UNPROVEN = ("used-unproven", "warning", "code detail fingerprint",
        ("A new credential is in use before the Connector accepted it, because the previous one ends too "
        "soon."),
        "A new certificate is used before the Connector accepted it")
    PROVEN = ("proven", "info", "fingerprint",
        "The Connector accepted the credential in use, which was not proven before.",
        "The Connector accepted the certificate in use")
    PROOF_FAILED = ("proof-failed", "warning", "code detail",
        ("The Connector did not accept the credential in use, which is not proven yet. The sidecar asks "
        "again."),
        "The Connector has not accepted the certificate in use yet")
    PENDING_DROPPED = ("pending-dropped", "info", "detail",
        "A renewal or connection under way was given up, for the reason in `detail`.",
        "A renewal under way was given up")
    PENDING_NOT_REMOVED = ("pending-not-removed", "warning", "code detail",
        "The files of a renewal that was given up could not be removed. They do no harm.",
        "What was left of a renewal could not be removed")
    CONNECTOR_URL_DIFFERS = ("connector-url-differs", "warning", "announced used",
        "The Connector announces another URL than `COMPASS_CONNECTOR_URL`. The configured URL is used.",
        "The Connector names another URL than the one that is set")
    ANNOUNCED_URL_UNUSABLE = ("announced-url-unusable", "warning", "url detail",
        "The URL that the Connector announces does not work or can never be called. The known URL is used.",
        "The URL that the Connector names did not work; the known one is used")
    CONNECTOR_CA_UNUSABLE = ("connector-ca-unusable", "warning", "code detail",
        ("`COMPASS_CONNECTOR_CA_FILE` cannot be read or has no certificate. The trust anchors that were read "
        "last stay in use."),
        "The trust anchors for the Connector cannot be read")
    IMPORT_REJECTED = ("import-rejected", "warning", "code detail",
        "The mounted certificate and key cannot be used.",
        "The mounted certificate and key cannot be used")
    IMPORT_IGNORED = ("import-ignored", "info", "detail fingerprint",
        "The mounted certificate and key were read and are not taken over, for the reason in `detail`.",
        "The mounted certificate and key are not taken over")
    CERTIFICATES_LEFT_OUT = ("certificates-left-out", "info", "detail",
        ("Certificates that the chain does not need were left out; they were in the mounted file or in the "
        "Connector's answer."),
        "Certificates that the chain does not need were left out")
    TOKEN_UNUSABLE = ("token-unusable", "warning", "code detail",
        "The configured one-time token cannot be read or has none of the known forms.",
        "The configured one-time token cannot be used")
    TOKEN_RETRIED = ("token-retried", "warning", "code detail",
        ("It is not known whether the one-time token is spent, after an empty 400, a 500, a 504 or no "
        "answer. The token is presented up to three more times."),
        "It is not known whether the one-time token is spent; it is presented again")
    TOKEN_NOT_REMEMBERED = ("token-not-remembered", "warning", "code detail",
        "The store could not record that a one-time token is used. A restart presents the token once more.",
        "That the token is used could not be noted")
    STORE_DAMAGED = ("store-damaged", "warning", "code detail",
        "None of the stored generations can be used. Nothing is deleted.",
        "What is stored cannot be used")

    # The log alone has these.
    SERVING = ("serving", "info", "version addresses",
        "The sidecar listens on these addresses.")
    STATE_CHANGED = ("state-changed", "warning", "state reasons",
        "The state of `/status` or its reasons changed. The level is info if the state is `connected`.")
    LOOK_REQUESTED = ("look-requested", "info", "",
        "SIGHUP arrived, and the sidecar looks at its inputs now.")
    STOPPED = ("stopped", "info", "",
        "The sidecar ended in order.")
    IGNORED_VARIABLES = ("ignored-variables", "info", "names",
        "Variables that Kubernetes injects for a Service called compass were ignored.")
    ADDRESS_UNUSABLE = ("address-unusable", "warning", "detail",
        "An address cannot be used; the sidecar listens on the others only.")
    CONNECTOR_CALLED = ("connector-called", "debug", "operation outcome duration_seconds correlation_id",
        "A call to the Connector ended; `outcome` is `ok` or a code.")
    PRIVATE_KEY_READ = ("private-key-read", "info", "by fingerprint path",
        "A client fetched `/certificate/bundle.*`.")
    CONNECT_REQUESTED = ("connect-requested", "info", "by",
        ("`POST /connect` was called. `by` is the address, or the process and the uid at the other end of "
        "the Unix socket."))
    REVOKE_REQUESTED = ("revoke-requested", "info", "by fingerprint",
        "`POST /revoke` was called. `by` is as for `connect-requested`.")
    NOTIFICATION_RETRIED = ("notification-retried", "warning", "kind detail",
        ("A notification was cut off for lack of memory, processes or descriptors. It is tried three times "
        "in all."))
    NOTIFICATION_NOT_RECORDED = ("notification-not-recorded", "warning", "detail",
        "The store could not record what a consumer was sent. A restart may repeat the notification.")
    NOTIFICATIONS_DAMAGED = ("notifications-damaged", "warning", "detail",
        "`notifications.json` could not be read and was made anew. The current credential counts as sent.")
    GENERATION_DAMAGED = ("generation-damaged", "warning", "detail",
        "The current generation cannot be used. The newest good one is used, if there is one.")
    PENDING_DAMAGED = ("pending-damaged", "warning", "detail",
        "A renewal under way could not be read and was dropped.")
    INSTANCE_DAMAGED = ("instance-damaged", "warning", "detail",
        "`instance.json` could not be read and was made anew. The jitter of renewals changes.")
    STORE_OPEN_TO_OTHERS = ("store-open-to-others", "warning", "detail",
        ("Every user can write in the store's folder. Entries of other users are not used; `detail` names "
        "them."))
    STORE_MOUNT_OPEN = ("store-mount-open", "info", "detail",
        "The store is a mount point in which every user can write.")
    STORE_MODE = ("store-mode", "warning", "detail",
        "A mode below the store could not be tightened.")
    STORE_NOT_LOCKED = ("store-not-locked", "warning", "detail",
        "The store's file system has no locks. Make sure that only one sidecar uses the store.")
    STORE_WRITE_FAILED = ("store-write-failed", "warning", "detail",
        "The link to the current generation could not be repaired.")
    DISK_FULL = ("disk-full", "warning", "detail",
        "The store cannot be written, because its volume is full.")
    PRUNE_FAILED = ("prune-failed", "warning", "detail",
        "Old generations or published folders could not be removed.")
    JOURNAL_WRITE_FAILED = ("journal-write-failed", "warning", "detail",
        "An event could not be written to the journal.")
    JOURNAL_UNREADABLE = ("journal-unreadable", "warning", "detail",
        "The journal could not be read. Events from before the start are not shown.")
    TASK_FAILED = ("task-failed", "error", "task failures exception",
        "A long-lived task ended with an exception. It is started again.")
    INTERNAL_ERROR = ("internal-error", "error", "detail path exception",
        "The sidecar has a bug. Report it with the field `exception`.")
    LOG_LINES_DROPPED = ("log-lines-dropped", "warning", "count",
        "Log lines are missing here, because standard error was not read or was full.")
    REQUESTS_REFUSED = ("requests-refused", "warning", "code count",
        ("The local API refused requests since the last such line; at most one line a minute. `code` is the "
        "latest reason."))
    LIBRARY_MESSAGE = ("library-message", "any", "logger detail",
        "A library such as uvicorn or asyncio logged a message.")
    # fmt: on


# What the journal has.
EVENTS: Mapping[str, Event] = {each.value: each for each in Event if each.words}
