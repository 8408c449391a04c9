"""``metronome dashboards`` installs the dashboards in a fake Kibana, or reports in one line why it cannot."""

import re
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from metronome.cli import app
from metronome.cli.dashboards import (
    KibanaResponse,
    encode_saved_objects,
    load_saved_objects,
    validate_import,
    validate_version,
)
from metronome.errors import ConfigurationError, DashboardsRejected, KibanaAccessDenied
from tests.cli.kibana_server import Kibana, answering, serving
from tests.servers import free_port, run_metronome

ROOT = Path(__file__).parents[2]
OBJECTS = load_saved_objects("metronome")
DASHBOARD_IDS = ("metronome-usage", "metronome-performance", "metronome-health")
SECRET = "c2VjcmV0OnZlcnkgc2VjcmV0"  # noqa: S105  # of the server made here


@pytest.fixture
def kibana() -> Kibana:
    return Kibana()


@pytest.fixture
def url(kibana: Kibana) -> Iterator[str]:
    with serving(kibana.application()) as address:
        yield address


def install(url: str, *options: str, **variables: str) -> Result:
    """Run the command, with variables named without what all begin with."""
    unset = dict.fromkeys(("METRONOME_KIBANA", "METRONOME_INDEX_PREFIX"), "")
    unset |= {f"METRONOME_KIBANA_{name}": "" for name in ("KEY", "USER", "PASSWORD", "CA")}
    given_ones = {f"METRONOME_{name}": value for name, value in variables.items()}
    arguments = ["dashboards", "install", "--kibana", url, *options]
    return CliRunner().invoke(app, arguments, env=unset | given_ones)


def error_message(result: Result, exit_code: int = 2) -> str:
    """Return the error message of a command, which is one line."""
    assert result.exit_code == exit_code
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("metronome dashboards: ")
    return line.removeprefix("metronome dashboards: ")


class TestInstall:
    def test_installs_all_objects_and_prints_the_urls_of_the_dashboards(self, kibana: Kibana, url: str) -> None:
        result = install(url)
        assert (result.exit_code, result.stderr) == (0, "")
        first, *urls = result.stdout.splitlines()
        assert first == (f"installed {len(OBJECTS)} objects for metronome-* in Kibana 8.19.21, with these dashboards:")
        assert urls == [f"  {url}/app/dashboards#/view/{name}" for name in DASHBOARD_IDS]
        assert [*kibana.objects.values()] == OBJECTS
        assert kibana.asked == ["GET /api/status", "POST /api/saved_objects/_import?overwrite=true"]

    def test_replaces_earlier_objects(self, kibana: Kibana, url: str) -> None:
        assert install(url).exit_code == 0
        kibana.objects["default", "metronome-usage"] = {"attributes": {"title": "old"}}
        assert install(url).exit_code == 0
        assert [*kibana.objects.values()] == OBJECTS

    def test_no_overwrite_keeps_earlier_objects(self, url: str) -> None:
        assert install(url, "--no-overwrite").exit_code == 0
        said = error_message(install(url, "--no-overwrite"))
        assert f"imported 0 of {len(OBJECTS)} objects: index-pattern metronome-events (metronome-*): it exists" in said
        assert said.count("use --overwrite") == 5
        assert f"; and {len(OBJECTS) - 5} more; " in said

    def test_uses_the_index_prefix_of_the_server(self, kibana: Kibana, url: str) -> None:
        assert install(url, INDEX_PREFIX="logs-of-mine").exit_code == 0
        assert install(url, "--index-prefix", "other", INDEX_PREFIX="logs-of-mine").exit_code == 0
        assert [*kibana.objects.values()] == load_saved_objects("logs-of-mine") + load_saved_objects("other")
        assert "invalid METRONOME_INDEX_PREFIX 'A*'" in error_message(install(url, "--index-prefix", "A*"))

    def test_accepts_a_url_with_a_path_or_a_trailing_slash(self, kibana: Kibana) -> None:
        with serving(kibana.application()) as address:
            assert install(f"{address}/").exit_code == 0
            assert "is not Kibana: GET /api/status responds 404" in error_message(install(f"{address}/kibana"))

    @pytest.mark.parametrize("version", ["8.15.0", "8.19.21", "9.2.0", "10.0.0-SNAPSHOT"])
    def test_accepts_supported_versions_of_kibana(self, kibana: Kibana, url: str, version: str) -> None:
        kibana.version = version
        assert f"Kibana {version}," in install(url).stdout

    @pytest.mark.parametrize("version", ["8.14.3", "8.9.0", "7.17.29"])
    def test_rejects_old_versions_of_kibana(self, kibana: Kibana, url: str, version: str) -> None:
        kibana.version = version
        message = f"--kibana {url} is Kibana {version}; the dashboards need 8.15 or newer"
        assert error_message(install(url)).startswith(message)
        assert kibana.objects == {}

    def test_fails_if_kibana_rejects_objects_with_status_200(self, kibana: Kibana, url: str) -> None:
        kibana.known["dashboard"] = (10, 1, 0)
        said = error_message(install(url))
        assert f"imported {len(OBJECTS) - 3} of {len(OBJECTS)} objects: " in said
        assert (
            "dashboard metronome-usage (Metronome: usage of items): Document belongs to a more recent version" in said
        )
        del kibana.known["lens"]
        said = error_message(install(url))
        assert "lens metronome-usage-views (Views): this Kibana does not support its type" in said

    def test_fails_if_kibana_imports_fewer_objects_than_sent(self) -> None:
        with pytest.raises(DashboardsRejected, match="imported 3 of 4 objects: no reason given"):
            validate_import("it", KibanaResponse(200, b'{"success":true,"successCount":3}'), 4)


