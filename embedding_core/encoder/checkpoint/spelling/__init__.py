"""What a tokenizer makes of characters and words that were met before."""
