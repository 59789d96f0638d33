"""The command line: everything but `serve`, which starts without loading it."""
