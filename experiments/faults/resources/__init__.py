"""A resource runs out, or goes wrong: room on a disk, descriptors, memory, the clock."""
