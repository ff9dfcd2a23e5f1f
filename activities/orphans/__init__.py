"""The orphan sweep: lists what carries our tags, and ends what nothing claims."""
