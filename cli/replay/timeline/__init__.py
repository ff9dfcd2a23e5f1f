"""The story of a workspace, told from its history: what was asked, what was done, why it took that long.

Reads values and makes text; it fetches nothing, replays nothing and decides nothing.
"""
