"""The engine: the only code that changes the credential. It does no I/O of its own."""
