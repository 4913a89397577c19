//! The tables of distribution/reference, as far as our stricter rules go.

use super::*;

const HEX: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

fn parsed(text: &str) -> Reference {
    text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

#[test]
fn names_are_normalised_as_docker_does() {
    let pinned = format!("docker.io/library/redis@sha256:{HEX}");
    let both = format!("test.com:8080/repo:tag@sha256:{HEX}");
    let table = [
        // text, canonical, familiar
        ("python", "docker.io/library/python:latest", "python:latest"),
        ("python:3", "docker.io/library/python:3", "python:3"),
        ("library/python", "docker.io/library/python:latest", "python:latest"),
        ("docker.io/python", "docker.io/library/python:latest", "python:latest"),
        ("index.docker.io/python", "docker.io/library/python:latest", "python:latest"),
        ("index.docker.io/a/b:1", "docker.io/a/b:1", "a/b:1"),
        ("team/app", "docker.io/team/app:latest", "team/app:latest"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost", "docker.io/library/localhost:latest", "localhost:latest"),
        ("docker.io", "docker.io/library/docker.io:latest", "docker.io:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000/x:1"),
        ("test:5000", "docker.io/library/test:5000", "test:5000"),
        ("test:5000/repo", "test:5000/repo:latest", "test:5000/repo:latest"),
        ("test.com/repo:tag", "test.com/repo:tag", "test.com/repo:tag"),
        ("Uppercase/lowercase:x", "Uppercase/lowercase:x", "Uppercase/lowercase:x"),
        ("xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com/myimage:xn--n3h.com", ""),
        ("foo_bar.com:8080", "docker.io/library/foo_bar.com:8080", "foo_bar.com:8080"),
        ("foo/foo_bar.com:8080", "docker.io/foo/foo_bar.com:8080", "foo/foo_bar.com:8080"),
        ("192.168.1.1:5000/a", "192.168.1.1:5000/a:latest", ""),
        ("[2001:db8::1]:5000/repo", "[2001:db8::1]:5000/repo:latest", ""),
        ("[::1]/repo", "[::1]/repo:latest", ""),
        ("b.gcr.io/test.example.com/my-app", "b.gcr.io/test.example.com/my-app:latest", ""),
        ("asdf.com/foo--bar__baz.q", "asdf.com/foo--bar__baz.q:latest", ""),
        ("a-----------b", "docker.io/library/a-----------b:latest", "a-----------b:latest"),
        ("1/2/3:_x.-", "docker.io/1/2/3:_x.-", "1/2/3:_x.-"),
        (&pinned, &pinned, &format!("redis@sha256:{HEX}")),
        (&both, &both, &both),
        // Without the domain these would mean something else.
        ("docker.io/localhost/x", "docker.io/localhost/x:latest", "docker.io/localhost/x:latest"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
    ];
    for (text, canonical, familiar) in table {
        let reference = parsed(text);
        assert_eq!(reference.canonical(), canonical, "{text:?}");
        let familiar = if familiar.is_empty() { canonical } else { familiar };
        assert_eq!(reference.to_string(), familiar, "{text:?}");
        assert_eq!(parsed(canonical), reference, "{text:?}");
        assert_eq!(parsed(familiar), reference, "{text:?}");
        assert_eq!(parsed(&reference.repository()).path(), reference.path(), "{text:?}");
    }
}

#[test]
fn what_is_not_a_name_is_refused() {
    let long_path = format!("{}a:tag", "a/".repeat(128));
    let long_tag = format!("a:{}", "t".repeat(129));
    let bad = [
        "",
        ":justtag",
        "@sha256:ffffffffffffffffffffffffffffffffff",
        "repo@sha256:ffffffffffffffffffffffffffffffffff",
        "repo@sha512:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "repo@",
        "repo:",
        "repo:-x",
        "repo:.x",
        "repo:a b",
        "repo:tag:tag",
        "repo:tag/more",
        "Uppercase:tag",
        "test:5000/Uppercase/lowercase:tag",
        "aa/asdf$$^/aa",
        "sub-dom1.foo.com/bar/baz/_uux",
        "foo//bar",
        "/foo",
        "foo/",
        "foo/.bar",
        "foo/bar.",
        "foo/bar-/boo",
        "foo..bar",
        "foo___bar",
        "foo._bar",
        "foo-_bar",
        "_foo",
        "-foo",
        "-foo/bar",
        "-foo.com/bar",
        "foo-.com/bar",
        "foo..com/bar",
        "test.com:/repo",
        "test.com:80x/repo",
        "test.com:80:80/repo",
        "[]/repo",
        "[::1/repo",
        "[::1]x/repo",
        "[fe80::1%25eth0]:80/repo",
        "[fe80::1%@invalidzone]:80/repo",
        "foo bar",
        " foo",
        "foo\n",
        "foo/../bar",
        "docker.io/",
        "\u{e9}t\u{e9}",
        HEX,
        &long_path,
        &long_tag,
    ];
    for text in bad {
        let error = text.parse::<Reference>().expect_err(text);
        assert!(!error.reason.is_empty());
    }
}

#[test]
fn limits_are_inclusive() {
    parsed(&format!("a:{}", "t".repeat(128)));
    let path = "a".repeat(255 - "x.io/".len());
    parsed(&format!("x.io/{path}:tag"));
    format!("x.io/{path}a").parse::<Reference>().unwrap_err();
}

#[test]
fn sixty_four_hex_digits_stay_readable_with_their_domain() {
    let reference = parsed(&format!("docker.io/library/{HEX}:1"));
    assert_eq!(reference.repository(), format!("docker.io/library/{HEX}"));
    assert_eq!(parsed(&reference.to_string()), reference);
}

#[test]
fn a_reference_travels_as_text() {
    let json = serde_json::to_string(&parsed("docker.io/library/python:3")).unwrap();
    assert_eq!(json, r#""python:3""#);
    assert_eq!(serde_json::from_str::<Reference>(&json).unwrap(), parsed("python:3"));
    serde_json::from_str::<Reference>(r#""no good""#).unwrap_err();
}
