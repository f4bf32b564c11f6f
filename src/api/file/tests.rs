//! What can be written is read, and what is read is described.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::model::problem::Problem;
use crate::steps::integrations::{self, http_proxy};

/// The example of the grammar as far as this version has it.
const EXAMPLE: &str = r#"
[gateway]
listen        = "127.0.0.1:8080"
admin_listen  = "127.0.0.1:8081"
drain_delay   = "0s"
drain_timeout = "30s"
callback_url  = "http://10.0.0.5:8080"
proxy_protocol = false

[apis.chat]
protocol = "websocket"
route_selection_expression = "$request.body.action"
base_path = "/chat"
domains   = ["chat.example.com", { host = "rt.example.com", stage = "prod", base_path = "/v1" }]

[apis.chat.routes."$connect"]
integration = "http://127.0.0.1:3000/connect"

[apis.chat.routes."$disconnect"]
integration = "http://127.0.0.1:3000/disconnect"

[apis.chat.routes.sendmessage]
integration    = { type = "http_proxy", uri = "http://${stageVariables.backend}/send", timeout = "5s" }
route_response = true

[apis.chat.routes.rename.integration]
type    = "http_proxy"
uri     = "http://127.0.0.1:3000/rename"
payload = "raw"
request_parameters = { "integration.request.header.X-Name" = "route.request.body.name" }

[apis.chat.routes."$default"]
integration    = { type = "mock", response = '{"error":"unknown action ${request.body.action}"}' }
route_response = true

[apis.chat.stages.prod]
stage_variables = { backend = "127.0.0.1:3000" }
throttle        = "none"
idle_timeout    = "10m"
max_duration    = "2h"
max_message     = "128KiB"
max_frame       = "32KiB"
binary          = false
ordering        = "none"
max_in_flight   = 32
outbox          = { bytes = "1MiB", messages = 1024 }
slow_consumer_timeout = "10s"
ping_interval   = "none"
pong_timeout    = "10s"
handshake_timeout  = "10s"
idle_counts_pings  = false
disconnect_retry   = "1m"
detailed_metrics   = false
logging_level      = "off"
data_trace         = false
resource_policy    = [ { effect = "deny", source_ip = ["203.0.113.0/24"], headers = { "X-A" = ["a*", "b"] } }, { effect = "allow", authorizer = { tenant = "acme" } } ]
allowed_origins    = ["https://app.example.com"]

[apis.chat.stages.prod.limits]
connections_per_address = 100
connects_per_address    = { rate = 10, burst = 50 }
messages_per_connection = { rate = 0.5 }
bytes_per_connection    = { rate = 65536, burst = 1048576 }

[apis.chat.connections_api]
authorization = "aws_iam"
throttle      = { rate = 10000, burst = 5000 }

[credentials.backend]
access_key_id     = "AKIDLOCAL"
secret_access_key = "${env.LIVEGATE_SECRET}"
session_token     = "abc"
bearer_token      = "${env.LIVEGATE_SECRET}"
allow             = ["execute-api:ManageConnections chat/prod/*"]
deny              = ["execute-api:* chat/prod/DELETE/*"]

[authorizers.users]
type            = "jwt"
issuer          = "https://issuer.example.com"
audience        = ["chat"]
leeway          = "30s"
identity_source = ["route.request.querystring.token"]

[authorizers.custom]
type             = "http"
uri              = "http://127.0.0.1:5000/authorize"
payload_format   = "2.0"
simple_responses = true
identity_source  = ["$request.header.Authorization"]
ttl              = "5m"

[authorizers.signed]
type = "aws_iam"

[usage_plans.gold]
rate   = 50
burst  = 100
quota  = { limit = 100000, period = "month" }
stages = ["chat/prod"]

[api_keys.acme]
value      = "${env.LIVEGATE_SECRET}"
usage_plan = "gold"

[api_keys.other]
sha256     = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
usage_plan = "gold"
enabled    = false
"#;

fn env(name: &str) -> Option<String> {
    (name == "LIVEGATE_SECRET").then(|| "hunter2".into())
}

fn read_well(source: &str) -> File {
    let (file, problems) = read(source, &env, false);
    assert_eq!(said(&problems), Vec::<String>::new());
    file.unwrap()
}

fn said(problems: &Problems) -> Vec<String> {
    problems.iter().map(Problem::to_string).collect()
}

/// An API with one stage, `[apis.a.stages.s]`, to which the keys belong.
fn stage_with(keys: &str) -> (File, Vec<String>) {
    let source = format!(
        "[apis.a]\nprotocol = 'websocket'\nroute_selection_expression = '$request.body.a'\n[apis.a.stages.s]\n{keys}"
    );
    let (file, problems) = read(&source, &env, false);
    (file.unwrap(), said(&problems))
}

