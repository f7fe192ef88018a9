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
        (".", r#"{"b":1.0,"a":[1e400,-0,100000000000000000000000000001,{}],"c":[]}"#, r#"{"b":1.0,"a":[1e400,-0,100000000000000000000000000001,{}],"c":[]}"#),
        (".", " [ 1 , \"\\u00e9\\ud83d\\ude00\\n\" ] ", "[1,\"é😀\\n\"]"),
        ("{id, name, total: (.items | map(.price) | add)}", r#"{"name":"n","id":7,"items":[{"price":1.5},{"price":2}]}"#, r#"{"id":7,"name":"n","total":3.5}"#),
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
        ("[.[] | has(\"a\")], [has(0), has(5)] | select(. == [true, false])", r#"[{"a":null},{}]"#, "[true,false]\u{0}"),
        ("contains({a: [1], b: \"x\"})", r#"{"a":[2,1],"b":"axb"}"#, "true"),
        ("inside([1,2])", "[1]", "true"),
        ("[index(\"b\"), rindex(\"b\"), indices(\"b\")]", "\"äbcb\"", "[1,3,[1,3]]"),
        ("indices([1,2])", "[0,1,2,1,2]", "[1,3]"),
        ("split(\", \"), (\"a,b\" / \",\") | select(length == 3)", "\"a, b, c\"", r#"["a","b","c"]"#),
        ("join(\"-\")", r#"["a",null,1,true]"#, "\"a--1-true\""),
        ("[ltrimstr(\"a\"), rtrimstr(\"c\"), startswith(\"a\"), endswith(\"x\")]", "\"abc\"", r#"["bc","ab",true,false]"#),
        ("[trim, ltrim, rtrim]", "\" a \"", r#"["a","a "," a"]"#),
        ("[ascii_upcase, ascii_downcase, explode, (explode | implode)]", "\"aÄ\"", "[\"AÄ\",\"aÄ\",[97,196],\"aÄ\"]"),
        ("[.[2:4], .[:1], .[-2:], .[1:-1]]", "\"äbcde\"", r#"["cd","ä","de","bcd"]"#),
        ("[.[1:], .[-1], .[9]]", "[1,2,3]", "[[2,3],3,null]"),
        (".[1:] = [9]", "[1,2,3]", "[1,9]"),
        ("[test(\"B\"; \"i\"), test(\"x\"), test([\"B\", \"i\"])]", "\"abc\"", "[true,false,true]"),
        ("[match(\"(?<x>b)(z)?\"; \"g\")]", "\"äb\"", r#"[{"offset":1,"length":1,"string":"b","captures":[{"offset":1,"length":1,"string":"b","name":"x"},{"offset":-1,"length":0,"string":null,"name":null}]}]"#),
        ("capture(\"(?<y>[0-9]+)-(?<m>[0-9]+)\")", "\"2024-05\"", r#"{"y":"2024","m":"05"}"#),
        ("[scan(\"[a-z]\")], [scan(\"([a-z])([0-9])\")] | select(length == 2)", "\"a1 b2\"", "[\"a\",\"b\"]\u{0}"),
        ("[splits(\", *\")]", "\"a, b,c\"", r#"["a","b","c"]"#),
        ("[sub(\"(?<x>[a-z])\"; \"<\\(.x)>\"), gsub(\"[a-z]\"; \"\"), gsub(\"\"; \"-\")]", "\"1ab\"", r#"["1<a>b","1","-1-a-b-"]"#),
        ("[@json, @text, @base64, (@base64 | @base64d)]", "[1]", r#"["[1]","[1]","WzFd","[1]"]"#),
        ("[@csv, @tsv, @sh]", r#"["a\"b",1,null,true]"#, r#"["\"a\"\"b\",1,,true","a\"b\t1\t\ttrue","'a\"b' 1 null true"]"#),
        ("[@html, @uri, @uri \"?q=\\(.)\"]", "\"<a b&>\"", r#"["&lt;a b&amp;&gt;","%3Ca%20b%26%3E","?q=%3Ca%20b%26%3E"]"#),
        ("[tojson, (tojson | fromjson)]", r#"{"a":1.0}"#, r#"["{\"a\":1.0}",{"a":1.0}]"#),
        ("[floor, ceil, round, sqrt, pow(.; 2), fabs]", "2.25", "[2,3,2,1.5,5.0625,2.25]"),
        ("[7 % 3, -7 % 3, 1 / 3, 6 / 3, 5.0 + 1, 1e3, 3.10]", "null", "[1,-1,0.3333333333333333,2,6,1e3,3.10]"),
        ("[9223372036854775807 + 1, 1e300 * 10, infinite, nan, -0.0]", "null", "[9223372036854775808,1e+301,1.7976931348623157e+308,null,-0]"),
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
        ("sort", r#"[{"a":1},[1],"a",2,1,true,false,null,{"a":0},{"A":5}]"#, r#"[null,false,true,1,2,"a",[1],{"A":5},{"a":0},{"a":1}]"#),
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
                Err(Error::Failed(more)) if (expected.is_empty() || expected.ends_with('\0')) && more.contains("more than one") => {}
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
    let mut wrong = String::new();
    for program in [
        "def f: f; f",
        "def f: .+1 | f; f",
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
        "repeat(.)",
        "last(repeat(.))",
        "[repeat(.)] | length",
        "range(infinite)",
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
        "while(true; .)",
        "last(recurse(.))",
        "last(recurse(., .))",
        "limit(1e18; repeat(1))",
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
        "[1] | path(repeat(.[0:]))",
        "null | [paths(repeat(.))]",
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
        "(\"a\" * 30000) | gsub(\"(a?){40}a{40}b\"; \"\") | repeat(.)",
        "[range(1000)] | map(tostring) | map(. as $p | \"x\" | test($p)) | repeat(.)",
        "(\"a\" * 10000000) | test(\"b\") | repeat(.)",
        "(\"ab\" * 500000) | [split(\"\"), split(\"a\"), explode, explode, explode, explode] | repeat(.)",
        "(\"a\" * 1000000) | indices(\"a\" * 500000) | repeat(.)",
        "(\"\\u0001\" * 4000000) | tojson | tojson | tojson",
        "[range(100000)] | map(.) | map(.) | map(.) | map(.) | map(.) | map(.)",
        "[range(10000)] | [.[:]] | map(tojson) | map(fromjson) | [repeat(.)]",
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
        "def f: path(f); f",
        "def f: first(f); f",
        "def f: first(f, 1); f",
        "def f: limit(1; f); f",
        "def f: [., 1] | sort_by(f); f",
        "def f: (f |= 1); f",
        "def f: f; f |= 1",
        "def f: f; path(f)",
        "def f: (., .) | f; path(f)",
        "def f: 1, f; [f]",
        "def f: f, 1; f",
        "def f(x): x, f(x); [f(1)]",
        "def f: . as $x | [$x, f]; f",
        "walk(repeat(.))",
        "[limit(10; repeat(\"x\" * 1e6))] | [repeat(.)]",
        "reduce repeat(\"x\" * 100000) as $x ([]; . + [$x])",
        "[range(50000) | {a: .}] | unique_by(.a) | unique_by(.a) | unique_by(.a) | unique_by(.a)| [repeat(.)]",
        ". as $x | def f(g): g | f(g); f([$x])",
        "env",
    ] {
        let Ok(ready) = Program::compile(program, &[]) else {
            if program != "env" {
                writeln!(wrong, "{program}: {:?}", Program::compile(program, &[])).unwrap();
            }
            continue;
        };
        let begun = std::time::Instant::now();
        let result = ready.run(b"[1,{\"a\":[2]}]", &[], &Bounds::default());
        let took = begun.elapsed().as_millis();
        if std::env::var_os("JQ_TIMES").is_some() {
            println!("{took:6} ms {result:.60?} {program}");
        }
        if !matches!(result, Err(Error::OutOf(_))) {
            let result = result.map(|output| String::from_utf8_lossy(&output[..output.len().min(100)]).into_owned());
            writeln!(wrong, "{program}: {result:?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
