"""``metronome dashboards`` brings the dashboards into what acts as a Kibana, or says in one sentence why it cannot."""

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
from metronome.cli.dashboards import KibanaResponse, validate_import, validate_version
from metronome.dashboards import build_saved_objects, dashboard_ids, encode_ndjson
from metronome.errors import ConfigurationError, DashboardsRejected, KibanaAccessDenied
from tests.cli.kibana_server import Kibana, answering, serving
from tests.servers import free_port, run_metronome

ROOT = Path(__file__).parents[2]
OBJECTS = build_saved_objects("metronome")
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


def complaint(result: Result) -> str:
    """Return the one sentence that a command failed with."""
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("metronome dashboards: ")
    return line.removeprefix("metronome dashboards: ")


class TestInstall:
    def test_everything_is_in_kibana_and_the_dashboards_are_named(self, kibana: Kibana, url: str) -> None:
        result = install(url)
        assert (result.exit_code, result.stderr) == (0, "")
        first, *addresses = result.stdout.splitlines()
        assert first == (
            f"{len(OBJECTS)} objects are in Kibana 8.19.21: a data view of metronome-*, its panels, and the dashboards"
        )
        assert addresses == [f"  {url}/app/dashboards#/view/{name}" for name in dashboard_ids("metronome")]
        assert [*kibana.objects.values()] == OBJECTS
        assert kibana.asked == ["GET /api/status", "POST /api/saved_objects/_import?overwrite=true"]

    def test_again_it_takes_the_place_of_what_was_there(self, kibana: Kibana, url: str) -> None:
        assert install(url).exit_code == 0
        kibana.objects["default", "metronome-usage"] = {"attributes": {"title": "old"}}
        assert install(url).exit_code == 0
        assert [*kibana.objects.values()] == OBJECTS

    def test_what_is_there_stays_if_it_is_not_to_be_replaced(self, url: str) -> None:
        assert install(url, "--no-overwrite").exit_code == 0
        said = complaint(install(url, "--no-overwrite"))
        assert f"took 0 of {len(OBJECTS)} objects: index-pattern metronome-events (metronome-*): is there" in said
        assert said.count("without --overwrite") == 5
        assert f"; and {len(OBJECTS) - 5} more; " in said

    def test_the_prefix_of_indices_is_that_of_the_server(self, kibana: Kibana, url: str) -> None:
        assert install(url, INDEX_PREFIX="logs-of-mine").exit_code == 0
        assert install(url, "--index-prefix", "other", INDEX_PREFIX="logs-of-mine").exit_code == 0
        assert [*kibana.objects.values()] == build_saved_objects("logs-of-mine") + build_saved_objects("other")
        assert "METRONOME_INDEX_PREFIX is 'A*'" in complaint(install(url, "--index-prefix", "A*"))

    def test_an_address_may_have_a_path_and_end_with_a_slash(self, kibana: Kibana) -> None:
        with serving(kibana.application()) as address:
            assert install(f"{address}/").exit_code == 0
            assert "is no Kibana: GET /api/status answers 404" in complaint(install(f"{address}/kibana"))

    @pytest.mark.parametrize("version", ["8.15.0", "8.19.21", "9.2.0", "10.0.0-SNAPSHOT"])
    def test_a_kibana_that_knows_the_form_is_taken(self, kibana: Kibana, url: str, version: str) -> None:
        kibana.version = version
        assert f"Kibana {version}:" in install(url).stdout

    @pytest.mark.parametrize("version", ["8.14.3", "8.9.0", "7.17.29"])
    def test_a_kibana_that_is_too_old_gets_nothing(self, kibana: Kibana, url: str, version: str) -> None:
        kibana.version = version
        assert complaint(install(url)) == (
            f"--kibana {url} is Kibana {version}, and these dashboards need 8.15 or newer; put right "
            "what the message names, and run the same command again"
        )
        assert kibana.objects == {}

    def test_a_200_is_no_success_where_objects_were_refused(self, kibana: Kibana, url: str) -> None:
        kibana.known["dashboard"] = (10, 1, 0)
        said = complaint(install(url))
        assert f"took {len(OBJECTS) - 3} of {len(OBJECTS)} objects: " in said
        assert (
            "dashboard metronome-usage (Metronome: usage of items): Document belongs to a more recent version" in said
        )
        del kibana.known["lens"]
        said = complaint(install(url))
        assert "lens metronome-usage-views (Views): is of a type that this Kibana does not have" in said

    def test_a_200_is_no_success_where_less_was_taken_than_sent(self) -> None:
        with pytest.raises(DashboardsRejected, match="took 3 of 4 objects: it does not say why"):
            validate_import("it", KibanaResponse(200, b'{"success":true,"successCount":3}'), 4)


