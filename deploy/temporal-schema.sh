#!/bin/sh
# Creates Temporal's databases and migrates their schemas. Safe to run again.
# Environment: POSTGRES_SEEDS (host), POSTGRES_USER, SQL_PASSWORD. Steps as in Temporal's own compose samples.
set -eu
for pair in temporal:temporal temporal_visibility:visibility; do
  database=${pair%%:*} schema=${pair##*:}
  tool="temporal-sql-tool --plugin postgres12 --ep ${POSTGRES_SEEDS} -p 5432 -u ${POSTGRES_USER} --db ${database}"
  $tool create
  $tool setup-schema -v 0.0 || echo "the schema of ${database} is set up already"
  $tool update-schema -d "/etc/temporal/schema/postgresql/v12/${schema}/versioned"
done
