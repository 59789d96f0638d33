"""Pure: no I/O, no clock. Values in, values or errors of `compass_sidecar.errors` out."""
