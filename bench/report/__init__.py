"""Tables, plots and the page, made from results."""
