"""The steps of a workspace, one module each: when it is due, its activity, what its result changes."""
