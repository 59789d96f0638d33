"""compass-sidecar: holds, renews and serves a Compass client certificate."""

__version__ = "0.1.0"
