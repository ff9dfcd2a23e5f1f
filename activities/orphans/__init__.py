"""The orphan sweep: finds and terminates resources that no generation owns."""
