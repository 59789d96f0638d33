"""Pure: no I/O, no clock. Values in, values or errors of `app.errors` out."""
