"""What of this machine's ways to an index is handed to a container, and what is not shown."""

from pathlib import Path

import pytest

from harness.containers.index_access import Access, access, pip_settings
from harness.errors import ImageError
from harness.project.needs import Mount


def of(
    folder: Path, pip: dict[str, str] | None = None, environment: dict[str, str] | None = None, *variables: str
) -> Access:
    certificates = folder / "authorities.pem"
    certificates.write_text("the company's\n")
    return access({"cert": str(certificates), **(pip or {})}, environment or {}, variables)


def conf(found: Access) -> list[str]:
    return found.files["pip.conf"].decode().splitlines()


def exported(found: Access) -> set[str]:
    return set(found.files["environment.sh"].decode().splitlines())


def test_index_and_certificates_are_those_of_pip(tmp_path: Path) -> None:
    pip = {"index-url": "https://mirror.example/simple", "trusted-host": "a\nb", "user": "true", "target": "/x"}
    found = of(tmp_path, pip)
    assert conf(found) == [
        "[global]",
        "cert = /harness-build/certificates.pem",
        "index-url = https://mirror.example/simple",
        "trusted-host = a",
        "    b",
    ]
    assert found.files["certificates.pem"] == b"the company's\n"
    assert {
        "export PIP_CONFIG_FILE=/harness-build/pip.conf",
        "export SSL_CERT_FILE=/harness-build/certificates.pem",
        "export REQUESTS_CA_BUNDLE=/harness-build/certificates.pem",
    } <= exported(found)
    assert (found.on_host, found.secrets) == (False, ())


def test_what_only_uv_was_told_pip_is_told_too(tmp_path: Path) -> None:
    uv = {"UV_DEFAULT_INDEX": "https://mirror.example/simple", "UV_INDEX": "own=https://own.example/simple"}
    assert "index-url = https://mirror.example/simple" in conf(of(tmp_path, environment=uv))
    assert "extra-index-url = https://own.example/simple" in conf(of(tmp_path, environment=uv))
    pip = {"index-url": "https://pips.example/simple"}
    assert "index-url = https://pips.example/simple" in conf(of(tmp_path, pip, uv))


def test_proxies_and_named_variables_are_exported_and_no_others(tmp_path: Path) -> None:
    environment = {"https_proxy": "http://proxy.example:3128", "TOKEN": "it's", "PASSWORD": "other"}
    lines = exported(of(tmp_path, {}, environment, "TOKEN"))
    assert "export https_proxy=http://proxy.example:3128" in lines
    assert """export TOKEN='it'"'"'s'""" in lines
    assert not any("PASSWORD" in line for line in lines)


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    pip = {"index-url": "https://me:hush@mirror.example/simple", "extra-index-url": "https://token@own.example"}
    found = of(tmp_path, pip, {"KEY": "variable"}, "KEY")
    assert found.masked("hush, token and variable") == "****, **** and ****"


@pytest.mark.parametrize(
    ("address", "on_host"),
    [
        ("http://localhost:3141/root/pypi", True),
        ("http://me:hush@127.0.0.1/simple", True),
        ("http://[::1]:8080", True),
        ("https://localhost.example/simple", False),
        ("https://own.example/127.0.0.1/", False),
    ],
)
def test_an_index_on_this_machines_loopback_is_reached_from_its_own_network(
    tmp_path: Path, address: str, *, on_host: bool
) -> None:
    assert of(tmp_path, {"extra-index-url": address}).on_host is on_host
    assert of(tmp_path, environment={"HTTPS_PROXY": address}).on_host is on_host
    # Where no proxy is used, nobody has to be reached.
    assert not of(tmp_path, environment={"NO_PROXY": address}).on_host


def test_folders_of_packages_are_mounted_and_missing_ones_passed_over(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    links = f"{tmp_path}/wheels\n{tmp_path}/gone\nhttps://links.example/x.html\nfile://{tmp_path}/wheels"
    found = of(tmp_path, {"find-links": links})
    assert found.mounts == (
        Mount(host=tmp_path / "wheels", inside="/harness-links-0"),
        Mount(host=tmp_path / "wheels", inside="/harness-links-1"),
    )
    assert conf(found)[2:] == [
        "find-links = /harness-links-0",
        "    https://links.example/x.html",
        "    /harness-links-1",
    ]


def test_a_login_in_a_netrc_is_handed_over(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine own.example login me password hush\n")
    found = of(tmp_path, environment={"HOME": str(tmp_path)})
    assert b"hush" in found.files["netrc"]
    assert "export NETRC=/harness-build/netrc" in exported(found)


def test_a_file_or_a_variable_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"pip's cert is /gone\.pem, which cannot be read: No such file"):
        access({"cert": "/gone.pem"}, {})
    with pytest.raises(ImageError, match=r"SSL_CERT_FILE is /gone\.pem, which cannot be read"):
        access({}, {"SSL_CERT_FILE": "/gone.pem"})
    with pytest.raises(ImageError, match=r"refer to \$\{TOKEN\}, which is not set"):
        of(tmp_path, {}, {}, "TOKEN")


def test_pips_own_files_are_read_by_pip_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://weak.example\ntimeout = 7\n[install]\nfind-links =\n    /a\n    /b\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_INDEX_URL", "https://strong.example")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    found = pip_settings()
    assert (found["index-url"], found["timeout"]) == ("https://strong.example", "7")
    assert found["find-links"].split() == ["/a", "/b"]
    (tmp_path / "pip.conf").write_text("index-url = https://weak.example\n")
    with pytest.raises(ImageError, match="pip cannot tell its configuration"):
        pip_settings()
