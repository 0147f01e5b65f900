"""Reports of rows that left a table as files, or came in."""