#[test]
fn the_whole_example_reads_without_a_problem() {
    let file = read_well(EXAMPLE);
    let chat = &file.apis.get("chat").unwrap().value;
    let keys: Vec<_> = chat.routes.names().collect();
    assert_eq!(keys, ["$connect", "$disconnect", "sendmessage", "rename", "$default"]);
    assert_eq!(chat.domains[1].base_path.as_ref().unwrap().path, "/v1");
    assert_eq!(chat.routes.get("$connect").unwrap().place.path, "apis.chat.routes.\"$connect\"");

    let integrations::Settings::HttpProxy(send) = &chat.routes.get("sendmessage").unwrap().value.integration else {
        panic!("no proxy")
    };
    assert_eq!(send.timeout.map(|timeout| timeout.0), Some(Duration::from_secs(5)));
    assert_eq!(send.uri.text, "http://${stageVariables.backend}/send");
    assert_eq!(&EXAMPLE[send.uri.place.span.clone()], "\"http://${stageVariables.backend}/send\"");

    let stage = &chat.stages.get("prod").unwrap().value;
    assert_eq!(stage.idle_timeout.0.unwrap().0, Duration::from_secs(600));
    assert_eq!(stage.ping_interval.0, None);
    let credential = &file.credentials.get("backend").unwrap().value;
    assert_eq!(credential.secret_access_key.as_ref().unwrap().reveal(), "hunter2");
    assert!(!format!("{file:?}").contains("hunter2"));
}

#[test]
fn the_smallest_file_has_every_default() {
    let file = read_well("");
    assert_eq!(file.gateway.listen[0].address.to_string(), "127.0.0.1:8080");
    assert!(file.apis.is_empty());
    let (file, problems) = stage_with("");
    assert!(problems.is_empty(), "{problems:?}");
    let api = &file.apis.get("a").unwrap().value;
    assert_eq!(api.connections_api().authorization.value, Authorization::AwsIam);
    assert_eq!(api.stages.get("s").unwrap().value.outbox.messages.0, 1024);
}

#[test]
fn a_url_alone_is_a_proxy_with_every_default() {
    let api = "[apis.a]\nprotocol = 'websocket'\nroute_selection_expression = '$request.body.a'\n";
    let file = read_well(&format!("{api}routes.x.integration = 'http://a/${{env.LIVEGATE_SECRET}}'"));
    let route = &file.apis.get("a").unwrap().value.routes.get("x").unwrap().value;
    let integrations::Settings::HttpProxy(proxy) = &route.integration else { panic!("no proxy") };
    assert_eq!(proxy.uri.text, "http://a/hunter2");
    assert_eq!(proxy.uri.place.path, "apis.a.routes.x.integration");
    assert_eq!((proxy.timeout, proxy.payload), (None, http_proxy::Payload::Raw));
}

#[test]
fn what_cannot_be_read_keeps_nothing_else_from_being_checked() {
    let (file, problems) = stage_with("idle_timeout = 'x'\nmax_frame = 'y'\nbinary = 1\noutbox = { bytes = 'z' }");
    assert_eq!(problems.len(), 4, "{problems:#?}");
    assert!(file.apis.get("a").unwrap().value.stages.has("s"));
}

#[test]
fn a_rest_api_is_one_problem() {
    let (_, problems) =
        read("[apis.pets]\nprotocol = 'rest'\nroutes.'GET /pets'.integration = 'http://a'\n", &env, false);
    assert_eq!(
        said(&problems),
        ["apis.pets.protocol: `rest` is not in this version; REST APIs come with a later version"]
    );
}

#[test]
fn unset_variables_can_be_allowed_everywhere() {
    let source = EXAMPLE.replace("LIVEGATE_SECRET", "NOPE").replace("\"10m\"", "\"${env.NOPE}\"");
    let (file, problems) = read(&source, &env, true);
    assert_eq!(said(&problems), [""; 0]);
    let file = file.unwrap();
    assert!(file.credentials.get("backend").unwrap().value.bearer_token.as_ref().unwrap().unresolved);
    assert_eq!(read(&source, &env, false).1.len(), 4);
}

#[test]
fn syntax_errors_hide_no_problem_elsewhere_and_cause_none() {
    let source = "[apis.chat.routes.$connect]\nintegration = 5s\n[gateway]\ndrain_delay = 'soon'\n";
    let (file, problems) = read(source, &env, false);
    assert!(file.is_none());
    assert_eq!(problems.len(), 3, "{:#?}", said(&problems));
}

