"""PostgreSQL: the schema, its migrations, and all SQL. Knows neither Temporal nor HTTP."""
