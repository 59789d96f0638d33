"""The configuration is read from a mapping, and everything wrong with it is said at once."""

import base64
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from compass_sidecar.errors import SettingsError
from compass_sidecar.settings import Settings, describe, find_store_dir
from tests.support.environment import settings_of

API_TOKEN = "0123456789abcdef"
URL = "https://gateway.example.org/connector/graphql"
SELF_CONTAINED = base64.b64encode(json.dumps({"token": "t", "connectorURL": URL}).encode()).decode()


def read(**variables: str) -> Settings:
    """Settings of variables that are written without their prefix."""
    return settings_of({f"COMPASS_{name}": value for name, value in variables.items()})


def problems_of(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        settings_of(environ)
    return caught.value.problems


def problems(**variables: str) -> list[str]:
    return problems_of({f"COMPASS_{name}": value for name, value in variables.items()})


def secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None


def test_nothing_set_gives_the_defaults_of_the_table() -> None:
    found = settings_of({"PATH": "/bin"})
    assert found.model_dump() == {
        "connector_url": None,
        "connector_ca_file": None,
        "connector_proxy": None,
        "connector_timeout": timedelta(seconds=40),
        "client_certificate_file": None,
        "client_key_file": None,
        "client_key_passphrase": None,
        "token": None,
        "token_file": None,
        "token_connector_url": None,
        "store_dir": Path("/var/lib/compass-sidecar"),
        "publish_dir": None,
        "publish_group": None,
        "name": None,
        "key_size": 4096,
        "renewal_window_ratio": 0.333,
        "renewal_jitter_ratio": 0.25,
        "renewal_min_interval": timedelta(seconds=10),
        "revoke_superseded_after": None,
        "host": ("127.0.0.1", "::1"),
        "port": 8080,
        "health_host": "0.0.0.0",
        "health_port": None,
        "unix_socket": None,
        "allowed_hosts": (),
        "api_token": None,
        "expose_private_key": False,
        "on_renew_command": None,
        "notify_webhook": None,
        "notify_webhook_secret": None,
        "notify_webhook_ca_file": None,
        "log_level": "info",
        "log_format": None,
        "https_proxy": None,
        "no_proxy": "",
        "ignored_variables": (),
    }
    assert found.host_is_default


GOOD = [
    ("CONNECTOR_URL", URL, "connector_url", URL),
    ("CONNECTOR_URL", " https://[::1]:8443 \n", "connector_url", "https://[::1]:8443"),
    ("CONNECTOR_CA_FILE", "/ca.pem", "connector_ca_file", Path("/ca.pem")),
    ("CONNECTOR_TIMEOUT", "500ms", "connector_timeout", timedelta(milliseconds=500)),
    ("TOKEN_FILE", "/not/yet/there", "token_file", Path("/not/yet/there")),
    ("TOKEN_CONNECTOR_URL", f"{URL}?token=abc", "token_connector_url", URL),
    ("STORE_DIR", "store", "store_dir", Path("store")),
    ("STORE_DIR", "/\udcff", "store_dir", Path("/\udcff")),
    ("PUBLISH_DIR", "/shared", "publish_dir", Path("/shared")),
    ("NAME", "Größe 1", "name", "Größe 1"),
    ("NAME", "n" * 253, "name", "n" * 253),
    ("KEY_SIZE", "2048", "key_size", 2048),
    ("KEY_SIZE", "3072", "key_size", 3072),
    ("RENEWAL_WINDOW_RATIO", "0.999", "renewal_window_ratio", 0.999),
    ("RENEWAL_JITTER_RATIO", "0", "renewal_jitter_ratio", 0.0),
    ("RENEWAL_MIN_INTERVAL", "0", "renewal_min_interval", timedelta(0)),
    ("REVOKE_SUPERSEDED_AFTER", "1h", "revoke_superseded_after", timedelta(hours=1)),
    ("HOST", "0:0::1, Sidecar.local., 10.0.0.1,::1", "host", ("::1", "sidecar.local", "10.0.0.1")),
    ("HOST", "fe80::1%eth0", "host", ("fe80::1%eth0",)),
    ("PORT", "1", "port", 1),
    ("PORT", "65535", "port", 65_535),
    ("HEALTH_HOST", "::", "health_host", "::"),
    ("HEALTH_PORT", "8081", "health_port", 8081),
    ("UNIX_SOCKET", "/" + "s" * 106, "unix_socket", Path("/" + "s" * 106)),
    ("ALLOWED_HOSTS", "a,B.example.", "allowed_hosts", ("a", "b.example")),
    ("ON_RENEW_COMMAND", "kill -HUP '1 2'", "on_renew_command", ("kill", "-HUP", "1 2")),
    ("NOTIFY_WEBHOOK", "http://app:8000/hook?x=1", "notify_webhook", "http://app:8000/hook?x=1"),
    ("LOG_LEVEL", "DEBUG", "log_level", "debug"),
    ("LOG_FORMAT", "Console", "log_format", "console"),
    *[("EXPOSE_PRIVATE_KEY", text, "expose_private_key", False) for text in ("false", "0", "no", "OFF")],
]


@pytest.mark.parametrize(("variable", "text", "field", "value"), GOOD)
def test_a_variable_sets_the_field_of_its_name(variable: str, text: str, field: str, value: object) -> None:
    assert getattr(read(**{variable: text}), field) == value


@pytest.mark.parametrize("text", ["true", "1", "YES", "on"])
def test_a_boolean_is_written_as_people_do(text: str) -> None:
    assert read(EXPOSE_PRIVATE_KEY=text, API_TOKEN=API_TOKEN).expose_private_key


BAD = [
    ("NAME", "n" * 254, "should be 1 to 253 printable characters"),
    ("NAME", "two\nlines", "should be 1 to 253 printable characters"),
    ("NAME", "right\u202eleft", "should be 1 to 253 printable characters"),
    ("CONNECTOR_URL", "http://host/", "should begin with https://"),
    ("CONNECTOR_URL", "gateway.example.org", "should begin with https://"),
    ("CONNECTOR_URL", "https:///graphql", "should name a host"),
    ("CONNECTOR_URL", "https://:443", "should name a host"),
    ("CONNECTOR_URL", "https://a..b/", "should name a host"),
    ("CONNECTOR_URL", "https://host:0/", "should name a host"),
    ("CONNECTOR_URL", "https://host:99999/", "is not a URL"),
    ("CONNECTOR_URL", "https://[::1/", "is not a URL"),
    ("CONNECTOR_URL", "https://ho\tst/", "spaces or control characters"),
    ("CONNECTOR_URL", "https://host/a b", "spaces or control characters"),
    ("CONNECTOR_URL", "https://me:pw@host/", "user information"),
    ("CONNECTOR_URL", "https://@host/", "user information"),
    ("CONNECTOR_URL", "https://host/?a=b", "query"),
    ("CONNECTOR_URL", "https://host/?", "query"),
    ("CONNECTOR_URL", "https://host/#a", "fragment"),
    ("CONNECTOR_URL", "https://host/#", "fragment"),
    ("TOKEN_CONNECTOR_URL", "http://host/", "should begin with https://"),
    ("TOKEN_CONNECTOR_URL", "https://me@host/", "user information"),
    ("TOKEN_CONNECTOR_URL", "https://host/#a", "fragment"),
    ("CONNECTOR_PROXY", "socks5://host", "should begin with http:// or https://"),
    ("CONNECTOR_PROXY", "http://", "should name a host"),
    ("CONNECTOR_PROXY", "   ", "should name a host"),
    ("CONNECTOR_PROXY", "http://me:p#w@host:3128", "should name a host|is not a URL|only"),
    ("CONNECTOR_PROXY", "http://host:3128/path", "scheme, host and port only"),
    ("CONNECTOR_TIMEOUT", "0", "longer than 0s"),
    ("CONNECTOR_TIMEOUT", "-1s", "is not a duration"),
    ("CONNECTOR_TIMEOUT", "99999999d", "is too long"),
    ("REVOKE_SUPERSEDED_AFTER", "0s", "longer than 0s"),
    ("RENEWAL_MIN_INTERVAL", "nan", "is not a duration"),
    ("TOKEN_CONNECTOR_URL", "https://host/v1/applications/signingRequests/info", "REST adapter"),
    ("PUBLISH_GROUP", "staff", "whole number"),
    ("PUBLISH_GROUP", "-1", "greater than or equal to 0"),
    ("PUBLISH_GROUP", "4294967295", "less than or equal to 4294967294"),
    ("KEY_SIZE", "1024", "should be 2048, 3072 or 4096"),
    ("KEY_SIZE", "big", "whole number"),
    ("RENEWAL_WINDOW_RATIO", "0", "greater than 0"),
    ("RENEWAL_WINDOW_RATIO", "1", "less than 1"),
    ("RENEWAL_WINDOW_RATIO", "nan", "finite"),
    ("RENEWAL_WINDOW_RATIO", "third", "should be a number"),
    ("RENEWAL_JITTER_RATIO", "-0.1", "greater than or equal to 0"),
    ("RENEWAL_JITTER_RATIO", "1", "less than 1"),
    ("RENEWAL_JITTER_RATIO", "inf", "less than 1|finite"),
    ("HOST", ",", "IP address or a host name"),
    ("HOST", "127.0.0.1,", "IP address or a host name"),
    ("HOST", "[::1]", "IP address or a host name"),
    ("HOST", "127.0.0.1:80", "IP address or a host name"),
    ("HOST", "256.0.0.1", "IP address or a host name"),
    ("HOST", "-a", "IP address or a host name"),
    ("HOST", "a" * 64, "IP address or a host name"),
    ("HOST", "a." * 127 + "a", "IP address or a host name"),
    ("HEALTH_HOST", "a,b", "IP address or a host name"),
    ("ALLOWED_HOSTS", "*", "IP address or a host name"),
    ("PORT", "0", "greater than or equal to 1"),
    ("PORT", "65536", "less than or equal to 65535"),
    ("PORT", "http", "whole number"),
    ("HEALTH_PORT", "-1", "greater than or equal to 1"),
    ("UNIX_SOCKET", "/" + "é" * 54, "at most 107 bytes"),
    ("API_TOKEN", "0123456789abcde", "at least 16 characters"),
    ("API_TOKEN", "0123456789abcdef\n", "line breaks"),
    ("API_TOKEN", "0123456789 abcdef", "spaces"),
    ("EXPOSE_PRIVATE_KEY", "maybe", "should be true or false"),
    ("ON_RENEW_COMMAND", "sh -c 'x", "open quote"),
    ("ON_RENEW_COMMAND", "sh \\", "backslash"),
    ("ON_RENEW_COMMAND", "'' x", "program to run"),
    ("NOTIFY_WEBHOOK", "ftp://host/", "should begin with https:// or http://"),
    ("NOTIFY_WEBHOOK", "https://me:pw@host/", "user information"),
    ("LOG_LEVEL", "warn", "'warning'"),
    ("LOG_FORMAT", "xml", "should be 'json' or 'console'"),
    ("LOG_FORMAT", "\udcff", "is not UTF-8|should be"),
]


@pytest.mark.parametrize(("variable", "text", "wrong"), BAD)
def test_a_bad_value_is_one_line_that_names_the_variable(variable: str, text: str, wrong: str) -> None:
    with pytest.raises(SettingsError, match=wrong) as caught:
        read(**{"PUBLISH_DIR": "/p", "TOKEN_CONNECTOR_URL": URL} | {variable: text})
    (problem,) = caught.value.problems
    assert problem.startswith(f"COMPASS_{variable}: ")
    assert len(problem.splitlines()) == 1
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_every_problem_is_told_at_once() -> None:
    found = problems(PORT="x", KEY_SIZE="1", HSOT="a", CLIENT_KEY_FILE="/k", API_TOKEN_FILE="/nowhere/t")
    assert found == [
        "COMPASS_HSOT: is not a variable of ours; the nearest is COMPASS_HOST",
        "COMPASS_API_TOKEN_FILE: '/nowhere/t' cannot be read: No such file or directory",
        "COMPASS_KEY_SIZE: should be 2048, 3072 or 4096",
        "COMPASS_PORT: should be a whole number",
        "COMPASS_CLIENT_KEY_FILE: needs COMPASS_CLIENT_CERTIFICATE_FILE, which is not set",
    ]


@pytest.mark.parametrize(
    "variable",
    [row.name for row in describe()] + [f"{row.name}_FILE" for row in describe() if row.secret],
)
def test_an_empty_variable_counts_as_unset(variable: str) -> None:
    assert settings_of({variable: ""}) == settings_of({})


# Names


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("COMPASS_CONNECTR_URL", "COMPASS_CONNECTOR_URL"),
        ("COMPASS_URL", "COMPASS_CONNECTOR_URL"),
        ("COMPASS_port", "COMPASS_PORT"),
        ("COMPASS_API_TOKEN_FLIE", "COMPASS_API_TOKEN_FILE"),
        ("COMPASS_CLIENT_CERT_FILE", "COMPASS_CLIENT_KEY_FILE or COMPASS_CLIENT_CERTIFICATE_FILE"),
        ("COMPASS_IGNORED_VARIABLES", "COMPASS_"),
        ("COMPASS_HTTPS_PROXY", "COMPASS_"),
        ("COMPASS_", "COMPASS_"),
        ("COMPASS_PORT_FILE", "COMPASS_"),
    ],
)
def test_an_unknown_variable_is_told_its_nearest_name(name: str, nearest: str) -> None:
    (problem,) = problems_of({name: "1"})
    assert problem.startswith(f"{name}: is not a variable of ours; the nearest is {nearest}")


