"""The steps of the lifecycle, one module each: when it is due, its activity, what its result changes.

`plan` lists them in order for each intent. CONTRIBUTING.md has the recipe for a new step.
"""
