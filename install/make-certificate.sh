#!/bin/sh
# A certificate for a staging service, signed by itself, good for ten years:
#
#   ./make-certificate.sh DIR NAME-OR-ADDRESS...     e.g. make-certificate.sh /etc/understudy staging.lan 10.0.0.5
#
# It is also good for operators on the machine itself (localhost). DIR/staging.pem and DIR/staging.key are for
# staging (tls-cert, tls-key); agents and operators get a copy of DIR/staging.pem as their --ca. Where you have
# an authority of your own, use that instead.
set -eu
[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
folder=$1
shift
[ ! -e "$folder/staging.key" ] || { echo "error: $folder/staging.key is there already" >&2 && exit 1; }
names=
for name in "$@" localhost 127.0.0.1; do
  case $name in
    *[!0-9.]*:* | *:*:*) names="$names,IP:$name" ;;
    *[!0-9.]*) names="$names,DNS:$name" ;;
    *) names="$names,IP:$name" ;;
  esac
done
umask 077
said=$(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
  -subj "/CN=$1" -addext "subjectAltName=${names#,}" \
  -keyout "$folder/staging.key" -out "$folder/staging.pem" 2>&1) || {
  rm -f "$folder/staging.key" "$folder/staging.pem"
  printf 'error: openssl: %s\n' "$said" >&2
  exit 1
}
chmod 644 "$folder/staging.pem"
if grep -q '^understudy:' /etc/passwd && [ "$(id -u)" = 0 ]; then
  chown understudy: "$folder/staging.key"
fi
echo "$folder/staging.pem (also the --ca of agents and operators), $folder/staging.key"
