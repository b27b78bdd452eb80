#!/bin/sh
# Starts PostgreSQL as the official image does, with the shell's builtins only: there is no other
# program in this image. Honours POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB,
# POSTGRES_HOST_AUTH_METHOD, POSTGRES_INITDB_ARGS and PGDATA.
# Left out: _FILE variants and scripts in /docker-entrypoint-initdb.d.
set -eu

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
password=${POSTGRES_PASSWORD:-}
method=${POSTGRES_HOST_AUTH_METHOD:-}

refuse() {
	printf '%s\n' "$1" >&2
	exit 1
}

make_cluster() {
	# shellcheck disable=SC2086 # the words of the variable are arguments
	initdb --username="$user" --encoding=UTF8 --locale=C --no-sync "$@" \
		${POSTGRES_INITDB_ARGS:-} >&2
}

initialise() {
	case "$database" in
	*\"*) refuse 'POSTGRES_DB must not hold a double quote' ;;
	esac
	if [ -n "$password" ]; then
		printf '%s\n' "$password" | make_cluster --pwfile=/dev/stdin
	elif [ "$method" = trust ]; then
		make_cluster
	else
		refuse 'set POSTGRES_PASSWORD, or POSTGRES_HOST_AUTH_METHOD=trust to let everybody in'
	fi
	printf '\nhost all all all %s\n' "${method:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
	printf "\nlisten_addresses = '*'\n" >>"$PGDATA/postgresql.conf"
	if [ "$database" != postgres ]; then
		printf 'create database "%s"\n' "$database" | postgres --single postgres >/dev/null
	fi
}

[ $# -gt 0 ] || set -- postgres
case "$1" in
-*) set -- postgres "$@" ;;
postgres) ;;
*) exec "$@" ;;
esac

[ -s "$PGDATA/PG_VERSION" ] || initialise
exec "$@"