def test_a_name_with_a_line_break_stays_on_one_line() -> None:
    (problem,) = problems_of({"COMPASS_A\nB\u202e": "1"})
    assert problem.startswith("COMPASS_A\\nB\\u202e: ")


def test_the_nearest_name_does_not_depend_on_the_hash_seed() -> None:
    code = "from compass_sidecar.settings import _unknown; print(_unknown('COMPASS_QQ'))"
    answers = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in "123"
    }
    assert len(answers) == 1


KUBERNETES = {
    "COMPASS_SERVICE_HOST": "10.0.0.1",
    "COMPASS_SERVICE_PORT": "8080",
    "COMPASS_SERVICE_PORT_HTTP_API": "8080",
    "COMPASS_PORT": "tcp://10.0.0.1:8080",
    "COMPASS_PORT_8080_TCP": "tcp://10.0.0.1:8080",
    "COMPASS_PORT_8080_TCP_PROTO": "tcp",
    "COMPASS_PORT_8080_TCP_PORT": "8080",
    "COMPASS_PORT_8080_TCP_ADDR": "10.0.0.1",
    "COMPASS_SIDECAR_SERVICE_HOST": "10.0.0.2",
    "COMPASS_SIDECAR_PORT": "udp://10.0.0.2:53",
    "COMPASS_SIDECAR_PORT_53_UDP": "udp://10.0.0.2:53",
    "COMPASS_HEALTH_PORT": "sctp://10.0.0.3:1",
    "COMPASS_HEALTH_PORT_1_SCTP_ADDR": "10.0.0.3",
}


