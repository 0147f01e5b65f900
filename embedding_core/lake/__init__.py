"""The lake: everything Lance and LanceDB. Tables, atomic commits, indexes, search, ledger."""
