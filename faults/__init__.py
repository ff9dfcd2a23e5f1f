"""The fault campaign: the whole stack under faults of every kind, judged by what really happened.

Nothing of it is part of a production image; its judges import nothing of the product.
"""
