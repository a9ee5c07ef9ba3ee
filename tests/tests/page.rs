//! The report in a real browser: light and dark, narrow and wide, with the keyboard. Skipped, and says so, where there is no Chromium;
//! with `CI=true` that is a failure.

use std::path::{Path, PathBuf};
use std::process::Command;

use cocoon_attestation::UnixTime;
use cocoon_tests::fleet::{self, Spec, chain, history};
use cocoon_transparency::Folder;
use cocoon_transparency::replay::report::{Findings, Report};
use cocoon_transparency::replay::{Job, LogInput, State, replay};
use cocoon_verifier::Verifier;
use serde_json::Value;

fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name))).find(|path| path.is_file())
}

/// A report with findings of several kinds.
fn page(folder: &Path) -> String {
    let spec = Spec { enclaves: 20, days: 6, ..Spec::default() };
    let history = history::make(folder, &spec, chain::provider_of(20).unwrap(), |_| {}).unwrap();
    let (verifier, stop) = (Verifier::default(), std::sync::atomic::AtomicBool::new(false));
    let mut replayed = Vec::new();
    for (n, log) in history.logs.iter().enumerate() {
        let state = State::open(&folder.join(format!("{n}.redb"))).unwrap();
        let source = Folder(log.folder.join("public"));
        let input = LogInput { source: &source, key: &log.key, witnesses: &[], checkpoints: &log.checkpoints, from: 0 };
        let job = Job { jobs: 1, verifier: &verifier, progress: &|_, _| {}, stop: &stop };
        replayed.push((log.key.clone(), replay(&input, &state, &job).unwrap(), state));
    }
    let logs = replayed.iter().map(|(key, result, state)| (key.clone(), result.clone(), state)).collect();
    let report = Report::new(UnixTime(1_790_000_000), logs, None, Findings::default()).unwrap();
    assert_eq!(fleet::compare(&report, &history.logs, &history.expected), (Vec::new(), Vec::new()));
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
  const hidden = el => { const closed = el.parentElement.closest("details:not([open])"); return closed && !(el.tagName === "SUMMARY" && el.parentElement === closed); };
  const focusable = [...doc.querySelectorAll("a[href], summary, [tabindex]")].filter(el => !hidden(el));
  const unseen = focusable.filter(el => { el.focus(); return doc.activeElement !== el; }).length;
  const details = doc.querySelector("details:not([open])");
  details.querySelector("summary").click();
  document.body.textContent = JSON.stringify({
    wide: doc.documentElement.scrollWidth, width: view.innerWidth, contrast: worst, where, focusable: focusable.length, unseen,
    opens: details.open, patterns: doc.querySelectorAll("pattern").length, patterned: doc.querySelectorAll("rect[fill^='url(#p-']").length,
    named: [...doc.querySelectorAll("svg[role=img]")].every(svg => svg.getAttribute("aria-label").length > 8), scripts: doc.scripts.length, headings: [...doc.querySelectorAll("h1,h2")].map(h => h.textContent),
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

#[test]
fn a_browser_shows_the_report_in_light_and_dark_at_any_width_and_by_keyboard() {
    let Some(chromium) = chromium() else {
        let missing = "there is no Chromium in PATH (scripts/vm-tools unpacks one, and make test calls it): the report was not looked at";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
        eprintln!("skipped: {missing}");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("report.html"), page(folder.path())).unwrap();
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
        backs.push(found["back"].as_str().unwrap().to_owned());
    }
    assert_ne!(backs[0], backs[1], "light and dark are the same");
}
