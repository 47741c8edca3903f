//! Makes plans, runs them, checks what comes of it, and makes smaller what fails.

use std::env;
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::check::check;
use crate::plan::{plans, Plan};
use crate::run::{run, Ran};

/// How many plans a run of the tests goes through where nothing else is said: some ten seconds.
const CASES: u64 = 2_500;
/// Where the seeds begin that every run of the tests goes through.
const FIRST_SEED: u64 = 1;
/// How often a smaller plan has to go well to be let go. Schedules are up to the system: a plan that can fail may not.
const TRIES: usize = 40;
/// How long a failing plan is made smaller.
const SHRINKING: Duration = Duration::from_secs(30);

/// How far to go.
enum Extent {
    /// Every seed from the first on, so many.
    Cases(u64),
    /// New seeds, until the time is up.
    Soak(Duration),
    /// One seed's plan, so often.
    Replay { seed: u64, times: u64 },
}

/// What was seen on the way.
#[derive(Debug, Default)]
struct Seen {
    runs: u64,
    events: usize,
    undecided: usize,
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

/// Goes as far as the environment says.
///
/// # Panics
/// Where a history breaks the contract, with all that is known of it.
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
    println!("{seen:?} in {:?}", started.elapsed());
    assert!(seen.undecided as u64 <= seen.runs / 100, "too many histories are too much to look at: {seen:?}");
}

impl Seen {
    fn case(&mut self, seed: u64) {
        let mut tree = tree(seed);
        self.runs += 1;
        let Err(first) = self.attempt(&tree.current()) else { return };
        let (plan, report) = self.shrink(&mut tree, first);
        panic!(
            "a history breaks the contract.\n\n{report}\n\nThe plan, as small as it got:\n{}\nIts seed is {seed}: \
             TURNWISE_HISTORY_SEED={seed} runs the plan before it was made smaller, again and again; run {} of this run",
            text_of(&plan),
            self.runs
        );
    }

    /// One run of a plan, with everything that is wrong with it.
    fn attempt(&mut self, plan: &Plan) -> Result<(), String> {
        let (history, mut wrongs) = match run(plan) {
            Ran::ToItsEnd(history, wrongs) => (history, wrongs),
            // Its threads are still there: nothing that comes after would be a fair run.
            Ran::Panicked(message) => return Err(format!("a call panicked: {message}")),
            Ran::Hangs(place) => panic!("a run hangs:\n{place}\n{}", text_of(plan)),
        };
        let checked = check(&history);
        self.events += history.events.len();
        self.undecided += checked.undecided;
        wrongs.extend(checked.wrongs);
        if wrongs.is_empty() {
            Ok(())
        } else {
            Err(wrongs.join("\n\n"))
        }
    }

    /// Smaller plans that fail too. The report is that of the last one.
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

/// The plan of a seed, always the same, with all its smaller ones.
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
