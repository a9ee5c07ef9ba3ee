//! The report for people: one page that needs nothing but itself. No script, no font, no image, no link leads out of it; its own policy
//! forbids the browser to fetch anything. Everything that a log or chain said is text and stays text.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use cocoon_attestation::UnixTime;
use cocoon_settlement::Nanoton;
use cocoon_transparency::replay::chain::{ChainResult, Money};
use cocoon_transparency::replay::report::{EnclaveReport, LogReport, MOST_FINDINGS, Report};
use cocoon_transparency::replay::{Finding, Gravity, Kind, Totals, utc};
use cocoon_verifier::Outcome;

use super::replay::{KEY_UNCHECKED, command};
use crate::ui::{NOT_CONFIDENTIAL, steers};

const STYLE: &str = include_str!("report.css");
/// Columns of a chart: longer times share them.
const COLUMNS: usize = 96;
const DAY: u64 = 86_400;

/// Text that can never be anything else.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for letter in self.0.to_string().chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Control characters are none of HTML's, and marks that turn text around would make it say something else.
                letter if steers(letter) && letter != '\n' => f.write_str("\u{fffd}")?,
                letter => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// The page.
pub fn page(report: &Report) -> String {
    let mut out = String::new();
    let title = verdict(report).0;
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\"/>\n\
         <title>Cocoon audit: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        Escaped(&title)
    );
    out += "<a class=\"skip\" href=\"#findings\">Skip to the findings</a>\n";
    patterns(&mut out);
    head(&mut out, report);
    out += "<main>\n";
    findings(&mut out, report);
    timeline(&mut out, report);
    tcb(&mut out, report);
    if let Some(chain) = &report.chain {
        money(&mut out, chain);
    }
    logs(&mut out, report);
    checked(&mut out, report);
    out += "</main>\n";
    let _ = write!(
        out,
        "<footer>Made {} by {}. The same for programs is in report.json beside this page.</footer>\n</body>\n</html>\n",
        Escaped(utc(report.made)),
        Escaped(&report.verifier)
    );
    out
}

/// The whole in a sentence, and the class that colours it.
fn verdict(report: &Report) -> (String, &'static str) {
    let count: u64 = report.counts.values().sum();
    let many =
        if count == 1 { "One thing was found".to_owned() } else { format!("{} things were found", grouped(count)) };
    match report.exit_code {
        0 => ("Nothing was found".into(), "good"),
        10 => (format!("{many}, and nobody has lost anything by it"), "note"),
        20 => (format!("{many}: something was recorded or paid that should not have been"), "wrong"),
        _ => (format!("{many}: a log does not hold together"), "broken"),
    }
}

fn head(out: &mut String, report: &Report) {
    let (text, class) = verdict(report);
    *out += "<header>\n";
    if report.development {
        let _ = writeln!(out, "<p class=\"banner\" role=\"note\">{}</p>", Escaped(NOT_CONFIDENTIAL));
    }
    let _ = writeln!(out, "<p class=\"over\">Cocoon audit report</p>\n<h1 class=\"{class}\">{}</h1>", Escaped(text));
    let leaves: u64 = report.logs.iter().map(|log| log.result.size).fold(0, u64::saturating_add);
    let enclaves = report.logs.iter().map(|log| log.enclaves).max().unwrap_or(0);
    let whole = report.logs.iter().filter(|log| log.result.whole).count();
    *out += "<ul class=\"cards\">\n";
    let mut card = |value: String, what: String| {
        let _ = writeln!(out, "<li><strong>{}</strong><span>{}</span></li>", Escaped(value), Escaped(what));
    };
    card(grouped(leaves), format!("leaves in {}", plural(report.logs.len() as u64, "log")));
    card(format!("{whole} of {}", report.logs.len()), "logs make the tree that they signed".into());
    card(grouped(enclaves), "enclaves".into());
    if let Some(chain) = &report.chain {
        card(grouped(chain.attestations), "attestations on-chain".into());
        card(ton(chain.money.paid), format!("paid in {}", plural(chain.claims, "claim")));
    }
    *out += "</ul>\n<nav aria-label=\"Parts of this report\"><a href=\"#findings\">Findings</a> <a href=\"#timeline\">Enclaves and verdicts</a> \
             <a href=\"#tcb\">TCB status</a>";
    if report.chain.is_some() {
        *out += " <a href=\"#money\">Money</a>";
    }
    *out += " <a href=\"#logs\">Logs</a> <a href=\"#checked\">What was checked</a></nav>\n</header>\n";
}

