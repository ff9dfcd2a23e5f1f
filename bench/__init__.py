"""The benchmarks: the product compared with the ceilings of its parts and with a plain script.

No other package imports it. It starts the product with the usual commands.
"""
