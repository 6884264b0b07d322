"""Which route serves a path, and which paths are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, GatewayError, MethodNotAllowed, NoRoute
from gateway.proxy import paths
from gateway.proxy.routes import OPEN, Route, RouteTable, check_method


def route(path: bytes, host: bytes = b"", **more: object) -> Route:
    return Route(name=(host + path).decode(), path=path, host=host, rule=OPEN, **more)  # type: ignore[arg-type]


TABLE = RouteTable(
    [
        route(b"/"),
        route(b"/api/"),
        route(b"/api/admin/"),
        route(b"/public/"),
        route(b"/api/", host=b"other.example"),
    ]
)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/", "/"),
        (b"/api", "/api/"),
        (b"/api/", "/api/"),
        (b"/api/x", "/api/"),
        (b"/apix", "/"),
        (b"/api/admin/x/y", "/api/admin/"),
        (b"/api/administrator", "/api/"),
        (b"/publicx", "/"),
        (b"/x" * 5000, "/"),
    ],
)
def test_the_longest_prefix_of_whole_segments_wins(path: bytes, name: str) -> None:
    assert TABLE.find(b"a.example", path)[0].name == name


@pytest.mark.parametrize("host", [b"other.example", b"OTHER.example:8080", b"other.example."])
def test_a_route_that_names_the_host_wins_over_one_for_every_host(host: bytes) -> None:
    assert TABLE.find(host, b"/api/x")[0].name == "other.example/api/"


def test_a_path_under_no_route_is_no_route() -> None:
    with pytest.raises(NoRoute):
        RouteTable([route(b"/api/")]).find(b"", b"/x")


def test_two_routes_for_one_address_are_refused() -> None:
    with pytest.raises(ValueError, match="two routes"):
        RouteTable([route(b"/api"), route(b"/api/")])


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        (b"/api/%61dmin/x", b"/api/admin/x"),
        (b"/public/../api/admin/", b"/api/admin/"),
        (b"/public/%2e%2e/api/admin/", b"/api/admin/"),
        (b"/public/%2E./api/admin/", b"/api/admin/"),
        (b"/api/./admin/", b"/api/admin/"),
        (b"/../../x", b"/x"),
        (b"/api/x/..", b"/api/"),
        (b"/api/%e2%82%ac", b"/api/%E2%82%AC"),
        (b"/api/a%2Fb", b"/api/a%2Fb"),
        (b"/api//x", b"/api//x"),
        (b"/api/a;b=c", b"/api/a;b=c"),
        (b"/api/%3f%23", b"/api/%3F%23"),
    ],
)
def test_the_path_that_was_matched_is_the_path_that_goes_on(path: bytes, normal: bytes) -> None:
    assert TABLE.find(b"", path)[1] == normal


@pytest.mark.parametrize(
    "path",
    [
        b"/api%2fadmin/x",
        b"/api/%2fadmin/x",
        b"/api//admin/x",
        b"//api/admin",
        b"/public/..%2fapi/admin",
        b"/public/..%5capi/admin",
        b"/public/..;/api/admin",
        b"/public/..;a=b/api/admin",
        b"/api;x/admin",
        b"/api/admin;x/y",
        b"/api/x/..%2fadmin",
        b"/api/%5cadmin",
        # /public/x where slashes are merged before dots are resolved, /api/public/x where they are not
        b"/public/..%2fapi%2f%2f..%2fpublic/x",
        b"/public;/..;/x",  # /public/../x to who cuts parameters and resolves no dots, else /x
        b"/api/\\..\\..\\public%2f%2f..%2fapi/x",
        b"/public/%252e%252e/%00",
        b"/a%",
        b"/a%2",
        b"/a%zz",
        b"/a b",
        b"/a#b",
        b"/\xc3\xa9",
        b"/a\x7f",
        b"api",
        b"",
        b"*",
    ],
)
def test_a_path_that_two_readers_could_take_for_different_routes_is_refused(path: bytes) -> None:
    with pytest.raises(BadRequest):
        TABLE.find(b"", path)


@given(st.text("/.%2fFeE5cC;aApi", max_size=24))
def test_a_normal_path_is_its_own_normal_form_and_meets_the_same_route_again(text: str) -> None:
    try:
        found, normal = TABLE.find(b"", b"/" + text.encode())
    except GatewayError:
        return
    assert paths.normalise(normal) == normal
    assert TABLE.find(b"", normal) == (found, normal)


INSENSITIVE = RouteTable([route(b"/"), route(b"/Api/"), route(b"/api/secrets/"), route(b"/auth")], ignore_case=True)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/API/x", "/Api/"),
        (b"/api/x", "/Api/"),
        (b"/aPi/SECRETS/Y", "/api/secrets/"),
        (b"/api/%53ecrets", "/api/secrets/"),
        (b"/AUTH/login", "/auth"),
        (b"/apiX", "/"),
        (b"/%C3%84pi", "/"),
    ],
)
def test_where_backends_ignore_case_a_route_guards_its_path_in_any_and_the_path_goes_on_as_it_came(
    path: bytes, name: str
) -> None:
    found, normal = INSENSITIVE.find(b"", path)
    assert (found.name, normal) == (name, paths.normalise(path))


@pytest.mark.parametrize(
    "path",
    [
        b"/api/%C5%BFecrets",  # a long s, which folds to s
        b"/api/SECRET%C5%BF",
        b"/API/x%2F..%2FSECRETS",
        b"/ap%C4%B1/x",  # a dotless i, which is I in upper case
    ],
)
def test_where_backends_ignore_case_what_some_of_them_fold_to_another_route_is_refused(path: bytes) -> None:
    with pytest.raises(BadRequest):
        INSENSITIVE.find(b"", path)


def test_case_counts_unless_it_is_said_to_be_ignored() -> None:
    assert TABLE.find(b"", b"/API/admin")[0].name == "/"


def test_routes_that_differ_by_case_alone_are_one_where_case_is_ignored() -> None:
    with pytest.raises(ValueError, match="two routes"):
        RouteTable([route(b"/api"), route(b"/API/")], ignore_case=True)


def test_a_prefix_is_stripped_in_any_case_where_case_is_ignored() -> None:
    insensitive = route(b"/api/", strip_prefix=b"/api", ignores_case=True)
    assert [insensitive.target(path) for path in (b"/API/X", b"/api/x", b"/Api")] == [b"/X", b"/x", b"/"]
    assert route(b"/api/", strip_prefix=b"/api").target(b"/API/X") == b"/API/X"


def test_a_long_path_is_refused_where_its_readings_are_many_and_passes_where_they_are_few() -> None:
    for path in (b"/api/" + b"%C3%A9" * 3000, b"/api/" + b"a%2Fb/" * 3000, b"/api/a;b//c%5c..%2fx/"):
        assert TABLE.find(b"", path)[0].name == "/api/"
    with pytest.raises(BadRequest):
        TABLE.find(b"", b"/api" + b"/a;b//c%5cd%3be" * 2000)


def test_a_method_that_the_route_does_not_take_is_named_with_those_it_takes() -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        check_method(route(b"/", methods=frozenset({b"POST", b"GET"})), b"PUT")
    assert caught.value.allow == "GET, POST"


@pytest.mark.parametrize(
    ("strip", "path", "target"),
    [
        (b"/api", b"/api/x", b"/x"),
        (b"/api/", b"/api/x", b"/x"),
        (b"/api", b"/api", b"/"),
        (b"", b"/api/x", b"/api/x"),
    ],
)
def test_a_stripped_prefix_leaves_a_path(strip: bytes, path: bytes, target: bytes) -> None:
    assert route(b"/api/", strip_prefix=strip).target(path) == target


def test_the_path_of_another_request_behind_a_raw_route_is_left_as_it_came() -> None:
    table = RouteTable([route(b"/"), route(b"/auth"), route(b"/auth/verify", raw=True)])
    for path in (b"/auth/verify/../../x", b"/auth/verify/%2e%2e/me", b"/auth/verify//a/./b", b"/auth/verify"):
        assert table.find(b"", path) == (table.find(b"", b"/auth/verify")[0], path)
    assert table.find(b"", b"/auth/verifyx")[0].name == "/auth"


def test_a_remembered_target_is_found_again_with_its_query_and_the_memory_is_bounded() -> None:
    table = RouteTable([route(b"/")])
    for _ in range(2):
        found, path, query = table.look_up(b"", b"/a/%61?b=%61")
        assert (found.name, path, query) == ("/", b"/a/a", b"?b=%61")
    for number in range(10_000):
        table.look_up(b"", b"/%d" % number)
    assert len(table._known) <= 4096


def test_a_target_is_not_remembered_for_another_host() -> None:
    table = RouteTable([route(b"/"), route(b"/", host=b"b.example")])
    assert [table.look_up(host, b"/x")[0].name for host in (b"a.example", b"b.example")] == ["/", "b.example/"]
