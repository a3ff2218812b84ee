"""The control plane; the only package that knows Kubernetes."""
