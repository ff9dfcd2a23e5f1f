"""PostgreSQL: the schema, its migrations, and all SQL. Imports neither Temporal nor HTTP."""