def test_what_kubernetes_injects_for_a_service_is_ignored_and_listed() -> None:
    found = settings_of(KUBERNETES)
    assert found.ignored_variables == tuple(sorted(KUBERNETES))
    assert found.model_copy(update={"ignored_variables": ()}) == settings_of({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COMPASS_PORT", "http://10.0.0.1"),
        ("COMPASS_SIDECAR_PORT", "8080"),
        ("COMPASS_PORT_8080_HTTP", "tcp://10.0.0.1:8080"),
        ("COMPASS_PORT_HTTP_TCP", "tcp://10.0.0.1:8080"),
        ("COMPASS_HOST_SERVICE", "10.0.0.1"),
    ],
)
def test_what_only_resembles_kubernetes_is_a_problem(name: str, value: str) -> None:
    assert len(problems_of({name: value})) == 1


def test_the_names_handed_to_commands_are_no_problem() -> None:
    names = ("COMPASS_EVENT", "COMPASS_FINGERPRINT", "COMPASS_NOT_AFTER")
    assert settings_of(dict.fromkeys(names, "x")) == settings_of({})


def test_other_prefixes_are_none_of_our_business() -> None:
    environ = {"COMPASS2_PORT": "x", "compass_port": "x", "XCOMPASS_A": "x", "COMPASS": "x"}
    assert settings_of(environ) == settings_of({})