fn findings(out: &mut String, report: &Report) {
    *out += "<section id=\"findings\">\n<h2>Findings</h2>\n";
    if report.findings.is_empty() {
        *out +=
            "<p class=\"none\">Every leaf, hash, signature and payment that was looked at is what it says it is.</p>\n";
    }
    let mut kinds: BTreeMap<(std::cmp::Reverse<Gravity>, std::cmp::Reverse<Kind>), Vec<&Finding>> = BTreeMap::new();
    for finding in &report.findings {
        kinds.entry((std::cmp::Reverse(finding.gravity), std::cmp::Reverse(finding.kind))).or_default().push(finding);
    }
    for ((std::cmp::Reverse(gravity), std::cmp::Reverse(kind)), found) in kinds {
        let count = report.counts.get(kind.name()).copied().unwrap_or(found.len() as u64);
        let _ = writeln!(
            out,
            "<article class=\"{0}\">\n<h3><span class=\"tag\">{0}</span> {1} <span class=\"count\">{2}</span></h3>\n<p><code>{3}</code></p>",
            gravity.name(),
            Escaped(kind.title()),
            grouped(count),
            kind.name()
        );
        for (n, finding) in found.iter().enumerate() {
            one(out, finding, report, n == 0 && count < 4);
        }
        if count > found.len() as u64 {
            let _ = writeln!(
                out,
                "<p>{} more of this kind; the first {MOST_FINDINGS} are shown.</p>",
                grouped(count - found.len() as u64)
            );
        }
        *out += "</article>\n";
    }
    *out += "</section>\n";
}

fn one(out: &mut String, finding: &Finding, report: &Report, open: bool) {
    let mut place = Vec::new();
    place.extend(finding.log.clone());
    place.extend(finding.leaf.map(|leaf| format!("leaf {}", grouped(leaf))));
    place.extend(finding.time.map(utc));
    if place.is_empty() {
        place.push("on the chain".into());
    }
    let open = if open { " open=\"open\"" } else { "" };
    let _ = writeln!(
        out,
        "<details{open}>\n<summary>{}</summary>\n<p>{}</p>",
        Escaped(place.join(", ")),
        Escaped(&finding.detail)
    );
    *out += "<dl>\n";
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "<dt>{name}</dt><dd><code>{}</code></dd>", Escaped(value));
    };
    if let Some(id) = &finding.evidence_id {
        row("Evidence", &id.to_string());
    }
    if let Some(transaction) = &finding.transaction {
        row("Transaction", transaction);
    }
    if let Some(command) = command(finding, report) {
        row("See for yourself", &command);
    }
    *out += "</dl>\n";
    for evidence in &finding.evidence {
        let _ = writeln!(out, "<pre tabindex=\"0\">{}</pre>", Escaped(evidence));
    }
    *out += "</details>\n";
}

/// What stands in a chart's column.
struct Column {
    first: u64,
    last: u64,
    values: Vec<u64>,
}

