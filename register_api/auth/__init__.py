"""Who a caller is and what it may do: credentials, identity, decision tables, audit."""
