use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Templates of no context. What is expected is what Go writes.
const AS_GO: &[(&str, &str)] = &[
    (r##"a {{- 3 -}} b {{-3}} c {{- /* hi */ -}} d"##, "a3b -3 cd"),
    ("{{/* c */}}x{{- /* d\n*/}} y", "x y"),
    (
        r##"{{print 1000000.0 " " 1e21 " " 123456.5 " " 1e-5 0.0001}}"##,
        "1e+06 1e+21 123456.5 1e-05 0.0001",
    ),
    (
        r##"{{printf "%05d|%-5s|%5s|%x|%X|%q|%t|%.2f|%8.3f|%e|%g|%c|%o|%b|%+d" 42 "ab" "cd" "hi" 255 "a\"b\n" true 3.14159 2.5 1234.5 1000000.0 65 8 5 7}}"##,
        "00042|ab   |   cd|6869|FF|\"a\\\"b\\n\"|true|3.14|   2.500|1.234500e+03|1e+06|A|10|101|+7",
    ),
    (
        r##"{{print "a" 1 2 "b" true false}}|{{println "a" 1}}|{{print}}|{{print nil 1}}"##,
        "a1 2btrue false|a 1\n||<nil> 1",
    ),
    (r##"{{index "abc" 1}} {{slice "abcdef" 1 3}} {{slice "abc" 1}} {{len "héé"}}"##, "98 bc bc 5"),
    (
        r##"{{$x := split "a,b,c" ","}}{{$x}} {{range $i, $v := $x}}{{$i}}={{$v}};{{end}}"##,
        "[a b c] 0=a;1=b;2=c;",
    ),
    (
        r##"{{and 1 0 "x"}} {{or 0 "" "z"}} {{not 0}} {{3 | and 0}} {{3 | or 0}} {{and 1 2 | print}}"##,
        "0 z true 0 3 2",
    ),
    (
        r##"{{eq 1 2 1}} {{eq "a" "b"}} {{ne 1 2}} {{lt 1 2}} {{ge "b" "a"}} {{le 1.5 1.5}} {{gt "a" "b"}}"##,
        "true false true true true true false",
    ),
    (
        r##"{{html "<a href=\"x\">&'\x00"}} {{urlquery "a b/ü&=~*" 1}} {{html 1 "a" 2}}"##,
        "&lt;a href=&#34;x&#34;&gt;&amp;&#39;� a+b%2F%C3%BC%26%3D~%2A1 1a2",
    ),
    (
        r##"{{range 3}}{{.}}{{end}} {{range $i := 2}}{{$i}}{{end}} {{range 0}}x{{else}}none{{end}}"##,
        "012 01 none",
    ),
    (
        r##"{{with $x := "v"}}{{$x}}{{.}}{{else}}no{{end}} {{with ""}}a{{else with 3}}b{{.}}{{end}}"##,
        "vv b3",
    ),
    (
        r##"{{title "hello wOrld-foo bar_baz x.y it's"}} {{pad "x" 1 2}}| {{pad "" 1 2}}| {{truncate "hello" 3}} {{truncate "hi" 5}}"##,
        "Hello WOrld-Foo Bar_baz X.Y It'S  x  | | hel hi",
    ),
    (
        r##"{{json "a<b\n\"\\\u2028é\x01"}} {{json 1}} {{json 1.5}} {{json true}} {{json (split "a,b" ",")}}"##,
        "\"a<b\\n\\\"\\\\\\u2028é\\u0001\" 1 1.5 true [\"a\",\"b\"]",
    ),
    (
        r##"{{ "a" | printf "%s-%s" "b" }} {{printf "%d" 3 | printf "%s-%s" "a"}} {{"a" | len | print "x"}}"##,
        "b-a a-3 x1",
    ),
    (
        r##"{{'a'}} {{'\n'}} {{'é'}} {{0x10}} {{1_000}} {{010}} {{0b11}} {{0o17}} {{1.5e3}} {{-0x10}} {{+5}} {{.5}} {{0}}"##,
        "97 10 233 16 1000 8 3 15 1500 -16 5 0.5 0",
    ),
    (r##"{{print (print 1 2) 3}} {{(1)}} {{((print "x"))}}"##, "1 23 1 x"),
    (
        r##"{{if 0}}a{{else if 1}}b{{else}}c{{end}} {{if ""}}a{{else if 0}}b{{else}}c{{end}} {{if and (eq 1 1) (not false)}}y{{end}}"##,
        "b c y",
    ),
    (
        r##"{{printf "%v %v" (split "a,b" ",") true}} {{printf "%s" (split "a,b" ",")}} {{printf "%6.2s|" "héllo"}} {{printf "%x" "hé"}}"##,
        "[a b] true [a b]     hé| 68c3a9",
    ),
    (
        r##"{{upper "aé"}} {{lower "AÉ"}} {{split "aéb" ""}} {{split "" ","}}|{{split "a--b--" "--"}}"##,
        "AÉ aé [a é b] []|[a b ]",
    ),
    (
        r##"{{printf "%03d|%-3d|%3d" -5 7 8}} {{printf "%08.2f" -3.14159}} {{printf "%+.1e" 12345.678}} {{printf "%5t|%-6v|%6v" true "a" 3}}"##,
        "-05|7  |  8 -0003.14 +1.2e+04  true|a     |     3",
    ),
    (
        r##"{{printf "%q" `a\b`}}{{"\u00e9\x41\101\t\\\U0001F41F"}} {{`raw "x" \n`}} {{printf "100%%"}}"##,
        "\"a\\\\b\"éAA\t\\🐟 raw \"x\" \\n 100%",
    ),
    (
        r##"{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}} {{$x = 3}}{{$x}} {{$x := 4}}{{$x}} {{if $y := ""}}{{else}}[{{$y}}]{{end}}"##,
        "2 3 4 []",
    ),
    (
        r##"{{$x := 1}}{{with 1}}{{$x := 5}}{{$x}}{{end}}{{$x}} {{range 2}}{{$x = .}}{{end}}{{$x}}"##,
        "51 1",
    ),
    (
        r##"{{range $i, $x := split "a,b,c" ","}}{{if eq $x "b"}}{{continue}}{{end}}{{if $i}},{{end}}{{$x}}{{end}} {{range 5}}{{if eq . 2}}{{break}}{{end}}{{.}}{{end}}"##,
        "a,c 01",
    ),
    (
        r##"{{index (split "a,b" ",") 1 0}} {{eq nil nil}} {{eq nil 1}} {{true}} {{print true}}"##,
        "98 true false true true",
    ),
    (
        r##"{{join (split "a,b" ",") "-"}} {{range $k, $v := split "" "x"}}[{{$k}}{{$v}}]{{end}}"##,
        "a-b [0]",
    ),
    (
        "{{if true}} {{- \"x\" -}} {{end}} . {{ if false }}\n no {{ else -}}\n  yes {{- end }}",
        "x . yes",
    ),
    (
        r##"{{printf "%c%c" 233 0x1F41F}} {{printf "%5c|" 65}} {{printf "% d" 5}} {{printf "%F" 1.0}} {{printf "%E" 123456.789}} {{printf "%v" 1.0}} {{printf "%6d|%-6d|%06d" -42 -42 -42}}"##,
        "é🐟     A|  5 1.000000 1.234568E+05 1    -42|-42   |-00042",
    ),
    (
        r##"{{print 9223372036854775807}} {{-9223372036854775808}} {{1e3}} {{1.0}} {{100000.0}} {{0.1}}"##,
        "9223372036854775807 -9223372036854775808 1000 1 100000 0.1",
    ),
    (
        r##"{{print (slice (split "a,b,c" ",") 1)}} {{slice "abc" 0 0}}|{{slice "abc"}}"##,
        "[b c] |abc",
    ),
    (r##"{{"}}"}} {{`}}`}} {{/* }} */}} {{ "{{" }}"##, "}} }}  {{"),
    (r##"{"##, "{"),
    ("{{\nprint\n\"a\"\n}}", "a"),
];

fn context() -> Context {
    let label = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    Context {
        service_id: "serviceID".into(),
        service_name: "web".into(),
        service_labels: [("tier", "front"), ("com.example.team", "blue"), ("none", "")]
            .map(label)
            .into(),
        node_id: "nodeID".into(),
        node_hostname: "host-1".into(),
        node_os: "linux".into(),
        node_architecture: "x86_64".into(),
        task_id: "taskID".into(),
        task_name: "web.3.taskID".into(),
        task_slot: "3".into(),
    }
}

fn field(template: &str) -> Result<String, String> {
    expand("x", template, &context()).map_err(|e| e.to_string())
}

fn payload(template: &[u8], secret: bool) -> Result<Vec<u8>, String> {
    let env = ["PORT=8080".to_owned(), "BARE".to_owned(), "EMPTY=".to_owned()];
    let sources = Sources {
        secrets: BTreeMap::from([("password", &b"h\xffnter2"[..]), ("/run/key", b"KEY")]),
        configs: BTreeMap::from([("app.conf", &b"a=b"[..])]),
        env: &env,
        secret,
    };
    let expanded = expand_payload("config \"c\"", template, &context(), &sources);
    expanded.map(|bytes| bytes.to_vec()).map_err(|e| e.to_string())
}

#[test]
fn templates_of_no_context_are_what_go_makes_of_them() {
    for (template, expected) in AS_GO {
        assert_eq!(field(template).as_deref(), Ok(*expected), "{template}");
    }
}

#[test]
fn a_task_its_service_and_its_node_are_there() {
    for (template, expected) in [
        ("{{.Service.ID}}/{{.Service.Name}}", "serviceID/web"),
        ("{{.Node.ID}} {{.Node.Hostname}}", "nodeID host-1"),
        ("{{.Node.Platform.OS}}-{{.Node.Platform.Architecture}}", "linux-x86_64"),
        ("{{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}", "taskID web.3.taskID 3"),
        ("{{.Service.Labels.tier}} {{index .Service.Labels \"com.example.team\"}}", "front blue"),
        ("[{{index .Service.Labels \"absent\"}}] {{len .Service.Labels}}", "[] 3"),
        (
            "{{range $k, $v := .Service.Labels}}{{$k}}={{$v}},{{end}}",
            "com.example.team=blue,none=,tier=front,",
        ),
        ("{{range .Service.Labels}}{{.}};{{end}}", "blue;;front;"),
        (
            "{{with .Service}}{{.Name}} {{$.Task.Slot}}{{with .Labels}} {{.tier}}{{end}}{{end}}",
            "web 3 front",
        ),
        (
            "{{$s := .Service}}{{$s.Name}} {{$s.Labels.tier}} {{(index .Service.Labels \"tier\")}}",
            "web front front",
        ),
        (
            "{{.Service.Labels}} {{.Node.Platform}}",
            "map[com.example.team:blue none: tier:front] {x86_64 linux}",
        ),
        (
            "{{.}}",
            "{{serviceID web map[com.example.team:blue none: tier:front]} {nodeID host-1 {x86_64 linux}} {taskID web.3.taskID 3}}",
        ),
        (
            "{{json .Service.Labels}} {{json .Task}}",
            r#"{"com.example.team":"blue","none":"","tier":"front"} {"ID":"taskID","Name":"web.3.taskID","Slot":"3"}"#,
        ),
        ("{{if eq .Task.Slot \"3\"}}third{{end}}", "third"),
        // SwarmKit's own function: the separator comes first.
        ("{{join \"-\" .Service.Name .Task.Slot .Node.Hostname}} {{join \",\"}}", "web-3-host-1 "),
        ("no template }} at all", "no template }} at all"),
    ] {
        assert_eq!(field(template).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn an_error_names_template_place_and_reason() {
    for (template, expected) in [
        (
            "a\n b{{.Service.Labels.absent}}",
            "line 2, column 5: map has no entry for key \"absent\"",
        ),
        (
            "{{.Service.Nam}}",
            "line 1, column 3: Service has no field \"Nam\"; it has ID, Name, Labels",
        ),
        ("{{.Task.Slot.X}}", "column 3: can't evaluate field \"X\" in type string"),
        ("{{.NotThere}}", "column 3: Context has no field \"NotThere\""),
        ("{{foo}}", "column 3: function \"foo\" not defined"),
        ("{{secret \"x\"}}", "function \"secret\" is for templates of secrets and configs alone"),
        ("{{call .X}}", "function \"call\" not defined"),
        ("{{$y}}", "undefined variable \"$y\""),
        ("{{$y = 1}}", "undefined variable \"$y\""),
        ("{{if true}}{{$y := 1}}{{end}}{{$y}}", "undefined variable \"$y\""),
        ("{{range $i := 2}}{{else}}{{$i}}{{end}}{{$i}}", "undefined variable \"$i\""),
        ("{{$ := 1}}", "\"$\" cannot be set"),
        ("{{$a, $b := 1}}", "only {{range}} sets two variables"),
        ("{{range $a, $b 1}}{{end}}", "\":=\" must follow the variables"),
        ("{{range $a, $b := 3}}{{end}}", "range can't iterate over a value of type int"),
        ("{{range .Task.Slot}}{{end}}", "range can't iterate over a value of type string"),
        ("x{{if 1}}", "column 2: {{if}} has no {{end}}"),
        ("x{{end}}", "column 2: {{end}} of nothing"),
        ("{{else}}", "{{else}} of nothing"),
        ("{{if 1}}{{else}}{{else}}{{end}}", "column 17: {{else}} comes a second time"),
        ("{{if 1}}{{else range 2}}{{end}}{{end}}", "unexpected word after \"else\""),
        ("{{if}}{{end}}", "missing value for if"),
        ("{{}}", "missing value for command"),
        ("{{print 1 |}}", "missing value for the command after"),
        ("{{()}}", "missing value for parentheses"),
        ("{{(print 1}}", "this \"(\" has no \")\""),
        ("{{print 1)}}", "unexpected \")\""),
        ("{{break}}", "{{break}} outside {{range}}"),
        ("{{range 1}}{{end}}{{continue}}", "{{continue}} outside {{range}}"),
        ("{{template \"x\"}}", "{{template}} is not supported"),
        ("{{print", "column 1: this action has no end"),
        ("{{\"abc}}", "a string has no end"),
        ("{{\"a\nb\"}}", "a string has no end"),
        ("{{`abc}}", "a raw string has no end"),
        ("{{\"\\z\"}}", "an escape"),
        ("{{\"\\ud800\"}}", "an escape"),
        ("{{''}}", "a character must be one"),
        ("{{'ab'}}", "a character must be one"),
        ("{{/* x }}", "this comment has no end"),
        ("{{/* x */ }}y", "a comment must end its action"),
        ("{{12x}}", "bad number \"12x\""),
        ("{{9223372036854775808}}", "too large"),
        ("{{1e999}}", "too large"),
        ("{{%}}", "unexpected \"%\" in an action"),
        ("{{é}}", "unexpected \"é\" in an action"),
        ("{{print \"a\"\"b\"}}", "column 12: a space is missing here"),
        ("{{\"a\".X}}", "unexpected \".\" after a literal"),
        ("{{nil}}", "nil is not a command"),
        ("{{\"a\" \"b\"}}", "can't give an argument to what is no function"),
        ("{{1 | 2}}", "can't give an argument to what is no function"),
        ("{{eq 1 \"1\"}}", "eq: incompatible types for comparison"),
        ("{{eq 1 1.0}}", "eq: incompatible types for comparison"),
        ("{{lt true false}}", "lt: invalid type for comparison"),
        ("{{eq .Service.Labels .Service.Labels}}", "eq: invalid type for comparison"),
        ("{{eq 1}}", "eq: missing argument for comparison"),
        ("{{not}}", "not: wrong number of arguments: want 1 got 0"),
        ("{{and}}", "and: at least one argument is needed"),
        ("{{len 3}}", "len: len of type int"),
        ("{{index \"abc\" 3}}", "index: index out of range"),
        ("{{index .Service.Labels 1}}", "index: expected string; found int"),
        ("{{index .Service 1}}", "index: can't index item of type Service"),
        ("{{slice \"abc\" 2 9}}", "slice: index out of range"),
        ("{{slice \"abc\" 2 1}}", "slice: index out of range"),
        ("{{slice .Service.Labels 2}}", "slice: can't slice item of type map[string]string"),
        ("{{upper 3}}", "upper: expected string; found int"),
        ("{{truncate \"abc\" -1}}", "truncate: a number is negative"),
        ("{{printf \"%d\" \"x\"}}", "printf: %d is not for a value of type string"),
        ("{{printf \"%s\" 1}}", "printf: %s is not for a value of type int"),
        ("{{printf \"%s\"}}", "printf: the format asks for more values"),
        ("{{printf \"x\" 1}}", "printf: there are more values than the format asks for"),
        ("{{printf \"%\"}}", "printf: the format ends after \"%\""),
        ("{{printf \"%1001d\" 1}}", "printf: a width of more than 1000"),
        ("{{printf 1}}", "printf: expected string; found int"),
        ("{{print \"\\xff\"}}", "what it expands to is not UTF-8"),
    ] {
        let error = field(template).expect_err(template);
        assert!(error.starts_with("template of x, line "), "{error}");
        assert!(error.contains(expected), "{template}: {error}");
    }
}

#[test]
fn payloads_may_use_what_their_task_has() {
    for (template, expected) in [
        ("p={{secret \"password\"}}\nk={{secret \"/run/key\"}}", &b"p=h\xffnter2\nk=KEY"[..]),
        (
            "{{config \"app.conf\"}} {{env \"PORT\"}} [{{env \"BARE\"}}{{env \"absent\"}}{{env \"EMPTY\"}}]",
            b"a=b 8080 []",
        ),
        (
            "{{secret \"password\" | len}} {{secret \"password\" | urlquery}} {{.Task.Slot}}",
            b"7 h%FFnter2 3",
        ),
        (
            "{{secret \"password\" | upper}} {{printf \"%q\" (secret \"password\")}}",
            b"H\xffNTER2 \"h\\xffnter2\"",
        ),
    ] {
        let expanded = payload(template.as_bytes(), false);
        assert_eq!(expanded.as_deref(), Ok(expected), "{template}");
    }
    // What is no template need not be text.
    assert_eq!(payload(b"\xff\x00{{1}}\xfe", false).as_deref(), Ok(&b"\xff\x001\xfe"[..]));
    let error = payload(b"{{config \"other\"}}", false).unwrap_err();
    assert_eq!(
        error,
        "template of config \"c\", line 1, column 3: config: config target \"other\" not found"
    );
}

#[test]
fn an_error_shows_nothing_of_a_secret() {
    for template in [
        "{{secret (secret \"password\")}}",
        "{{$p := secret \"password\"}}{{config $p}}",
        "{{secret \"password\"}}{{.Service.Labels.hunter2}}",
        "{{printf (secret \"password\") 1}}",
        "{{index (secret \"password\") 99}}",
    ] {
        let error = payload(template.as_bytes(), false).expect_err(template);
        assert!(!error.contains("nter2"), "{template}: {error}");
    }
    for template in [
        "{{hunter2}}",
        "{{$hunter2}}",
        "{{.hunter2}}",
        "{{\"hunter2}}",
        "{{99hunter2}}",
        "{{config \"hunter2\"}}",
    ] {
        let error = payload(template.as_bytes(), true).expect_err(template);
        assert!(!error.contains("hunter2"), "{template}: {error}");
        assert!(error.contains("line 1, column 3"), "{error}");
    }
}

#[test]
fn work_is_bounded() {
    let deep = |n: usize| "{{if 1}}".repeat(n) + "x" + &"{{end}}".repeat(n);
    assert_eq!(field(&deep(MOST_DEPTH)).as_deref(), Ok("x"));
    let variables = |n: usize| (0..n).map(|n| format!("{{{{$v{n} := 1}}}}")).collect::<String>();
    assert_eq!(field(&variables(MOST_VARIABLES)).as_deref(), Ok(""));
    let megabyte = "{{$a := printf \"%1000d\" 1}}{{$a = printf \"%s%s%s%s%s%s%s%s%s%s\" $a $a $a $a $a $a $a $a $a $a}}";
    for (template, expected) in [
        (deep(MOST_DEPTH + 1), "nested more than 50 deep"),
        ("{{if 1}}".to_owned() + &"{{else if 1}}".repeat(9_000), "nested more than 50 deep"),
        ("{{".to_owned() + &"(".repeat(40_000) + "}}", "nested more than 50 deep"),
        (variables(MOST_VARIABLES + 1), "more than 100 variables"),
        ("{{1}}".repeat(MOST_TOKENS + 1), "it has more than 50000 words"),
        ("{{range 9223372036854775807}}{{end}}".to_owned(), "more than 100000 steps"),
        ("{{range 1000}}{{range 1000}}{{end}}{{end}}".to_owned(), "more than 100000 steps"),
        (
            "{{range 1000}}0123456789{{printf \"%1000d\" 1}}{{end}}".to_owned(),
            "it expands to more than 131072 bytes",
        ),
        (
            format!("{megabyte}{{{{print $a $a $a $a $a $a $a $a $a $a $a $a $a $a}}}}"),
            "print: it makes more than 131072 bytes",
        ),
        (
            format!("{megabyte}{{{{range 90000}}}}{{{{if eq $a $a}}}}{{{{end}}}}{{{{end}}}}"),
            "eq: more than 67108864 bytes are worked on",
        ),
        (
            format!("{megabyte}{{{{range 90000}}}}{{{{$b := split $a \"\"}}}}{{{{end}}}}"),
            "split: more than 67108864 bytes",
        ),
        (
            format!(
                "{megabyte}{{{{$b := $a}}}}{{{{range 90000}}}}{{{{$b = upper $a}}}}{{{{end}}}}"
            ),
            "upper: more than 67108864 bytes",
        ),
        ("{{pad \"x\" 9000000000000000000 1}}".to_owned(), "pad: it makes more than"),
        ("{{".to_owned() + &"x".repeat(MOST_TEMPLATE), "more than 1024000"),
    ] {
        let shown = &template[..template.len().min(60)];
        let error = field(&template).expect_err(shown);
        assert!(error.contains(expected), "{shown}: {error}");
    }
    let long = payload("{{range 2000}}{{printf \"%1000d\" 1}}{{end}}".as_bytes(), false);
    assert!(long.unwrap_err().contains("it expands to more than 1024000 bytes"));
}

#[test]
fn a_service_is_checked_as_its_container_will_be_expanded() {
    use shoal_model::docker;
    let volume = docker::MountVolumeOptions {
        labels: Some([("slot".to_owned(), "{{.Task.Slot}}".to_owned())].into()),
        ..Default::default()
    };
    let mount = docker::Mount {
        source: Some("data-{{.Task.Slot}}".into()),
        target: Some("/data/{{.Service.Name}}".into()),
        volume_options: Some(volume),
        ..Default::default()
    };
    let container = docker::TaskSpecContainerSpec {
        env: Some(vec![
            "{{.No}}=x".into(),
            "A={{.Node.Hostname}}={{.Service.Labels.tier}}".into(),
            "BARE".into(),
        ]),
        hostname: Some("{{.Service.Name}}-{{.Task.Slot}}".into()),
        mounts: Some(vec![mount]),
        ..Default::default()
    };
    let service = |container, label: &str| docker::ServiceSpec {
        name: Some("web".into()),
        labels: Some([(label.to_owned(), "front".to_owned())].into()),
        task_template: Some(docker::TaskSpec {
            container_spec: Some(container),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut expanded = container.clone();
    expand_container(&mut expanded, &context()).unwrap();
    assert_eq!(expanded.env.as_deref().unwrap(), ["{{.No}}=x", "A=host-1=front", "BARE"]);
    assert_eq!(expanded.hostname.as_deref(), Some("web-3"));
    let mount = &expanded.mounts.as_ref().unwrap()[0];
    assert_eq!(
        (mount.source.as_deref(), mount.target.as_deref()),
        (Some("data-3"), Some("/data/web"))
    );
    assert_eq!(mount.volume_options.as_ref().unwrap().labels.as_ref().unwrap()["slot"], "3");
    let checked = check_service(&service(container.clone(), "tier")).unwrap();
    assert_eq!(checked.hostname.as_deref(), Some("web-1"));
    let error = check_service(&service(container.clone(), "other")).unwrap_err().to_string();
    let expected = "template of variable A, line 1, column 22: map has no entry for key \"tier\"";
    assert_eq!(error, expected);
    let bad = docker::TaskSpecContainerSpec {
        hostname: Some("{{.Host}}".into()),
        env: None,
        ..container
    };
    let error = check_service(&service(bad, "tier")).unwrap_err().to_string();
    assert!(error.starts_with("template of the host name, line 1"), "{error}");
    assert!(check_service(&docker::ServiceSpec::default()).is_ok());
}

/// Words that templates are made of.
fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "{{",
        "}}",
        "{{-",
        "-}}",
        " ",
        " ",
        " ",
        "(",
        ")",
        "|",
        ".",
        "$",
        "$x",
        ":=",
        "=",
        ",",
        "if",
        "else",
        "end",
        "range",
        "with",
        "break",
        "continue",
        "and",
        "or",
        "not",
        "len",
        "index",
        "slice",
        "print",
        "printf",
        "html",
        "eq",
        "lt",
        "join",
        "json",
        "split",
        "upper",
        "title",
        "pad",
        "truncate",
        "secret",
        "env",
        "\"a,b\"",
        "\"%5.2v\"",
        "`x`",
        "'c'",
        "1",
        "-2",
        "3.5",
        "0x1f",
        "nil",
        "true",
        ".Service",
        ".Labels",
        ".tier",
        ".Task.Slot",
        "/*",
        "*/",
        "x",
        "\n",
        "é",
        "\"",
        "{{end}}",
        "{{range 3}}",
        "{{if 1}}",
        "{{$x := 1}}",
        "%",
    ])
}

proptest! {
    #[test]
    fn nothing_that_is_written_makes_it_panic(words in prop::collection::vec(word(), 0..60)) {
        let template = words.concat();
        let _ = payload(template.as_bytes(), false);
        let _ = payload(format!("{{{{ {template} }}}}").as_bytes(), true);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = payload(&bytes, false);
        let _ = payload(&[b"{{".as_slice(), &bytes, b"}}"].concat(), false);
    }

    #[test]
    fn text_without_actions_stays_as_it_is(text in "[^{]*") {
        prop_assert_eq!(payload(text.as_bytes(), false), Ok(text.into_bytes()));
    }
}
