#!/usr/bin/python3
"""Put a certificate into service for nginx: check it, test nginx with it, and only then switch to it.

nginx-certificate selfsigned --days 397 --renew-days 30 [--when-missing] NAME...
nginx-certificate install CERTIFICATE KEY
nginx-certificate renewed                              certbot's deploy hook, reads RENEWED_LINEAGE

Each certificate lies in a folder of its own under /etc/nginx/pergola/tls with its key and its stapling.conf; the link `current`
names the one in service, so a certificate and its key change together. Prints `unchanged` or `installed <serial>`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import ipaddress
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HOME = Path("/etc/nginx/pergola/tls")
NGINX_CONF = Path("/etc/nginx/nginx.conf")
NGINX_TEST = Path("/usr/local/lib/pergola/nginx-test")
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
GROUP = "www-data"
DAY = 86400


class CertificateError(Exception):
    """The certificate cannot be put into service; the message names the fix."""


@dataclass(frozen=True)
class Place:
    """Where certificates live, and what is asked before one goes into service."""

    home: Path = HOME
    conf: Path = NGINX_CONF
    test: Path = NGINX_TEST
    group: str | None = GROUP

    @property
    def current(self) -> Path:
        """The link that names the certificate in service."""
        return self.home / "current"


def openssl(*arguments: str | Path) -> str:
    """Run openssl and return what it prints; CertificateError carries its complaint."""
    done = subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise CertificateError(lines[0] if lines else f"openssl {arguments[0]} failed with status {done.returncode}")
    return done.stdout


def valid_for(certificate: Path, seconds: int) -> bool:
    """Tell whether the certificate is still valid in so many seconds."""
    return (
        subprocess.run(
            ["openssl", "x509", "-noout", "-checkend", str(seconds), "-in", certificate],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )


def serial(certificate: Path) -> str:
    """Return the serial number in hexadecimal."""
    return openssl("x509", "-noout", "-serial", "-in", certificate).strip().removeprefix("serial=")


def names_of(certificate: Path) -> set[str]:
    """Return the names and addresses that the certificate is for."""
    text = openssl("x509", "-noout", "-ext", "subjectAltName", "-in", certificate)
    found = set(re.findall(r"DNS:([^,\s]+)", text))
    return found | {str(ipaddress.ip_address(address)) for address in re.findall(r"IP Address:([^,\s]+)", text)}


def check(certificate: Path, key: Path) -> None:
    """Make sure that the certificate can be read, is valid today, and that the key is its key."""
    for path, what in ((certificate, "certificate"), (key, "key")):
        if not path.is_file():
            raise CertificateError(f"there is no {what} at {path}")
    try:
        public = openssl("x509", "-noout", "-pubkey", "-in", certificate)
    except CertificateError as error:
        raise CertificateError(f"{certificate} is not a PEM certificate ({error})") from None
    try:
        of_key = openssl("pkey", "-pubout", "-in", key, "-passin", "pass:")
    except CertificateError as error:
        raise CertificateError(
            f"{key} is not an unencrypted PEM key ({error}); remove a passphrase with: openssl pkey -in KEY -out KEY2"
        ) from None
    if public != of_key:
        raise CertificateError(
            f"the key {key} does not belong to the certificate {certificate}; give the key that the certificate was requested with, "
            "and in a chain put the host's own certificate first"
        )
    if not valid_for(certificate, 0):
        end = openssl("x509", "-noout", "-enddate", "-in", certificate).strip()
        raise CertificateError(f"the certificate {certificate} has expired ({end}); give a new one")


def stapling(certificate: Path) -> str:
    """Return nginx's directives for OCSP stapling: none when the certificate names no responder."""
    responder = openssl("x509", "-noout", "-ocsp_uri", "-in", certificate).split()
    if not responder:
        return "# the certificate names no OCSP responder\n"
    lines = [f"# responder: {responder[0]}", "ssl_stapling on;"]
    if CA_BUNDLE.exists():
        lines += ["ssl_stapling_verify on;", f"ssl_trusted_certificate {CA_BUNDLE};"]
    return "\n".join(lines) + "\n"


