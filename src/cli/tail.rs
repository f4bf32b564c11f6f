//! `livegate tail`: what happens in a gateway, while it happens.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::bail;
use form_urlencoded::Serializer;
use reqwest::Response;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::admin::{Admin, OfFile, Whom};
use super::terminal::{self, Colour, padded, painted, plain};
use crate::telemetry::tail::Filter;

/// A line that is longer is none of a gateway's.
const LONGEST: usize = 1024 * 1024;

/// What was read and is not printed yet, in pieces as they came. The gateway counts what does not fit.
const UNPRINTED: usize = 16;

#[derive(clap::Args)]
pub struct Wanted {
    #[command(flatten)]
    whom: Whom,
    /// Only of this connection
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    connection: Option<String>,
    /// Only of this user
    #[arg(long)]
    user: Option<String>,
    /// Only of this route, by its key
    #[arg(long)]
    route: Option<String>,
    /// Only of this API
    #[arg(long)]
    api: Option<String>,
    /// Only of this stage
    #[arg(long)]
    stage: Option<String>,
    /// Only what ended so: ok, refused, failed, or several with commas
    #[arg(long)]
    outcome: Option<String>,
    /// Only of this kind: connect, message, push, disconnect, request, authorizer, frame, or several with commas
    #[arg(long)]
    kind: Option<String>,
    /// Only so large a share of it, like 0.1
    #[arg(long, value_name = "SHARE")]
    sample: Option<String>,
    /// Messages themselves as well, of stages with `data_trace`
    #[arg(long)]
    payload: bool,
    /// The gateway's lines as they are
    #[arg(long)]
    json: bool,
}

/// Prints until it is interrupted, or nobody reads any more; fails when the gateway goes away.
#[tokio::main(flavor = "current_thread")]
pub async fn run(wanted: Wanted, of_file: OfFile) -> anyhow::Result<ExitCode> {
    let query = query(&wanted);
    if let Err(wrong) = Filter::parse(&query) {
        eprintln!("livegate: {wrong}");
        return Ok(ExitCode::from(2));
    }
    let style = if wanted.json { Style::Json } else { Style::Text { colour: terminal::wants_colour() } };
    let admin = wanted.whom.find(of_file)?;
    let (lines, mut printed) = print_all()?;
    let followed = tokio::select! {
        interrupted = tokio::signal::ctrl_c() => return Ok(interrupted.map(|()| ExitCode::SUCCESS)?),
        // Nobody reads any more.
        ended = &mut printed => return Ok(ended?.map(|()| ExitCode::SUCCESS)?),
        followed = follow(&admin, &query, style, lines) => followed,
    };
    // What came before the end is printed before the error, unless nobody waits for it.
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        ended = printed => ended??,
    }
    followed.map(|()| ExitCode::SUCCESS)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Json,
    Text { colour: bool },
}

fn query(wanted: &Wanted) -> String {
    let mut query = Serializer::new(String::new());
    let Wanted { connection, user, route, api, stage, outcome, kind, sample, .. } = wanted;
    let all = [
        ("connection", connection),
        ("user", user),
        ("route", route),
        ("api", api),
        ("stage", stage),
        ("outcome", outcome),
        ("kind", kind),
        ("sample", sample),
    ];
    for (name, value) in all {
        query.extend_pairs(value.iter().map(|value| (name, value)));
    }
    if wanted.payload {
        query.append_pair("payload", "true");
    }
    query.finish()
}

/// Prints on a thread of its own: a terminal that is stopped, or a pager, must not keep an interrupt from being heard.
fn print_all() -> io::Result<(mpsc::Sender<String>, oneshot::Receiver<io::Result<()>>)> {
    let (lines, mut unprinted) = mpsc::channel::<String>(UNPRINTED);
    let (end, ended) = oneshot::channel();
    std::thread::Builder::new().spawn(move || {
        let mut out = io::stdout();
        let mut outcome = Ok(());
        while outcome.is_ok()
            && let Some(text) = unprinted.blocking_recv()
        {
            outcome = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
        // Whoever has seen enough closes the pipe: that is no failure.
        let _ = end.send(outcome.or_else(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(error),
        }));
    })?;
    Ok((lines, ended))
}

/// Reads lines for as long as there are any, which the gateway does not end while it runs.
async fn follow(admin: &Admin, query: &str, style: Style, lines: mpsc::Sender<String>) -> anyhow::Result<()> {
    let mut answer = admin.get(&format!("/api/tail?{query}")).await?;
    let mut rest = Vec::new();
    loop {
        let Some(text) = next_lines(&mut answer, &mut rest).await? else {
            bail!("the gateway at {} went away", admin.shown);
        };
        let shown: String = text.lines().filter_map(|line| shown(line, style)).collect();
        if !shown.is_empty() && lines.send(shown).await.is_err() {
            return Ok(());
        }
    }
}

/// Whole lines, as soon as there is one; what follows the last stays in `rest`. `None` at the end, however it came.
async fn next_lines(answer: &mut Response, rest: &mut Vec<u8>) -> anyhow::Result<Option<String>> {
    while let Ok(Some(piece)) = answer.chunk().await {
        rest.extend_from_slice(&piece);
        if let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') {
            let whole: Vec<u8> = rest.drain(..=end).collect();
            return Ok(Some(String::from_utf8_lossy(&whole).into_owned()));
        }
        if rest.len() > LONGEST {
            bail!("a line of more than {LONGEST} bytes came: that is no gateway");
        }
    }
    Ok(None)
}

