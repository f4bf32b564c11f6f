//! `livegate usage`: what API keys used, day by day, for people and for programs.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use jiff::civil::Date;
use serde_json::json;

use crate::api::kept::Kept;
use crate::model::periods::Quota;
use crate::store::usage::{Filter, Row, UsageStore};

const HEAD: [&str; 7] = ["DAY", "API KEY", "USAGE PLAN", "USED", "THROTTLED", "OVER QUOTA", "REMAINING"];

/// One API key in one usage plan on one day of UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub day: Date,
    pub api_key: String,
    pub usage_plan: String,
    pub used: u64,
    pub throttled: u64,
    pub over_quota: u64,
    /// What was left of the quota when the day ended; none without a quota.
    pub remaining: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns and a total, to be read
    Table,
    /// As RFC 4180 has it, with a line of names first
    Csv,
    /// An array of objects
    Json,
}

/// The quotas of usage plans by name.
pub type Quotas = BTreeMap<String, Quota>;

/// What to report, and how.
#[derive(clap::Args)]
pub struct Wanted {
    #[arg(long, value_name = "FILE", default_value = "routes.toml")]
    config: PathBuf,
    /// Only this usage plan
    #[arg(long)]
    plan: Option<String>,
    /// Only this API key, by its name in the file
    #[arg(long)]
    key: Option<String>,
    /// The first day, like 2026-11-01 (days are those of UTC)
    #[arg(long, value_name = "DAY")]
    from: Option<Date>,
    /// The last day
    #[arg(long, value_name = "DAY")]
    to: Option<Date>,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Reads what gateways with this file have counted, while they go on counting.
pub fn run(wanted: Wanted) -> anyhow::Result<ExitCode> {
    // What was used may be read without the secrets too.
    let loaded = super::load(&wanted.config, true, &Kept::default())?;
    let Some(gateway) = &loaded.gateway else {
        eprint!("{}", loaded.report(&wanted.config, std::io::stderr().is_terminal()));
        return Ok(ExitCode::FAILURE);
    };
    let quotas = &gateway.quotas;
    let Wanted { plan, key, from, to, format, .. } = wanted;
    let filter = Filter { usage_plan: plan, api_key: key, from: from.map(|from| read_from(from, quotas)), to };
    let rows = match UsageStore::open_to_read(&gateway.settings.data_dir)? {
        Some(store) => store.rows(&filter)?,
        None => Vec::new(),
    };
    print!("{}", render(&lines(&rows, from, quotas), format));
    Ok(ExitCode::SUCCESS)
}

/// The day from which rows have to be read for lines from `from` on: a quota counts from the start of its period.
pub fn read_from(from: Date, quotas: &Quotas) -> Date {
    quotas.values().map(|quota| quota.period.start_of(from)).fold(from, Date::min)
}

/// The lines from `from` on, or all. The rows come by day, as the store gives them, beginning with `read_from`.
pub fn lines(rows: &[Row], from: Option<Date>, quotas: &Quotas) -> Vec<Line> {
    let mut periods = BTreeMap::new();
    let mut lines = Vec::with_capacity(rows.len());
    for Row { api_key, usage_plan, day, counts } in rows {
        let remaining = quotas.get(usage_plan).map(|quota| {
            let start = quota.period.start_of(*day);
            let (since, used) = periods.entry((usage_plan, api_key)).or_insert((start, 0_u64));
            if *since != start {
                (*since, *used) = (start, 0);
            }
            *used = used.saturating_add(counts.used);
            quota.limit.saturating_sub(*used)
        });
        if from.is_none_or(|from| from <= *day) {
            lines.push(Line {
                day: *day,
                api_key: api_key.clone(),
                usage_plan: usage_plan.clone(),
                used: counts.used,
                throttled: counts.throttled,
                over_quota: counts.over_quota,
                remaining,
            });
        }
    }
    lines
}

pub fn render(lines: &[Line], format: Format) -> String {
    match format {
        Format::Table => table(lines),
        Format::Csv => csv(lines),
        Format::Json => json(lines),
    }
}

fn table(lines: &[Line]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(lines.iter().map(|line| cells(line, "-")));
    rows.push(total(lines));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0..3 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn total(lines: &[Line]) -> [String; 7] {
    // The sum of many counts may be more than a count can be.
    let sum = |count: fn(&Line) -> u64| lines.iter().map(|line| u128::from(count(line))).sum::<u128>().to_string();
    let [used, throttled, over_quota] =
        [sum(|line| line.used), sum(|line| line.throttled), sum(|line| line.over_quota)];
    ["TOTAL".to_owned(), String::new(), String::new(), used, throttled, over_quota, String::new()]
}

fn csv(lines: &[Line]) -> String {
    let mut text = "day,api_key,usage_plan,used,throttled,over_quota,remaining\n".to_owned();
    for line in lines {
        text += &cells(line, "").map(quoted).join(",");
        text.push('\n');
    }
    text
}

fn quoted(field: String) -> String {
    if field.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

fn json(lines: &[Line]) -> String {
    let objects: Vec<_> = lines
        .iter()
        .map(|line| {
            json!({
                "day": line.day.to_string(),
                "api_key": line.api_key,
                "usage_plan": line.usage_plan,
                "used": line.used,
                "throttled": line.throttled,
                "over_quota": line.over_quota,
                "remaining": line.remaining,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::from(objects))
}

fn cells(line: &Line, none: &str) -> [String; 7] {
    [
        line.day.to_string(),
        line.api_key.clone(),
        line.usage_plan.clone(),
        line.used.to_string(),
        line.throttled.to_string(),
        line.over_quota.to_string(),
        line.remaining.map_or_else(|| none.to_owned(), |remaining| remaining.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
    use crate::model::periods::Period;
    use crate::store::usage::Counts;

    fn line(api_key: &str, used: u64, remaining: Option<u64>) -> Line {
        let (api_key, usage_plan) = (api_key.to_owned(), "gold".to_owned());
        Line { day: date(2026, 11, 25), api_key, usage_plan, used, throttled: 7, over_quota: 0, remaining }
    }

    fn check(format: Format, lines: &[Line], wanted: &str) {
        assert_eq!(render(lines, format), wanted);
    }

    #[test]
    fn a_table_has_columns_and_a_total() {
        check(
            Format::Table,
            &[line("alice", 12_345, Some(0)), line("zoë", 1, None)],
            "\
DAY         API KEY  USAGE PLAN   USED  THROTTLED  OVER QUOTA  REMAINING
2026-11-25  alice    gold        12345          7           0          0
2026-11-25  zoë      gold            1          7           0          -
TOTAL                            12346         14           0
",
        );
        let most = line("alice", u64::MAX, None);
        assert!(render(&[most.clone(), most], Format::Table).contains(" 36893488147419103230 "));
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let wanted = "\
day,api_key,usage_plan,used,throttled,over_quota,remaining
2026-11-25,alice,gold,12345,7,0,0
2026-11-25,\"a, b\",gold,1,7,0,
2026-11-25,\"a \"\"b\"\"\",gold,1,7,0,
2026-11-25,\"a\nb\",gold,1,7,0,
2026-11-25,\"a\rb\",gold,1,7,0,
2026-11-25, a;=b ,gold,1,7,0,
";
        let others = ["a, b", "a \"b\"", "a\nb", "a\rb", " a;=b "].map(|api_key| line(api_key, 1, None));
        check(Format::Csv, &[&[line("alice", 12_345, Some(0))], &others[..]].concat(), wanted);
    }

    #[test]
    fn json_is_an_array_of_objects() {
        let text = render(&[line("a\"b", u64::MAX, Some(3)), line("zoë", 1, None)], Format::Json);
        let wanted = json!([
            { "day": "2026-11-25", "api_key": "a\"b", "usage_plan": "gold", "used": u64::MAX, "throttled": 7,
              "over_quota": 0, "remaining": 3 },
            { "day": "2026-11-25", "api_key": "zoë", "usage_plan": "gold", "used": 1, "throttled": 7,
              "over_quota": 0, "remaining": null },
        ]);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), wanted);
    }

    #[test]
    fn nothing_counted_is_a_report_as_well() {
        let head = "DAY    API KEY  USAGE PLAN  USED  THROTTLED  OVER QUOTA  REMAINING\n";
        let total = "TOTAL                          0          0           0\n";
        check(Format::Table, &[], &format!("{head}{total}"));
        check(Format::Csv, &[], "day,api_key,usage_plan,used,throttled,over_quota,remaining\n");
        check(Format::Json, &[], "[]\n");
    }

    fn row(api_key: &str, usage_plan: &str, day: Date, used: u64) -> Row {
        let counts = Counts { used, throttled: 1, over_quota: 2 };
        Row { api_key: api_key.to_owned(), usage_plan: usage_plan.to_owned(), day, counts }
    }

    /// What remains of a quota of 10 after each of `days` on which `used` calls were made.
    fn check_remaining(period: Period, days: &[(&str, u64)], from: &str, wanted: &[u64]) {
        let rows: Vec<_> = days.iter().map(|(day, used)| row("alice", "gold", day.parse().unwrap(), *used)).collect();
        let quotas = BTreeMap::from([("gold".to_owned(), Quota { limit: 10, period })]);
        let lines = lines(&rows, from.parse().ok(), &quotas);
        let remaining: Vec<_> = lines.iter().map(|line| line.remaining.unwrap()).collect();
        assert_eq!(remaining, wanted, "{period:?} {days:?} {from}");
    }

    #[test]
    fn what_remains_is_counted_from_the_start_of_the_period() {
        check_remaining(Period::Day, &[("2026-11-24", 1), ("2026-11-25", 2)], "", &[9, 8]);
        check_remaining(Period::Week, &[("2026-11-20", 1), ("2026-11-21", 2), ("2026-11-22", 2)], "", &[9, 7, 8]);
        check_remaining(Period::Month, &[("2026-10-31", 7), ("2026-11-01", 7), ("2026-11-02", 7)], "", &[3, 3, 0]);
        check_remaining(Period::Month, &[("2026-11-01", 1), ("2027-11-01", 1)], "", &[9, 9]);
    }

    #[test]
    fn days_before_the_first_line_count_as_well() {
        check_remaining(Period::Week, &[("2026-11-20", 1), ("2026-11-21", 2)], "2026-11-21", &[7]);
        let plan = |period| Quota { limit: 10, period };
        let plans = |periods: &[Period]| periods.iter().map(|period| (format!("{period:?}"), plan(*period))).collect();
        let check = |periods: &[Period], wanted| {
            assert_eq!(read_from(date(2026, 12, 1), &plans(periods)), wanted, "{periods:?}");
        };
        check(&[], date(2026, 12, 1));
        check(&[Period::Month], date(2026, 12, 1));
        check(&[Period::Month, Period::Week, Period::Day], date(2026, 11, 29));
    }

    #[test]
    fn a_plan_without_a_quota_has_nothing_that_could_remain() {
        let line = &lines(&[row("alice", "free", date(2026, 11, 25), 3)], None, &BTreeMap::new())[0];
        assert_eq!((line.used, line.throttled, line.over_quota, line.remaining), (3, 1, 2, None));
    }

    proptest! {
        #[test]
        fn what_remains_is_the_limit_less_a_plain_sum(
            counts in prop::collection::btree_map((0..60, 0..2_u8, 0..3_u8), 0..9_u64, 0..60),
            limit in 0..40_u64,
            from in 0..60,
        ) {
            let day = |days: i32| date(2026, 11, 1).saturating_add(days.days());
            let periods = [Period::Day, Period::Week, Period::Month];
            let rows: Vec<_> = counts
                .iter()
                .map(|((days, api_key, plan), used)| row(&api_key.to_string(), &plan.to_string(), day(*days), *used))
                .collect();
            let plans: BTreeMap<_, _> = (0..3_usize)
                .map(|plan| (plan.to_string(), Quota { limit, period: periods[plan] }))
                .collect();
            let start = read_from(day(from), &plans);
            let read: Vec<_> = rows.iter().filter(|row| row.day >= start).cloned().collect();
            for line in lines(&read, Some(day(from)), &plans) {
                let since = plans[&line.usage_plan].period.start_of(line.day);
                let used: u64 = rows
                    .iter()
                    .filter(|row| row.api_key == line.api_key && row.usage_plan == line.usage_plan)
                    .filter(|row| (since..=line.day).contains(&row.day))
                    .map(|row| row.counts.used)
                    .sum();
                prop_assert_eq!(line.remaining, Some(limit.saturating_sub(used)));
            }
        }
    }
}
