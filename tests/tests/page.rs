//! The report in a real browser: light and dark, narrow and wide, with the keyboard. Skipped, and says so, where there is no Chromium;
//! with `CI=true` that is a failure.

use std::path::{Path, PathBuf};
use std::process::Command;

use cocoon_attestation::UnixTime;
use cocoon_settlement::chain::Chain;
use cocoon_tests::browser::{Browser, chromium};
use cocoon_tests::fleet::{self, FleetChain, Spec, chain, history, memory};
use cocoon_transparency::Folder;
use cocoon_transparency::replay::State;
use cocoon_transparency::replay::chain::{ChainInput, ReplayedLog, reconcile};
use cocoon_transparency::replay::report::{Findings, Report};
use cocoon_verifier::Verifier;
use serde_json::Value;

/// A report with findings of several kinds, of logs and of a chain on which money moved.
async fn page(folder: &Path) -> String {
    let spec = Spec { enclaves: 20, days: 6, ..Spec::default() };
    let history = history::make(folder, &spec, chain::provider_of(20).unwrap(), |_| {}).unwrap();
    let mut contracts = FleetChain::deploy(None, spec.enclaves).await.unwrap();
    contracts.attest(&history, |_| {}).await.unwrap();
    let mut expected = contracts.claim(&history, &[0, 3, 7], true).await.unwrap();
    expected.extend(history.expected.iter().chain(&history.expected_on_chain).cloned());
    let verifier = Verifier::default();
    let mut replayed = Vec::new();
    for (n, log) in history.logs.iter().enumerate() {
        let state = State::open(&folder.join(format!("{n}.redb"))).unwrap();
        let others = history.logs.iter().enumerate().filter(|(m, _)| *m != n);
        let others: Vec<String> = others.map(|(_, log)| log.witness.clone()).collect();
        let result = memory::replay_log(log, &others, &state, &verifier, 1).unwrap();
        replayed.push((Folder(log.folder.join("public")), result, state));
    }
    let logs = replayed.iter().zip(0..);
    let logs: Vec<_> =
        logs.map(|((source, result, state), n)| ReplayedLog { result, state, source, verifier: Some(n) }).collect();
    let (work, mut findings) = (folder.join("work"), Findings::default());
    let as_of = contracts.chain.head().await.unwrap().time;
    let chain: &dyn Chain = &*contracts.chain;
    let (registry, progress): (_, &(dyn Fn(u64) + Sync)) = (contracts.registry, &|_| {});
    let input = ChainInput { chain, registry, logs: &logs, channels: &[], as_of, work: &work, progress };
    let result = reconcile(&input, &mut findings).await.unwrap();
    let logs = history.logs.iter().zip(&replayed);
    let logs = logs.map(|(log, (_, result, state))| (log.key.clone(), result.clone(), state)).collect();
    let report = Report::new(UnixTime(1_790_000_000), logs, Some(result), findings).unwrap();
    assert_eq!(fleet::compare(&report, &history.logs, &expected), (Vec::new(), Vec::new()));
    cocoon_cli::audit::html::page(&report)
}

