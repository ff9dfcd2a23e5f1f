"""The benchmarks: the product compared with the ceilings of its parts and with alternative designs.

No other package imports it. It starts the product with the usual commands.
"""
