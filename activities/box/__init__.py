"""What goes onto a box: a script that nothing of this project is imported by."""
