"""Work that is cheaper together: queries, searches and feedback that wait at the same time."""