def install(place: Place, certificate: Path, key: Path) -> bool:
    """Put the pair into service.

    Returns:
        Whether anything changed.

    Raises:
        CertificateError: The pair is wrong, or nginx refuses it. What was in service stays.
    """
    check(certificate, key)
    files = {
        "fullchain.pem": certificate.read_bytes(),
        "privkey.pem": key.read_bytes(),
        "stapling.conf": stapling(certificate).encode(),
    }
    name = hashlib.sha256(b"\0".join(files[file] for file in sorted(files))).hexdigest()[:16]
    folder = place.home / name
    previous = place.current.readlink().name if place.current.is_symlink() else None
    if previous == name and all((folder / file).is_file() for file in files):
        return False
    with contextlib.ExitStack() as undo:
        if not folder.exists():
            scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=place.home))
            undo.callback(shutil.rmtree, scratch, ignore_errors=True)
            for file, content in files.items():
                (scratch / file).write_bytes(content)
            _give_to_nginx(scratch, place.group)
            scratch.rename(folder)
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
        _ask_nginx(place, folder)
        undo.pop_all()
    link = place.home / ".current"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    link.rename(place.current)
    for old in place.home.iterdir():
        if re.fullmatch(r"[0-9a-f]{16}", old.name) and old.name not in {name, previous}:
            shutil.rmtree(old)
    return True


def _give_to_nginx(folder: Path, group: str | None) -> None:
    for path, mode in ((folder, 0o750), *((file, 0o640) for file in folder.iterdir())):
        if group is not None:
            shutil.chown(path, "root", group)
        path.chmod(mode)


def _ask_nginx(place: Place, folder: Path) -> None:
    """Test the configuration with the new folder in place of the one in service."""
    using = f"{place.current}/"
    if not place.conf.is_file() or using not in (text := place.conf.read_text()):
        return  # nginx is not configured by us yet
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as candidate:
        candidate.write(text.replace(using, f"{folder}/"))
        candidate.flush()
        done = subprocess.run([place.test, candidate.name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CertificateError(f"nginx refuses the certificate, the old one stays in service:\n{done.stderr.strip()}")


def selfsigned(place: Place, names: Sequence[str], days: int, renew_days: int) -> bool:
    """Make a self-signed certificate and put it into service, unless there is one for these names that is good for a while.

    Returns:
        Whether one was made.
    """
    in_service = place.current / "fullchain.pem"
    if in_service.is_file() and _is_good(in_service, set(names), renew_days):
        return False
    with tempfile.TemporaryDirectory(prefix=".made-", dir=place.home) as scratch:
        certificate, key = Path(scratch, "cert.pem"), Path(scratch, "key.pem")
        extensions = (
            f"subjectAltName={','.join(map(_san, names))}",
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature",
            "extendedKeyUsage=serverAuth",
        )
        openssl(
            *("req", "-x509", "-sha256", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-batch"),
            *("-days", str(days), "-subj", "/O=Pergola (self-signed)"),
            *(word for extension in extensions for word in ("-addext", extension)),
            *("-keyout", key, "-out", certificate),
        )
        return install(place, certificate, key)


def _is_good(certificate: Path, names: set[str], days: int) -> bool:
    """Tell whether the certificate is self-signed, for these names, and valid for so many days more."""
    said = openssl("x509", "-noout", "-subject", "-issuer", "-in", certificate).splitlines()
    subject, issuer = (line.partition("=")[2].strip() for line in said)
    return subject == issuer and names_of(certificate) == names and valid_for(certificate, days * DAY)


def _san(name: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


@contextlib.contextmanager
def alone(place: Place) -> Iterator[None]:
    """Keep others (certbot's timer, another run) out meanwhile."""
    with (place.home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None, place: Place | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("selfsigned")
    made.add_argument("names", nargs="+")
    made.add_argument("--days", type=int, required=True)
    made.add_argument("--renew-days", type=int, required=True)
    made.add_argument("--when-missing", action="store_true", help="leave any certificate that is in service")
    given = commands.add_parser("install")
    given.add_argument("certificate", type=Path)
    given.add_argument("key", type=Path)
    commands.add_parser("renewed")
    options = parser.parse_args(arguments)
    place = place or Place()
    try:
        with alone(place):
            if options.command == "selfsigned":
                missing = not (place.current / "fullchain.pem").is_file()
                changed = (missing or not options.when_missing) and selfsigned(
                    place, options.names, options.days, options.renew_days
                )
            elif options.command == "install":
                changed = install(place, options.certificate, options.key)
            else:
                lineage = Path(os.environ["RENEWED_LINEAGE"])
                changed = install(place, lineage / "fullchain.pem", lineage / "privkey.pem")
        if options.command == "renewed":
            subprocess.run(["systemctl", "reload", "nginx.service"], check=True)
    except (CertificateError, OSError, subprocess.CalledProcessError) as error:
        print(f"nginx-certificate: {error}", file=sys.stderr)
        return 1
    print(f"installed {serial(place.current / 'fullchain.pem')}" if changed else "unchanged")
    return 0


if __name__ == "__main__":
    sys.exit(main())
