"""Reports of how fast models and engines are."""
