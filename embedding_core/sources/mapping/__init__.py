"""From raw records to validated documents: maps, conversations, ids, texts, metadata."""
