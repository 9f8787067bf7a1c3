"""The program that puts certificates into service, with real openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from roles.nginx.files import nginx_certificate as program

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture
def place(tmp_path: Path) -> program.Place:
    home = tmp_path / "tls"
    home.mkdir()
    test = tmp_path / "nginx-test"
    test.write_text("#!/bin/sh\n! grep -q REFUSE \"$1\" || { echo 'nginx: [emerg] no' >&2; exit 1; }\n")
    test.chmod(0o755)
    conf = tmp_path / "nginx.conf"
    conf.write_text(f"ssl_certificate {home}/current/fullchain.pem;\n")
    return program.Place(home=home, conf=conf, test=test, group=None)


def made(folder: Path, name: str, *options: str, days: int = 90) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    paths = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        [*command, "-subj", f"/CN={name}", "-days", str(days), *options, *paths], check=True, capture_output=True
    )
    return certificate, key


def served(place: program.Place) -> str:
    return str(program.serial(place.current / "fullchain.pem"))


def test_a_self_signed_certificate_is_made_once(place: program.Place, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["selfsigned", "--days", "90", "--renew-days", "30", "localhost", "127.0.0.1", "::1", "app.example.org"]
    assert program.main(command, place) == 0
    first = served(place)
    assert capsys.readouterr().out == f"installed {first}\n"
    assert program.main(command, place) == 0
    assert capsys.readouterr().out == "unchanged\n"
    assert served(place) == first
    certificate = place.current / "fullchain.pem"
    assert program.names_of(certificate) == {"localhost", "127.0.0.1", "::1", "app.example.org"}
    text = program.openssl("x509", "-noout", "-text", "-in", certificate)
    assert text.count("X509v3 Basic Constraints") == 1
    assert "CA:FALSE" in text
    assert "TLS Web Server Authentication" in text
    assert (place.current / "privkey.pem").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(("renew_days", "names"), [("91", ["localhost"]), ("30", ["localhost", "new.example.org"])])
def test_a_self_signed_certificate_is_made_anew(place: program.Place, renew_days: str, names: list[str]) -> None:
    assert program.main(["selfsigned", "--days", "90", "--renew-days", "30", "localhost"], place) == 0
    first = served(place)
    assert program.main(["selfsigned", "--days", "90", "--renew-days", renew_days, *names], place) == 0
    assert served(place) != first


def test_a_certificate_in_service_is_left_when_only_a_stopgap_is_asked_for(
    place: program.Place, tmp_path: Path
) -> None:
    program.install(place, *made(tmp_path, "given"))
    first = served(place)
    assert program.main(["selfsigned", "--days", "90", "--renew-days", "30", "--when-missing", "localhost"], place) == 0
    assert served(place) == first


def test_a_pair_is_installed_once_and_two_are_kept(place: program.Place, tmp_path: Path) -> None:
    pairs = [made(tmp_path, f"host{number}") for number in range(4)]
    for pair in pairs:
        assert program.install(place, *pair)
        assert not program.install(place, *pair)
    assert served(place) == program.serial(pairs[-1][0])
    assert len([folder for folder in place.home.iterdir() if folder.is_dir() and not folder.is_symlink()]) == 2


def test_wrong_pairs_are_refused_with_the_reason(place: program.Place, tmp_path: Path) -> None:
    good = made(tmp_path, "good")
    other = made(tmp_path, "other")
    program.install(place, *good)
    in_service = served(place)
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", other[1], "-aes256", "-passout", "pass:secret", "-out", locked],
        check=True,
        capture_output=True,
    )
    old, old_key = made(tmp_path, "old", days=1)
    wrong = {
        "does not belong to the certificate": (other[0], good[1]),
        "is not an unencrypted PEM key": (other[0], locked),
        "is not a PEM certificate": (other[1], other[1]),
        "there is no key at": (other[0], tmp_path / "missing.key"),
    }
    for reason, pair in wrong.items():
        with pytest.raises(program.CertificateError, match=reason):
            program.install(place, *pair)
    assert program.valid_for(old, 0)
    assert not program.valid_for(old, 2 * program.DAY)
    assert served(place) == in_service
    assert old_key.is_file()


def test_an_expired_certificate_is_refused(
    place: program.Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = made(tmp_path, "old", days=1)
    monkeypatch.setattr(program, "valid_for", lambda _certificate, _seconds: False)
    with pytest.raises(program.CertificateError, match=r"has expired .notAfter=.*give a new one"):
        program.install(place, *pair)


def test_what_nginx_refuses_is_not_put_into_service(
    place: program.Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program.install(place, *made(tmp_path, "good"))
    in_service = served(place)
    with place.conf.open("a") as conf:
        conf.write("REFUSE\n")
    certificate, key = made(tmp_path, "new")
    assert program.main(["install", str(certificate), str(key)], place) == 1
    said = capsys.readouterr().err
    assert "nginx refuses the certificate, the old one stays in service" in said
    assert "nginx: [emerg] no" in said
    assert served(place) == in_service
    assert len([folder for folder in place.home.iterdir() if folder.is_dir() and not folder.is_symlink()]) == 1


def test_stapling_is_on_only_when_a_responder_is_named(place: program.Place, tmp_path: Path) -> None:
    program.install(place, *made(tmp_path, "plain"))
    assert "ssl_stapling" not in (place.current / "stapling.conf").read_text()
    responder = "authorityInfoAccess=OCSP;URI:http://ocsp.example.org"
    program.install(place, *made(tmp_path, "stapled", "-addext", responder))
    said = (place.current / "stapling.conf").read_text()
    assert "# responder: http://ocsp.example.org\nssl_stapling on;\n" in said
