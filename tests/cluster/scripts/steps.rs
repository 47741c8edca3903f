//! The steps of a plan, with sessions, workers and turns by number.
//!
//! A plan is a list of scenes. Most scenes are one random step. The others are steps that rarely meet by chance.

use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Enrol { worker: u8, max: u8, queue: u8 },
    EnrolClient { client: u8 },
    Kill { worker: u8 },
    KillClient { client: u8 },
    Renew { worker: u8, longer: bool },
    RenewClient { client: u8, longer: bool },
    Drain { worker: u8 },
    Abandon { worker: u8, gives_up: bool },
    Open { session: u8, client: u8, with_turn: bool },
    Begin { session: u8, client: u8, when_busy: u8, seen: u8 },
    Keep { session: u8, fence: u8, change: u8 },
    Finish { session: u8, fence: u8, turn: u8, change: u8, faults: bool },
    Refuse { session: u8, fence: u8, turn: u8 },
    Interrupt { session: u8, turn: u8 },
    Ask { session: u8, fence: u8, input: u8, has_options: bool },
    Respond { session: u8, input: u8, answer: u8 },
    Settle { session: u8, fence: u8, input: u8 },
    Steer { session: u8, client: u8, turn: u8 },
    Archive { session: u8, interrupts: bool },
    Label { session: u8 },
    Save { session: u8, stale: bool, change: u8 },
    Delete { session: u8, seen: u8 },
    Take { session: u8, stale: bool },
    Restart { session: u8, client: u8 },
    Follow { session: u8, client: u8, feed: u8, ends: bool },
    Credit { session: u8, client: u8, feed: u8, epoch: u8, sum: u8 },
    Emit { client: u8, feed: u8, epoch: u8, count: u8, last: u8 },
    Tell { client: u8, kind: u8 },
    Unload { session: u8, fence: u8 },
    Outcome { request: u8, client: u8 },
    Forget { request: u8 },
    Again { call: u8 },
}

/// A random step. Each kind is as frequent as its weight says.
fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    let (session, worker, client) = (0..3_u8, 0..3_u8, 0..2_u8);
    let (feed, epoch) = (0..2_u8, 1..3_u8);
    // Mostly the owner with its epoch; see `fence`.
    let fence = || prop_oneof![9 => Just(0_u8), 1 => 1..4_u8];
    let input = || prop_oneof![4 => Just(0_u8), 1 => Just(1_u8)];
    let turn = || prop_oneof![6 => Just(0_u8), 4 => 1..4_u8];
    prop_oneof![
        2 => (worker.clone(), 1..3_u8, 0..3_u8).prop_map(|(worker, max, queue)| Enrol { worker, max, queue }),
        1 => client.clone().prop_map(|client| EnrolClient { client }),
        1 => worker.clone().prop_map(|worker| Kill { worker }),
        1 => client.clone().prop_map(|client| KillClient { client }),
        1 => (worker.clone(), any::<bool>()).prop_map(|(worker, longer)| Renew { worker, longer }),
        1 => (client.clone(), any::<bool>()).prop_map(|(client, longer)| RenewClient { client, longer }),
        1 => worker.clone().prop_map(|worker| Drain { worker }),
        1 => (worker, any::<bool>()).prop_map(|(worker, gives_up)| Abandon { worker, gives_up }),
        4 => (session.clone(), client.clone(), any::<bool>())
            .prop_map(|(session, client, with_turn)| Open { session, client, with_turn }),
        12 => (session.clone(), client.clone(), 0..3_u8, 0..12_u8)
            .prop_map(|(session, client, when_busy, seen)| Begin { session, client, when_busy, seen }),
        4 => (session.clone(), fence(), 0..4_u8).prop_map(|(session, fence, change)| Keep { session, fence, change }),
        8 => (session.clone(), fence(), turn(), 0..4_u8, prop::bool::weighted(0.15))
            .prop_map(|(session, fence, turn, change, faults)| Finish { session, fence, turn, change, faults }),
        2 => (session.clone(), fence(), turn()).prop_map(|(session, fence, turn)| Refuse { session, fence, turn }),
        3 => (session.clone(), turn()).prop_map(|(session, turn)| Interrupt { session, turn }),
        4 => (session.clone(), fence(), input(), any::<bool>())
            .prop_map(|(session, fence, input, has_options)| Ask { session, fence, input, has_options }),
        4 => (session.clone(), input(), 0..3_u8)
            .prop_map(|(session, input, answer)| Respond { session, input, answer }),
        2 => (session.clone(), fence(), input()).prop_map(|(session, fence, input)| Settle { session, fence, input }),
        3 => (session.clone(), client.clone(), turn()).prop_map(|(session, client, turn)| Steer { session, client, turn }),
        1 => (session.clone(), any::<bool>()).prop_map(|(session, interrupts)| Archive { session, interrupts }),
        1 => session.clone().prop_map(|session| Label { session }),
        2 => (session.clone(), any::<bool>(), 0..5_u8)
            .prop_map(|(session, stale, change)| Save { session, stale, change }),
        1 => (session.clone(), 0..3_u8).prop_map(|(session, seen)| Delete { session, seen }),
        2 => (session.clone(), any::<bool>()).prop_map(|(session, stale)| Take { session, stale }),
        2 => (session.clone(), client.clone()).prop_map(|(session, client)| Restart { session, client }),
        3 => (session.clone(), client.clone(), feed.clone(), any::<bool>())
            .prop_map(|(session, client, feed, ends)| Follow { session, client, feed, ends }),
        5 => (session.clone(), client.clone(), feed.clone(), epoch.clone(), 0..8_u8)
            .prop_map(|(session, client, feed, epoch, sum)| Credit { session, client, feed, epoch, sum }),
        3 => (client.clone(), feed, epoch, 0..3_u8, 0..3_u8)
            .prop_map(|(client, feed, epoch, count, last)| Emit { client, feed, epoch, count, last }),
        1 => (client, 0..3_u8).prop_map(|(client, kind)| Tell { client, kind }),
        2 => (session, fence()).prop_map(|(session, fence)| Unload { session, fence }),
        2 => (any::<u8>(), 0..3_u8).prop_map(|(request, client)| Outcome { request, client }),
        1 => any::<u8>().prop_map(|request| Forget { request }),
        12 => any::<u8>().prop_map(|call| Again { call }),
    ]
}

