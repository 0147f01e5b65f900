"""What ``embedlake doctor`` checks; each check says what it saw, or raises with what to do."""
