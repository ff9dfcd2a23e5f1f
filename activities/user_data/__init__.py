"""The user data of a box, and the bootstrap script in it."""
