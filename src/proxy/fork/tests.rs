use bytes::Bytes;

use super::*;
use crate::sip::transport::Protocol;

const RINGING: Duration = Duration::from_secs(181);

/// A fork and what it asked for.
struct Case {
    fork: Fork,
    now: Instant,
    /// Each action in a few words.
    seen: Vec<String>,
    verdict: Option<Verdict>,
    learned: Vec<(String, Health)>,
}

fn hop(n: u8) -> Hop {
    Hop::socket(Protocol::Udp, ([192, 0, 2, n], 5060).into())
}

fn at(hops: &[u8]) -> Target {
    Target { uri: None, place: Place::Hops(hops.iter().map(|n| hop(*n)).collect()) }
}

fn response(status: u16, more: &str) -> Message {
    let text = format!(
        "SIP/2.0 {status} X\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x@y>;tag=2\r\n\
         Call-ID: 1\r\nCSeq: 1 INVITE\r\n{more}\r\n"
    );
    Message::parse(Bytes::from(text)).unwrap()
}

impl Case {
    fn new(invite: bool, groups: Vec<Vec<Target>>) -> Self {
        let now = Instant::now();
        let mut fork = Fork::new(invite, Patience::default());
        fork.begin(groups, now);
        let mut case = Self { fork, now, seen: Vec::new(), verdict: None, learned: Vec::new() };
        case.drain();
        case
    }

    fn drain(&mut self) {
        while let Some(action) = self.fork.poll() {
            self.seen.push(match action {
                Action::Learned { hop, health } => {
                    self.learned.push((hop.remote.ip().unwrap().to_string(), health));
                    continue;
                }
                Action::Locate { branch, uri } => format!("locate {branch} {uri}"),
                Action::Try { attempt, hop, .. } => {
                    let ip = hop.remote.ip().map_or("a.peer".to_owned(), |ip| ip.to_string());
                    format!("try {attempt} at {}", ip.rsplit('.').next().unwrap())
                }
                Action::Cancel { attempt } => format!("cancel {attempt}"),
                Action::Pass(response) => format!("pass {}", response.status().unwrap()),
                Action::Finish(verdict) => {
                    let text = match &verdict {
                        Verdict::Response { response, challenges } if challenges.is_empty() => {
                            format!("finish {}", response.status().unwrap())
                        }
                        Verdict::Response { response, challenges } => {
                            format!("finish {} +{}", response.status().unwrap(), challenges.len())
                        }
                        Verdict::Local { status, .. } => format!("finish local {status}"),
                        Verdict::Unreachable => "finish unreachable".to_owned(),
                        Verdict::Silence => "finish silently".to_owned(),
                    };
                    self.verdict = Some(verdict);
                    text
                }
            });
        }
    }

    fn responds(&mut self, attempt: usize, status: u16) -> &mut Self {
        self.fork.responded(attempt, status, response(status, ""), self.now);
        self.drain();
        self
    }

    fn fails(&mut self, attempt: usize, failure: Failure) -> &mut Self {
        self.fork.failed(attempt, failure, self.now);
        self.drain();
        self
    }

    fn after(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self.fork.on_timeout(self.now);
        self.drain();
        self
    }

    /// Compares what was asked for since the last time.
    fn expect(&mut self, expected: &[&str]) -> &mut Self {
        assert_eq!(std::mem::take(&mut self.seen), expected);
        self
    }

    fn over(&mut self, over: bool) -> &mut Self {
        assert_eq!(self.fork.is_over(), over);
        self
    }
}

#[test]
fn a_call_that_is_answered_ends_the_others() {
    let mut case = Case::new(true, vec![vec![at(&[1]), at(&[2]), at(&[3])], vec![at(&[4])]]);
    case.expect(&["try 0 at 1", "try 1 at 2", "try 2 at 3"]);
    case.responds(0, 100).responds(0, 180).responds(1, 486).expect(&["pass 180"]);
    case.responds(0, 200).expect(&["pass 200", "cancel 2"]).over(false);
    // A race that the CANCEL lost: both are answers, and the caller has to hear of both.
    case.responds(2, 200).expect(&["pass 200"]).over(true);
    // Again, because the ACK has not come yet.
    case.responds(2, 200).expect(&["pass 200"]).over(true);
    case.responds(2, 486).responds(1, 200).fails(2, Failure::Transport).expect(&[]).over(true);
}

#[test]
fn only_the_first_answer_to_another_request_counts() {
    let mut case = Case::new(false, vec![vec![at(&[1]), at(&[2])]]);
    case.responds(0, 200).responds(1, 200).expect(&["try 0 at 1", "try 1 at 2", "pass 200"]).over(true);
}

