"""Faults of `configuration`: null objects, an empty token, odd subjects and URLs.

Each takes the right result and the parameter, and returns what the resolver answers.
"""

from collections.abc import Callable
from typing import Any

from .plan import ConfigurationResult

Result = dict[str, Any]
Change = Callable[[Result, str], Result]
_INFO, _PLANE = "certificateSigningRequestInfo", "managementPlaneInfo"


def null(field: str) -> Change:
    """One of the three objects is null, as the schema allows."""
    return lambda result, _param: {**result, field: None}


def null_inside(obj: str, field: str) -> Change:
    """A nullable field of an object is null."""
    return lambda result, _param: {**result, obj: {**result[obj], field: None}}


def url(field: str) -> Change:
    """Another URL than before: they are plain server configuration."""
    return lambda result, param: {**result, _PLANE: {**result[_PLANE], field: param}}


def fixed_url(field: str, value: str) -> Change:
    """A fixed form of `url`."""
    return lambda result, _param: {**result, _PLANE: {**result[_PLANE], field: value}}


def empty_token(result: Result, _param: str) -> Result:
    """The Director answered non-200 with JSON that has no `errors`: the Connector calls it a success."""
    return {**result, "token": {"token": ""}}


def other_key_algorithm(result: Result, param: str) -> Result:
    """An algorithm that the Connector itself would not sign."""
    return {**result, _INFO: {**result[_INFO], "keyAlgorithm": param}}


def given_subject(result: Result, param: str) -> Result:
    """Any text; `{cn}` stands for the client id, `{subject}` for the right subject."""
    right = result[_INFO]["subject"]
    text = param.replace("{cn}", right.rpartition("CN=")[2]).replace("{subject}", right)
    return {**result, _INFO: {**result[_INFO], "subject": text}}


def subject(text: str) -> Change:
    """A fixed form of `given_subject`."""
    return lambda result, _param: given_subject(result, text)


CONFIGURATIONS = (
    ConfigurationResult("null-token", "token is null", null("token")),
    ConfigurationResult(
        "null-csr-info",
        "certificateSigningRequestInfo is null",
        null("certificateSigningRequestInfo"),
    ),
    ConfigurationResult("null-management-plane", "managementPlaneInfo is null", null("managementPlaneInfo")),
    ConfigurationResult(
        "null-director-url",
        "directorURL is null",
        null_inside("managementPlaneInfo", "directorURL"),
    ),
    ConfigurationResult(
        "null-connector-url",
        "certificateSecuredConnectorURL is null",
        null_inside("managementPlaneInfo", "certificateSecuredConnectorURL"),
    ),
    ConfigurationResult("empty-token", "token is empty: the Director failed unnoticed", empty_token),
    ConfigurationResult(
        "other-director-url",
        "directorURL changed",
        url("directorURL"),
        default="https://director.invalid/",
    ),
    ConfigurationResult(
        "other-connector-url",
        "certificateSecuredConnectorURL changed",
        url("certificateSecuredConnectorURL"),
        default="https://connector.invalid/connector/graphql",
    ),
    ConfigurationResult(
        "connector-url-bad-name",
        "certificateSecuredConnectorURL has a host name that IDNA forbids",
        fixed_url("certificateSecuredConnectorURL", "https://xn--a/connector/graphql"),
    ),
    ConfigurationResult(
        "connector-url-port-0",
        "certificateSecuredConnectorURL has port 0",
        fixed_url("certificateSecuredConnectorURL", "https://127.0.0.1:0/connector/graphql"),
    ),
    ConfigurationResult(
        "connector-url-unreachable",
        "nothing listens at certificateSecuredConnectorURL",
        fixed_url("certificateSecuredConnectorURL", "https://127.0.0.1:1/connector/graphql"),
    ),
    ConfigurationResult(
        "connector-url-not-https",
        "certificateSecuredConnectorURL begins with http",
        fixed_url("certificateSecuredConnectorURL", "http://127.0.0.1/connector/graphql"),
    ),
    ConfigurationResult(
        "connector-url-nonsense",
        "certificateSecuredConnectorURL is no URL",
        fixed_url("certificateSecuredConnectorURL", "https://[::1/connector graphql"),
    ),
    ConfigurationResult(
        "other-key-algorithm", "keyAlgorithm is this", other_key_algorithm, default="ecdsa-p256"
    ),
    ConfigurationResult(
        "odd-subject",
        "the subject is this text ({cn} and {subject} are filled in)",
        given_subject,
        default="CN={cn}",
    ),
    ConfigurationResult("subject-empty", "the subject is empty", subject("")),
    ConfigurationResult(
        "subject-reordered",
        "legal: the order of the schema's comment",
        subject("OU=OrgUnit,O=Org,L=locality,ST=province,C=DE,CN={cn}"),
    ),
    ConfigurationResult("subject-without-cn", "no CN", subject("O=Org,OU=OrgUnit,C=DE")),
    ConfigurationResult(
        "subject-other-cn",
        "another client's CN",
        subject("O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN=00000000-0000-4000-8000-000000000000"),
    ),
    ConfigurationResult("subject-twice", "every key twice", subject("{subject},{subject}")),
    ConfigurationResult("subject-control-characters", "escapes in it", subject("O=\x1b[31m\r\n,CN={cn}")),
    ConfigurationResult("subject-very-long", "a hundred thousand characters", subject("O=" + "x" * 100_000)),
)
