"""Choose among the documents of a source: without duplicates, a sample, a limit.

Whether a document is taken depends on the whole source. So a run surveys new and changed files
before it cuts them into units, and keeps with the lake what it needs to choose again.
"""
