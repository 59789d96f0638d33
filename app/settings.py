"""The configuration: environment variables in, one frozen and validated `Settings` out.

The fields of `Settings` are the table of variables: `port` is read from `COMPASS_PORT`. A problem is one
line: the variable, what is wrong, what would be right. It repeats no value, since a secret may have been
put into the wrong variable; only a secret's path is shown, and only if it looks like one.
"""

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from .core.text import format_duration, parse_duration
from .core.token import is_rest_adapter, parse_token
from .core.url import parse_host, parse_https, parse_proxy, parse_public, parse_url
from .errors import RequestRefused, SettingsError

SYSTEM_STORE_DIR = Path("/var/lib/compass-sidecar")
_HANDED_TO_COMMANDS = {"COMPASS_EVENT", "COMPASS_FINGERPRINT", "COMPASS_NOT_AFTER"}
_LONGEST_NAME = 253  # of a host
_SOCKET_PATH_LIMIT = 107  # sun_path of Linux without its final NUL
_NAME_AND_PORT = re.compile(r"(\[.+\]|[^:]+):([0-9]+)")
_KUBERNETES_NAME = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT\w*|PORT_[0-9]+_(TCP|UDP|SCTP)\w*)", re.ASCII)
_QUOTED = "begins and ends with a quote, as `docker run --env-file` keeps them: remove both"
_PLAIN_WORDS = {
    "bool_parsing": "should be true or false",
    "int_parsing": "should be a whole number",
    "float_parsing": "should be a number",
    "string_unicode": "is not UTF-8 text",
}


def _text(parse: Callable[[str], object]) -> BeforeValidator:
    """Read text with `parse`; what is no text, as in `Settings(port=1)`, is left to the field's type."""
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


def _host(text: str) -> str:
    with suppress(ValueError):
        return str(ip_address(text))  # also with a zone, as in fe80::1%eth0
    host = parse_host(text)
    if host is None:
        raise ValueError("should be an IP address or a host name, without brackets, port or scheme")
    return host


def _hosts(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_host(part.strip()) for part in text.split(",")))


def _token_connector_url(text: str) -> str:
    url = parse_https(text)
    if url.parts.fragment:
        raise ValueError("should not contain a fragment (the part after #)")
    if is_rest_adapter(url):
        raise ValueError("should be the connectorURL, not the legacyConnectorURL of the REST adapter")
    return url.bare


def _connector_url(text: str) -> str:
    if "?" in text or _token_connector_url(text) != text:
        raise ValueError("should end with its path, without a query (the part after ?) or a fragment")
    return text


def _webhook(text: str) -> str:
    return parse_public(text, "https", "http").text


def _proxy(text: str) -> str:
    return parse_proxy(text).text


def _name(text: str) -> str:
    if not (text.isprintable() and len(text) <= _LONGEST_NAME):
        raise ValueError(f"should be 1 to {_LONGEST_NAME} printable characters")
    return text


def _header(text: str) -> str:
    if not text or " " in text or not (text.isascii() and text.isprintable()):
        raise ValueError("should be ASCII without spaces or line breaks: it travels in an HTTP header")
    return text


def _api_token(text: str) -> str:
    if len(text) < 16:
        raise ValueError("is too short: at least 16 characters")
    return _header(text)


