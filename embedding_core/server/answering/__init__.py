"""Questions in, answers out: models, batches, versions, feedback. Knows no HTTP."""
