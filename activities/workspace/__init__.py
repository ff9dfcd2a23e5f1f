"""The steps of a workspace's lifecycle, from enrollment to deletion."""
