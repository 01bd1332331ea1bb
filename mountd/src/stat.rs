//! The text of the root's `stat`.

use ktrace::control::Totals;

/// A line for each total: its name and its value, as /proc/vmstat does it; and why there is no eBPF.
pub(crate) fn text(totals: &Totals, backends: &[&str], no_ebpf: Option<&str>) -> String {
    let per_stop = totals.costs.stopped_ns.checked_div(totals.costs.stops).unwrap_or(0);
    let rows = [
        ("traced", totals.traced as u64),
        ("sinks", totals.sinks as u64),
        ("readers", totals.readers as u64),
        ("records", totals.records),
        ("bytes", totals.bytes),
        ("lost", totals.lost),
        ("memory", totals.memory as u64),
        ("threads", totals.costs.threads),
        ("stops", totals.costs.stops),
        ("stopped_ns", totals.costs.stopped_ns),
        ("ns_per_stop", per_stop),
        ("events", totals.costs.events),
        ("recursion_misses", totals.costs.recursion_misses),
    ];
    let mut text: String = rows.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
    text.push_str(&format!("backend {}\n", backends.join(",")));
    if let Some(why) = no_ebpf {
        text.push_str(&format!("no_ebpf {}\n", why.replace('\n', " ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_yet_is_all_zero() {
        let text = text(&Totals::default(), &["ptrace"], Some("not\nhere"));
        assert!(text.starts_with("traced 0\nsinks 0\n"));
        assert!(
            text.ends_with("ns_per_stop 0\nevents 0\nrecursion_misses 0\nbackend ptrace\nno_ebpf not here\n"),
            "{text}"
        );
    }
}
