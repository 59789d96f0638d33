"""The local HTTP API: `application.create_api` builds it; `ports` is all that it knows of the sidecar."""
