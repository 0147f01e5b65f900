"""The lake is in a bucket, and requests to the store are harmed."""