class TestWaiting:
    @pytest.mark.slow
    def test_waits_for_kibana_to_start(self, kibana: Kibana, url: str) -> None:
        kibana.starts = 3
        result = install(url)
        assert result.exit_code == 0
        assert result.stderr == (
            f"metronome dashboards: --kibana {url} is unavailable: 503 Service Unavailable; retrying for up to 60 s\n"
        )
        assert len(kibana.objects) == len(OBJECTS)

    @pytest.mark.slow
    def test_waits_for_kibana_to_be_reachable(self, kibana: Kibana) -> None:
        port, done = free_port(), threading.Event()

        def start_late() -> None:
            time.sleep(0.7)
            with serving(kibana.application(), port):
                done.wait(60)

        late = threading.Thread(target=start_late)
        late.start()
        result = install(f"http://127.0.0.1:{port}")
        done.set()
        late.join()
        assert result.exit_code == 0, result.stderr
        assert "is unavailable" in result.stderr

    def test_fails_after_the_retry_timeout(self, kibana: Kibana, url: str) -> None:
        kibana.starts = 1_000_000
        message = error_message(install(url, "--retry-timeout", "0"), 1)
        assert message.startswith(f"--kibana {url} is unavailable: 503 Service Unavailable; ")
        assert len(kibana.asked) == 1

    def test_reports_an_unreachable_kibana(self) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        assert error_message(install(url, "--retry-timeout", "0"), 1).startswith(f"--kibana {url} is unavailable: ")


