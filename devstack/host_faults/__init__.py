"""No code of the devstack's own processes: see `sitecustomize`."""
