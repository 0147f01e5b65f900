"""Questions in, answers out: models, versions, answers. Knows no HTTP."""
