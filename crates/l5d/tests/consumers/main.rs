//! l5d judged by the programs that its users point at it: Prometheus, promtool, Pushgateway, Telegraf, InfluxDB, StatsD, curl, nginx,
//! Zipkin, rotel, OpenTelemetry's own protos, and a browser, whose pictures of the dashboard are kept as test output.
//!
//! Every program is started at most once, on loopback and on free ports, when the first case needs it, and is stopped when this
//! process ends, also after a failure: that is why the target has a `main` of its own (statics of a usual test are never dropped).
//! One that is not installed fails the case with the command that installs it. The configuration snippets that the README prints
//! are read from the README, so that what a reader pastes is what was tested.
//!
//! `cargo test -p l5d --features consumers --test consumers [-- PART_OF_A_NAME]`; `L5D_BIN=FILE` judges another build.

mod browser;
mod dashboard;
mod demo;
mod fuzz;
mod influxdb;
mod l5d;
mod nginx;
mod otlp;
mod page;
mod programs;
mod prometheus;
mod prometheus3;
mod pushgateway;
mod readme;
mod router;
mod statsd;
mod statsd_exporter;
mod suite;
mod telegraf;
mod zipkin;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use suite::Suite;

macro_rules! dashboard {
    ($case:ident) => {
        (concat!("dashboard::", stringify!($case)), dashboard::$case)
    };
}

