# What is defined in jq itself. See natives.rs for the rest.
def values: select(. != null);
def nulls: select(. == null);
def booleans: select(type == "boolean");
def numbers: select(type == "number");
def strings: select(type == "string");
def arrays: select(type == "array");
def objects: select(type == "object");
def iterables: select(type == "array" or type == "object");
def scalars: select(type != "array" and type != "object");
def isvalid(f): try (f | true) catch false;

def abs: if type == "number" and . < 0 then -. else . end;
def toarray: if type == "array" then . else [.] end;
def add(f): reduce f as $x (null; . + $x);
def flatten: flatten(1e9);
def in(xs): . as $x | xs | has($x);
def inside(xs): . as $x | xs | contains($x);
def index($part): indices($part) | .[0];
def rindex($part): indices($part) | .[-1:][0];
def sort_by(f): sort_with(f);
def sort: sort_with(.);
def group_by(f): group_with(f);
def unique_by(f): [group_with(f)[] | .[0]];
def unique: unique_by(.);
def min_by(f): min_with(f);
def max_by(f): max_with(f);
def min: min_with(.);
def max: max_with(.);
def transpose: [range([.[] | length] | max // 0) as $i | [.[][$i]]];
def keys: [keys_unsorted[]] | sort;

def map_values(f): .[] |= f;
def del(f): delpaths([path(f)]);
def to_entries: [key_values[] as [$key, $value] | {$key, $value}];
def from_entries: reduce .[] as $e ({};
  . + { ($e | if type == "array" then .[0]
              else if has("key") then .key elif has("k") then .k elif has("name") then .name
                   elif has("Name") then .Name elif has("Key") then .Key else .K end end
            | if type == "string" then . elif . == null then "null" else tojson end):
        ($e | if type == "array" then .[1]
              else if has("value") then .value elif has("v") then .v elif has("Value") then .Value else .V end end) });
def with_entries(f): to_entries | map(f) | from_entries;
def pick(f): . as $top | reduce path(f) as $p (null; setpath($p; $top | getpath($p)));
def paths(f): path(..) as $p | select($p != []) | select(. as $top | $top | getpath($p) | f) | $p;
def leaf_paths: paths(scalars);
def combinations: if length == 0 then [] else .[0][] as $x | (.[1:] | combinations) as $rest | [$x] + $rest end;
def combinations($n): . as $dot | [range($n)] | map($dot) | combinations;
def IN(s): any(s == .; .);
def IN(s; t): any(s == t; .);
def INDEX(s; f): reduce s as $row ({}; .[$row | f | tostring] |= $row);
def INDEX(f): INDEX(.[]; f);

def capture_of: [.[1:][] | select(has("name")) | select(.name != null) | {(.name): .string}] | add(.[]) // {};
def match(re; flags): matches(re; flags)[] | .[0] + {captures: .[1:]} | del(.name);
def match(re): if re | type == "array" then match(re[0]; re[1]) else match(re; "") end;
def test(re; flags): matches(re; flags) != [];
def test(re): if re | type == "array" then test(re[0]; re[1]) else test(re; "") end;
def capture(re; flags): matches(re; flags)[] | capture_of;
def capture(re): capture(re; "");
def scan(re; flags): matches(re; "g" + flags)[] | if length > 1 then [.[1:][].string] else .[0].string end;
def scan(re): scan(re; "");
def split(re; flags): parts_around(re; "g" + flags) | map(select(type == "string"));
def splits(re; flags): split(re; flags)[];
def splits(re): splits(re; "");
def sub(re; f; flags): reduce (parts_around(re; flags)[]) as $p ("";
  . + if $p | type == "array" then ($p | capture_of | f) else $p end);
def sub(re; f): sub(re; f; "");
def gsub(re; f; flags): sub(re; f; "g" + flags);
def gsub(re; f): sub(re; f; "g");
def ascii: [.] | implode;
def todate: todateiso8601;
def fromdate: fromdateiso8601;

def @text: tostring;
def @json: tojson;
def @sh: [if type == "array" then .[] else . end | quote_sh] | join(" ");
def @csv: [.[] | quote_csv] | join(",");
def @tsv: [.[] | quote_tsv] | join("\t");
def @html: tostring | quote_html;
def @uri: tostring | quote_uri;
def @base64: tostring | to_base64;
def @base64d: tostring | from_base64;
