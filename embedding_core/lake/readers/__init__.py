"""What readers of hits want beside them: the documents, and a place to say what they think."""