class TestRights:
    def test_sends_a_key(self, kibana: Kibana, url: str, tmp_path: Path) -> None:
        kibana.key = SECRET
        assert install(url, KIBANA_KEY=SECRET).exit_code == 0
        file = tmp_path / "key"
        file.write_text(f"{SECRET}\n")
        assert install(url, "--key-file", str(file)).exit_code == 0

    def test_sends_a_user_and_a_password(self, kibana: Kibana, url: str) -> None:
        kibana.user = ("rosa", "geheim:ä")
        assert install(url, KIBANA_USER="rosa", KIBANA_PASSWORD="geheim:ä").exit_code == 0  # noqa: S106  # likewise

    @pytest.mark.parametrize("key", ["", "wrong"])
    def test_reports_missing_or_wrong_credentials(self, kibana: Kibana, url: str, key: str) -> None:
        kibana.key = SECRET
        message = error_message(install(url, KIBANA_KEY=key))
        assert message.startswith(f"--kibana {url} denies access: 401 [security_exception]: unable to authenticate; ")
        assert "METRONOME_KIBANA_KEY" in message

    def test_reports_a_missing_privilege(self, kibana: Kibana, url: str) -> None:
        kibana.key, kibana.may_write = SECRET, False
        said = error_message(install(url, KIBANA_KEY=SECRET))
        assert "denies access: 403 Unable to bulk_create dashboard,index-pattern,lens; " in said

    def test_rejects_incomplete_or_invalid_credentials(self, url: str) -> None:
        assert "incomplete credentials" in error_message(install(url, KIBANA_USER="rosa"))
        assert "incomplete credentials" in error_message(install(url, KIBANA_PASSWORD="geheim"))  # noqa: S106  # likewise
        assert "invalid key" in error_message(install(url, KIBANA_KEY="a\nb"))

    def test_secrets_are_never_shown(self, kibana: Kibana, url: str) -> None:
        kibana.user = ("rosa", "geheim")
        kibana.key = SECRET
        results = [
            install(url, KIBANA_KEY=SECRET),
            install(url, KIBANA_KEY=f"not {SECRET}"),
            install(url, KIBANA_USER="rosa", KIBANA_PASSWORD="geheim"),  # noqa: S106  # likewise
            install(url, "--retry-timeout", "0", KIBANA_USER="anna", KIBANA_PASSWORD="geheim"),  # noqa: S106  # likewise
            install(url, "--help", KIBANA_KEY=SECRET, KIBANA_PASSWORD="geheim"),  # noqa: S106  # likewise
            install(url.replace("://", "://rosa:geheim@")),
        ]
        results += [install(address) for address in ("http://rosa:geheim@[", "rosa:geheim@kibana")]
        assert [result.exit_code for result in results] == [0, 2, 0, 2, 0, 2, 2, 2]
        assert not any(secret in result.output for result in results for secret in (SECRET, "geheim"))
        assert all("the URL contains credentials" in error_message(result) for result in results[-3:])


class TestSpaces:
    def test_installs_in_a_space(self, kibana: Kibana, url: str) -> None:
        kibana.spaces = ("default", "library_2")
        result = install(url, "--space", "library_2")
        assert {space for space, _ in kibana.objects} == {"library_2"}
        assert f"  {url}/s/library_2/app/dashboards#/view/metronome-usage\n" in result.stdout
        assert install(url, "--space", "default").exit_code == 0
        assert len(kibana.objects) == 2 * len(OBJECTS)

    def test_checks_the_space_before_it_sends_anything(self, kibana: Kibana, url: str) -> None:
        assert error_message(install(url, "--space", "libary")) == ("unknown --space libary: create it in Kibana first")
        assert kibana.objects == {}
        assert "invalid --space" in error_message(install(url, "--space", "../x"))


class TestOthers:
    @pytest.mark.parametrize(
        ("status", "body", "kind", "said"),
        [
            (200, "<html>Welcome</html>", "text/html", "no status"),
            (
                200,
                '{"cluster_name":"docker-cluster","version":{"number":"8.19.21"}}',
                "application/json",
                "no status",
            ),
            (
                400,
                '{"error":"no handler found for uri [/api/status]","status":400}',
                "application/json",
                "400 Bad Request",
            ),
            (404, "", "text/plain", "404 Not Found"),
            (500, "oh", "text/plain", "500 Internal Server Error"),
        ],
    )
    def test_reports_a_server_that_is_not_kibana(self, status: int, body: str, kind: str, said: str) -> None:
        with answering(status, body, kind) as url:
            assert error_message(install(url)) == (
                f"--kibana {url} is not Kibana: GET /api/status responds {said}; expected a URL such as "
                "http://host:5601"
            )

    def test_reports_a_proxy_with_a_login_page(self) -> None:
        with answering(302, "", Location="https://login.example.org/") as url:
            assert "is not Kibana: GET /api/status responds 302 Found" in error_message(install(url))

    @pytest.mark.parametrize("address", ["kibana:5601", "ftp://kibana", "http://", "http://kibana?x=1", "http://[", ""])
    def test_rejects_invalid_urls(self, address: str) -> None:
        assert f"invalid --kibana {address}: expected http://host:5601" in error_message(install(address))

    def test_trusts_only_certificates_of_known_authorities(self, kibana: Kibana, tmp_path: Path) -> None:
        authority = trustme.CA()
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(trust)
        known, wrong = tmp_path / "ca.pem", tmp_path / "wrong.pem"
        authority.cert_pem.write_to_path(known)
        wrong.write_text("no certificate")
        with serving(kibana.application(), trust=trust) as url:
            assert "untrusted certificate" in error_message(install(url))
            assert install(url, "--ca", str(known)).exit_code == 0
            assert install(url, KIBANA_CA=str(known)).exit_code == 0
            for file in (wrong, tmp_path / "none.pem"):
                assert f"invalid --ca {file}: expected a file with certificates" in error_message(
                    install(url, "--ca", str(file))
                )


