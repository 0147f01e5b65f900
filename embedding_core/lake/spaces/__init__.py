"""Vector columns of several spaces: added, filled, switched, retired."""
