use std::net::IpAddr;

use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::*;

fn route(pattern: &str, methods: Option<&[&str]>) -> RouteSpec {
    RouteSpec {
        hosts: Vec::new(),
        path: PathPattern::parse(pattern).unwrap(),
        methods: methods.map(|names| MethodSet::parse(names.iter().copied()).unwrap()),
        conditions: Vec::new(),
    }
}

fn find(matcher: &Matcher, method: &Method, path: &str) -> Found {
    matcher.find(&view(method, path, &HeaderMap::new()))
}

fn view<'r>(method: &'r Method, path: &'r str, headers: &'r HeaderMap) -> RequestView<'r> {
    RequestView {
        method,
        host: "a",
        path,
        query: None,
        headers,
        scheme: "http",
        client: IpAddr::from([127, 0, 0, 1]),
        listener: "l",
    }
}

/// Whether a pattern matches a path, by its definition.
fn matches(pattern: &PathPattern, path: &str) -> bool {
    let segments: Vec<&str> = path[1..].split('/').collect();
    let fits = |(pattern, text): (&Segment, &&str)| match pattern {
        Segment::Literal(literal) => **literal == **text,
        Segment::Regex { regex, .. } => !text.is_empty() && regex.is_match(text),
        Segment::Param(_) => !text.is_empty(),
    };
    let enough =
        if pattern.rest { segments.len() >= pattern.segments.len() } else { segments.len() == pattern.segments.len() };
    enough && pattern.segments.iter().zip(&segments).all(fits)
}

fn pattern() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        4 => "[ab]",
        2 => Just("{x}".to_owned()),
        1 => Just("{x:a|c}".to_owned()),
        1 => Just("{x:[bd]}".to_owned()),
    ];
    (proptest::collection::vec(segment, 1..4), any::<bool>()).prop_map(|(segments, rest)| {
        let mut text = String::new();
        for (i, segment) in segments.iter().enumerate() {
            text.push('/');
            text.push_str(&segment.replace('x', &format!("x{i}")));
        }
        if rest {
            text.push_str("/**");
        }
        text
    })
}

proptest! {
    #[test]
    fn a_match_is_one_by_definition_and_none_is_missed(
        patterns in proptest::collection::vec(pattern(), 1..6),
        path in "(/[abcde]?){1,4}",
    ) {
        let routes: Vec<RouteSpec> = patterns.iter().map(|pattern| route(pattern, None)).collect();
        match Matcher::build(routes.clone()) {
            Ok(matcher) => match find(&matcher, &Method::GET, &path) {
                Found::Route { index, captures } => {
                    prop_assert!(matches(&routes[index].path, &path), "{} {path}", patterns[index]);
                    prop_assert_eq!(captures.len(), routes[index].path.names().count());
                }
                _ => prop_assert!(!routes.iter().any(|route| matches(&route.path, &path)), "{patterns:?} {path}"),
            },
            Err(conflicts) => {
                for conflict in conflicts {
                    let example = conflict.example.strip_prefix("GET ").unwrap();
                    for index in [conflict.first, conflict.second] {
                        prop_assert!(matches(&routes[index].path, example), "{} {example}", patterns[index]);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_said_of_a_route_is_what_is_done_with_it(
        patterns in proptest::collection::vec(pattern(), 1..6),
        path in "(/[abcde]?){1,4}",
    ) {
        let routes: Vec<RouteSpec> = patterns.iter().map(|pattern| route(pattern, None)).collect();
        let Ok(matcher) = Matcher::build(routes.clone()) else { return Ok(()) };
        let headers = HeaderMap::new();
        let request = view(&Method::GET, &path, &headers);
        let fitting: Vec<usize> = (0..routes.len()).filter(|i| routes[*i].obstacles(&request).is_empty()).collect();
        match matcher.find(&request) {
            Found::Route { index, .. } => {
                prop_assert!(fitting.contains(&index));
                for loser in fitting.into_iter().filter(|loser| *loser != index) {
                    let why = routes[loser].yields_to(&routes[index], &request);
                    prop_assert!(why.contains("where the winner"), "{patterns:?} {path}: {why}");
                }
            }
            _ => prop_assert!(fitting.is_empty(), "{patterns:?} {path}"),
        }
    }

    #[test]
    fn the_order_of_routes_means_nothing(patterns in proptest::collection::vec(pattern(), 1..6), path in "(/[abcde]?){1,4}") {
        let forwards: Vec<RouteSpec> = patterns.iter().map(|pattern| route(pattern, None)).collect();
        let backwards: Vec<RouteSpec> = forwards.iter().rev().cloned().collect();
        match (Matcher::build(forwards), Matcher::build(backwards)) {
            (Ok(a), Ok(b)) => match (find(&a, &Method::GET, &path), find(&b, &Method::GET, &path)) {
                (Found::Route { index: a, .. }, Found::Route { index: b, .. }) => {
                    prop_assert_eq!(a, patterns.len() - 1 - b);
                }
                (a, b) => prop_assert_eq!(a, b),
            },
            (a, b) => prop_assert!(a.is_err() && b.is_err()),
        }
    }
}

#[test]
fn many_routes_are_built_in_little_time() {
    let routes: Vec<RouteSpec> =
        (0..100_000).map(|i| route(&format!("/api/v{}/service{}/{{id}}/**", i % 10, i / 10), Some(&["GET"]))).collect();
    let matcher = Matcher::build(routes).unwrap();
    match find(&matcher, &Method::GET, "/api/v3/service7777/x/y/z") {
        Found::Route { index, captures } => {
            assert_eq!((index, captures.text(1, "/api/v3/service7777/x/y/z")), (77_773, "y/z"));
        }
        other => panic!("{other:?}"),
    }
    let refused = find(&matcher, &Method::POST, "/api/v3/service7777/x");
    assert!(matches!(refused, Found::MethodNotAllowed { allow } if allow.to_string() == "GET, HEAD"));
}
