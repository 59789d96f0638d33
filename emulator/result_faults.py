"""Odd `configuration` results: null objects, an empty token, subjects that do not parse.

Each takes the honest result and the parameter, and returns what the resolver answers.
"""

from collections.abc import Callable
from typing import Any

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
    """Any text; `{cn}` stands for the client id, `{subject}` for the honest subject."""
    honest = result[_INFO]["subject"]
    text = param.replace("{cn}", honest.rpartition("CN=")[2]).replace("{subject}", honest)
    return {**result, _INFO: {**result[_INFO], "subject": text}}


def subject(text: str) -> Change:
    """A fixed form of `given_subject`."""
    return lambda result, _param: given_subject(result, text)