type Case = (&'static str, fn(&Suite));

/// Every case, cheap ones first. They run one after the other: they share the consumers, and machines that test have few cores.
const CASES: &[Case] = &[
    ("page::the_pages_curl_prints_the_first_metrics", page::the_pages_curl_prints_the_first_metrics),
    ("page::own_requests_show_within_a_second", page::own_requests_show_within_a_second),
    (
        "page::statsd_without_experimental_is_refused_with_one_line",
        page::statsd_without_experimental_is_refused_with_one_line,
    ),
    (
        "demo::the_readmes_first_command_shows_traffic_in_every_format",
        demo::the_readmes_first_command_shows_traffic_in_every_format,
    ),
    ("router::curl_gets_what_nginx_serves", router::curl_gets_what_nginx_serves),
    ("router::curl_sends_bodies_to_an_upstream", router::curl_sends_bodies_to_an_upstream),
    ("router::a_rewritten_file_moves_the_traffic", router::a_rewritten_file_moves_the_traffic),
    ("router::what_can_not_be_routed_says_why", router::what_can_not_be_routed_says_why),
    ("prometheus::the_readmes_job_is_a_valid_configuration", prometheus::the_readmes_job_is_a_valid_configuration),
    (
        "prometheus::queries_return_what_was_sent_to_three_processes",
        prometheus::queries_return_what_was_sent_to_three_processes,
    ),
    ("prometheus::hostile_names_come_back_as_they_were_sent", prometheus::hostile_names_come_back_as_they_were_sent),
    (
        "prometheus::a_latency_is_seen_for_the_window_that_has_it",
        prometheus::a_latency_is_seen_for_the_window_that_has_it,
    ),
    ("prometheus::promtool_can_parse_every_body", prometheus::promtool_can_parse_every_body),
    ("pushgateway::every_body_is_accepted", pushgateway::every_body_is_accepted),
    ("telegraf::the_examples_set_up_fills_influxdb", telegraf::the_examples_set_up_fills_influxdb),
    ("telegraf::no_line_of_a_hostile_page_is_lost", telegraf::no_line_of_a_hostile_page_is_lost),
    ("telegraf::an_enormous_host_header_loses_nothing", telegraf::an_enormous_host_header_loses_nothing),
    ("statsd::counts_are_exact_at_the_pages_sample_rate", statsd::counts_are_exact_at_the_pages_sample_rate),
    ("statsd::counts_and_timings_are_exact_at_rate_one", statsd::counts_and_timings_are_exact_at_rate_one),
    ("statsd::gauges_come_each_interval", statsd::gauges_come_each_interval),
    ("statsd::hostile_names_make_no_bad_line", statsd::hostile_names_make_no_bad_line),
    ("statsd::an_unreachable_server_stops_nothing", statsd::an_unreachable_server_stops_nothing),
    ("statsd_exporter::tags_of_every_flavor_come_back", statsd_exporter::tags_of_every_flavor_come_back),
    (
        "prometheus3::every_target_is_up_and_no_sample_is_dropped",
        prometheus3::every_target_is_up_and_no_sample_is_dropped,
    ),
    ("prometheus3::both_faces_count_what_was_sent", prometheus3::both_faces_count_what_was_sent),
    (
        "prometheus3::histograms_answer_quantiles_natively_and_by_buckets",
        prometheus3::histograms_answer_quantiles_natively_and_by_buckets,
    ),
    ("prometheus3::families_have_type_help_and_unit", prometheus3::families_have_type_help_and_unit),
    ("fuzz::json_is_json_and_has_every_name_once", fuzz::json_is_json_and_has_every_name_once),
    ("fuzz::promtool_never_refuses_a_page", fuzz::promtool_never_refuses_a_page),
    ("fuzz::the_modern_page_is_without_fault_to_promtool", fuzz::the_modern_page_is_without_fault_to_promtool),
    ("fuzz::pushgateway_accepts_every_page", fuzz::pushgateway_accepts_every_page),
    (
        "fuzz::the_strict_parser_of_openmetrics_reads_back_every_page",
        fuzz::the_strict_parser_of_openmetrics_reads_back_every_page,
    ),
    ("fuzz::telegraf_reads_every_page_in_protobuf", fuzz::telegraf_reads_every_page_in_protobuf),
    ("fuzz::telegraf_takes_every_line", fuzz::telegraf_takes_every_line),
    ("fuzz::influxdb_keeps_every_line", fuzz::influxdb_keeps_every_line),
    ("fuzz::statsd_sees_no_bad_line", fuzz::statsd_sees_no_bad_line),
    ("fuzz::names_of_requests_cost_no_scrape_and_no_count", fuzz::names_of_requests_cost_no_scrape_and_no_count),
    (
        "zipkin::requests_do_not_notice_a_collector_that_is_down",
        zipkin::requests_do_not_notice_a_collector_that_is_down,
    ),
    ("zipkin::spans_come_back_by_scribe_and_by_http", zipkin::spans_come_back_by_scribe_and_by_http),
    ("zipkin::spans_come_back_whatever_a_request_brings", zipkin::spans_come_back_whatever_a_request_brings),
    ("zipkin::three_hops_are_one_trace", zipkin::three_hops_are_one_trace),
    ("zipkin::an_application_in_the_middle_joins_by_b3", zipkin::an_application_in_the_middle_joins_by_b3),
    ("zipkin::the_pages_curl_prints_the_zipkin_client", zipkin::the_pages_curl_prints_the_zipkin_client),
    ("otlp::spans_decode_with_the_official_protos", otlp::spans_decode_with_the_official_protos),
    ("otlp::deltas_lose_nothing_when_the_collector_fails", otlp::deltas_lose_nothing_when_the_collector_fails),
    ("otlp::cumulative_values_have_one_start", otlp::cumulative_values_have_one_start),
    ("otlp::rotel_takes_spans_and_metrics", otlp::rotel_takes_spans_and_metrics),
    dashboard!(the_pages_can_load_nothing_else_and_be_framed_by_nobody),
    dashboard!(every_page_renders_in_light_and_dark_with_traffic),
    dashboard!(numbers_are_those_of_metrics_json_and_charts_move),
    dashboard!(a_reload_keeps_the_history),
    dashboard!(names_are_searched_sorted_and_paged),
    dashboard!(the_overview_says_what_fails_since_when_where_and_why),
    dashboard!(a_level_of_the_log_is_changed_on_the_page_and_by_no_other_origin),
    dashboard!(a_name_is_shown_step_by_step),
    dashboard!(without_javascript_the_overview_has_its_numbers),
    dashboard!(five_thousand_services_stay_usable),
    dashboard!(the_grafana_dashboards_queries_all_answer),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        for (name, _) in CASES {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let parts: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let chosen: Vec<&Case> = CASES
        .iter()
        .filter(|(name, _)| parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str())))
        .collect();

    println!("\nrunning {} tests", chosen.len());
    let suite = Suite::new();
    let mut failed = Vec::new();
    let begun = Instant::now();
    for (name, case) in &chosen {
        let since = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| case(&suite))).is_ok();
        println!("test {name} ... {} ({:.1}s)", if passed { "ok" } else { "FAILED" }, since.elapsed().as_secs_f64());
        if !passed {
            failed.push(*name);
        }
    }
    drop(suite);

    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        chosen.len() - failed.len(),
        failed.len(),
        CASES.len() - chosen.len(),
        begun.elapsed().as_secs_f64()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
