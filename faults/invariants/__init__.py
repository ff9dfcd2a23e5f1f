"""What judges a campaign: functions from what really happened to violations of I1 to I12.

Nothing here, and nothing that it imports, is the product's: a mistake in its rules must not be made twice.
"""
