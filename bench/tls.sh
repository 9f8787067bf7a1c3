#!/usr/bin/env bash
# Rates the TLS of a host with testssl.sh and fails on any finding above LOW.
#
#   bench/tls.sh                           the host of `make up-local`
#   bench/tls.sh https://app.example.org   another one
#
# A self-signed certificate is no finding: it is trusted for this run, and nobody could revoke it. Nothing else is excused.
# testssl.sh 3.2 gives a grade (Debian 13: apt install testssl.sh); where this machine has none or an older
# one, Debian's is run in a throw-away container of the image that scripts/base-image builds.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

url=${1:-https://127.0.0.1:${PERGOLA_HTTPS_PORT:-8443}/}
target=${url#https://}
target=${target%%/*}
[[ $target == *:* ]] || target+=:443

say() { printf 'tls: %s\n' "$*" >&2; }
die() {
  printf 'tls: %s\n' "$@" >&2
  exit 1
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if ! openssl s_client -connect "$target" -servername "${target%:*}" </dev/null >"$scratch/said" 2>&1 ||
  ! openssl x509 -in "$scratch/said" -out "$scratch/certificate.pem"; then
  die "$target does not speak TLS: $(tail -n 1 "$scratch/said")" 'Is the host up? Start it with: make up-local'
fi
options=(--quiet --color 0 --warnings off --jsonfile /scratch/findings.json --logfile /scratch/log.txt)
excused=
subject=$(openssl x509 -noout -subject -nameopt RFC2253 -in "$scratch/certificate.pem")
issuer=$(openssl x509 -noout -issuer -nameopt RFC2253 -in "$scratch/certificate.pem")
if [[ ${subject#subject=} == "${issuer#issuer=}" ]]; then
  say 'the certificate is self-signed: trusted for this run'
  options+=(--add-ca /scratch/certificate.pem)
  excused=cert_revocation
fi

program=$(command -v testssl || command -v testssl.sh || printf '')
version=$([[ -z $program ]] || "$program" --version 2>/dev/null | sed -n 's/.*testssl[^0-9]* \([0-9]*\.[0-9]*\).*/\1/p' | head -n 1)
say "testing $target (two to four minutes)"
# testssl.sh exits with the number of its findings: what counts is what it wrote
if [[ -n $version && $(printf '%s\n' 3.2 "$version" | sort -V | head -n 1) == 3.2 ]]; then
  "$program" "${options[@]//\/scratch/$scratch}" "$target" >"$scratch/output" 2>&1 && status=0 || status=$?
else
  command -v docker >/dev/null || die 'there is neither testssl.sh 3.2 nor docker.' 'Debian 13: apt install testssl.sh'
  docker run --rm --network host --volume "$scratch:/scratch" "$(scripts/base-image trixie)" sh -euc '
    apt-get update -q >/scratch/apt 2>&1
    apt-get install -qy --no-install-recommends testssl.sh bsdextrautils dnsutils >>/scratch/apt 2>&1
    exec testssl "$@"' sh "${options[@]}" "$target" >"$scratch/output" 2>&1 && status=0 || status=$?
fi
[[ -s $scratch/findings.json ]] || {
  cat "$scratch/output" >&2
  die "testssl.sh found nothing at all (status $status); its output is above."
}

python3 - "$scratch/findings.json" "$excused" <<'END'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    findings = json.load(file)
if not isinstance(findings, list) or not any(entry["id"] == "TLS1_3" for entry in findings):
    sys.exit("tls: testssl.sh did not finish: no finding about TLS 1.3")
by_id = {entry["id"]: entry["finding"] for entry in findings}
print(f"{'SEVERITY':<10}{'FINDING':<28}WHAT")
for entry in findings:
    if entry["severity"] not in ("OK", "INFO", "DEBUG"):
        print(f"{entry['severity']:<10}{entry['id']:<28}{entry['finding']}")
for name in ("overall_grade", "final_score"):
    print(f"{name.replace('_', ' ')}: {by_id.get(name, 'none given')}")
bad = [
    entry["id"]
    for entry in findings
    if entry["severity"] in ("MEDIUM", "HIGH", "CRITICAL", "FATAL") and entry["id"] != sys.argv[2]
]
sys.exit(f"tls: above LOW: {', '.join(bad)}" if bad else 0)
END
