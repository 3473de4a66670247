//! Interruption and continuation, with real runs against the null server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::*;

fn cells() -> Vec<Cell> {
    let overrides =
        ["rooms.count=3", "rooms.members=4.0", "traffic.rate_per_s=200.0", "duration_s=0.4", "warm_up_s=0.1"];
    let scenario = Scenario::load("small-rooms", &overrides.map(str::to_owned)).unwrap();
    (1..=3).map(|seed| null_cell(&scenario, seed)).collect()
}

fn campaign(folder: &Path, cancel: &Arc<AtomicBool>) -> Campaign {
    let runner = Runner {
        binary: PathBuf::new(),
        build: "build".to_owned(),
        campaign: "test".to_owned(),
        command: "loadgen test".to_owned(),
        cancel: Arc::clone(cancel),
        progress: Arc::new(Progress::new(Show::Quiet)),
        tool: crate::probe::tool(),
    };
    Campaign::new(runner, Store::new(folder), Vec::new(), None)
}

#[test]
fn an_interrupted_campaign_keeps_what_is_done_and_makes_only_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let cells = cells();
    let cancel = Arc::new(AtomicBool::new(false));
    let mut first = campaign(folder.path(), &cancel);
    first.run_all(&cells[..1]).unwrap();
    cancel.store(true, Ordering::Relaxed);
    let error = first.run_all(&cells).unwrap_err();
    assert!(is_cancelled(&error), "{error:#}");
    let found = AtRate::run(&mut first, cells[0].clone());
    assert!(is_cancelled(&found.unwrap_err()), "a search over runs that are all there stops as well");
    let kept = Store::new(folder.path()).load().unwrap();
    // So short a run may be invalid on a busy machine, and is then there twice.
    let seeds = |loaded: &Loaded| loaded.records.iter().map(|record| record.seed).collect::<BTreeSet<u64>>();
    assert_eq!(seeds(&kept), BTreeSet::from([1]));

    let mut second = campaign(folder.path(), &Arc::default());
    second.run_all(&cells).unwrap();
    let all = Store::new(folder.path()).load().unwrap();
    assert_eq!(seeds(&all), BTreeSet::from([1, 2, 3]));
    assert_eq!(second.made() as usize, all.records.len() - kept.records.len());
    assert!(
        kept.records.iter().all(|record| all.records.contains(record)),
        "what was done is not made again"
    );

    let mut third = campaign(folder.path(), &Arc::default());
    third.run_all(&cells).unwrap();
    assert_eq!(third.made(), 0);
}

#[test]
fn a_run_that_is_cancelled_half_way_leaves_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut long = cells().remove(0);
    long.scenario.duration_s = 30.0;
    let cancel = Arc::new(AtomicBool::new(false));
    let mut campaign = campaign(folder.path(), &cancel);
    let started = Instant::now();
    let canceller = std::thread::spawn(move || {
        // Whenever in the run it strikes, the outcome is the same.
        std::thread::park_timeout(std::time::Duration::from_millis(300));
        cancel.store(true, Ordering::Relaxed);
    });
    let error = campaign.run(&long).unwrap_err();
    canceller.join().unwrap();
    assert!(is_cancelled(&error), "{error:#}");
    assert!(started.elapsed().as_secs() < 10, "it did not wait for the end of the run");
    assert!(Store::new(folder.path()).load().unwrap().records.is_empty());
}

#[test]
fn results_that_cannot_be_written_end_the_campaign_with_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("a-file");
    std::fs::write(&blocked, b"").unwrap();
    let error = campaign(&blocked, &Arc::default()).run(&cells()[0]).unwrap_err();
    assert!(format!("{error:#}").contains("cannot write"), "{error:#}");
}
