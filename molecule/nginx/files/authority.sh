#!/bin/sh
# A certificate authority for the tests: it signs the ACME server's own certificate, and one for this host that names an OCSP responder.
set -eu
cd /etc/acme-test
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=Test authority" -keyout ca.key -out ca.pem
issue() { # name, subject alternative names, more extensions
  openssl req -new -newkey rsa:2048 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr"
  printf 'subjectAltName=%s\n%s\n' "$2" "$3" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 20 -extfile "$1.ext" -out "$1.pem"
}
issue pebble DNS:localhost,IP:127.0.0.1 ""
issue given DNS:app.test,DNS:localhost "authorityInfoAccess=OCSP;URI:http://127.0.0.1:2560"
cat given.pem ca.pem >given-chain.pem
printf 'V\t%s\t\t%s\tunknown\t/CN=given\n' "$(date -u -d '+20 days' +%y%m%d%H%M%SZ)" "$(openssl x509 -noout -serial -in given.pem | cut -d= -f2)" >index.txt
cp ca.pem /usr/local/share/ca-certificates/test-authority.crt
update-ca-certificates
cat >pebble.json <<'END'
{"pebble": {
  "listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
  "certificate": "/etc/acme-test/pebble.pem", "privateKey": "/etc/acme-test/pebble.key",
  "httpPort": 80, "tlsPort": 443, "externalAccountBindingRequired": false
}}
END
grep -q app.test /etc/hosts || echo 127.0.0.1 app.test >>/etc/hosts
# Pebble forgets its accounts when it ends; certbot would go on with one that nobody knows.
rm -rf /etc/letsencrypt/accounts
systemctl restart pebble.service ocsp.service
