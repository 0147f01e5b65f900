"""A process is killed, at a change of a file or at a moment, and the same work is done again."""
