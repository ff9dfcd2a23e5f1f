"""An AWS endpoint on this machine: moto, with a layer of ours for what EC2 and Route 53 do and moto doesn't.

Nothing is imported here: the client must not load moto.
"""
