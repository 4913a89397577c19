//! Merging of files, and errors with their locations.

use super::*;
use crate::yaml;

fn model(texts: &[&str]) -> Result<Model, StackError> {
    let mut model = Model::default();
    for (number, text) in texts.iter().enumerate() {
        let file: Arc<Path> = Arc::from(Path::new(&format!("{number}.yaml")));
        model.add(&file, &yaml::parse(text).unwrap())?;
    }
    Ok(model)
}

fn images(texts: &[&str]) -> Vec<(String, Option<String>)> {
    let services = model(texts).unwrap().services.into_iter();
    services.map(|service| (service.name, service.image.map(|image| image.template))).collect()
}

#[test]
fn the_last_image_of_a_service_wins() {
    let base = "services:\n  a: {image: a:1}\n  b: {image: b:1, ports: ['80:80']}\n";
    let over = "services:\n  b: {image: b:2}\n  a: {restart: always}\n  c: {image: c:1}\n";
    let of = |name: &str, image: &str| (name.to_owned(), Some(image.to_owned()));
    assert_eq!(images(&[base, over]), [of("a", "a:1"), of("b", "b:2"), of("c", "c:1")]);
    assert_eq!(images(&[over, base]), [of("b", "b:1"), of("a", "a:1"), of("c", "c:1")]);
    let documents = format!("{base}---\n{over}");
    assert_eq!(images(&[&documents]), [of("a", "a:1"), of("b", "b:2"), of("c", "c:1")]);
}

#[test]
fn an_alias_has_the_image_of_its_anchor() {
    let text = "x-base: &base {image: base:1}\nservices:\n  a: *base\n  b: {image: &i b:1}\n  c: {image: *i}\n";
    let model = model(&[text]).unwrap();
    let places: Vec<String> =
        model.services.iter().map(|it| it.image.as_ref().unwrap().location.to_string()).collect();
    assert_eq!(places, ["0.yaml:1:23", "0.yaml:4:17", "0.yaml:4:17"]);
}

#[test]
fn keys_that_only_configure_containers_are_not_read() {
    let text = "
version: 3
name: x
x-any: {<<: [1, {image: no}]}
volumes: {data: }
networks: !reset null
services:
  a:
    image: a
    build: {context: .}
    ports: !override ['80:80']
    environment: {<<: {A: 1}, B: '${NEEDED:?here}'}
    volumes: [a:/b, {type: bind, source: ., target: /c}]
    post_start: [{command: [x]}]
    deploy: {replicas: 0}
    x-more: 1
";
    assert_eq!(images(&[text]), [("a".to_owned(), Some("a".to_owned()))]);
}

#[test]
fn an_unsupported_key_is_an_error_with_its_location() {
    let check = |text: &str, expected: &str| {
        let error = model(&[text]).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}\n{error}");
    };
    check("include: [a.yaml]\n", "0.yaml:1:1: `include` at the top can select images");
    check("<<: {}\nservices: {}\n", "0.yaml:1:1: `<<` at the top");
    check("services:\n  <<: {}\n", "0.yaml:2:3: `<<` in services");
    check("services:\n  a:\n    <<: {image: x}\n", "0.yaml:3:5: `<<` in service \"a\"");
    check(
        "x-a: &a {<<: {image: x}}\nservices:\n  a: *a\n",
        "0.yaml:1:10: `<<` in service \"a\" can select images and is not supported yet: write out",
    );
    check("services:\n  a: {image: x, extends: b}\n", "0.yaml:2:17: `extends` in service \"a\"");
    check("services:\n  a: {image: x, profiles: [p]}\n", "0.yaml:2:17: `profiles` in");
    check("services:\n  a: {provider: {type: x}}\n", "0.yaml:2:7: `provider` in");
    check("services:\n  a: {image: !reset null}\n", "0.yaml:2:14: `!reset` in service \"a\"");
    check("services:\n  a: !override\n    image: x\n", "0.yaml:2:6: `!override` in service \"a\"");
    check("services: !reset\n  a: {image: x}\n", "0.yaml:1:11: `!reset` in services");
    check("!override\nservices: {}\n", "0.yaml:1:1: `!override` at the top");
    check("services:\n  a: {image: x, build: !reset null}\n", "0.yaml:2:24: `!reset` in");
    check(
        "services:\n  a:\n    image: x\n    volumes:\n      - type: image\n        source: y\n",
        "0.yaml:5:15: `type: image` in service \"a\"",
    );
    check(
        "services:\n  a:\n    image: x\n    pre_start: [{image: y}]\n",
        "0.yaml:4:25: `pre_start: image` in service \"a\"",
    );
}

#[test]
fn an_invalid_node_is_an_error_with_its_location() {
    let check = |text: &str, expected: &str| {
        assert_eq!(model(&[text]).unwrap_err().to_string(), expected, "{text}");
    };
    check("", "0.yaml:1:1: the file is empty");
    check("- a\n", "0.yaml:1:1: a compose file must be a mapping");
    check("services: [a]\n", "0.yaml:1:11: services must be a mapping");
    check("services:\n  a: x\n", "0.yaml:2:6: service \"a\" must be a mapping");
    check("services:\n  a:\n", "0.yaml:2:4: service \"a\" must be a mapping");
    check(
        "service:\n  a: {}\n",
        "0.yaml:1:1: unknown key \"service\" in a compose file: correct it, or prefix it with `x-`",
    );
    check(
        "services:\n  a: {imagee: x}\n",
        "0.yaml:2:7: unknown key \"imagee\" in a service: correct it, or prefix it with `x-`",
    );
    check(
        "services:\n  a b: {image: x}\n",
        "0.yaml:2:3: invalid service name \"a b\": use only letters, digits, `.`, `_` and `-`",
    );
    for image in ["1.5", "null", "[x]", "{a: b}", "true"] {
        let location = "0.yaml:2:14";
        let text = format!("services:\n  a: {{image: {image}}}\n");
        check(
            &text,
            &format!("{location}: the image of service \"a\" must be a string: put it in quotes"),
        );
    }
}