def _command(text: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError:
        raise ValueError("has an open quote or ends in a backslash: close it") from None
    if not words or not words[0]:
        raise ValueError("should begin with the program to run")
    return words


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(_PLAIN_WORDS["int_parsing"]) from None


def _limit(text: str) -> timedelta:
    duration = parse_duration(text)
    if not duration:
        raise ValueError("should be longer than 0s")
    return duration


def _socket_path(text: str) -> Path:
    if len(os.fsencode(text)) > _SOCKET_PATH_LIMIT:
        raise ValueError(f"is too long for a socket: at most {_SOCKET_PATH_LIMIT} bytes")
    return Path(text)


Port = Annotated[int, Field(ge=1, le=65_535)]
GroupID = Annotated[int, Field(ge=0, le=2**32 - 2)]
KeySize = Annotated[Literal[2048, 3072, 4096], _text(_whole)]
Ratio = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Duration = Annotated[timedelta, _text(parse_duration)]
Limit = Annotated[timedelta, _text(_limit)]
Host = Annotated[str, _text(_host)]
Hosts = Annotated[tuple[str, ...], _text(_hosts)]
ConnectorURL = Annotated[str | None, _text(_connector_url)]
TokenConnectorURL = Annotated[str | None, _text(_token_connector_url)]
Webhook = Annotated[str | None, _text(_webhook)]
Proxy = Annotated[SecretStr | None, _text(_proxy)]
APIToken = Annotated[SecretStr | None, _text(_api_token)]
Name = Annotated[str | None, _text(_name)]
Command = Annotated[tuple[str, ...] | None, _text(_command)]
SocketPath = Annotated[Path | None, _text(_socket_path)]
Level = Annotated[Literal["debug", "info", "warning", "error", "critical"], _text(str.lower)]
Format = Annotated[Literal["json", "console"] | None, _text(str.lower)]


def _variable(field: str) -> str:
    return f"COMPASS_{field.upper()}"


def _row(default: Any, meaning: str, *, shown: str | None = None, **options: Any) -> Any:
    """A row of the table; `shown` is the default in words, where the value itself does not tell."""
    return Field(default, description=meaning, json_schema_extra={"shown": shown}, **options)


class Settings(BaseModel):
    """What the operator asked for.

    `from_environment` is the door; `Settings(port=1)`, for tests, checks each field but no contradiction.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_by_name=True,
        alias_generator=_variable,
    )

    connector_url: ConnectorURL = _row(
        None,
        "Certificate-Secured Connector URL, https only; wins over what the Connector returns.",
        shown="what `configuration` returned",
    )
    connector_ca_file: Path | None = _row(
        None, "PEM trust anchors for the Connector's server; re-read on change.", shown="system trust store"
    )
    connector_proxy: Proxy = _row(
        None,
        "Forward proxy for calls to the Connector and for webhooks.",
        shown="`HTTPS_PROXY`, unless `NO_PROXY` matches",
    )
    # Longer than the 30 s that the Connector gives its Director, so that its own answer says what failed.
    connector_timeout: Limit = _row(timedelta(seconds=40), "Limit for one whole call to the Connector.")
    client_certificate_file: Path | None = _row(
        None, "Chain of an existing credential, to be imported: PEM, or PKCS#12 with its key."
    )
    client_key_file: Path | None = _row(
        None, "Its key (PKCS#1, PKCS#8 or encrypted PKCS#8), unless that is in the certificate file."
    )
    client_key_passphrase: SecretStr | None = _row(
        None, "The passphrase of that key, or the password of the PKCS#12 file."
    )
    token: SecretStr | None = _row(
        None, "One-time token for the first connection: plain, `raw` (JSON), `rawEncoded` (base64), or a URL."
    )
    token_file: Path | None = _row(None, "File with that token; looked at every 30 s while it is needed.")
    token_connector_url: TokenConnectorURL = _row(
        None, "Token-Secured Connector URL, https only, for a plain token; its query is not used."
    )
    store_dir: Path = _row(
        SYSTEM_STORE_DIR,
        "Where credentials live.",
        shown=f"`{SYSTEM_STORE_DIR}`; only if that does not exist, `./.compass-sidecar`",
    )
    publish_dir: Path | None = _row(
        None, "Folder in which key and certificates are published for neighbours."
    )
    publish_group: GroupID | None = _row(
        None, "Numeric gid that may read the published key and use the socket."
    )
    name: Name = _row(
        None,
        f"Names this sidecar in what it sends to the webhook; 1 to {_LONGEST_NAME} printable characters.",
        shown="the host's name",
    )
    key_size: KeySize = _row(4096, "RSA modulus bits: 2048, 3072 or 4096.")
    renewal_window_ratio: Annotated[Ratio, Field(gt=0)] = _row(
        0.333, "Renewal is due at the latest when this share of the lifetime is left."
    )
    renewal_jitter_ratio: Ratio = _row(
        0.25, "And up to this share of it earlier, drawn once per certificate."
    )
    renewal_min_interval: Duration = _row(
        timedelta(seconds=10), "Least time between two renewals that succeed."
    )
    revoke_superseded_after: Limit | None = _row(
        None, "If set: the previous certificate is revoked this long after the new one was activated."
    )
    host: Hosts = _row(
        ("127.0.0.1", "::1"),
        "Addresses on which the local API listens, comma-separated.",
        shown="`127.0.0.1`, and `::1` where there is IPv6",
    )
    port: Port = _row(8080, "Port on which the local API listens.")
    health_host: Host = _row("0.0.0.0", "Address of the health and metrics listener.")  # noqa: S104 - for kubelet
    health_port: Port | None = _row(None, "If set: a second listener with only health and metrics.")
    unix_socket: SocketPath = _row(None, "The local API listens on this socket instead.")
    allowed_hosts: Hosts = _row(
        (), "Names accepted in `Host` besides `localhost`, IP literals and our own hostname, comma-separated."
    )
    api_token: APIToken = _row(
        None, "Bearer token for what changes something or reveals a key; at least 16 characters."
    )
    expose_private_key: bool = _row(
        False, "Whether `/certificate/bundle.*` exists; needs `COMPASS_API_TOKEN` or `COMPASS_UNIX_SOCKET`."
    )
    on_renew_command: Command = _row(
        None, "Command to run for each new credential; split into words, without a shell.", repr=False
    )
    notify_webhook: Webhook = _row(None, "URL to which each event is posted as JSON.", repr=False)
    notify_webhook_secret: SecretStr | None = _row(None, "Secret with which those posts are signed.")
    notify_webhook_ca_file: Path | None = _row(
        None, "PEM trust anchors for the webhook's server; re-read on change.", shown="system trust store"
    )
    log_level: Level = _row("info", "Least severe events to log.")
    log_format: Format = _row(
        None, "One event a line on stderr, as `json` or `console`.", shown="`json` (`console` on a terminal)"
    )

    # Its form is judged when a call would go through it.
    https_proxy: SecretStr | None = _row(
        None, "As curl knows it; not a variable of ours.", alias="HTTPS_PROXY"
    )
    no_proxy: str = _row("", "As curl knows it; not a variable of ours.", alias="NO_PROXY")
    ignored_variables: tuple[str, ...] = _row((), "What Kubernetes injected.", alias="ignored_variables")

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str],
        *,
        read: Callable[[Path], bytes],
        default_store_dir: Path = SYSTEM_STORE_DIR,
    ) -> "Settings":
        """The settings in `environ` and in the files that `X_FILE` names; SettingsError has every problem.

        An empty variable counts as unset. `read` reads such a file; `default_store_dir` is what
        `find_store_dir` found.
        """
        ignored = tuple(sorted(name for name, value in environ.items() if _is_from_kubernetes(name, value)))
        ours = {
            name: text
            for name, value in sorted(environ.items())
            if name.startswith("COMPASS_") and name not in _HANDED_TO_COMMANDS and name not in ignored
            if (text := value if name in _SECRET_FILES.values() else value.strip())
        }
        given = {name: text for name, text in ours.items() if name in _KNOWN}
        quoted = {name: _QUOTED for name, text in given.items() if _is_quoted(text)}
        plain = {name: text for name, text in given.items() if name not in quoted}
        values, unreadable = _read_secret_files(plain, read)
        surroundings = {"COMPASS_STORE_DIR": default_store_dir, "ignored_variables": ignored}
        settings, wrong = _validate(surroundings | _usual_proxies(environ, given) | values)
        wrong |= quoted
        unknown = [_unknown(name) for name in ours if name not in given]
        named = {name: f"{name}_FILE" if f"{name}_FILE" in given.keys() - {name} else name for name in wrong}
        bad = [f"{named[name]}: {text}" for name, text in wrong.items()]
        problems = [*unknown, *unreadable, *bad, *_contradictions(settings, given, wrong)]
        if problems:
            raise SettingsError(problems)
        return settings

    @property
    def host_is_default(self) -> bool:
        """Nobody asked for these addresses: one that cannot be bound is a warning."""
        return "host" not in self.model_fields_set

    def proxy_for(self, url: str) -> str | None:
        """The proxy for a call to `url`: a secret, since it may hold a password, and of any form."""
        usual = None if url.startswith("http://") or _is_exempt(url, self.no_proxy) else self.https_proxy
        proxy = self.connector_proxy or usual
        return proxy.get_secret_value() if proxy else None

    def webhook_proxy_for(self, url: str) -> str | None:
        """The same for webhooks, which often stay in the cluster: NO_PROXY exempts them from either proxy."""
        return None if _is_exempt(url, self.no_proxy) else self.proxy_for(url)


_ROWS = {
    _variable(name): field for name, field in Settings.model_fields.items() if field.alias == _variable(name)
}
_SECRET_FILES = {
    f"{row}_FILE": row for row, field in _ROWS.items() if SecretStr in get_args(field.annotation)
}
_KNOWN = _ROWS.keys() | _SECRET_FILES.keys()
# Each of these says nothing without one of those.
_NEEDS = {
    "COMPASS_CLIENT_KEY_FILE": ("COMPASS_CLIENT_CERTIFICATE_FILE",),
    "COMPASS_CLIENT_KEY_PASSPHRASE": ("COMPASS_CLIENT_KEY_FILE", "COMPASS_CLIENT_CERTIFICATE_FILE"),
    "COMPASS_PUBLISH_GROUP": ("COMPASS_PUBLISH_DIR", "COMPASS_UNIX_SOCKET"),
    "COMPASS_EXPOSE_PRIVATE_KEY": ("COMPASS_API_TOKEN", "COMPASS_UNIX_SOCKET"),
    "COMPASS_NOTIFY_WEBHOOK_SECRET": ("COMPASS_NOTIFY_WEBHOOK",),
    "COMPASS_NOTIFY_WEBHOOK_CA_FILE": ("COMPASS_NOTIFY_WEBHOOK",),
}


def find_store_dir(system: Path = SYSTEM_STORE_DIR) -> Path:
    """Where the store is if nobody says: the system's folder, or one beside us where that is missing."""
    return system if system.exists() else Path(".compass-sidecar")


@dataclass(frozen=True, slots=True)
class VariableDoc:
    """One row of the table in the documentation."""

    name: str
    default: str
    meaning: str
    secret: bool


def describe() -> list[VariableDoc]:
    """Every variable, in the order of the fields; `secret` says that there is an `X_FILE` too."""
    return [
        VariableDoc(
            name=variable,
            default=_default_text(field),
            meaning=field.description or "",
            secret=variable in _SECRET_FILES.values(),
        )
        for variable, field in _ROWS.items()
    ]


def _default_text(field: FieldInfo) -> str:
    extra, default = field.json_schema_extra, field.default
    if isinstance(extra, dict) and extra["shown"]:
        return str(extra["shown"])
    if default in (None, ()):
        return "–"  # noqa: RUF001 - the mark of the documentation's tables
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{format_duration(default) if isinstance(default, timedelta) else default}`"


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\""


def _is_from_kubernetes(name: str, value: str) -> bool:
    """What Kubernetes injects for a Service called compass..., such as COMPASS_PORT=tcp://10.0.0.1:80."""
    if not name.startswith("COMPASS_"):
        return False
    link = name.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://"))
    return link or _KUBERNETES_NAME.fullmatch(name) is not None


def _unknown(name: str) -> str:
    known = sorted(variable.removeprefix("COMPASS_") for variable in _KNOWN)
    wanted = name.removeprefix("COMPASS_").upper()
    near = get_close_matches(wanted, known, n=2, cutoff=0.8) or get_close_matches(
        wanted, known, n=1, cutoff=0
    )
    nearest = " or ".join(f"COMPASS_{suffix}" for suffix in near)
    return f"{ascii(name)[1:-1]}: is not a variable of ours; the nearest is {nearest}"


def _read_secret_files(
    given: Mapping[str, str], read: Callable[[Path], bytes]
) -> tuple[dict[str, str], list[str]]:
    """The rows that are given, with X (a file's text) for each X_FILE; and a problem for each bad file."""
    values = {name: text for name, text in given.items() if name in _ROWS}
    problems = []
    for variable in [name for name in given if name in _SECRET_FILES]:
        secret, path = _SECRET_FILES[variable], given[variable]
        if secret in given:
            problems.append(f"{variable}: is set together with {secret}: keep one of them")
            continue
        try:
            if variable in _ROWS:  # a token's file may come later, and is read again while it is needed
                with suppress(FileNotFoundError):
                    read(Path(path))
            else:
                values[secret] = _secret(read(Path(path)))
        except (OSError, ValueError) as error:
            why = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else error
            # A secret put here by mistake would be taken for a relative path: that is not shown.
            shown = repr(path) if path.startswith(("/", "./", "../")) else "the file (a relative path)"
            problems.append(f"{variable}: {shown} {why}")
    return values, problems


def _secret(content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    secret = text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
    if not secret:
        raise ValueError("is empty: write the secret into it")
    return secret


def _usual_proxies(environ: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """HTTPS_PROXY, unless ours takes its place, and NO_PROXY; as with curl the lower-case name wins."""
    ours = not given.keys().isdisjoint({"COMPASS_CONNECTOR_PROXY", "COMPASS_CONNECTOR_PROXY_FILE"})
    names = ("NO_PROXY",) if ours else ("HTTPS_PROXY", "NO_PROXY")
    return {name: value for name in names if (value := environ.get(name.lower()) or environ.get(name))}


def _validate(values: Mapping[str, object]) -> tuple[Settings, dict[str, str]]:
    """The settings as far as they are valid, and what is wrong with the others, by variable."""
    try:
        return Settings.model_validate(values), {}
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
    wrong = {str(detail["loc"][0]): _in_plain_words(detail["type"], detail["msg"]) for detail in details}
    return Settings.model_validate({name: values[name] for name in values.keys() - wrong.keys()}), wrong


def _in_plain_words(kind: str, message: str) -> str:
    return _PLAIN_WORDS.get(kind, message.removeprefix("Value error, ").replace("Input should", "should"))


def _contradictions(settings: Settings, given: Mapping[str, str], wrong: Mapping[str, str]) -> Iterator[str]:
    """What is right for itself and wrong together. A bad value is not blamed for what depends on it."""
    asked = {_SECRET_FILES.get(name, name) for name in given}
    if not settings.expose_private_key:
        asked.discard("COMPASS_EXPOSE_PRIVATE_KEY")
    for variable, others in _NEEDS.items():
        if variable in asked and asked.isdisjoint(others):
            yield f"{variable}: needs {' or '.join(others)}, which is not set"
    if settings.token and "COMPASS_TOKEN_CONNECTOR_URL" not in wrong:
        yield from _token_problems(settings.token.get_secret_value(), settings.token_connector_url)
    if settings.publish_dir == settings.store_dir:
        yield "COMPASS_PUBLISH_DIR: should be another folder than COMPASS_STORE_DIR, which only we may read"
    addresses_are_known = wrong.keys().isdisjoint({"COMPASS_HOST", "COMPASS_PORT", "COMPASS_HEALTH_HOST"})
    if addresses_are_known and _ports_meet(settings):
        yield "COMPASS_HEALTH_PORT: is COMPASS_PORT on the same address: choose another one, such as 8081"


def _token_problems(token: str, url: str | None) -> list[str]:
    right = "write a token that brings its URL (`raw`, `rawEncoded`), or set COMPASS_TOKEN_CONNECTOR_URL too"
    try:
        parse_token(token, url)
    except RequestRefused as error:
        return [f"COMPASS_TOKEN: {error.detail}; {right}"]
    return []


def _ports_meet(settings: Settings) -> bool:
    if settings.unix_socket is not None or settings.health_port != settings.port:
        return False
    return any(_collide(settings.health_host, host) for host in settings.host)


def _collide(one: str, other: str) -> bool:
    """Whether one port cannot be had on both addresses; a wildcard takes all of its family."""
    same_family = (":" in one) == (":" in other)
    return one == other or (same_family and not {one, other}.isdisjoint({"0.0.0.0", "::"}))  # noqa: S104


def _is_exempt(url: str, no_proxy: str) -> bool:
    target = parse_url(url, "http", "https")
    return any(_covers(each, target.host, str(target.port)) for each in re.split(r"[,\s]+", no_proxy.lower()))


def _covers(entry: str, host: str, port: str) -> bool:
    """One entry of NO_PROXY: `*`, an address, a network, or a name with all below it; `:port` narrows it."""
    if match := _NAME_AND_PORT.fullmatch(entry):
        if match[2] != port:
            return False
        entry = match[1]
    if entry == "*":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        name = entry.removeprefix("*").strip(".")
        return bool(name) and f".{host}".endswith(f".{name}")
    with suppress(ValueError):
        return address in ip_network(entry.strip("[]"), strict=False)
    return False
