"""What the comparison with peers is made of: files, peers, steps, and an oracle."""
