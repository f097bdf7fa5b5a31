#!/bin/sh
# Write redis.acl, with the passwords' hashes in it, as Redis reads it. Passwords: $REDIS_PASSWORD_<ROLE>.
# Usage: redis-acl.sh [7.0]  (Redis 7.0 does not start on a file with commands that came later: they are left out)
set -eu

case "${1:-}" in
  "") later='' ;;
  7.0) later='s/ +client|setinfo//; s/ +waitaof//' ;;
  *) echo "usage: redis-acl.sh [7.0], got $1" >&2; exit 1 ;;
esac

hash() {
  [ -n "$2" ] || { echo "REDIS_PASSWORD_$1 is empty: every role needs a password" >&2; exit 1; }
  printf '#%s' "$(printf %s "$2" | sha256sum | cut -c 1-64)"
}

admin=$(hash ADMIN "${REDIS_PASSWORD_ADMIN:-}")
intake=$(hash INTAKE "${REDIS_PASSWORD_INTAKE:-}")
worker=$(hash WORKER "${REDIS_PASSWORD_WORKER:-}")
producer=$(hash PRODUCER "${REDIS_PASSWORD_PRODUCER:-}")
readonly=$(hash READONLY "${REDIS_PASSWORD_READONLY:-}")

sed -e '/^#/d' -e '/^$/d' "$(dirname "$0")/redis.acl" | sed -e ':join' -e '/\\$/N' -e 's/\\\n */ /' -e 't join' |
  sed -e "s/<admin>/$admin/" -e "s/<intake>/$intake/" -e "s/<worker>/$worker/" -e "s/<producer>/$producer/" \
    -e "s/<readonly>/$readonly/" -e "$later"
