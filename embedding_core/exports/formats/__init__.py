"""One exporter per format of shards."""
