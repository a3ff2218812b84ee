"""OCI images that carry a virtual machine's disk, and the registries that hold them."""
