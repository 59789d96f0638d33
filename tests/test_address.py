"""Where the commands look for a sidecar: an option wins, and variables mean what they mean to it."""

import pytest

from compass_sidecar.cli.address import Address, find_address, find_health_address

V4, V6 = "127.0.0.1", "::1"


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({}, Address(V4, 8080)),
        ({"COMPASS_PORT": "9000"}, Address(V4, 9000)),
        ({"COMPASS_PORT": " 9000 "}, Address(V4, 9000)),
        ({"COMPASS_PORT": "tcp://10.0.0.1:80"}, Address(V4, 8080)),
        ({"COMPASS_PORT": "0"}, Address(V4, 8080)),
        ({"COMPASS_PORT": "9" * 5000}, Address(V4, 8080)),
        ({"COMPASS_HOST": "0.0.0.0"}, Address(V4, 8080)),
        ({"COMPASS_HOST": "::, 10.0.0.1"}, Address(V6, 8080)),
        ({"COMPASS_HOST": "10.0.0.7,127.0.0.1", "COMPASS_PORT": "1"}, Address("10.0.0.7", 1)),
        ({"COMPASS_UNIX_SOCKET": "/run/s", "COMPASS_PORT": "1"}, Address("localhost", 0, "/run/s")),
        ({"COMPASS_UNIX_SOCKET": "", "COMPASS_PORT": "1"}, Address(V4, 1)),
        ({"COMPASS_HEALTH_PORT": "8081"}, Address(V4, 8080)),
    ],
)
def test_the_variables_of_the_sidecar_say_where_it_is(environ: dict[str, str], address: Address) -> None:
    assert find_address(environ) == address


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({}, Address(V4, 8080)),
        ({"COMPASS_HEALTH_PORT": "8081"}, Address(V4, 8081)),
        ({"COMPASS_HEALTH_PORT": "8081", "COMPASS_HEALTH_HOST": "10.0.0.7"}, Address("10.0.0.7", 8081)),
        ({"COMPASS_HEALTH_PORT": "8081", "COMPASS_UNIX_SOCKET": "/run/s"}, Address(V4, 8081)),
        ({"COMPASS_HEALTH_PORT": "tcp://10.0.0.1:80"}, Address(V4, 8080)),
        ({"COMPASS_UNIX_SOCKET": "/run/s"}, Address("localhost", 0, "/run/s")),
    ],
)
def test_health_is_asked_for_where_the_orchestrator_does(environ: dict[str, str], address: Address) -> None:
    assert find_health_address(environ) == address


@pytest.mark.parametrize("find", [find_address, find_health_address])
def test_an_option_wins(find: object) -> None:
    environ = {"COMPASS_UNIX_SOCKET": "/run/s", "COMPASS_PORT": "1", "COMPASS_HEALTH_PORT": "2"}
    assert find(environ, url="http://[::1]:7/") == Address(V6, 7)  # type: ignore[operator]
    assert find(environ, unix_socket="/run/t") == Address("localhost", 0, "/run/t")  # type: ignore[operator]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "https://h",
        "http://",
        "http://h:x",
        "http://h:99999",
        "http://u@h",
        "http://h/p",
        "http://h?q",
        "http://[",
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="--url should be http://HOST:PORT"):
        find_address({}, url=url)


def test_two_options_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        find_address({}, url="http://h", unix_socket="/s")


def test_a_url_has_brackets_where_they_are_needed() -> None:
    assert Address(V6, 8080).url == "http://[::1]:8080"
    assert Address("localhost", 0, "/s").url == "http://localhost"
