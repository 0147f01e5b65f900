"""Commands that take rows out of a table as files, and in again."""