class TestWaiting:
    def test_a_kibana_that_is_starting_is_waited_for(self, kibana: Kibana, url: str) -> None:
        kibana.starts = 3
        result = install(url)
        assert result.exit_code == 0
        assert result.stderr == (
            f"metronome dashboards: --kibana {url} does not answer yet: 503 Service Unavailable; "
            "waiting for up to 60 s\n"
        )
        assert len(kibana.objects) == len(OBJECTS)

    def test_one_that_is_not_there_yet_is_waited_for(self, kibana: Kibana) -> None:
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
        assert "does not answer yet" in result.stderr

    def test_patience_ends(self, kibana: Kibana, url: str) -> None:
        kibana.starts = 1_000_000
        assert complaint(install(url, "--retry-timeout", "0")) == (
            f"--kibana {url} does not answer: 503 Service Unavailable; see that it runs and is reached at the address "
            "of --kibana, or wait longer for it with --retry-timeout"
        )
        assert len(kibana.asked) == 1

    def test_one_that_is_away_is_said_to_be(self) -> None:
        address = f"http://127.0.0.1:{free_port()}"
        assert complaint(install(address, "--retry-timeout", "0")).startswith(f"--kibana {address} does not answer: ")


class TestRights:
    def test_a_key_opens_it(self, kibana: Kibana, url: str) -> None:
        kibana.key = SECRET
        assert install(url, KIBANA_KEY=SECRET).exit_code == 0
        assert install(url, "--key", SECRET).exit_code == 0

    def test_a_user_opens_it(self, kibana: Kibana, url: str) -> None:
        kibana.user = ("rosa", "geheim:ä")
        assert install(url, KIBANA_USER="rosa", KIBANA_PASSWORD="geheim:ä").exit_code == 0  # noqa: S106  # likewise

    @pytest.mark.parametrize("key", ["", "wrong"])
    def test_without_the_right_one_it_says_which_are_asked_for(self, kibana: Kibana, url: str, key: str) -> None:
        kibana.key = SECRET
        assert complaint(install(url, KIBANA_KEY=key)) == (
            f"--kibana {url} does not allow this: 401 [security_exception]: unable to authenticate; set "
            "METRONOME_KIBANA_KEY, or METRONOME_KIBANA_USER and METRONOME_KIBANA_PASSWORD, to one that may manage "
            "saved objects in this space"
        )

    def test_who_may_only_look_is_told_what_is_missing(self, kibana: Kibana, url: str) -> None:
        kibana.key, kibana.may_write = SECRET, False
        said = complaint(install(url, KIBANA_KEY=SECRET))
        assert "does not allow this: 403 Unable to bulk_create dashboard,index-pattern,lens; " in said

    def test_half_of_a_user_is_none(self, url: str) -> None:
        assert "needs a name and a password" in complaint(install(url, KIBANA_USER="rosa"))
        assert "needs a name and a password" in complaint(install(url, KIBANA_PASSWORD="geheim"))  # noqa: S106  # likewise
        assert "--key is no key" in complaint(install(url, KIBANA_KEY="a\nb"))

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
        assert all("holds a user" in complaint(result) for result in results[-3:])


class TestSpaces:
    def test_a_space_gets_its_own(self, kibana: Kibana, url: str) -> None:
        kibana.spaces = ("default", "library_2")
        result = install(url, "--space", "library_2")
        assert {space for space, _ in kibana.objects} == {"library_2"}
        assert f"  {url}/s/library_2/app/dashboards#/view/metronome-usage\n" in result.stdout
        assert install(url, "--space", "default").exit_code == 0
        assert len(kibana.objects) == 2 * len(OBJECTS)

    def test_one_that_is_not_there_is_named_before_anything_is_sent(self, kibana: Kibana, url: str) -> None:
        assert complaint(install(url, "--space", "libary")).startswith(
            "--space libary: this Kibana has no such space; make it first, or name another; "
        )
        assert kibana.objects == {}
        assert "is no space" in complaint(install(url, "--space", "../x"))


