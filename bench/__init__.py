"""The benchmarks: how far the product is from what the parts under it could do, and what rivals would cost.

Nobody imports it. It changes nothing of the product, and starts it as anyone would.
"""
