"""Filling volumes with disks, on a laptop and in a worker pod alike."""
