"""The three loops that everyone reads: `offline`, `online`, `select`."""
