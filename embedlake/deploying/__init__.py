"""What ``embedlake deploy`` makes in Prefect: read what is wished, compare, say it, do it."""