# Contradictions


@pytest.mark.parametrize(
    ("variables", "blamed"),
    [
        ({"CLIENT_KEY_FILE": "/k"}, "CLIENT_KEY_FILE"),
        ({"CLIENT_KEY_PASSPHRASE": "x"}, "CLIENT_KEY_PASSPHRASE"),
        ({"NOTIFY_WEBHOOK_SECRET": "x"}, "NOTIFY_WEBHOOK_SECRET"),
        ({"NOTIFY_WEBHOOK_CA_FILE": "/ca.pem"}, "NOTIFY_WEBHOOK_CA_FILE"),
        ({"PUBLISH_GROUP": "0"}, "PUBLISH_GROUP"),
        ({"EXPOSE_PRIVATE_KEY": "true"}, "EXPOSE_PRIVATE_KEY"),
        ({"TOKEN": "plain"}, "TOKEN"),
        ({"TOKEN": " "}, "TOKEN"),
        ({"TOKEN": "sécret", "TOKEN_CONNECTOR_URL": URL}, "TOKEN"),
        ({"TOKEN": "'plain'", "TOKEN_CONNECTOR_URL": URL}, "TOKEN"),
        ({"TOKEN": "https://host/v1/applications/signingRequests/info?token=abc"}, "TOKEN"),
        ({"TOKEN": "https://host/connector"}, "TOKEN"),
        ({"TOKEN": "https://[host?token=abc"}, "TOKEN"),
        ({"TOKEN": "http://host/connector?token=abc"}, "TOKEN"),
        ({"TOKEN": base64.b64encode(b'{"token": "t"}').decode()}, "TOKEN"),
        ({"TOKEN": base64.b64encode(b"[" * 60_000).decode()}, "TOKEN"),
        ({"TOKEN": "abcd", "TOKEN_FILE": "/t", "TOKEN_CONNECTOR_URL": URL}, "TOKEN_FILE"),
        ({"API_TOKEN": API_TOKEN, "API_TOKEN_FILE": "/t"}, "API_TOKEN_FILE"),
        ({"HEALTH_PORT": "8080"}, "HEALTH_PORT"),
        ({"HEALTH_PORT": "9", "PORT": "9", "HEALTH_HOST": "127.0.0.1"}, "HEALTH_PORT"),
        ({"HEALTH_PORT": "9", "PORT": "9", "HEALTH_HOST": "::"}, "HEALTH_PORT"),
        ({"HEALTH_PORT": "9", "PORT": "9", "HOST": "0.0.0.0", "HEALTH_HOST": "10.0.0.1"}, "HEALTH_PORT"),
        ({"HEALTH_PORT": "9", "PORT": "9", "HOST": "me", "HEALTH_HOST": "ME"}, "HEALTH_PORT"),
        ({"PUBLISH_DIR": "/s/", "STORE_DIR": "/s"}, "PUBLISH_DIR"),
    ],
)
def test_a_contradiction_is_a_problem_of_one_variable(variables: dict[str, str], blamed: str) -> None:
    (problem,) = problems(**variables)
    assert problem.startswith(f"COMPASS_{blamed}: ")


