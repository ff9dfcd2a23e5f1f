"""Settings of the processes, read from the environment and nowhere else."""
