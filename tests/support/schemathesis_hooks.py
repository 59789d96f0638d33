"""For schemathesis: what it must not ask for, and what more it must not get."""

from typing import Any

import schemathesis

SHORT = {"wait": "50ms"}


@schemathesis.check
def no_mistake(_context: Any, response: Any, _case: Any) -> None:
    """500 is described, as it may always happen; it must not."""
    assert response.status_code != 500, response.text


@schemathesis.hook
def map_query(_context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """A good `wait` is a short one, or a run of thousands would never end; a bad one stays as it is."""
    if query and isinstance(query.get("wait"), str) and query["wait"][-1:] in {*"0123456789dhms"}:
        return {**query, **SHORT}
    return query
