#!/bin/sh
# Runs once, when PostgreSQL's volume is empty: Onebox's own role and database beside Temporal's.
set -eu
psql --set ON_ERROR_STOP=1 --set password="${ONEBOX_DATABASE_PASSWORD}" --username "${POSTGRES_USER}" <<'SQL'
CREATE ROLE onebox LOGIN PASSWORD :'password';
CREATE DATABASE onebox OWNER onebox;
SQL
