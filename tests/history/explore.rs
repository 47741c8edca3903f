//! Generates plans, runs them, checks their histories, and shrinks the plans that fail.

use std::env;
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::check::check;
use crate::coverage::Coverage;
use crate::generate::plans;
use crate::plan::Plan;
use crate::run::{run, Ran};

/// The default number of plans, which take about ten seconds.
const CASES: u64 = 2_500;
/// The first seed of every run with default settings.
const FIRST_SEED: u64 = 1;
/// How often a smaller plan has to pass before it is rejected. A plan that can fail passes under many schedules.
const TRIES: usize = 40;
/// The time limit of shrinking.
const SHRINKING: Duration = Duration::from_secs(30);

/// The plans of a run.
enum Extent {
    /// That many seeds, from the first one on.
    Cases(u64),
    /// Fresh seeds, until the time has passed.
    Soak(Duration),
    /// The plan of one seed, that many times.
    Replay { seed: u64, times: u64 },
}

/// The figures of a run.
#[derive(Debug, Default)]
struct Seen {
    runs: u64,
    events: usize,
    undecided: usize,
    coverage: Coverage,
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} takes a number")))
}

fn extent() -> Extent {
    let cases = number("TURNWISE_HISTORY_CASES").unwrap_or(CASES);
    match (number("TURNWISE_HISTORY_SEED"), number("TURNWISE_HISTORY_SOAK")) {
        (Some(seed), _) => Extent::Replay { seed, times: cases },
        (None, Some(seconds)) => Extent::Soak(Duration::from_secs(seconds)),
        (None, None) => Extent::Cases(cases),
    }
}

/// Runs the plans that the environment variables select.
///
/// # Panics
/// Panics if a history breaks the contract. The message has the history and the plan.
pub(crate) fn explore() {
    let (started, mut seen) = (Instant::now(), Seen::default());
    match extent() {
        Extent::Cases(cases) => (FIRST_SEED..FIRST_SEED + cases).for_each(|seed| seen.case(seed)),
        Extent::Soak(time) => {
            let first = SystemTime::now().duration_since(UNIX_EPOCH).map_or(FIRST_SEED, |now| now.as_nanos() as u64);
            (first..).take_while(|_| started.elapsed() < time).for_each(|seed| seen.case(seed));
        }
        Extent::Replay { seed, times } => (0..times).for_each(|_| seen.case(seed)),
    }
    println!("{seen:#?} in {:?}", started.elapsed());
    if seen.runs >= CASES {
        let missing = seen.coverage.missing();
        assert!(missing.is_empty(), "no run has given these answers, so nothing was checked about them: {missing:?}");
    }
    assert!(seen.undecided as u64 <= seen.runs / 100, "the search gave up on too many histories: {seen:?}");
}

impl Seen {
    fn case(&mut self, seed: u64) {
        let mut tree = tree(seed);
        self.runs += 1;
        let Err(first) = self.attempt(&tree.current()) else { return };
        let (plan, report) = self.shrink(&mut tree, first);
        panic!(
            "a history breaks the contract.\n\n{report}\n\nThe smallest plan that failed:\n{}\nIts seed is {seed}: \
             TURNWISE_HISTORY_SEED={seed} repeats the plan before it was shrunk. It failed in run {}.",
            text_of(&plan),
            self.runs
        );
    }

    /// Runs a plan once. The error lists everything that is wrong with the run.
    fn attempt(&mut self, plan: &Plan) -> Result<(), String> {
        let (history, mut wrongs) = match run(plan) {
            Ran::ToItsEnd(history, wrongs) => (history, wrongs),
            // The threads of this run still exist, and would disturb later runs.
            Ran::Panicked(message) => return Err(format!("a call panicked: {message}")),
            Ran::Hangs(place) => panic!("a run hangs:\n{place}\n{}", text_of(plan)),
        };
        let checked = check(&history);
        self.events += history.events.len();
        self.coverage.add(&history);
        self.undecided += checked.undecided;
        wrongs.extend(checked.wrongs);
        if wrongs.is_empty() {
            Ok(())
        } else {
            Err(wrongs.join("\n\n"))
        }
    }

    /// Shrinks a failing plan. Returns the smallest plan that failed, with its report.
    fn shrink(&mut self, tree: &mut impl ValueTree<Value = Plan>, first: String) -> (Plan, String) {
        let started = Instant::now();
        let mut smallest = (tree.current(), first);
        let mut failed = true;
        while started.elapsed() < SHRINKING && if failed { tree.simplify() } else { tree.complicate() } {
            let plan = tree.current();
            let failure = (0..TRIES).find_map(|_| self.attempt(&plan).err());
            failed = failure.is_some();
            smallest = failure.map_or(smallest, |report| (plan, report));
        }
        smallest
    }
}

/// The plan of a seed, which is always the same, and the smaller plans below it.
fn tree(seed: u64) -> impl ValueTree<Value = Plan> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { failure_persistence: None, ..Config::default() };
    plans().new_tree(&mut TestRunner::new_with_rng(config, rng)).expect("a plan")
}

fn text_of(plan: &Plan) -> String {
    let mut text = format!("{:?}\n", plan.settings);
    for (number, steps) in plan.threads.iter().enumerate() {
        let _ = writeln!(text, "thread {number}");
        for step in steps {
            let _ = writeln!(text, "    {step:?}");
        }
    }
    text
}