/// Days in columns, from the first to the last, and what is counted in each.
fn columns(days: &BTreeMap<u64, Vec<u64>>, series: usize) -> Vec<Column> {
    let (Some((first, _)), Some((last, _))) = (days.first_key_value(), days.last_key_value()) else {
        return Vec::new();
    };
    let span = (last - first + 1) as usize;
    let each = span.div_ceil(COLUMNS).max(1) as u64;
    let mut columns: Vec<Column> = (0..span.div_ceil(each as usize) as u64)
        .map(|n| Column {
            first: first + n * each,
            last: (first + (n + 1) * each - 1).min(*last),
            values: vec![0; series],
        })
        .collect();
    for (day, values) in days {
        if let Some(column) = columns.get_mut(((day - first) / each) as usize) {
            column.values.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
    }
    columns
}

/// What is drawn over a colour, so that nothing is told by colour alone: a class and the lines of its pattern.
const PATTERNS: [(&str, &str); 8] = [
    ("refused", "M0 8L8 0M-2 2L2 -2M6 10L10 6"),
    ("found", "M0 0L8 8M0 8L8 0"),
    ("t2", "M0 8L8 0M-2 2L2 -2M6 10L10 6"),
    ("t3", "M0 4L8 4"),
    ("t4", "M0 0L8 8M0 8L8 0"),
    ("t5", "M4 0L4 8"),
    ("t6", "M3 4L5 4M4 3L4 5"),
    ("t7", "M0 0L8 8M-2 6L2 10M6 -2L10 2"),
];

fn patterns(out: &mut String) {
    *out += "<svg class=\"patterns\" width=\"0\" height=\"0\" aria-hidden=\"true\"><defs>";
    for (class, lines) in PATTERNS {
        let _ = write!(
            out,
            "<pattern id=\"p-{class}\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\"><path class=\"mark\" d=\"{lines}\"/></pattern>"
        );
    }
    *out += "</defs></svg>\n";
}

/// A rectangle in a class's colour and pattern.
fn bar(out: &mut String, class: &str, [x, y, width, height]: [f64; 4], title: &str) {
    let place = format!("x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"");
    let _ = write!(out, "<g><title>{}</title><rect class=\"{class}\" {place}/>", Escaped(title));
    if PATTERNS.iter().any(|(known, _)| *known == class) {
        let _ = write!(out, "<rect fill=\"url(#p-{class})\" {place}/>");
    }
    *out += "</g>\n";
}

/// A class in a legend.
fn swatch(out: &mut String, class: &str, name: &str) {
    *out += "<span><svg class=\"swatch\" viewBox=\"0 0 16 16\" aria-hidden=\"true\">";
    bar(out, class, [0.0, 0.0, 16.0, 16.0], name);
    let _ = write!(out, "</svg>{}</span>", Escaped(name));
}

/// Stacked columns, with a legend, and the same as a table.
fn chart(out: &mut String, label: &str, names: &[(&str, &str)], columns: &[Column]) {
    const HEIGHT: f64 = 160.0;
    const WIDTH: f64 = 960.0;
    let most = columns.iter().map(|column| column.values.iter().sum::<u64>()).max().unwrap_or(0).max(1);
    let width = WIDTH / columns.len().max(1) as f64;
    let _ = writeln!(
        out,
        "<figure>\n<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"{}\" preserveAspectRatio=\"none\">",
        HEIGHT + 2.0,
        Escaped(label)
    );
    for (n, column) in columns.iter().enumerate() {
        let mut top = HEIGHT;
        for ((name, class), value) in names.iter().zip(&column.values).filter(|(_, value)| **value > 0) {
            // What is there is seen, however little it is.
            let height = (*value as f64 / most as f64 * HEIGHT).max(2.0);
            top -= height;
            let place = [n as f64 * width + width * 0.08, top.max(0.0), width * 0.84, height];
            bar(out, class, place, &format!("{}: {} {name}", period(column), grouped(*value)));
        }
    }
    *out += "</svg>\n<figcaption>";
    if let (Some(first), Some(last)) = (columns.first(), columns.last()) {
        let _ = write!(
            out,
            "<span class=\"axis\"><span>{}</span><span>{}</span></span>",
            date(first.first),
            date(last.last)
        );
    }
    *out += "<span class=\"legend\">";
    names.iter().for_each(|(name, class)| swatch(out, class, name));
    let _ = write!(out, "</span> Highest column: {}.</figcaption>\n</figure>\n", grouped(most));
    *out += "<details class=\"table\"><summary>The same as a table</summary>\n<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr><th scope=\"col\">Time</th>";
    for (name, _) in names {
        let _ = write!(out, "<th scope=\"col\" class=\"number\">{}</th>", Escaped(name));
    }
    *out += "</tr></thead>\n<tbody>\n";
    for column in columns {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", Escaped(period(column)));
        for value in &column.values {
            let _ = write!(out, "<td class=\"number\">{}</td>", grouped(*value));
        }
        *out += "</tr>\n";
    }
    *out += "</tbody></table></div></details>\n";
}

fn timeline(out: &mut String, report: &Report) {
    *out += "<section id=\"timeline\">\n<h2>Enclaves and verdicts over time</h2>\n";
    let mut days: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (day, counts) in report.logs.iter().flat_map(|log| &log.result.totals.days) {
        let sums = days.entry(*day).or_insert_with(|| vec![0; 3]);
        let found = counts.findings.min(counts.accepted + counts.refused);
        let refused = counts.refused.min(counts.accepted + counts.refused - found);
        sums[0] += counts.accepted + counts.refused - found - refused;
        sums[1] += refused;
        sums[2] += found;
    }
    let names = [("accepted", "accepted"), ("refused", "refused"), ("with a finding", "found")];
    if days.is_empty() {
        *out += "<p class=\"none\">The logs are empty.</p>\n";
    } else {
        chart(out, "Leaves of all logs by day and result", &names, &columns(&days, 3));
    }
    enclaves(out, report);
    *out += "</section>\n";
}

fn enclaves(out: &mut String, report: &Report) {
    let all = report.logs.iter().map(|log| log.enclaves).max().unwrap_or(0);
    let shown = report.enclaves.len() as u64;
    if shown == 0 {
        return;
    }
    *out += "<h3>Enclaves</h3>\n";
    if all > shown {
        let _ = writeln!(out, "<p>{shown} of {}: those with refusals first.</p>", grouped(all));
    }
    *out += "<p class=\"legend\">";
    let marks = [
        (true, Outcome::Accepted, "accepted"),
        (true, Outcome::Refused, "refused"),
        (false, Outcome::Accepted, "with a finding"),
    ];
    for (as_said, outcome, name) in marks {
        *out += "<span><svg class=\"swatch\" viewBox=\"0 0 8 8\" aria-hidden=\"true\">";
        mark(out, as_said, outcome, 4.0, 4.0);
        let _ = write!(out, "</svg>{name}</span>");
    }
    *out += "</p>\n";
    let first = report.enclaves.iter().map(|enclave| enclave.first.0).min().unwrap_or(0);
    let last = report.enclaves.iter().map(|enclave| enclave.last.0).max().unwrap_or(first);
    let span = (last - first).max(1) as f64;
    *out += "<div class=\"scroll\" tabindex=\"0\"><table class=\"enclaves\">\n<thead><tr><th scope=\"col\">Enclave key</th><th scope=\"col\">First leaf</th>\
             <th scope=\"col\">Newest leaf</th><th scope=\"col\">Results over time</th></tr></thead>\n<tbody>\n";
    for enclave in &report.enclaves {
        let _ = write!(
            out,
            "<tr><th scope=\"row\"><code title=\"{0}\">{1}</code></th><td>{2}</td><td>{3}</td><td>",
            Escaped(&enclave.key),
            Escaped(enclave.key.get(..12).unwrap_or(&enclave.key)),
            Escaped(utc(enclave.first)),
            Escaped(utc(enclave.last))
        );
        life(out, enclave, first, span, report.logs.len());
        *out += "</td></tr>\n";
    }
    *out += "</tbody></table></div>\n";
}

/// An enclave's leaves on a line for each log.
fn life(out: &mut String, enclave: &EnclaveReport, from: u64, span: f64, logs: usize) {
    let x = |time: UnixTime| 4.0 + (time.0.saturating_sub(from)) as f64 / span * 292.0;
    let height = 8 * logs.max(1);
    let found = enclave.leaves.iter().filter(|(.., as_said)| !as_said).count();
    let refused =
        enclave.leaves.iter().filter(|(_, _, outcome, as_said)| *as_said && *outcome != Outcome::Accepted).count();
    let words = match enclave.leaves.len() {
        0 if enclave.refused => "with refusals".to_owned(),
        0 => "all accepted".to_owned(),
        all => format!("{} accepted, {refused} refused, {found} with a finding", all - refused - found),
    };
    let _ = write!(out, "<svg class=\"life\" viewBox=\"0 0 300 {height}\" role=\"img\" aria-label=\"{words}\">");
    if enclave.leaves.is_empty() {
        let class = if enclave.refused { "refused" } else { "accepted" };
        let (a, b) = (x(enclave.first), x(enclave.last));
        let _ = write!(
            out,
            "<rect class=\"{class}\" x=\"{a:.1}\" y=\"2\" width=\"{:.1}\" height=\"4\"/>",
            (b - a).max(3.0)
        );
    }
    for (log, time, outcome, as_said) in enclave.leaves.iter().take(400) {
        mark(out, *as_said, *outcome, x(*time), (8 * log + 4) as f64);
    }
    *out += "</svg>";
}

/// A leaf: a disc if it is accepted, a square if it is refused, a triangle if something was found about it.
fn mark(out: &mut String, as_said: bool, outcome: Outcome, x: f64, y: f64) {
    let _ = match (as_said, outcome) {
        (false, _) => {
            let (left, right, top, bottom) = (x - 4.0, x + 4.0, y - 4.0, y + 3.5);
            write!(out, "<path class=\"found\" d=\"M{x:.1} {top:.1}L{right:.1} {bottom:.1}L{left:.1} {bottom:.1}Z\"/>")
        }
        (true, Outcome::Accepted) => write!(out, "<circle class=\"accepted\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"),
        _ => {
            write!(out, "<rect class=\"refused\" x=\"{:.1}\" y=\"{:.1}\" width=\"6\" height=\"6\"/>", x - 3.0, y - 3.0)
        }
    };
}

fn tcb(out: &mut String, report: &Report) {
    *out += "<section id=\"tcb\">\n<h2>TCB status over time</h2>\n";
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in report.logs.iter().flat_map(|log| &log.result.totals.tcb.0) {
        *all.entry(name).or_default() += count;
    }
    // The most frequent have a colour of their own.
    let mut names: Vec<(&str, u64)> = all.into_iter().collect();
    names.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    const CLASSES: [&str; 7] = ["t1", "t2", "t3", "t4", "t5", "t6", "t7"];
    let more = names.len() > CLASSES.len();
    let own: Vec<&str> = names.iter().take(CLASSES.len() - usize::from(more)).map(|(name, _)| *name).collect();
    let mut days: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (day, counts) in report.logs.iter().flat_map(|log| &log.result.totals.days) {
        let sums = days.entry(*day).or_insert_with(|| vec![0; own.len() + usize::from(more)]);
        for (name, count) in &counts.tcb.0 {
            let place = own.iter().position(|known| known == name).unwrap_or(own.len());
            if let Some(sum) = sums.get_mut(place) {
                *sum += count;
            }
        }
    }
    let mut series: Vec<(&str, &str)> = own.iter().zip(CLASSES).map(|(name, class)| (*name, class)).collect();
    if more {
        series.push(("other", CLASSES[CLASSES.len() - 1]));
    }
    if days.is_empty() {
        *out += "<p class=\"none\">Nothing was appraised.</p>\n";
    } else {
        *out += "<p>As appraised again, each leaf at its own time. SNP has no status: its versions are held against the policy.</p>\n";
        chart(out, "Leaves of all logs by day and TCB status", &series, &columns(&days, series.len()));
    }
    let mut advisories: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in report.logs.iter().flat_map(|log| &log.result.totals.advisories.0) {
        *advisories.entry(name).or_default() += count;
    }
    if !advisories.is_empty() {
        *out += "<h3>Advisories that applied</h3>\n<ul class=\"plain\">\n";
        for (name, count) in advisories {
            let _ = writeln!(out, "<li><code>{}</code> {}</li>", Escaped(name), plural(count, "leaf"));
        }
        *out += "</ul>\n";
    }
    *out += "</section>\n";
}

fn money(out: &mut String, chain: &ChainResult) {
    *out += "<section id=\"money\">\n<h2>Money</h2>\n";
    flow(out, &chain.money);
    let _ = writeln!(
        out,
        "<p>{} attestations, {} followed to leaves that say accepted and are accepted again; {} followed to an attestation. \
         Providers stake {}.</p>",
        grouped(chain.attestations),
        plural(chain.verdicts_followed, "verdict"),
        plural(chain.receipts_followed, "paid receipt"),
        ton(chain.stake)
    );
    let mut days: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (day, counts) in &chain.days {
        days.insert(*day, vec![counts.attestations]);
    }
    if !days.is_empty() {
        chart(out, "Attestations on-chain by day", &[("attestations", "accepted")], &columns(&days, 1));
    }
    let table = |out: &mut String, caption: &str, rows: &[Vec<String>], heads: &[&str], of: u64| {
        if rows.is_empty() {
            return;
        }
        let _ = write!(out, "<h3>{caption}</h3>\n<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>");
        for (n, head) in heads.iter().enumerate() {
            let _ = write!(out, "<th scope=\"col\"{}>{head}</th>", if n == 0 { "" } else { " class=\"number\"" });
        }
        *out += "</tr></thead>\n<tbody>\n";
        for row in rows {
            *out += "<tr>";
            for (n, cell) in row.iter().enumerate() {
                let _ = match n {
                    0 => write!(out, "<th scope=\"row\"><code>{}</code></th>", Escaped(cell)),
                    _ => write!(out, "<td class=\"number\">{}</td>", Escaped(cell)),
                };
            }
            *out += "</tr>\n";
        }
        *out += "</tbody></table></div>\n";
        if of > rows.len() as u64 {
            let _ = writeln!(out, "<p>{} more are not shown.</p>", grouped(of - rows.len() as u64));
        }
    };
    let providers: Vec<Vec<String>> = chain
        .providers
        .iter()
        .map(|flow| {
            let numbers = [grouped(flow.attestations), grouped(flow.channels)];
            [flow.address.clone()].into_iter().chain(numbers).chain([ton(flow.money.paid), ton(flow.stake)]).collect()
        })
        .collect();
    table(
        out,
        "Providers",
        &providers,
        &["Provider", "Attestations", "Channels", "Paid", "Stake"],
        chain.provider_count,
    );
    let channels: Vec<Vec<String>> = chain
        .channels
        .iter()
        .map(|flow| {
            let money = &flow.money;
            let amounts = [money.deposited, money.paid, money.refunded, money.held].map(ton);
            [flow.address.clone(), grouped(flow.claims)].into_iter().chain(amounts).collect()
        })
        .collect();
    let heads = ["Channel", "Claims", "Deposited", "Paid", "Refunded", "Held"];
    table(out, "Channels", &channels, &heads, chain.channel_count);
    *out += "</section>\n";
}

/// What came in, and where it went.
fn flow(out: &mut String, money: &Money) {
    let parts = [
        ("paid to providers", "accepted", money.paid),
        ("refunded to clients", "refused", money.refunded),
        ("held by channels", "t2", money.held),
    ];
    let all: u64 = parts.iter().map(|(.., value)| *value).fold(0, u64::saturating_add).max(1);
    let _ = write!(
        out,
        "<figure class=\"flow\">\n<p>Clients put in <strong>{}</strong>.</p>\n<svg viewBox=\"0 0 960 36\" role=\"img\" aria-label=\"Where deposits went\" preserveAspectRatio=\"none\">",
        ton(money.deposited)
    );
    let mut at = 0.0;
    for (name, class, value) in parts {
        let width = value as f64 / all as f64 * 960.0;
        bar(out, class, [at, 0.0, width, 36.0], &format!("{}: {name}", ton(value)));
        at += width;
    }
    *out += "</svg>\n<figcaption><span class=\"legend\">";
    for (name, class, value) in parts {
        swatch(out, class, &format!("{} {name}", ton(value)));
    }
    let _ = write!(
        out,
        "</span> Fees of the network, out of what was sent along: {}.</figcaption>\n</figure>\n",
        ton(money.fees)
    );
}

fn logs(out: &mut String, report: &Report) {
    *out += "<section id=\"logs\">\n<h2>Logs</h2>\n";
    for log in &report.logs {
        log_of(out, log, report.chain.as_ref());
    }
    *out += "</section>\n";
}

fn log_of(out: &mut String, log: &LogReport, chain: Option<&ChainResult>) {
    let result = &log.result;
    let totals: &Totals = &result.totals;
    let tree = if result.whole {
        "The leaves make the tree that was signed."
    } else {
        "The leaves do NOT make the tree that was signed."
    };
    let _ = writeln!(out, "<article>\n<h3>{}</h3>\n<p>{tree}</p>\n<dl>", Escaped(&result.origin));
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "<dt>{name}</dt><dd>{}</dd>", Escaped(value));
    };
    row("Read at", log.place.clone());
    row("Key", if log.key_unchecked { format!("{} ({KEY_UNCHECKED})", result.key) } else { result.key.clone() });
    row(
        "Leaves",
        format!(
            "{} ({} accepted, {} refused, {} of these for what the chain says)",
            grouped(result.size),
            grouped(totals.accepted),
            grouped(totals.refused),
            grouped(totals.no_verdict)
        ),
    );
    if result.from > 0 {
        row("Appraised again", format!("from leaf {} on", grouped(result.from)));
    }
    row("Root", result.root.clone().unwrap_or_else(|| "none".into()));
    let witnesses: Vec<String> = result.witnesses.iter().map(|(name, at)| format!("{name} at {}", utc(*at))).collect();
    row(
        "Cosigned",
        if witnesses.is_empty() { "no witness was named, or none cosigned".into() } else { witnesses.join(", ") },
    );
    if let Some(verifier) =
        chain.and_then(|chain| chain.verifiers.iter().find(|verifier| verifier.log.as_deref() == Some(&result.origin)))
    {
        let anchored = verifier.anchored.map_or("nothing".to_owned(), |size| plural(size, "leaf"));
        row("In the Registry", format!("verifier {}; anchored: {anchored}", verifier.index));
    }
    let counts = |counts: &cocoon_transparency::replay::Counts| {
        let all: Vec<String> =
            counts.0.iter().take(12).map(|(name, count)| format!("{name} ({})", grouped(*count))).collect();
        let more = counts.0.len().saturating_sub(12);
        if more > 0 { format!("{} and {more} more", all.join(", ")) } else { all.join(", ") }
    };
    row("Evidence", counts(&totals.cpus) + &format!("; {} with GPUs", grouped(totals.with_gpu)));
    row("Verifiers", counts(&totals.verifiers));
    row("Policies", counts(&totals.policies));
    if !totals.references.0.is_empty() {
        row("Reference values", counts(&totals.references));
    }
    if let (Some(first), Some(last)) = (totals.first, totals.last) {
        row("Time", format!("{} to {}", utc(first), utc(last)));
    }
    *out += "</dl>\n</article>\n";
}

