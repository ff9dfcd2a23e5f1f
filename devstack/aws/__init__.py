"""A local AWS endpoint: moto, with a layer for EC2 and Route 53 behaviour that moto lacks.

This package imports nothing, so that the client does not load moto.
"""
