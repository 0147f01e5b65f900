"""What one can do around embedlake, as scripts to read and to change."""
