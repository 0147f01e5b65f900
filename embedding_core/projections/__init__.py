"""Vectors in a plane, and what can be read off them. Knows numpy, neither a table nor a model."""