#[test]
fn every_key_that_is_read_is_in_the_schema_and_the_other_way_round() {
    let mut in_schema = BTreeSet::new();
    walk(&schema(), "", &mut in_schema);
    let in_reference: BTreeSet<_> = tables()
        .iter()
        .flat_map(|table| table.rows.iter().map(|row| TableReference::below(&table.path, row.key)))
        .collect();
    assert_eq!(in_schema, in_reference);
    // That these are also the keys that are read: each is known at its place, so it gets no "no key of this table".
    for table in tables().iter().filter(|table| !table.path.is_empty() && !table.path.contains('[')) {
        for row in &table.rows {
            let header = table.path.replace(['<', '>'], "");
            let kind = if table.rows.iter().any(|row| row.key == "uri") { "http_proxy" } else { "mock" };
            let tag = if table.path.ends_with(".integration") && row.key != "type" {
                format!("type = '{kind}'\n")
            } else {
                String::new()
            };
            let source = format!("[{header}]\n{tag}{} = 1979-05-27", row.key);
            let (_, problems) = read(&source, &env, false);
            let unknown: Vec<_> = said(&problems).into_iter().filter(|said| said.contains("is no key")).collect();
            assert_eq!(unknown, [""; 0], "{source}");
        }
    }
}

/// Gathers the paths of all keys below a schema, with the placeholders of the reference.
fn walk(schema: &serde_json::Value, path: &str, into: &mut BTreeSet<String>) {
    for ways in ["anyOf", "oneOf"] {
        for way in schema[ways].as_array().into_iter().flatten() {
            walk(way, path, into);
        }
    }
    if schema["type"] == "array" {
        walk(&schema["items"], &format!("{path}[]"), into);
    }
    if let Some(properties) = schema["properties"].as_object() {
        assert_eq!(schema["additionalProperties"], false, "{path}");
        for (key, property) in properties {
            let path = TableReference::below(path, key);
            assert!(!property["description"].as_str().unwrap_or_default().is_empty(), "{path}");
            into.insert(path.clone());
            walk(property, &path, into);
        }
    } else if schema["additionalProperties"].is_object() {
        let name = match path.rsplit('.').next().unwrap() {
            "apis" => "<api>",
            "routes" => "<route>",
            "stages" => "<stage>",
            "stage_variables" => "<variable>",
            _ => "<name>",
        };
        walk(&schema["additionalProperties"], &format!("{path}.{name}"), into);
    }
}

#[test]
fn the_reference_shows_types_defaults_and_meanings() {
    let reference = reference();
    assert!(reference.contains("### `[apis.<api>.stages.<stage>]`"), "{reference}");
    let row = "| `idle_timeout` | duration or `\"none\"` | `\"10m\"` | Closes a socket after this long without a data message";
    assert!(reference.contains(row), "{reference}");
    assert!(reference.contains("| `protocol` | `\"websocket\"` or `\"http\"` | required |"), "{reference}");
}

/// Whatever an editor leaves behind, the operator gets a report.
#[test]
fn no_broken_text_breaks_the_reader() {
    let broken =
        ["", "\"", "'", "\\", "$", "${", "ü", "\u{1}", "\r", "\n", "[", "]]", "{", "=", ".", ",", "1e", "#", "\"\"\""];
    for at in EXAMPLE.char_indices().map(|(at, _)| at).step_by(3) {
        for piece in broken {
            let source = format!("{}{piece}{}", &EXAMPLE[..at], &EXAMPLE[at + 1..]);
            let (_, problems) = read(&source, &env, false);
            if at % 12 == 0 {
                crate::api::report::render("routes.toml", &source, &problems, false);
            }
        }
        read(&EXAMPLE[..at], &env, false);
    }
}

#[test]
fn variables_of_the_environment_stand_for_numbers_and_flags_too() {
    let check = |n: &str, b: &str, wanted: Option<(u32, bool)>| {
        let env = |name: &str| Some(if name == "N" { n.to_owned() } else { b.to_owned() });
        let source = "[apis.a]\nprotocol = \"websocket\"\nroute_selection_expression = \"$request.body.a\"\n\
            [apis.a.stages.s]\nmax_in_flight = \"${env.N}\"\nbinary = \"${env.B}\"\n";
        let (file, problems) = read(source, &env, false);
        let file = file.filter(|_| !problems.has_problems());
        let stage = file.map(|file| file.apis.iter().next().unwrap().value.stages.iter().next().unwrap().value.clone());
        assert_eq!(stage.map(|stage| (stage.max_in_flight.0, stage.binary)), wanted, "{n} {b}");
    };
    check("5", "true", Some((5, true)));
    check("5", "yes", None);
    check("many", "true", None);
    check("0", "true", None);
}
