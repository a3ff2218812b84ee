"""Disk images as files: what they are, whether they are safe, and how to change them. No network, no Kubernetes."""
