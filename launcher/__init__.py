"""One virtual machine on one host."""
