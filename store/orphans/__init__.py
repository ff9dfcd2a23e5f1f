"""What the record claims of listed resources, and the orphans seen so far."""
