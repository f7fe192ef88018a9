use std::fmt::Write as _;

use super::*;

fn run_within(program: &str, input: &str, bounds: &Bounds) -> Result<String, Error> {
    let program = Program::compile(program, &[]).unwrap_or_else(|error| panic!("{program}: {error}"));
    program.run(input.as_bytes(), &[], bounds).map(|output| String::from_utf8(output).unwrap())
}

fn run(program: &str, input: &str) -> Result<String, Error> {
    run_within(program, input, &Bounds::default())
}

#[test]
fn ordinary_programs() {
    let mut wrong = String::new();
    for (program, input, expected) in [
        (
            ".",
            r#"{"b":1.0,"a":[1e400,-0,100000000000000000000000000001,{}],"c":[]}"#,
            r#"{"b":1.0,"a":[1e400,-0,100000000000000000000000000001,{}],"c":[]}"#,
        ),
        (".", " [ 1 , \"\\u00e9\\ud83d\\ude00\\n\" ] ", "[1,\"é😀\\n\"]"),
        (
            "{id, name, total: (.items | map(.price) | add)}",
            r#"{"name":"n","id":7,"items":[{"price":1.5},{"price":2}]}"#,
            r#"{"id":7,"name":"n","total":3.5}"#,
        ),
        (".a.b.c", r#"{"a":null}"#, "null"),
        ("[.[] | select(.a > 1) | .b // \"none\"]", r#"[{"a":1},{"a":2},{"a":3,"b":4}]"#, r#"["none",4]"#),
        ("with_entries(.value += 1)", r#"{"b":1,"a":2}"#, r#"{"b":2,"a":3}"#),
        ("to_entries", r#"{"b":1}"#, r#"[{"key":"b","value":1}]"#),
        ("from_entries", r#"[{"name":"a","value":1},{"k":"b","v":null},["c",3]]"#, r#"{"a":1,"b":null,"c":3}"#),
        ("keys", r#"{"b":1,"a":2}"#, r#"["a","b"]"#),
        ("keys_unsorted", r#"{"b":1,"a":2}"#, r#"["b","a"]"#),
        ("sort_by(.a) | map(.b)", r#"[{"a":2,"b":"x"},{"a":1,"b":"y"}]"#, r#"["y","x"]"#),
        ("sort_by(.a, .b) | map(.b)", r#"[{"a":1,"b":2},{"a":1,"b":1}]"#, "[1,2]"),
        ("group_by(.a) | map(length)", r#"[{"a":2},{"a":1},{"a":2}]"#, "[1,2]"),
        ("unique", "[3,1,1.0,2,3]", "[1,2,3]"),
        ("min, max | tostring | select(. == \"3\")", "[3,1]", "\"3\""),
        ("[min_by(.a), max_by(.a)]", r#"[{"a":2},{"a":1}]"#, r#"[{"a":1},{"a":2}]"#),
        ("del(.a, .c[0,1])", r#"{"a":1,"b":2,"c":[1,2,3]}"#, r#"{"b":2,"c":[3]}"#),
        ("del(.[] | select(. > 1))", "[1,2,3,1]", "[1,1]"),
        ("map_values(. * 2)", r#"{"a":1}"#, r#"{"a":2}"#),
        ("walk(if type == \"number\" then . + 1 else . end)", r#"{"a":[1,{"b":2}]}"#, r#"{"a":[2,{"b":3}]}"#),
        ("[paths]", r#"{"a":[1]}"#, r#"[["a"],["a",0]]"#),
        ("[leaf_paths]", r#"{"a":[1]}"#, r#"[["a",0]]"#),
        ("[paths(type == \"number\")]", r#"{"a":[1]}"#, r#"[["a",0]]"#),
        ("getpath([\"a\",0,\"b\"])", r#"{"a":null}"#, "null"),
        ("setpath([\"a\",1]; 5)", "null", r#"{"a":[null,5]}"#),
        (".a.b |= 1 | .c[1] = 2", "{}", r#"{"a":{"b":1},"c":[null,2]}"#),
        ("[.[] += 1, (.[0] -= 1 | .[0])]", "[1]", "[[2],0]"),
        ("pick(.a.b, .d[1])", r#"{"a":{"b":1,"c":2},"d":[1,2]}"#, r#"{"a":{"b":1},"d":[null,2]}"#),
        ("reduce .[] as [$a, $b] (0; . + $a * $b)", "[[1,2],[3,4]]", "14"),
        ("[foreach .[] as $x (0; . + $x; [$x, .])]", "[1,2]", "[[1,1],[2,3]]"),
        ("[limit(3; repeat(1))]", "null", "[1,1,1]"),
        ("[range(5)], [range(2;4)], [range(5;0;-2)] | length | select(. == 3)", "null", "3"),
        ("[first(range(10)), last(range(10)), nth(3; range(10))]", "null", "[0,9,3]"),
        ("[.[] | until(. > 100; . * 2)]", "[1]", "[128]"),
        ("[recurse(if . < 3 then . + 1 else empty end)]", "0", "[0,1,2,3]"),
        ("[..] | length", "[[1],2]", "4"),
        ("flatten, flatten(1) | length | select(. == 2)", "[1,[[2]]]", "2\u{0}"),
        ("[any, all, any(. > 1), all(. > 0), isempty(.[])]", "[1,2]", "[true,true,true,true,false]"),
        ("\"a\\(1 + 2)b\\(.x)\"", r#"{"x":["y"]}"#, r#""a3b[\"y\"]""#),
        ("[.[] | tostring]", r#"[1,"1",null,{"a":1.50}]"#, r#"["1","1","null","{\"a\":1.50}"]"#),
        ("[.[] | tonumber]", r#"["1.50",2]"#, "[1.50,2]"),
        ("[.[] | tonumber?]", r#"["x"," 1","0x1"]"#, "[]"),
        ("map(type)", r#"[null,true,1,"",[],{}]"#, r#"["null","boolean","number","string","array","object"]"#),
        ("map(length)", r#"[null,-1,"äb",[1],{}]"#, "[0,1,2,1,0]"),
        (
            "[.[] | has(\"a\")], [has(0), has(5)] | select(. == [true, false])",
            r#"[{"a":null},{}]"#,
            "[true,false]\u{0}",
        ),
        ("contains({a: [1], b: \"x\"})", r#"{"a":[2,1],"b":"axb"}"#, "true"),
        ("inside([1,2])", "[1]", "true"),
        ("[index(\"b\"), rindex(\"b\"), indices(\"b\")]", "\"äbcb\"", "[1,3,[1,3]]"),
        ("indices([1,2])", "[0,1,2,1,2]", "[1,3]"),
        ("split(\", \"), (\"a,b\" / \",\") | select(length == 3)", "\"a, b, c\"", r#"["a","b","c"]"#),
        ("join(\"-\")", r#"["a",null,1,true]"#, "\"a--1-true\""),
        (
            "[ltrimstr(\"a\"), rtrimstr(\"c\"), startswith(\"a\"), endswith(\"x\")]",
            "\"abc\"",
            r#"["bc","ab",true,false]"#,
        ),
        ("[trim, ltrim, rtrim]", "\" a \"", r#"["a","a "," a"]"#),
        ("[ascii_upcase, ascii_downcase, explode, (explode | implode)]", "\"aÄ\"", "[\"AÄ\",\"aÄ\",[97,196],\"aÄ\"]"),
        ("[.[2:4], .[:1], .[-2:], .[1:-1]]", "\"äbcde\"", r#"["cd","ä","de","bcd"]"#),
        ("[.[1:], .[-1], .[9]]", "[1,2,3]", "[[2,3],3,null]"),
        (".[1:] = [9]", "[1,2,3]", "[1,9]"),
        ("[test(\"B\"; \"i\"), test(\"x\"), test([\"B\", \"i\"])]", "\"abc\"", "[true,false,true]"),
        (
            "[match(\"(?<x>b)(z)?\"; \"g\")]",
            "\"äb\"",
            r#"[{"offset":1,"length":1,"string":"b","captures":[{"offset":1,"length":1,"string":"b","name":"x"},{"offset":-1,"length":0,"string":null,"name":null}]}]"#,
        ),
        ("capture(\"(?<y>[0-9]+)-(?<m>[0-9]+)\")", "\"2024-05\"", r#"{"y":"2024","m":"05"}"#),
        ("[scan(\"[a-z]\")], [scan(\"([a-z])([0-9])\")] | select(length == 2)", "\"a1 b2\"", "[\"a\",\"b\"]\u{0}"),
        ("[splits(\", *\")]", "\"a, b,c\"", r#"["a","b","c"]"#),
        (
            "[sub(\"(?<x>[a-z])\"; \"<\\(.x)>\"), gsub(\"[a-z]\"; \"\"), gsub(\"\"; \"-\")]",
            "\"1ab\"",
            r#"["1<a>b","1","-1-a-b-"]"#,
        ),
        ("[@json, @text, @base64, (@base64 | @base64d)]", "[1]", r#"["[1]","[1]","WzFd","[1]"]"#),
        (
            "[@csv, @tsv, @sh]",
            r#"["a\"b",1,null,true]"#,
            r#"["\"a\"\"b\",1,,true","a\"b\t1\t\ttrue","'a\"b' 1 null true"]"#,
        ),
        (
            "[@html, @uri, @uri \"?q=\\(.)\"]",
            "\"<a b&>\"",
            r#"["&lt;a b&amp;&gt;","%3Ca%20b%26%3E","?q=%3Ca%20b%26%3E"]"#,
        ),
        ("[tojson, (tojson | fromjson)]", r#"{"a":1.0}"#, r#"["{\"a\":1.0}",{"a":1.0}]"#),
        ("[floor, ceil, round, sqrt, pow(.; 2), fabs]", "2.25", "[2,3,2,1.5,5.0625,2.25]"),
        ("[7 % 3, -7 % 3, 1 / 3, 6 / 3, 5.0 + 1, 1e3, 3.10]", "null", "[1,-1,0.3333333333333333,2,6,1e3,3.10]"),
        (
            "[9223372036854775807 + 1, 1e300 * 10, infinite, nan, -0.0]",
            "null",
            "[9.223372036854776e+18,1e+301,1.7976931348623157e+308,null,-0]",
        ),
        ("[try error(\"x\") catch ., (try (1 + \"a\") catch .), (.a?)]", "[]", "[\"x\",\"cannot calculate 1 + a\"]"),
        ("try error({code: 1}) catch .code", "null", "1"),
        ("[.[] as {a: $x, b: [$y]} | $x + $y]", r#"[{"a":1,"b":[2]}]"#, "[3]"),
        ("label $f | .[] | if . > 1 then ., break $f else empty end", "[1,2,3]", "2"),
        ("def f($x): $x * 2; def g(h): [.[] | h]; g(f(.))", "[1,2]", "[2,4]"),
        ("def fac: if . <= 1 then 1 else . * (. - 1 | fac) end; fac", "10", "3628800"),
        ("def up(f; $n): if $n == 0 then . else f | up(f; $n - 1) end; up(. + 1; 300)", "0", "300"),
        ("{(.a, .b): 1}", r#"{"a":"x","b":"x"}"#, ""),
        ("{\"a b\": 1, @base64 \"x\": 2, $__loc: 3}", "null", ""),
        (". as $d | {$d, \"k\": .a}", r#"{"a":1}"#, r#"{"d":{"a":1},"k":1}"#),
        ("{a: 1} * {a: {b: 2}} * {a: {c: 3}}", "null", r#"{"a":{"b":2,"c":3}}"#),
        ("[. * 3, . * 0, . * 0.5]", "\"ab\"", r#"["ababab",null,"ab"]"#),
        ("[1,2,3,1] - [1]", "null", "[2,3]"),
        ("[.[] | not]", "[null,false,0]", "[true,true,false]"),
        ("[.a // 1, (.b // empty), (false // false)]", "{}", "[1,false]"),
        ("if . == 1 then \"one\" elif . == 2 then \"two\" else \"many\" end", "2", "\"two\""),
        ("if . == 1 then \"one\" end", "2", "2"),
        ("[combinations]", "[[1,2],[3]]", "[[1,3],[2,3]]"),
        ("transpose", "[[1,2],[3]]", "[[1,3],[2,null]]"),
        ("[.[] | IN(1, 2)]", "[1,3]", "[true,false]"),
        ("INDEX(.id) | map_values(.v)", r#"[{"id":1,"v":"a"},{"id":"x","v":"b"}]"#, r#"{"1":"a","x":"b"}"#),
        ("[todate, (todate | fromdate)]", "1425599621", r#"["2015-03-05T23:53:41Z",1425599621]"#),
        (
            "sort",
            r#"[{"a":1},[1],"a",2,1,true,false,null,{"a":0},{"A":5}]"#,
            r#"[null,false,true,1,2,"a",[1],{"A":5},{"a":0},{"a":1}]"#,
        ),
        ("[splits(\"a\")] == [split(\"a\")[]]", "\"bab\"", "true"),
        ("add(.[].a)", r#"[{"a":1},{"a":2}]"#, "3"),
        ("[abs, (. | toarray), (-. | abs)]", "-5", "[5,[-5],5]"),
        ("tojson", "\"\\u007f\\u0001\"", "\"\\\"\\\\u007f\\\\u0001\\\"\""),
        ("ascii_downcase as $x | [$x]", "\"A\"", "[\"a\"]"),
        ("[.[] | (.a |= empty)]", r#"[{"a":1,"b":2}]"#, r#"[{"b":2}]"#),
        ("(.. | select(type == \"number\")) |= . + 1", "[1,[2]]", "[2,[3]]"),
        ("path(..)", "1", "[]"),
        ("[path(.a[0]?, .b)]", r#"{"a":[1]}"#, r#"[["a",0],["b"]]"#),
        ("input", "1", ""),
    ] {
        match Program::compile(program, &[]) {
            Err(error) => {
                if !expected.is_empty() {
                    writeln!(wrong, "{program}: {error}").unwrap();
                }
            }
            Ok(ready) => match ready.run(input.as_bytes(), &[], &Bounds::default()) {
                Ok(output) if expected.as_bytes() == output => {}
                Err(Error::Failed(more))
                    if (expected.is_empty() || expected.ends_with('\0')) && more.contains("more than one") => {}
                other => {
                    let other = other.map(|output| String::from_utf8(output).unwrap());
                    writeln!(wrong, "{program}: {other:?}").unwrap();
                }
            },
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// What never ends, or grows without bound, ends.
#[test]
fn everything_ends() {
    // Less stack than any thread of the gateway has.
    let thread = std::thread::Builder::new().stack_size(3 << 19).spawn(end_everything).unwrap();
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn end_everything() {
    let bounds = Bounds { steps: 200_000, ..Bounds::default() };
    let mut wrong = String::new();
    for program in [
        "def f: f; f",
        "def f: . + 1 | f; 0 | f",
        "def f: 1 + f; f",
        "def f: f | f; f",
        "def f: f, f; f",
        "def f: [f]; f",
        "def f: {a: f}; f",
        "def f: try f catch f; f",
        "def f: (f?) // f; f",
        "def f: try error(\"x\") catch f; f",
        "def f: label $x | f; f",
        "def f: . as [$a] | f; f",
        "def f($x): f($x + 1); f(0)",
        "def f(g): f(g | g); f(.)",
        "def f(g): f(def h: g; h); f(.)",
        "def f(g): def q: f(g); q; f(.)",
        "def p(f): def q: p(q); q; p(.)",
        "def a(g): def b(h): a(h), b(g); b(g); a(.)",
        "def f(g): reduce range(10) as $x (0; f(g)); f(.)",
        "[.] | last(repeat(.))",
        "last(repeat(.))",
        "[repeat(.)] | length",
        "[range(infinite)]",
        "[range(1e12)]",
        "last(range(infinite))",
        "last(range(1e18) | try error catch empty)",
        "first(range(infinite) | select(. < 0))",
        "range(1e18) | error?",
        "[range(1e12) | empty]",
        "reduce range(1e12) as $x (0; 1)",
        "reduce repeat(1) as $x (0; 0, 0)",
        "foreach repeat(1) as $x (0; . + 1; empty)",
        "until(false; .)",
        "last(while(true; .))",
        "last(recurse(.))",
        "last(recurse(., .))",
        "last(limit(1e18; repeat(1)))",
        "[limit(1e9; repeat(0))] | length",
        "first(empty, repeat(empty))",
        "skip(1e18; repeat(1))",
        "last(skip(2; repeat(1)))",
        "isempty(repeat(empty))",
        "any(repeat(false); .)",
        "all(repeat(true); .)",
        "reduce range(60) as $i (\"x\"; . + .)",
        "reduce range(60) as $i ([0]; . + .)",
        "reduce range(60) as $i (0; [., .])",
        "reduce range(100) as $i (0; [., .]) | tojson",
        "reduce range(26) as $i (0; [., .])",
        "reduce range(1e6) as $i (0; [.])",
        "reduce range(1e6) as $i (0; {a: .})",
        "reduce range(1e9) as $i (null; .[$i] = 1)",
        "\"x\" * 1e9",
        "\"x\" * 1e300",
        "[range(1e5)] | map(\"x\" * 1e6)",
        "null | .[1e9] = 1",
        "null | .[1e18] = 1",
        "[] | setpath([1e15]; 1)",
        "path(def f: .a | f; f)",
        "path(def f: .[0:] | f; f)",
        "null | path(last(recurse(.a)))",
        "[1] | last(path(def f: .[0:] | ., f; f))",
        "[1] | [paths(last(repeat(.)))]",
        "def f: .a | f; f |= 1",
        "null | (def f: .a | f; f) = 1",
        "(.. | repeat(.)) |= 1",
        "reduce range(1e9) as $x (.; .a |= .)",
        "[range(300)] | [combinations(5)] | length",
        "[range(300)] | . as $x | [$x, $x, $x, $x, $x] | [combinations] | length",
        "[range(3000)] | . - map(. + 0.5) | length",
        "[range(3000)] | contains(map(-1 - .)) | [repeat(.)]",
        "[range(1000)] | [.[] as $a | .[] as $b | .[] as $c | 1] | length",
        "[range(100000)] | sort_by(repeat(.))",
        "[range(10)] | sort_by(range(1e12))",
        "[range(10)] | group_by(repeat(1))",
        "[range(10)] | min_by(repeat(1))",
        "(\"a\" * 100000) | [match(\".*[^A-Z]|[A-Z]\"; \"g\")] | [repeat(.)]",
        "(\"a\" * 200000) | gsub(\"a*b|a\"; \"b\")",
        "(\"a\" * 30000) | last(repeat(gsub(\"(a?){40}a{40}b\"; \"\")))",
        "[range(1000)] | map(tostring) | map(. as $p | \"x\" | test($p)) | repeat(.)",
        "(\"a\" * 10000000) | last(repeat(test(\"b\")))",
        "(\"ab\" * 500000) | [split(\"\"), split(\"a\"), explode, explode, explode, explode] | repeat(.)",
        "(\"a\" * 1000000) | indices(\"a\" * 500000) | repeat(.)",
        "(\"\\u0001\" * 4000000) | tojson | tojson | tojson",
        "[range(100000)] | map(.) | map(.) | map(.) | map(.) | map(.) | map(.)",
        "[range(10000)] | [.[:9]] | map(tojson) | map(fromjson) | [repeat(.)]",
        "def f: def g: f; g; f",
        "def f: reduce f as $x (0; .); f",
        "def f: foreach f as $x (0; .); f",
        "def f: if f then 1 else 2 end; f",
        "def f: -f; f",
        "def f: .[f]; f",
        "def f: .[f:f]?; f",
        "def f: f and f; f",
        "def f: f == f; f",
        "def f: f as $x | $x; f",
        "def f: \"\\(f)\"; f",
        "def f: first(f); f",
        "def f: first(f, 1); f",
        "def f: limit(1; f); f",
        "def f: [., 1] | sort_by(f); f",
        "def f: f; f |= 1",
        "def f: f; path(f)",
        "def f: (., .) | f; path(f)",
        "def f: 1, f; [f]",
        "def f: f, 1; f",
        "def f(x): x, f(x); [f(1)]",
        "def f: . as $x | [$x, f]; f",
        "walk(last(repeat(.)))",
        "[limit(10; repeat(\"x\" * 1e6))] | [repeat(.)]",
        "reduce repeat(\"x\" * 100000) as $x ([]; . + [$x])",
        "[range(50000) | {a: .}] | unique_by(.a) | unique_by(.a) | unique_by(.a) | unique_by(.a)| [repeat(.)]",
        ". as $x | def f(g): g | f(g); f([$x])",
    ] {
        let ready = Program::compile(program, &[]).unwrap_or_else(|error| panic!("{program}: {error}"));
        let result = ready.run(b"null", &[], &bounds);
        if !matches!(result, Err(Error::OutOf(_))) {
            let result = result.map(|output| String::from_utf8_lossy(&output[..output.len().min(100)]).into_owned());
            writeln!(wrong, "{program}: {result:?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn bounds_are_those_that_are_given() {
    let bounds = |steps, output, value| Bounds { steps, output, value };
    let free = || bounds(1 << 20, 1 << 20, 1 << 20);
    assert_eq!(run_within(".", "[1,2]", &bounds(0, 9, 999)), Err(Error::OutOf(Bound::Steps)));
    assert_eq!(run_within(".", "[1,2]", &Bounds { output: 5, ..free() }), Ok("[1,2]".to_owned()));
    assert_eq!(run_within(".", "[1,2]", &Bounds { output: 4, ..free() }), Err(Error::OutOf(Bound::Output)));
    assert_eq!(run_within(".", "[1,2]", &Bounds { value: 64, ..free() }), Ok("[1,2]".to_owned()));
    assert_eq!(run_within(".", "[1,2]", &Bounds { value: 63, ..free() }), Err(Error::OutOf(Bound::Value)));
    assert_eq!(run_within(". + [3]", "[1,2]", &Bounds { value: 64, ..free() }), Err(Error::OutOf(Bound::Value)));
    // A run leaves nothing to the next.
    assert_eq!(run_within("range(9) | select(. == 8)", "1", &bounds(400, 9, 99)), Ok("8".to_owned()));
    // What exceeds the bounds cannot be caught, and nothing is made of it.
    assert_eq!(run_within("try [range(1e9)] catch 1", "1", &free()), Err(Error::OutOf(Bound::Value)));
    assert_eq!(run_within("(\"x\" * 1e9)? // 2", "1", &free()), Err(Error::OutOf(Bound::Value)));
    assert_eq!(run_within("label $x | (last(range(1e9)), break $x)?", "1", &free()), Err(Error::OutOf(Bound::Steps)));
}

#[test]
fn recursion_goes_deep_enough() {
    let nested = format!("{}1{}", "[".repeat(127), "]".repeat(127));
    assert_eq!(run("def d: if type == \"array\" then 1 + (.[0] | d) else 0 end; d", &nested).as_deref(), Ok("127"));
    assert_eq!(run("[..] | length", &nested).as_deref(), Ok("128"));
    assert_eq!(run("walk(.)", &nested), Ok(nested.clone()));
    assert_eq!(run("tojson | fromjson", &nested), Ok(nested.clone()));
    assert_eq!(run("[.]", &nested).map(|output| output.len()), Ok(257));
    assert_eq!(run("[[.]]", &nested), Err(Error::OutOf(Bound::Depth)));
    // Tail calls take no stack.
    assert_eq!(run("def f: if . == 0 then 0 else . - 1 | f end; f", "10000").as_deref(), Ok("0"));
    // Closures that are only passed on lie in each other; 500 of them may.
    let through = "def f(g; $n): if $n == 0 then . else g | f(g; $n - 1) end; f(. + 1; 499)";
    assert_eq!(run(through, "0").as_deref(), Ok("499"));
    // Where calls are not nested they are not counted.
    assert_eq!(run("def f(g): g; [range(9999) | f(. + 1)] | length", "0").as_deref(), Ok("9999"));
    assert_eq!(run("def f(g): g; def f(g; h): f(g) + f(h); f(1; 2)", "0").as_deref(), Ok("3"));
    assert_eq!(run("def f(g): def f: g; f; f(3)", "0").as_deref(), Ok("3"));
}

#[test]
fn programs_are_refused_in_words() {
    let refused = |program: &str| Program::compile(program, &["user"]).map(|_| ()).unwrap_err();
    assert_eq!(refused(".a |\n  maap(.b)"), "line 2, column 3: no function is called maap, did you mean map?");
    assert_eq!(refused("map(.a"), "line 1, column 7: expected closing parenthesis where the program ends");
    assert_eq!(refused(".a | | .b"), "line 1, column 6: expected term, but found \"|\"");
    assert_eq!(refused("if . then"), "expected term where the program ends");
    assert_eq!(refused(""), "expected term where the program ends");
    assert_eq!(refused("$usr"), "line 1, column 1: no variable is called $usr, did you mean $user?");
    assert_eq!(refused("$ENV.HOME"), "line 1, column 1: no variable is called $ENV");
    assert_eq!(refused("map(.; .)"), "line 1, column 1: the function map takes 1 arguments, not 2");
    for name in ["env", "input", "now", "halt", "debug"] {
        assert_eq!(refused(name), format!("line 1, column 1: the function {name} is not there in the gateway"));
    }
    assert!(
        refused("include \"a\"; .").starts_with("line 1, column 9: expected nothing"),
        "{}",
        refused("include \"a\"; .")
    );
    assert!(refused("a::b").starts_with("line 1, column 1: there are no modules"), "{}", refused("a::b"));
    assert!(refused("__main").contains("two underscores"));
    assert!(refused("def f: 1 as $__depth | 2; f").contains("two underscores"));
    assert!(refused(&"[".repeat(300)).contains("more than 200 deep"));
    assert!(refused(&" ".repeat(70_000)).contains("more than 65536 bytes"));
    assert!(refused("break $x").contains("label"));
    assert!(refused("\"\\q\"").contains("string escape sequence"));
    for long in ["1+", "1|", "1,", "-", "1//", ".a.", "1 as $x|", "def f:1;"] {
        let _ = Program::compile(&format!("{}1", long.repeat(60_000 / long.len())), &[]);
    }
}

#[test]
fn bodies_are_refused_where_they_are_wrong() {
    let program = Program::compile(".", &[]).unwrap();
    let deep = "[".repeat(129);
    for (input, at, what) in [
        ("", 0, "it ends too early"),
        ("[1,]", 3, "a value is expected"),
        ("{\"a\":1,}", 7, "a name in quotes is expected"),
        ("1 2", 2, "there is something behind the end"),
        ("[1", 2, "it ends too early"),
        ("{\"a\" 1}", 5, "`:` is expected"),
        ("\"a\nb\"", 2, "a control character in a string"),
        ("\"a", 2, "it ends too early"),
        ("\"\\x\"", 1, "an escape that is not known"),
        ("\"\\u12\"", 1, "four hexadecimal digits are expected"),
        ("\"\\ud800\"", 1, "half of a surrogate pair"),
        ("\"\\ud800\\u0041\"", 1, "half of a surrogate pair"),
        ("\"\\udc00\"", 1, "half of a surrogate pair"),
        ("\u{feff}1", 0, "a value is expected"),
        ("01", 1, "there is something behind the end"),
        ("1.", 0, "this is no number of JSON"),
        ("-", 0, "this is no number of JSON"),
        ("1e", 0, "this is no number of JSON"),
        ("+1", 0, "a value is expected"),
        ("NaN", 0, "a value is expected"),
        (&deep, 128, "it lies deeper than 128 levels"),
    ] {
        let found = program.run(input.as_bytes(), &[], &Bounds::default());
        assert_eq!(found, Err(Error::Malformed(Malformed::new(at, what))), "{input}");
    }
    let found = program.run(b"\"\xff\"", &[], &Bounds::default());
    assert_eq!(found, Err(Error::Malformed(Malformed::new(1, "the text is not UTF-8"))));
    assert_eq!(run(".", "{\"a\":1,\"b\":2,\"a\":3}").as_deref(), Ok("{\"a\":3,\"b\":2}"));
}

#[test]
fn outputs_are_one() {
    let failed = |message: &str| Err(Error::Failed(message.to_owned()));
    assert_eq!(run("empty", "1"), failed("the program gives no output"));
    assert_eq!(run("1, 2", "1"), failed("the program gives more than one output"));
    assert_eq!(run(".a", "[]"), failed("cannot index an array of 0 with a"));
    assert_eq!(run("error", "\"why\""), failed("why"));
    assert_eq!(run("1 / 0", "1"), failed("division by zero"));
    assert_eq!(run("error({a: 1})", "1"), failed("an object of 1"));
    let long = run("error", &format!("\"{}\"", "ä".repeat(1000))).unwrap_err().to_string();
    assert_eq!(long, format!("{}…", "ä".repeat(64)));
}

#[test]
fn parts_and_variables() {
    let program = Program::compile("{name: .user.name, owes: .billing[0], $who, $none}", &["who", "none"]).unwrap();
    let parts: [(&str, &[u8]); 2] = [("user", b"{\"name\":\"n\"}"), ("billing", b"[1.50]")];
    let output = program.run_parts(&parts, &[Some("a\"b"), None], &Bounds::default()).unwrap();
    assert_eq!(String::from_utf8(output).unwrap(), r#"{"name":"n","owes":1.50,"who":"a\"b","none":null}"#);
    let parts: [(&str, &[u8]); 2] = [("user", b"1"), ("billing", b"[1.50")];
    let error = program.run_parts(&parts, &[None, None], &Bounds::default()).unwrap_err();
    assert_eq!(error.to_string(), "billing: it ends too early, at byte 5");
}

#[test]
fn the_table_that_stops_is_large_enough() {
    for program in [
        ".",
        "{a, \"b\": 1, $__loc, (\"x\"): [], @json \"y\\(1)z\\n\": {}}",
        "[[[[]]]] | . as [[$a, {b: $c}], {$d, \"e\": [$f]}] | if 1 then 2 elif 3 then 4 end",
        "def f(g; $x): reduce g as [$a, $b] (0; 1); try f(1; 2) catch 3 | .[1:2].a[\"b\"]?.\"c\"[]",
        "label $x | foreach .[] as {a: [$x]} (0; 1; 2) | break $x | -1 | 2 // 3 | .a |= 1 | .b += 2 | \"a\\(1)b\\(2)\\u0041\"",
    ] {
        let program = program.replace(", $__loc", "");
        let (has, most) = compile::terms(&program);
        assert!(has < most / 2, "{program}: {has} of {most}");
        let many = format!("[{}]", vec![program.replace("break $x |", "1 |"); 50].join(","));
        let (has, most) = compile::terms(&many);
        assert!(has < most / 2, "{many}: {has} of {most}");
    }
}

mod any {
    use proptest::prelude::*;

    use super::*;

    const LEAVES: [&str; 22] = [
        ".", ".a", ".[0]", ".[]", ".[]?", "..", "1", "\"x\"", "null", "[]", "{}", "empty", "error", "range(3)",
        "length", "tojson", "keys", "add", "infinite", "f", "$x", ".[1:]",
    ];
    const SHAPES: [&str; 44] = [
        "(A | B)",
        "(A, B)",
        "[A]",
        "{a: A}",
        "{(A | tostring): B}",
        "(A + B)",
        "(A * B)",
        "(A - B)",
        "(A / B)",
        "(A % B)",
        "(A == B)",
        "(A < B)",
        "(A // B)",
        "(A and B)",
        "(try A catch B)",
        "(A?)",
        "(if A then B else . end)",
        "(reduce A as $x (.; B))",
        "(foreach A as $x (.; B))",
        "(A as $x | B)",
        "(A as [$x] | B)",
        "(A |= B)",
        "(A = B)",
        "(A += B)",
        "repeat(A)",
        "first(A)",
        "last(A)",
        "limit(A; B)",
        "until(A; B)",
        "recurse(A)",
        "path(A)",
        "del(A)",
        "sort_by(A)",
        "group_by(A)",
        "map(A)",
        "walk(A)",
        "(def f: A; B)",
        "(def g(h): A | h; g(B))",
        "(label $l | A, B)",
        "test(A)",
        "gsub(A; B)",
        "join(A)",
        "combinations(A)",
        "\"\\(A)\"",
    ];

    const TOKENS: [&[u8]; 18] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"a\"",
        b"\"\\u00e9\"",
        b"1",
        b"-",
        b".5",
        b"e9",
        b"0",
        b" ",
        b"null",
        b"\xc3",
        b"\xa9",
        b"\"",
    ];
    const INPUTS: [&str; 4] = ["null", "[1,[2],{\"a\":3}]", "{\"a\":{\"a\":[1]}}", "\"xyx\""];

    fn program() -> impl Strategy<Value = String> {
        let leaf = prop::sample::select(&LEAVES[..]).prop_map(str::to_owned);
        leaf.prop_recursive(6, 48, 2, |inner| {
            (prop::sample::select(&SHAPES[..]), inner.clone(), inner)
                .prop_map(|(shape, a, b)| shape.replace('B', "\0").replace('A', &a).replace('\0', &b))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn programs_end(program in program(), input in prop::sample::select(&INPUTS[..])) {
            let program = format!("def f: . as $x | [.] | .[0]; null as $x | {input} | {program}");
            let program = Program::compile(&program, &[]).unwrap();
            let bounds = Bounds { steps: 20_000, output: 1000, value: 100_000 };
            if let Ok(output) = program.run(b"null", &[], &bounds) {
                prop_assert!(output.len() <= bounds.output);
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&output).is_ok());
            }
        }

        #[test]
        fn bodies_are_read_as_others_read_them(input in prop::collection::vec(prop::sample::select(&TOKENS[..]), 0..12)) {
            let input = input.concat();
            let ours = Program::compile(".", &[]).unwrap().run(&input, &[], &Bounds::default());
            let theirs = serde_json::from_slice::<serde_json::Value>(&input);
            match (&ours, theirs) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(ours).unwrap(), theirs),
                // They read no number that is larger than any floating point number.
                (Ok(_), Err(error)) => prop_assert!(error.to_string().contains("out of range")),
                (Err(error), theirs) => {
                    prop_assert!(matches!(error, Error::Malformed(_)) && theirs.is_err(), "{error}");
                }
            }
        }
    }
}
