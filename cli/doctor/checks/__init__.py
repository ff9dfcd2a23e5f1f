"""What a fact seen by the doctor means: pure functions from facts to findings."""