class TestWrite:
    def test_writes_the_objects_that_install_sends(self, tmp_path: Path) -> None:
        folder = tmp_path / "new" / "folder"
        result = CliRunner().invoke(app, ["dashboards", "write", str(folder)])
        assert result.stdout.startswith(f"wrote {len(OBJECTS)} objects to {folder / 'metronome.ndjson'}: import it")
        assert (folder / "metronome.ndjson").read_bytes() == encode_saved_objects(OBJECTS)
        assert CliRunner().invoke(app, ["dashboards", "write", str(folder), "--index-prefix", "logs"]).exit_code == 0
        assert (folder / "logs.ndjson").read_bytes() == encode_saved_objects(load_saved_objects("logs"))

    def test_reports_a_folder_that_cannot_be_created(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        result = CliRunner().invoke(app, ["dashboards", "write", str(tmp_path / "file")])
        assert "file/metronome.ndjson: " in error_message(result)


class TestAsProcess:
    def test_the_compose_file_runs_an_existing_command(self, kibana: Kibana, url: str) -> None:
        (found,) = re.findall(r'command: (\["dashboards".*\])', (ROOT / "docker-compose.yml").read_text())
        command = [url if word == "http://kibana:5601" else word for word in orjson.loads(found)]
        assert url in command
        assert CliRunner().invoke(app, command, env={"METRONOME_INDEX_PREFIX": ""}).exit_code == 0
        assert len(kibana.objects) == len(OBJECTS)

    def test_it_ends_with_what_a_container_looks_at(self, kibana: Kibana, url: str) -> None:
        done = run_metronome("dashboards", "install", kibana=url)
        assert (done.exit_code, done.stderr) == (0, "")
        kibana.key = SECRET
        done = run_metronome("dashboards", "install", kibana=url, kibana_key="other")
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1


NAMES = ("success", "successCount", "errors", "error", "type", "id", "meta", "references", "message")
STATUS_NAMES = ("status", "overall", "version", "number")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, *STATUS_NAMES]), inner, max_size=5)
    ),
    max_leaves=12,
)
BODIES = JSON.map(orjson.dumps) | st.binary(max_size=20)


@given(st.integers(200, 599), BODIES)
def test_any_response_to_an_import_is_success_or_an_error(status: int, body: bytes) -> None:
    try:
        assert validate_import("it", KibanaResponse(status, body), 3) == 3
    except (KibanaAccessDenied, DashboardsRejected) as error:
        assert str(error)  # noqa: PT017  # either is right
    else:
        assert status == 200
        assert orjson.loads(body)["success"] is True


@given(st.integers(200, 599), BODIES)
def test_any_response_to_a_status_request_is_a_version_or_an_error(status: int, body: bytes) -> None:
    try:
        validate_version("it", KibanaResponse(status, body))
    except (KibanaAccessDenied, DashboardsRejected, ConfigurationError) as error:
        assert str(error)  # noqa: PT017  # either is right
    else:
        assert status == 200
