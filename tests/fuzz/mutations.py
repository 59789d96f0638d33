"""Good bytes with a few bad edits: deeper in a parser than bytes from nothing ever get."""

from hypothesis import strategies as st

_EDITS = st.tuples(
    st.sampled_from(["set", "insert", "delete", "repeat", "cut"]),
    st.integers(0, 2**20),
    st.integers(1, 64),
    st.binary(min_size=1, max_size=8),
)


def mutated(seed: bytes, *, edits: int = 6) -> st.SearchStrategy[bytes]:
    """The seed after none to `edits` edits, each at any place."""
    return st.lists(_EDITS, max_size=edits).map(lambda chosen: _apply(seed, chosen))


def _apply(seed: bytes, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    data = bytearray(seed)
    for kind, where, length, new in edits:
        at = where % (len(data) + 1)
        if kind == "set":
            data[at : at + len(new)] = new
        elif kind == "insert":
            data[at:at] = new
        elif kind == "delete":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length]
        else:
            del data[at:]
    return bytes(data)