fn checked(out: &mut String, report: &Report) {
    *out += "<section id=\"checked\">\n<h2>What was checked</h2>\n<ul>\n\
             <li>The signature of each log's checkpoint, and the cosignatures of the witnesses that were named.</li>\n\
             <li>The hash of every leaf, every file of tree hashes, and the root; that the log continues every checkpoint of it that was seen before or given.</li>\n\
             <li>The evidence of every leaf, appraised again at the leaf's own time, with the endorsements, policy and reference values that it names; the result must be the recorded one.</li>\n";
    if report.chain.is_some() {
        *out += "<li>Each attestation on-chain: signatures, and the leaves behind them in the logs that were given.</li>\n\
                 <li>Each payment: that an attestation covers the receipt, that the key was not revoked, that no more was paid than was owed.</li>\n\
                 <li>Each account: that its transactions add up to what it holds.</li>\n";
    }
    *out += "</ul>\n<h3>What was not</h3>\n<ul>\n\
             <li>Whether policies and reference values are good ones: read them; they are parts of the log.</li>\n\
             <li>Whether a block that evidence names existed: the chain knows.</li>\n";
    *out += if report.chain.is_some() {
        "<li>What the chain's server says: its answers are believed. Channels that no claim has named are not known.</li>\n"
    } else {
        "<li>The chain: none was named.</li>\n"
    };
    *out += "</ul>\n</section>\n";
}