/// One step, or several that belong together.
pub(super) fn scene() -> impl Strategy<Value = Vec<Step>> {
    use Step::*;
    let (session, client) = (0..3_u8, 0..2_u8);
    let built = (session.clone(), client.clone(), any::<bool>()).prop_map(|(session, client, with_turn)| {
        let finish = Finish { session, fence: 0, turn: 0, change: 0, faults: false };
        vec![Open { session, client, with_turn }, Keep { session, fence: 0, change: 2 }, finish]
    });
    let faulted = (session.clone(), client.clone(), 0..3_u8).prop_map(|(session, client, when_busy)| {
        let begin = Begin { session, client, when_busy, seen: 0 };
        vec![begin, Finish { session, fence: 0, turn: 0, change: 1, faults: true }]
    });
    // A restart with a turn behind it, which succeeds, panics again, or fails; and then comes again.
    let restarted = (session.clone(), client.clone(), 0..3_u8).prop_map(|(session, client, end)| {
        let end = match end {
            0 => Refuse { session, fence: 0, turn: 0 },
            end => Finish { session, fence: 0, turn: 0, change: 1, faults: end == 1 },
        };
        let begin = Begin { session, client, when_busy: 1, seen: 0 };
        vec![Restart { session, client }, begin, Again { call: 1 }, end, Again { call: 3 }]
    });
    // A question with each kind of response, then one without; a response after an interrupt; messages of both clients.
    let talked = (session.clone(), client.clone(), 0..3_u8, 0..3_u8).prop_map(|(session, client, answer, way)| {
        let begin = Begin { session, client, when_busy: 0, seen: 0 };
        let ask = |input| Ask { session, fence: 0, input, has_options: true };
        let (respond, settle) = (Respond { session, input: 0, answer }, Settle { session, fence: 0, input: 0 });
        let steer = |client| Steer { session, client, turn: 0 };
        match way {
            0 => vec![begin, ask(0), respond, ask(1), settle, Again { call: 0 }],
            1 => vec![begin, ask(0), Interrupt { session, turn: 0 }, respond, settle],
            _ => vec![begin, steer(0), steer(1), Again { call: 0 }],
        }
    });
    // Feeds, whose session may end with the next step.
    let fed = (session.clone(), client.clone(), 0..2_u8, 0..7_u8).prop_map(|(session, client, feed, way)| {
        let follow = Follow { session, client, feed, ends: false };
        let end = match way {
            0 => Take { session, stale: false },
            1 => Delete { session, seen: 0 },
            2 | 5 => Kill { worker: session },
            _ => Archive { session, interrupts: way == 3 },
        };
        match way {
            5 => vec![follow, end, follow, Save { session, stale: false, change: 4 }],
            6 => vec![follow, Follow { session, client, feed, ends: true }, Again { call: 1 }],
            _ => vec![follow, end, Unload { session, fence: 0 }, Again { call: 1 }],
        }
    });
    let drained =
        (0..3_u8).prop_map(|worker| vec![Enrol { worker, max: 2, queue: 1 }, Drain { worker }, Again { call: 1 }]);
    // A request whose outcome is asked for before it comes again, or when it is remembered no more.
    let asked = (session, client, 0..5_u8, any::<bool>()).prop_map(|(session, client, script, waits)| {
        let request = match script {
            0 => Open { session, client, with_turn: true },
            1 => Begin { session, client, when_busy: 0, seen: 0 },
            2 => Restart { session, client },
            3 => Take { session, stale: true },
            _ => Steer { session, client, turn: 1 },
        };
        let outcome = Outcome { request: 0, client: 1 - client };
        match waits {
            true => vec![request, Forget { request: 0 }, outcome],
            false => vec![request, outcome, Again { call: 1 }],
        }
    });
    prop_oneof![
        100 => step().prop_map(|step| vec![step]),
        3 => built,
        4 => faulted,
        6 => restarted,
        6 => talked,
        3 => fed,
        1 => drained,
        4 => asked,
    ]
}
