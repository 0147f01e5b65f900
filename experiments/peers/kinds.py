"""What can be wrong with a table, in the words that results count it by."""

MISSING, TWICE, STALE, OTHER_VECTOR = "missing", "twice", "stale", "another vector"
FAILS_AGAIN = "the same command fails"
"""And nothing heals."""
KINDS_OF_WRONG = (MISSING, TWICE, STALE, OTHER_VECTOR, FAILS_AGAIN)
UNTRUE = "said done when it was not"
TORN = "a reader could see a file that is not whole"
"""In a version of the table that a reader could open."""