@pytest.mark.parametrize(
    "variables",
    [
        {"CLIENT_CERTIFICATE_FILE": "/c", "CLIENT_KEY_FILE": "/k", "CLIENT_KEY_PASSPHRASE": "x"},
        {"CLIENT_CERTIFICATE_FILE": "/c.p12", "CLIENT_KEY_PASSPHRASE": "x"},
        {"CLIENT_CERTIFICATE_FILE": "/c"},
        {"NOTIFY_WEBHOOK_SECRET": "x", "NOTIFY_WEBHOOK": "https://host/"},
        {"PUBLISH_GROUP": "0", "PUBLISH_DIR": "/p"},
        {"PUBLISH_GROUP": "0", "UNIX_SOCKET": "/s"},
        {"EXPOSE_PRIVATE_KEY": "true", "API_TOKEN": API_TOKEN},
        {"EXPOSE_PRIVATE_KEY": "true", "UNIX_SOCKET": "/s"},
        {"EXPOSE_PRIVATE_KEY": "false"},
        {"TOKEN": "plain", "TOKEN_CONNECTOR_URL": URL},
        {"TOKEN": SELF_CONTAINED},
        {"TOKEN": SELF_CONTAINED.rstrip("=")},
        {"TOKEN": f"{SELF_CONTAINED[:9]}\n{SELF_CONTAINED[9:]}\n"},
        {"TOKEN": f"{URL}?token=abc"},
        {"TOKEN": json.dumps({"token": "abc", "connectorURL": URL, "used": False})},
        {"TOKEN_CONNECTOR_URL": URL},
        {"HEALTH_HOST": "10.0.0.1"},
        {"HEALTH_PORT": "8081"},
        {"HEALTH_PORT": "8080", "UNIX_SOCKET": "/s"},
        {"HEALTH_PORT": "8080", "HOST": "::1"},
        {"HEALTH_PORT": "8080", "HEALTH_HOST": "10.0.0.1"},
    ],
)
def test_what_goes_together_is_no_problem(variables: dict[str, str]) -> None:
    assert read(**variables)


@pytest.mark.parametrize(
    "variables",
    [
        {"API_TOKEN": "short", "EXPOSE_PRIVATE_KEY": "true"},
        {"NOTIFY_WEBHOOK": "bad", "NOTIFY_WEBHOOK_SECRET": "x"},
        {"PORT": "bad", "HEALTH_PORT": "8080"},
        {"HOST": "[bad]", "PORT": "8081", "HEALTH_PORT": "8081", "HEALTH_HOST": "127.0.0.1"},
        {"TOKEN_CONNECTOR_URL": "bad", "TOKEN": "plain"},
        {"UNIX_SOCKET": "/" + "x" * 200, "PUBLISH_GROUP": "0"},
        {"API_TOKEN_FILE": "/nowhere/t", "EXPOSE_PRIVATE_KEY": "true"},
    ],
)
def test_a_bad_value_brings_no_second_problem_along(variables: dict[str, str]) -> None:
    assert len(problems(**variables)) == 1


def test_a_plain_token_without_its_url_is_told_which_variable_is_missing() -> None:
    (problem,) = problems(TOKEN="pl41n")
    assert "set COMPASS_TOKEN_CONNECTOR_URL" in problem
    assert "pl41n" not in problem