/// A line as it is printed, with its end; `None` for one that says nothing.
fn shown(line: &str, style: Style) -> Option<String> {
    let Style::Text { colour } = style else {
        return (!line.trim().is_empty()).then(|| format!("{line}\n"));
    };
    let told: Value = serde_json::from_str(line).ok()?;
    Some(if let Some(note) = told["note"].as_str() {
        aside(&plain(note), colour)
    } else if let Some(dropped) = told["dropped"].as_u64() {
        let events = if dropped == 1 { "event is" } else { "events are" };
        aside(&format!("{dropped} {events} missing here: more happened than could be shown"), colour)
    } else {
        render(&told, colour)
    })
}

fn aside(text: &str, colour: bool) -> String {
    format!("{}\n", painted(&format!("-- {text}"), colour.then_some(Colour::Dim)))
}

/// One event on one line, and its payload, if there is one, on the next.
fn render(event: &Value, colour: bool) -> String {
    let paint = |text: &str, wanted: Colour| painted(text, colour.then_some(wanted));
    let text = |name: &str| event[name].as_str().map_or("-".to_owned(), plain);
    let outcome = padded(&text("outcome"), 7);
    let outcome = match outcome.trim_end() {
        "ok" => paint(&outcome, Colour::Green),
        "refused" => paint(&outcome, Colour::Yellow),
        _ => paint(&outcome, Colour::Red),
    };
    let kind = match event["direction"].as_str() {
        Some(direction) if event["kind"] == "frame" => format!("frame {}", plain(direction)),
        _ => text("kind"),
    };
    let status = event["status"].as_u64().map_or("-".to_owned(), |status| status.to_string());
    let latency = event["latency_ms"].as_f64().map_or("-".to_owned(), |latency| format!("{latency:.1} ms"));
    let cells = [
        paint(&time(&event["at"]), Colour::Dim),
        padded(&kind, 10),
        outcome,
        padded(&text("route"), 16),
        padded(&text("connection"), 16),
        padded(&text("user"), 10),
        padded(&status, 3),
        format!("{latency:>10}"),
    ];
    let mut line = cells.join("  ");
    if event["error"].is_string() {
        line += &format!("  {}", paint(&text("error"), Colour::Red));
    }
    if event["payload"].is_string() {
        line += &format!("\n    {}", text("payload"));
    }
    line + "\n"
}

/// The time of the day, in UTC.
fn time(at: &Value) -> String {
    let time = at.as_i64().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    time.map_or("-".to_owned(), |time| time.strftime("%H:%M:%S.%3fZ").to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        wanted: Wanted,
    }

    fn event() -> Value {
        json!({
            "at": 1_763_684_400_118_u64, "kind": "message", "api": "chat", "stage": "prod", "route": "sendmessage",
            "connection": "7e8s-43WgB1PFu4=", "request": "7e8s-43WgB1PFu4=", "user": "alice", "address": "127.0.0.1",
            "outcome": "ok", "status": 200, "latency_ms": 1.234, "integration_ms": 1.0, "direction": null, "bytes": 12,
            "error": null, "cause": null, "authorizer": null, "payload": null
        })
    }

    fn check(change: impl FnOnce(&mut Value), wanted: &str) {
        let mut event = event();
        change(&mut event);
        assert_eq!(shown(&event.to_string(), Style::Text { colour: false }).as_deref(), Some(wanted));
    }

    #[test]
    fn an_event_is_a_line() {
        check(
            |_| {},
            "00:20:00.118Z  message     ok       sendmessage       7e8s-43WgB1PFu4=  alice       200      1.2 ms\n",
        );
        check(
            |event| {
                event["outcome"] = json!("failed");
                event["status"] = json!(504);
                event["error"] = json!("INTEGRATION_TIMEOUT: no answer\nwithin 29 s\x1b[2J");
                event["user"] = json!("茶館");
            },
            "00:20:00.118Z  message     failed   sendmessage       7e8s-43WgB1PFu4=  茶館        504      1.2 ms  \
             INTEGRATION_TIMEOUT: no answer within 29 s[2J\n",
        );
        check(
            |event| {
                *event = json!({ "at": 1, "kind": "frame", "direction": "out", "outcome": "ok", "payload": "{\r\n\"a\": 1}" });
            },
            "00:00:00.001Z  frame out   ok       -                 -                 -           -             -\n    { \"a\": 1}\n",
        );
    }

    #[test]
    fn what_is_no_event_is_told_as_well() {
        let text = Style::Text { colour: false };
        assert_eq!(shown(r#"{"note":"watching"}"#, text).as_deref(), Some("-- watching\n"));
        let dropped = "-- 12 events are missing here: more happened than could be shown\n";
        assert_eq!(shown(r#"{"dropped":12}"#, text).as_deref(), Some(dropped));
        assert_eq!(shown("", text), None);
    }

    #[test]
    fn json_is_printed_as_it_came() {
        let line = r#"{"at":1,  "kind":"push","x":"\u001b"}"#;
        assert_eq!(shown(line, Style::Json), Some(format!("{line}\n")));
        assert_eq!(shown("", Style::Json), None);
    }

    #[test]
    fn colours_say_how_it_ended() {
        let line = shown(&event().to_string(), Style::Text { colour: true }).unwrap();
        assert!(line.contains("\x1b[32mok     \x1b[0m"), "{line:?}");
    }

    #[test]
    fn arguments_become_a_filter() {
        let check = |arguments: &[&str], wanted: &str| {
            let command = Command::try_parse_from([&["tail"], arguments].concat()).unwrap();
            assert_eq!(query(&command.wanted), wanted);
        };
        check(&[], "");
        check(
            &["--connection", "-7e8s43WgB1PFu4=", "--route", "GET /pets"],
            "connection=-7e8s43WgB1PFu4%3D&route=GET+%2Fpets",
        );
        check(
            &["--outcome", "ok,failed", "--sample", "0.1", "--payload"],
            "outcome=ok%2Cfailed&sample=0.1&payload=true",
        );
    }
}
