#!/bin/sh
# Creates Onebox's role and database. PostgreSQL runs it once, when its volume is empty.
set -eu
psql --set ON_ERROR_STOP=1 --set password="${ONEBOX_DATABASE_PASSWORD}" --username "${POSTGRES_USER}" <<'SQL'
CREATE ROLE onebox LOGIN PASSWORD :'password';
CREATE DATABASE onebox OWNER onebox;
SQL