# Secrets in files

SECRETS = [
    ("CLIENT_KEY_PASSPHRASE", {"CLIENT_KEY_FILE": "/k", "CLIENT_CERTIFICATE_FILE": "/c"}),
    ("API_TOKEN", {}),
    ("NOTIFY_WEBHOOK_SECRET", {"NOTIFY_WEBHOOK": "https://host/"}),
]


@pytest.mark.parametrize(("variable", "others"), SECRETS)
def test_a_secret_is_read_from_its_file(variable: str, others: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret\twith-éverything" if variable != "API_TOKEN" else API_TOKEN)
    found = read(**others, **{f"{variable}_FILE": str(tmp_path / "secret")})
    assert secret(getattr(found, variable.lower())) == (tmp_path / "secret").read_text()


def test_a_proxy_with_a_password_may_come_from_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "proxy").write_text("http://me:pw@proxy:3128\n")
    assert read(CONNECTOR_PROXY_FILE=str(tmp_path / "proxy")).proxy_for(URL) == "http://me:pw@proxy:3128"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("x", "x"),
        ("x\n", "x"),
        ("x\r\n", "x"),
        ("x\n\n", "x\n"),
        ("\nx", "\nx"),
        (" x ", " x "),
        ("x\r", "x\r"),
        ("\ufeffx\n", "x"),
    ],
)
def test_a_byte_order_mark_and_one_trailing_newline_of_the_file_are_dropped(
    content: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(content.encode())
    found = read(NOTIFY_WEBHOOK="https://host/", NOTIFY_WEBHOOK_SECRET_FILE=str(tmp_path / "secret"))
    assert secret(found.notify_webhook_secret) == expected


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"\xff" * 20, "is not UTF-8 text"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"x" * (2**20 + 1), "cannot be read: it is larger than 1048576 bytes"),
    ],
)
def test_a_file_that_holds_no_secret_is_a_problem_with_its_path(
    content: bytes, wrong: str, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    (problem,) = problems(API_TOKEN_FILE=str(path))
    assert problem.startswith(f"COMPASS_API_TOKEN_FILE: '{path}' {wrong}")


def test_an_unreadable_file_is_a_problem_with_the_reason_of_the_system(tmp_path: Path) -> None:
    assert problems(API_TOKEN_FILE=str(tmp_path)) == [
        f"COMPASS_API_TOKEN_FILE: '{tmp_path}' cannot be read: it is a folder"
    ]


@pytest.mark.parametrize("variable", ["API_TOKEN_FILE", "TOKEN_FILE"])
def test_a_link_to_itself_is_a_problem(variable: str, tmp_path: Path) -> None:
    (tmp_path / "secret").symlink_to("secret")
    assert "Too many levels of symbolic links" in problems(**{variable: str(tmp_path / "secret")})[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("variable", ["API_TOKEN_FILE", "TOKEN_FILE"])
def test_a_forbidden_file_is_a_problem(variable: str, tmp_path: Path) -> None:
    (tmp_path / "secret").touch(mode=0o000)
    assert "Permission denied" in problems(**{variable: str(tmp_path / "secret")})[0]


def test_a_bad_secret_is_blamed_on_the_file_that_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("short")
    assert problems(API_TOKEN_FILE=str(tmp_path / "secret")) == [
        "COMPASS_API_TOKEN_FILE: is too short: at least 16 characters"
    ]


def test_a_secret_that_was_taken_for_a_path_is_not_shown() -> None:
    (problem,) = problems(API_TOKEN_FILE="s3cr3t-in-the-wrong-variable")
    assert "s3cr3t" not in problem


def test_a_path_with_a_line_break_stays_on_one_line() -> None:
    (problem,) = problems(API_TOKEN_FILE="/a\nb")
    assert problem.startswith("COMPASS_API_TOKEN_FILE: '/a\\nb' cannot be read")


def test_a_path_with_a_nul_is_a_problem() -> None:
    assert len(problems(API_TOKEN_FILE="/a\0b")) == len(problems(TOKEN_FILE="/a\0b")) == 1


def test_a_token_file_is_kept_as_a_path_and_may_be_empty_or_missing(tmp_path: Path) -> None:
    path = tmp_path / "token"
    assert read(TOKEN_FILE=str(path)).token_file == path
    path.write_text("")
    assert read(TOKEN_FILE=str(path)).token is None
    path.write_text("plain")
    assert read(TOKEN_FILE=str(path)).token is None


def test_a_token_file_that_can_never_be_read_is_a_problem(tmp_path: Path) -> None:
    (problem,) = problems(TOKEN_FILE=str(tmp_path))
    assert problem == f"COMPASS_TOKEN_FILE: '{tmp_path}' cannot be read: it is a folder"


# Secrets stay secret


def all_that_is_said_about(environ: dict[str, str]) -> list[str]:
    try:
        settings_of(environ)
    except SettingsError as error:
        return [*error.problems, repr(error), repr(error.__cause__), repr(error.__context__)]
    return []


ALL_NAMES = sorted(
    {row.name for row in describe()} | {f"{row.name}_FILE" for row in describe() if row.secret}
)
NOT_SHOWN = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).map("Zq9".__add__)
SECRET_FIELDS = ["CLIENT_KEY_PASSPHRASE", "TOKEN", "CONNECTOR_PROXY", "API_TOKEN", "NOTIFY_WEBHOOK_SECRET"]


@given(st.dictionaries(st.sampled_from(ALL_NAMES), NOT_SHOWN, min_size=1))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_no_value_appears_in_a_problem_whichever_variable_it_is_in(environ: dict[str, str]) -> None:
    said = all_that_is_said_about(environ)
    assert "Zq9" not in "".join(said)
    assert all(len(line.splitlines()) <= 1 for line in said)


@given(st.text("Zq9aB_-.~", min_size=16, max_size=40).map("Zq9".__add__))
def test_no_secret_appears_in_the_repr_of_settings(value: str) -> None:
    found = settings_of(
        {
            **{f"COMPASS_{name}": value for name in SECRET_FIELDS if name != "CONNECTOR_PROXY"},
            "COMPASS_CONNECTOR_PROXY": f"http://me:{value}@proxy",
            "COMPASS_TOKEN_CONNECTOR_URL": f"{URL}?token={value}",
            "COMPASS_CLIENT_KEY_FILE": "/k",
            "COMPASS_CLIENT_CERTIFICATE_FILE": "/c",
            "COMPASS_NOTIFY_WEBHOOK": f"https://hooks.example.org/{value}",
            "COMPASS_ON_RENEW_COMMAND": f"curl -H {value}",
            "HTTPS_PROXY": f"http://me:{value}@proxy",
        }
    )
    assert secret(found.api_token) == value
    assert value not in f"{found!r}{found}"


def test_validation_errors_of_the_model_itself_hide_the_input() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(api_token=SecretStr("x"), port="s3cr3t")  # type: ignore[arg-type]
    assert "s3cr3t" not in str(caught.value)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


def test_settings_may_be_built_by_field_name_for_tests() -> None:
    built = Settings(port=1, connector_url=URL, connector_timeout=timedelta(seconds=1), host=("::1",))
    assert (built.port, built.host_is_default) == (1, False)


# The proxy


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ({"https_proxy": "http://p:1"}, "http://p:1"),
        ({"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"}, "http://low:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://up:1"}, "http://up:1"),
        ({"HTTPS_PROXY": "me:pw@p:1"}, "me:pw@p:1"),
        ({"HTTP_PROXY": "http://p:1", "ALL_PROXY": "http://p:1"}, None),
        ({"HTTPS_PROXY": "http://p:1", "COMPASS_CONNECTOR_PROXY": "https://ours:2/"}, "https://ours:2/"),
        ({"HTTPS_PROXY": "socks5://p", "COMPASS_CONNECTOR_PROXY": "http://ours"}, "http://ours"),
        ({"NO_PROXY": "*", "COMPASS_CONNECTOR_PROXY": "http://ours"}, "http://ours"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "*"}, None),
    ],
)
def test_the_proxy_is_ours_or_else_the_usual_one(environ: dict[str, str], proxy: str | None) -> None:
    assert settings_of(environ).proxy_for("https://gateway.example.org/") == proxy


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, "https://hook.example.org/", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "http://app:8000/hook", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example.org"}, "https://hook.example.org/", None),
        ({"COMPASS_CONNECTOR_PROXY": "http://p:1"}, "http://app:8000/hook", "http://p:1"),
        ({"COMPASS_CONNECTOR_PROXY": "http://p:1", "NO_PROXY": "app"}, "http://app:8000/hook", None),
    ],
)
def test_a_webhook_takes_the_same_proxy_unless_it_is_exempt(
    environ: dict[str, str], url: str, proxy: str | None
) -> None:
    assert settings_of(environ).webhook_proxy_for(url) == proxy


