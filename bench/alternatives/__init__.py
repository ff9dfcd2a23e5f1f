"""Alternative designs that a competent team could build; the incident benchmark runs them."""