fn ton(nanoton: u64) -> String {
    Nanoton(nanoton).to_string()
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn plural(count: u64, what: &str) -> String {
    match (count, what) {
        (1, _) => format!("1 {what}"),
        (_, "leaf") => format!("{} leaves", grouped(count)),
        _ => format!("{} {what}s", grouped(count)),
    }
}

fn date(day: u64) -> String {
    utc(UnixTime(day.saturating_mul(DAY))).chars().take(10).collect()
}

fn period(column: &Column) -> String {
    if column.first == column.last {
        date(column.first)
    } else {
        format!("{} to {}", date(column.first), date(column.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_markup_stays_text() {
        let text = Escaped("<script>alert('x')</script> & \"y\"\u{7}\u{202e}\n").to_string();
        assert_eq!(text, "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;y&quot;\u{fffd}\u{fffd}\n");
    }

    #[test]
    fn columns_cover_every_day_once_and_are_bounded() {
        let days: BTreeMap<u64, Vec<u64>> = (20_000..23_660).map(|day| (day, vec![1])).collect();
        let columns = columns(&days, 1);
        assert!(columns.len() <= COLUMNS);
        assert_eq!(columns.iter().map(|column| column.values[0]).sum::<u64>(), 3_660);
        assert_eq!((columns[0].first, columns[columns.len() - 1].last), (20_000, 23_659));
        assert!(super::columns(&BTreeMap::new(), 1).is_empty());
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
