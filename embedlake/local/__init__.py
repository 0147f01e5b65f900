"""The local stack, and what this machine has."""
