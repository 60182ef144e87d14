"""`./scripts/bench`: the app, as in production and with every feature on, beside the servers it is compared with."""