#[test]
fn groups_are_tried_one_after_the_other() {
    let mut case = Case::new(true, vec![vec![at(&[1]), at(&[2])], vec![], vec![at(&[3])]]);
    case.responds(0, 404).expect(&["try 0 at 1", "try 1 at 2"]);
    case.responds(1, 486).expect(&["try 2 at 3"]);
    case.responds(2, 480).expect(&["finish 486"]).over(true);
}

#[test]
fn a_group_that_only_rings_makes_way_for_the_next() {
    let mut case = Case::new(true, vec![vec![at(&[1])], vec![at(&[2])]]);
    case.responds(0, 180).expect(&["try 0 at 1", "pass 180"]);
    case.after(29).expect(&[]).after(1).expect(&["cancel 0", "try 1 at 2"]);
    case.responds(0, 487).responds(1, 404).expect(&["finish 404"]).over(true);
}

#[test]
fn whoever_declines_declines_for_all() {
    let mut case = Case::new(true, vec![vec![at(&[1, 9]), at(&[2])], vec![at(&[3])]]);
    case.responds(0, 603).expect(&["try 0 at 1", "try 1 at 2", "cancel 1"]);
    case.responds(1, 487).expect(&["finish 603"]).over(true);
}

#[test]
fn the_best_response_is_chosen() {
    #[rustfmt::skip]
    let table: &[(&[u16], &str)] = &[
        (&[404, 486], "finish 486"),
        (&[486, 404], "finish 486"),
        (&[500, 404], "finish 404"),
        (&[486, 302], "finish 302"),
        (&[486, 407, 404], "finish 407"),
        (&[401, 407, 486, 401], "finish 401 +2"),
        (&[486, 484], "finish 484"),
        (&[503, 503], "finish local 500"),
        (&[503, 500], "finish 500"),
        (&[487, 480], "finish 480"),
        (&[486, 600], "finish 600"),
        (&[400], "finish 400"),
    ];
    for (statuses, expected) in table {
        let targets = (0..statuses.len()).map(|n| at(&[n as u8])).collect();
        let mut case = Case::new(true, vec![targets]);
        for (attempt, status) in statuses.iter().enumerate() {
            case.responds(attempt, *status);
        }
        assert_eq!(case.seen.last().unwrap(), expected, "{statuses:?}");
        case.over(true);
    }
}

#[test]
fn a_busy_callee_says_more_than_a_silent_one() {
    let mut case = Case::new(true, vec![vec![at(&[1]), at(&[2])]]);
    case.responds(0, 486).fails(1, Failure::Timeout);
    assert_eq!(case.seen.last().unwrap(), "finish 486");
}

#[test]
fn the_next_server_is_tried_when_one_fails() {
    for (first, second) in [(Some(503), Failure::Transport), (None, Failure::Timeout), (None, Failure::Transport)] {
        let mut case = Case::new(true, vec![vec![at(&[1, 2, 3])]]);
        match first {
            Some(status) => case.responds(0, status),
            None => case.fails(0, second),
        };
        case.fails(1, second).responds(2, 200);
        case.expect(&["try 0 at 1", "try 1 at 2", "try 2 at 3", "pass 200"]).over(true);
    }
}

#[test]
fn a_silent_server_is_given_up_early_if_there_is_another() {
    let mut case = Case::new(true, vec![vec![at(&[1, 2])]]);
    case.after(3).expect(&["try 0 at 1"]).after(1).expect(&["try 1 at 2"]).over(false);
    case.responds(1, 200).expect(&["pass 200", "cancel 0"]);
    // Too late, but it must not stay in a call that nobody knows of.
    case.responds(0, 200).expect(&["pass 200"]).over(true);

    let mut late = Case::new(true, vec![vec![at(&[1, 2])]]);
    late.after(4).responds(0, 180).expect(&["try 0 at 1", "try 1 at 2", "cancel 0"]);
    late.responds(0, 487).over(false).responds(1, 486).expect(&["finish 486"]).over(true);

    let mut rings = Case::new(true, vec![vec![at(&[1, 2])]]);
    rings.responds(0, 100).after(60).expect(&["try 0 at 1"]);
}

#[test]
fn no_server_left_is_a_failure_of_ours() {
    let mut case = Case::new(true, vec![vec![at(&[1])]]);
    case.fails(0, Failure::Transport).expect(&["try 0 at 1", "finish unreachable"]).over(true);
    let mut case = Case::new(true, vec![vec![at(&[1])]]);
    case.fails(0, Failure::Timeout).expect(&["try 0 at 1", "finish local 408"]);
    let mut case = Case::new(false, vec![vec![at(&[1])]]);
    case.fails(0, Failure::Timeout).expect(&["try 0 at 1", "finish silently"]).over(true);
    // That nobody can be asked where the callee is, is our own trouble, and passes: it stays a 503.
    let mut asked = Case::new(true, vec![vec![Target { uri: None, place: Place::Uri("sip:a".into()) }]]);
    asked.fork.located(0, Err((503, "Overlay Unreachable")), asked.now);
    asked.drain();
    asked.expect(&["locate 0 sip:a", "finish local 503"]).over(true);
    Case::new(true, vec![vec![at(&[])]]).expect(&["finish local 500"]).over(true);
    Case::new(true, vec![]).expect(&["finish local 480"]).over(true);
}