def test_a_usual_proxy_of_an_unusable_form_stops_no_start() -> None:
    assert settings_of({"HTTPS_PROXY": "socks5://me:pw@proxy"}).proxy_for(URL) is not None


@pytest.mark.parametrize(
    ("no_proxy", "host", "exempt"),
    [
        ("example.org", "example.org", True),
        ("example.org", "a.b.example.org", True),
        ("example.org", "myexample.org", False),
        ("example.org", "example.org.", True),
        ("EXAMPLE.org", "Example.ORG", True),
        (".example.org", "a.example.org", True),
        (".example.org", "example.org", True),
        (".example.org", "badexample.org", False),
        ("*.example.org", "a.example.org", True),
        ("a.example.org", "example.org", False),
        ("other, example.org", "example.org", True),
        ("other example.org", "example.org", True),
        ("other,*", "example.org", True),
        (",,", "example.org", False),
        (".", "example.org", False),
        ("*:443", "example.org", True),
        ("example.org:443", "example.org", True),
        ("example.org:8443", "example.org", False),
        ("example.org:8443", "example.org:8443", True),
        ("example.org:443", "example.org:8443", False),
        ("localhost", "localhost", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1:443", "10.0.0.1", True),
        ("10.0.0.1:1", "10.0.0.1", False),
        ("0.0.1", "10.0.0.1", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.1/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "ten.example.org", False),
        ("fd00::/8", "[fd00::1]", True),
        ("fd00::/8", "10.0.0.1", False),
        ("::1", "[::1]", True),
        ("[::1]", "[0:0::1]", True),
        ("[::1]:8443", "[::1]:8443", True),
        ("[::1]:8443", "[::1]", False),
    ],
)
def test_no_proxy_takes_names_with_all_below_them_and_addresses_and_networks(
    no_proxy: str, host: str, exempt: bool
) -> None:
    found = settings_of({"HTTPS_PROXY": "http://p:1", "NO_PROXY": no_proxy})
    assert (found.proxy_for(f"https://{host}/graphql") is None) is exempt


# The store's folder


def test_the_store_is_where_the_caller_found_it_unless_it_is_set(tmp_path: Path) -> None:
    found = settings_of({}, default_store_dir=tmp_path)
    assert found.store_dir == tmp_path
    environ = {"COMPASS_STORE_DIR": "/elsewhere"}
    assert settings_of(environ, default_store_dir=tmp_path).store_dir == Path("/elsewhere")


def test_the_systems_folder_is_the_store_if_it_exists(tmp_path: Path) -> None:
    assert find_store_dir(tmp_path) == tmp_path
    assert find_store_dir(tmp_path / "missing") == Path(".compass-sidecar")


def test_the_environment_of_the_process_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPASS_PORT", "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    assert (settings_of({}).port, Settings().port) == (8080, 8080)
    assert settings_of({}).proxy_for(URL) is None


# The table


def test_every_variable_is_described_by_one_sentence() -> None:
    rows = describe()
    assert len({row.name for row in rows}) == len(rows) == 33
    assert all(row.meaning.endswith(".") and row.default for row in rows)


def test_the_defaults_are_written_as_in_an_environment() -> None:
    defaults = {row.name: row.default for row in describe()}
    assert defaults["COMPASS_CONNECTOR_TIMEOUT"] == "`40s`"
    assert defaults["COMPASS_EXPOSE_PRIVATE_KEY"] == "`false`"
    assert defaults["COMPASS_TOKEN"] == defaults["COMPASS_ALLOWED_HOSTS"] == "\N{EN DASH}"


def test_the_secrets_are_marked() -> None:
    assert {row.name.removeprefix("COMPASS_") for row in describe() if row.secret} == set(SECRET_FIELDS)


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("variable", sorted({row.name for row in describe()}))
def test_quotes_around_a_value_are_refused_and_not_taken_for_a_part_of_it(variable: str, quote: str) -> None:
    """`docker run --env-file` keeps them, and a folder called `"` would be made."""
    refusal = f"{variable}: begins and ends with a quote, as `docker run --env-file` keeps them: remove both"
    for value in ("some-secret-value", ""):
        assert refusal in problems_of({variable: f"{quote}{value}{quote}"})


@pytest.mark.parametrize("value", ['"one" two', "it's", '"', "'a\"", 'a"'])
def test_a_quote_within_a_value_is_a_part_of_it(value: str) -> None:
    assert (
        secret(read(NOTIFY_WEBHOOK="https://h/", NOTIFY_WEBHOOK_SECRET=value).notify_webhook_secret) == value
    )


def test_what_depends_on_a_quoted_value_is_not_blamed() -> None:
    (problem,) = problems(CLIENT_CERTIFICATE_FILE='"/c"', CLIENT_KEY_FILE="/k")
    assert problem.startswith("COMPASS_CLIENT_CERTIFICATE_FILE: begins and ends with a quote")
