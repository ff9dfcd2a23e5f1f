"""What a competent team would build instead, and the incident as each of them lives through it."""
