"""One module for each figure that is measured."""
