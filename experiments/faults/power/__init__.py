"""Power is lost amid a run: the states in which a disk may be found then."""