#[test]
fn a_caller_who_gives_up_is_heard() {
    let mut case = Case::new(true, vec![vec![at(&[1, 8]), at(&[2])], vec![at(&[3])]]);
    case.responds(0, 180);
    case.fork.cancel(case.now);
    case.drain();
    case.expect(&["try 0 at 1", "try 1 at 2", "pass 180", "cancel 0", "cancel 1"]);
    case.responds(1, 487).over(false).responds(0, 503).expect(&["finish 487"]).over(true);
}

#[test]
fn an_answer_that_crosses_the_cancel_is_passed_on() {
    let mut case = Case::new(true, vec![vec![at(&[1])]]);
    case.fork.cancel(case.now);
    case.drain();
    case.responds(0, 200).expect(&["try 0 at 1", "cancel 0", "pass 200"]).over(true);
}

#[test]
fn who_does_not_answer_a_cancel_is_given_up() {
    let mut case = Case::new(true, vec![vec![at(&[1])]]);
    case.responds(0, 180);
    case.fork.cancel(case.now);
    case.after(31).expect(&["try 0 at 1", "pass 180", "cancel 0"]).over(false);
    case.after(1).expect(&["finish local 487"]).over(true);
}

#[test]
fn a_phone_that_rings_on_and_on_is_stopped() {
    let mut case = Case::new(true, vec![vec![at(&[1])]]);
    case.responds(0, 180).after(180).expect(&["try 0 at 1", "pass 180"]);
    case.responds(0, 183).after(180).responds(0, 100).expect(&["pass 183"]);
    case.after(1).expect(&["cancel 0"]);
    assert!(Patience::default().ringing > Duration::from_secs(180) && Patience::default().ringing == RINGING);
    let mut other = Case::new(false, vec![vec![at(&[1])]]);
    other.responds(0, 100).after(1000).expect(&["try 0 at 1"]);
}

#[test]
fn contacts_by_name_are_located_first() {
    let uri = |name: &str| Target { uri: Some(name.into()), place: Place::Uri(name.into()) };
    let mut case = Case::new(true, vec![vec![uri("sip:a"), uri("sip:b"), at(&[7])]]);
    case.expect(&["locate 0 sip:a", "locate 1 sip:b", "try 0 at 7"]);
    let now = case.now;
    case.fork.located(0, Ok(vec![hop(1), hop(2)]), now);
    case.fork.located(1, Err((404, "No Such Domain")), now);
    case.drain();
    case.expect(&["try 1 at 1"]);
    case.fork.cancel(now);
    case.fork.located(1, Ok(vec![hop(3)]), now);
    case.fork.located(9, Ok(vec![hop(3)]), now);
    case.drain();
    case.expect(&["cancel 0", "cancel 1"]);

    let mut gone = Case::new(true, vec![vec![uri("sip:a")]]);
    gone.fork.cancel(gone.now);
    gone.drain();
    gone.expect(&["locate 0 sip:a", "finish local 487"]).over(true);
    gone.fork.located(0, Ok(vec![hop(1)]), now);
    gone.drain();
    gone.expect(&[]);
}

#[test]
fn what_a_server_does_is_remembered() {
    let mut case = Case::new(true, vec![vec![at(&[1, 2, 3, 4])]]);
    let busy = response(503, "Retry-After: 7 (soon)\r\n");
    case.fork.responded(0, 503, busy, case.now);
    case.fails(1, Failure::Transport).after(5).responds(3, 100).responds(3, 180).responds(3, 200);
    let learned: Vec<_> = case.learned.iter().map(|(ip, health)| (ip.as_str(), *health)).collect();
    let expected = [
        ("192.0.2.1", Health::Busy(Some(Duration::from_secs(7)))),
        ("192.0.2.2", Health::Unreachable),
        ("192.0.2.3", Health::Silent),
        ("192.0.2.4", Health::Works),
    ];
    assert_eq!(learned, expected);
    // Of peers the overlay knows.
    let peer = Hop::peer(crate::name::PeerId::from_public_key([1; 32]), []);
    let mut case = Case::new(true, vec![vec![Target { uri: None, place: Place::Hops(vec![peer]) }]]);
    case.responds(0, 200).expect(&["try 0 at peer", "pass 200"]);
    assert!(case.learned.is_empty());
}
