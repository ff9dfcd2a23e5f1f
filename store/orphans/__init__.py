"""Claims on listed resources, and sightings of orphans."""