/// What a browser says of the page at a width, in a scheme: measured from a frame around it, because the page itself runs no script.
fn measure(chromium: &Path, folder: &Path, width: u32, dark: bool) -> Value {
    let script = r##"
const frame = document.querySelector("iframe");
const channel = text => text.match(/[\d.]+/g).map(Number);
const light = c => { const v = channel(c).slice(0, 3).map(x => (x /= 255) <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
frame.onload = () => {
  const doc = frame.contentDocument, view = frame.contentWindow;
  const back = el => { for (; el; el = el.parentElement) { const c = view.getComputedStyle(el).backgroundColor; if (channel(c)[3] !== 0) return c; } };
  let worst = 99, where = "";
  for (const el of doc.querySelectorAll("body *")) {
    const own = [...el.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || el.closest("svg") || el.className === "skip") continue;
    const value = contrast(view.getComputedStyle(el).color, back(el));
    if (value < worst) { worst = value; where = el.tagName + "." + el.className; }
  }
  const flow = doc.querySelector("figure.flow"), drawn = flow.querySelector("svg[role=img]");
  const parts = [...drawn.querySelectorAll("g")].filter(part => part.querySelector("rect").getBoundingClientRect().width > 0);
  const fills = parts.map(part => contrast(view.getComputedStyle(part.querySelector("rect")).fill, back(flow)));
  const hidden = el => { const closed = el.parentElement.closest("details:not([open])"); return closed && !(el.tagName === "SUMMARY" && el.parentElement === closed); };
  const focusable = [...doc.querySelectorAll("a[href], summary, [tabindex]")].filter(el => !hidden(el));
  const unseen = focusable.filter(el => { el.focus(); return doc.activeElement !== el; }).length;
  const details = doc.querySelector("details:not([open])");
  details.querySelector("summary").click();
  document.body.textContent = JSON.stringify({
    wide: doc.documentElement.scrollWidth, width: view.innerWidth, contrast: worst, where, focusable: focusable.length, unseen,
    opens: details.open, patterns: doc.querySelectorAll("pattern").length, patterned: doc.querySelectorAll("rect[fill^='url(#p-']").length,
    named: [...doc.querySelectorAll("svg[role=img]")].every(svg => svg.getAttribute("aria-label").length > 8), scripts: doc.scripts.length, headings: [...doc.querySelectorAll("h1,h2")].map(h => h.textContent),
    flow: {
      parts: parts.length, least: Math.min(...fills), names: parts.map(part => part.querySelector("title").textContent), label: drawn.getAttribute("aria-label"),
      covered: parts.map(part => part.querySelector("rect").getBoundingClientRect().width).reduce((a, b) => a + b, 0) / drawn.getBoundingClientRect().width,
      right: drawn.getBoundingClientRect().right, legend: [...flow.querySelectorAll(".legend > span")].map(el => el.textContent), said: flow.textContent,
    },
    back: view.getComputedStyle(doc.documentElement).backgroundColor, sheets: doc.styleSheets.length,
    fetched: view.performance.getEntriesByType("resource").length,
  });
};
"##;
    let wrapper = format!(
        "<!DOCTYPE html><meta charset=utf-8><body><iframe src=report.html style=\"border:0;width:{width}px;height:900px\"></iframe><script>{script}</script></body>"
    );
    let name = format!("wrapper-{width}-{dark}.html");
    std::fs::write(folder.join(&name), wrapper).unwrap();
    let output = Command::new("timeout")
        .arg("300")
        .arg(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)))
        .args(["--virtual-time-budget=20000", "--dump-dom"])
        .arg(format!("file://{}", folder.join(&name).display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let start = dom.find('{').unwrap_or_else(|| panic!("{dom}\n{}", String::from_utf8_lossy(&output.stderr)));
    let end = dom.rfind('}').unwrap();
    serde_json::from_str(&dom[start..=end].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")).unwrap()
}

/// The browser and the page in a folder; nothing where there is no browser and nobody insists.
async fn opened() -> Option<(PathBuf, tempfile::TempDir)> {
    let Some(chromium) = chromium() else {
        let missing = "there is no Chromium in PATH (scripts/vm-tools unpacks one, and make test calls it): the report was not looked at";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
        eprintln!("skipped: {missing}");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("report.html"), page(folder.path()).await).unwrap();
    Some((chromium, folder))
}

#[tokio::test]
async fn a_browser_shows_the_report_in_light_and_dark_at_any_width() {
    let Some((chromium, folder)) = opened().await else { return };
    let mut backs = Vec::new();
    for (width, dark) in [(1280, false), (1280, true), (320, false), (320, true)] {
        let found = measure(&chromium, folder.path(), width, dark);
        let number = |name: &str| found[name].as_f64().unwrap_or(f64::NAN);
        assert_eq!(number("width") as u32, width);
        assert!(number("wide") <= f64::from(width), "it is wider than the window: {found}");
        assert!(number("contrast") >= 4.5, "too little contrast: {found}");
        assert!(
            number("focusable") > 12.0 && number("unseen") == 0.0,
            "the keyboard does not reach all of it: {found}"
        );
        assert_eq!((&found["opens"], number("scripts"), number("fetched")), (&Value::Bool(true), 0.0, 0.0), "{found}");
        assert_eq!(found["sheets"], 1, "the style is forbidden: {found}");
        // Colours are never alone: patterns lie over them, and every drawing says in words what it shows.
        assert!(number("patterns") >= 8.0 && number("patterned") > 4.0 && found["named"] == true, "{found}");
        let headings: Vec<&str> = found["headings"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(headings[0].contains("things were found") && headings[1] == "Findings", "{headings:?}");
        // Where the money went: parts that fill the drawing, each named, and told from what is behind them.
        let flow = &found["flow"];
        assert_eq!(flow["label"], "Where deposits went", "{flow}");
        assert!((flow["covered"].as_f64().unwrap() - 1.0).abs() < 0.01 && number_of(flow, "least") >= 3.0, "{flow}");
        assert!(number_of(flow, "right") <= f64::from(width), "{flow}");
        let texts = |name: &str| -> Vec<String> {
            flow[name].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        // Something was paid, and something is held.
        assert!(texts("names").len() >= 2, "{flow}");
        for word in ["paid to providers", "refunded to clients", "held by channels"] {
            assert_eq!(texts("legend").iter().filter(|text| text.contains(word)).count(), 1, "{word}: {flow}");
        }
        for name in texts("names") {
            let (amount, what) = name.split_once(": ").unwrap();
            assert!(texts("legend").iter().any(|text| text.contains(amount) && text.contains(what)), "{name}: {flow}");
        }
        assert!(flow["said"].as_str().unwrap().contains("Clients put in"), "{flow}");
        backs.push(found["back"].as_str().unwrap().to_owned());
    }
    assert_ne!(backs[0], backs[1], "light and dark are the same");
}

fn number_of(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or(f64::NAN)
}

/// Where the focus is, among all that may have it, and how that is shown.
const FOCUS: &str = r#"(() => {
  const all = [...document.querySelectorAll("a[href], summary, [tabindex]")], el = document.activeElement;
  const style = getComputedStyle(el), place = el.getBoundingClientRect();
  return { at: all.indexOf(el), style: style.outlineStyle, width: parseFloat(style.outlineWidth), color: style.outlineColor,
    seen: place.width > 0 && place.right > 0 && place.bottom > 0 && place.left < innerWidth && place.top < innerHeight };
})()"#;

/// All that a key can reach, in the order of the page, and how it is shown without the focus.
const REACHABLE: &str = r#"(() => {
  const closed = el => { const details = el.parentElement.closest("details:not([open])"); return details && !(el.tagName === "SUMMARY" && el.parentElement === details); };
  return [...document.querySelectorAll("a[href], summary, [tabindex]")].map((el, n) => [el, n]).filter(([el]) => !closed(el))
    .map(([el, n]) => ({ at: n, style: getComputedStyle(el).outlineStyle }));
})()"#;

/// By the keys alone, as the browser takes them: Tab goes through all of it in its order, what has the focus shows it, Enter opens and follows.
#[tokio::test]
async fn the_keyboard_alone_reaches_and_opens_all_of_it() {
    let Some((chromium, folder)) = opened().await else { return };
    let url = format!("file://{}", folder.path().join("report.html").display());
    let mut browser = Browser::open(&chromium, folder.path(), &url);
    for (width, dark) in [(1_280, false), (320, true)] {
        browser.go(&url);
        browser.show(width, dark);
        let reachable = browser.value(REACHABLE);
        let reachable = reachable.as_array().unwrap();
        assert!(reachable.len() > 12, "{} places", reachable.len());
        for place in reachable {
            assert_eq!(place["style"], "none", "it is outlined without the focus: {place}");
            browser.press("Tab");
            let focus = browser.value(FOCUS);
            assert_eq!(focus["at"], place["at"], "{focus}");
            assert_eq!((focus["style"].as_str(), &focus["seen"]), (Some("solid"), &Value::Bool(true)), "{focus}");
            assert!(number_of(&focus, "width") >= 2.0, "{focus}");
        }
        // The first leads past what is above the findings.
        browser.value("document.activeElement.blur()");
        browser.value("document.querySelector('a[href]').focus()");
        browser.press("Enter");
        assert_ne!(browser.value("location.hash"), "", "the first link leads nowhere");
        // What is closed opens, and closes again, and what is in it comes next.
        let closed = "document.querySelector('details:not([open]) > summary')";
        browser.value(&format!("window.opened = {closed}; opened.focus()"));
        for open in [true, false, true] {
            browser.press("Enter");
            assert_eq!(browser.value("opened.parentElement.open"), open);
        }
    }
}
