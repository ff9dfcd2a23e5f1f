"""Fault injection: runs the whole stack under faults of every kind and checks the invariants.

Not part of a production image. The checks of `invariants` import nothing of the product.
"""