class TestOthers:
    @pytest.mark.parametrize(
        ("status", "body", "kind", "said"),
        [
            (200, "<html>Welcome</html>", "text/html", "something else"),
            (
                200,
                '{"cluster_name":"docker-cluster","version":{"number":"8.19.21"}}',
                "application/json",
                "something else",
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
    def test_what_is_no_kibana_is_said_to_be_none(self, status: int, body: str, kind: str, said: str) -> None:
        with answering(status, body, kind) as url:
            assert complaint(install(url)) == (
                f"--kibana {url} is no Kibana: GET /api/status answers {said}; name its address, as http://host:5601; "
                "correct the setting that the message names"
            )

    def test_a_proxy_that_asks_people_to_log_in_is_none(self) -> None:
        with answering(302, "", Location="https://login.example.org/") as url:
            assert "is no Kibana: GET /api/status answers 302 Found" in complaint(install(url))

    @pytest.mark.parametrize("address", ["kibana:5601", "ftp://kibana", "http://", "http://kibana?x=1", "http://[", ""])
    def test_what_is_no_address_is_said_to_be_none(self, address: str) -> None:
        assert f"--kibana {address} is no web address" in complaint(install(address))

    def test_a_certificate_is_trusted_only_if_it_is_known(self, kibana: Kibana, tmp_path: Path) -> None:
        authority = trustme.CA()
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(trust)
        known, wrong = tmp_path / "ca.pem", tmp_path / "wrong.pem"
        authority.cert_pem.write_to_path(known)
        wrong.write_text("no certificate")
        with serving(kibana.application(), trust=trust) as url:
            assert "its certificate is not to be trusted" in complaint(install(url))
            assert install(url, "--ca", str(known)).exit_code == 0
            assert install(url, KIBANA_CA=str(known)).exit_code == 0
            for file in (wrong, tmp_path / "none.pem"):
                assert f"--ca {file} is no file with certificates" in complaint(install(url, "--ca", str(file)))


class TestWrite:
    def test_the_file_holds_what_would_be_installed(self, tmp_path: Path) -> None:
        folder = tmp_path / "new" / "folder"
        result = CliRunner().invoke(app, ["dashboards", "write", str(folder)])
        assert result.stdout.startswith(f"{len(OBJECTS)} objects are in {folder / 'metronome.ndjson'}: import it")
        assert (folder / "metronome.ndjson").read_bytes() == encode_ndjson(OBJECTS)
        assert CliRunner().invoke(app, ["dashboards", "write", str(folder), "--index-prefix", "logs"]).exit_code == 0
        assert (folder / "logs.ndjson").read_bytes() == encode_ndjson(build_saved_objects("logs"))

    def test_a_folder_that_cannot_be_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        result = CliRunner().invoke(app, ["dashboards", "write", str(tmp_path / "file")])
        assert "file/metronome.ndjson cannot be written" in complaint(result)


class TestAsProcess:
    def test_the_container_of_the_compose_file_runs_a_command_that_there_is(self, kibana: Kibana, url: str) -> None:
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
def test_whatever_comes_is_either_everything_imported_or_a_refusal(status: int, body: bytes) -> None:
    try:
        assert validate_import("it", KibanaResponse(status, body), 3) == 3
    except (KibanaAccessDenied, DashboardsRejected) as error:
        assert str(error)  # noqa: PT017  # either is right
    else:
        assert status == 200
        assert orjson.loads(body)["success"] is True


@given(st.integers(200, 599), BODIES)
def test_whatever_comes_is_either_the_status_of_a_kibana_or_a_reason(status: int, body: bytes) -> None:
    try:
        validate_version("it", KibanaResponse(status, body))
    except (KibanaAccessDenied, DashboardsRejected, ConfigurationError) as error:
        assert str(error)  # noqa: PT017  # either is right
    else:
        assert status == 200
