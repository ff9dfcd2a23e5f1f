"""The user data of a box: the bootstrap script and its rendering."""
