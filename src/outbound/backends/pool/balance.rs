//! Which of several servers gets the next call.

use crate::model::settings::choice;

choice! {
    /// Which server of a pool gets the next call.
    pub enum Balance {
        /// The one with the fewest calls in progress; those with equally few take turns.
        LeastRequests = "least_requests",
        /// One after the other.
        RoundRobin = "round_robin",
    }
}

impl Balance {
    /// One of the servers, given how many calls each has in progress; `None` of none. `turn` goes up by one for each
    /// call.
    pub(super) fn choose(self, among: Set, turn: usize, in_progress: impl Fn(usize) -> usize) -> Option<usize> {
        let candidates = match self {
            Balance::RoundRobin => among,
            Balance::LeastRequests => least(among, in_progress),
        };
        // Counted among those that can be chosen: the neighbour of a server that cannot would get its share as well.
        candidates.nth(turn.checked_rem(candidates.len())?)
    }
}

fn least(among: Set, in_progress: impl Fn(usize) -> usize) -> Set {
    let mut fewest = usize::MAX;
    let mut with_fewest = Set::default();
    for at in among.iter() {
        let calls = in_progress(at);
        if calls < fewest {
            fewest = calls;
            with_fewest = Set::default();
        }
        if calls == fewest {
            with_fewest.insert(at);
        }
    }
    with_fewest
}

/// A set of a pool's servers, by their place in the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(u128);

impl Set {
    pub const MOST: usize = u128::BITS as usize;

    pub fn insert(&mut self, at: usize) {
        self.0 |= 1 << at;
    }

    pub fn contains(self, at: usize) -> bool {
        self.0 & (1 << at) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    fn nth(self, n: usize) -> Option<usize> {
        self.iter().nth(n)
    }

    fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let at = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
            // Clears the lowest bit.
            rest &= rest - 1;
            Some(at)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(of: &[usize]) -> Set {
        let mut set = Set::default();
        of.iter().for_each(|at| set.insert(*at));
        set
    }

    /// The choices of the first turns.
    fn check(balance: Balance, among: &[usize], calls: &[usize], wanted: &[usize]) {
        let choose = |turn| balance.choose(set(among), turn, |at| calls[at]);
        let chosen: Vec<_> = (0..wanted.len()).filter_map(choose).collect();
        assert_eq!(chosen, wanted, "{balance:?} {among:?} {calls:?}");
    }

    #[test]
    fn equal_servers_take_turns_and_idle_ones_come_first() {
        use Balance::{LeastRequests, RoundRobin};
        check(RoundRobin, &[0, 1, 2], &[9, 0, 0], &[0, 1, 2, 0]);
        check(RoundRobin, &[0, 2], &[0, 0, 0], &[0, 2, 0, 2]);
        check(LeastRequests, &[0, 1, 2], &[0, 0, 0], &[0, 1, 2, 0]);
        check(LeastRequests, &[0, 1, 2], &[3, 1, 2], &[1, 1, 1]);
        check(LeastRequests, &[0, 1, 2], &[1, 2, 1], &[0, 2, 0, 2]);
        check(LeastRequests, &[2], &[0, 0, 7], &[2, 2]);
    }

    #[test]
    fn none_of_none() {
        assert_eq!(Balance::LeastRequests.choose(Set::default(), 3, |_| 0), None);
        assert_eq!(Balance::RoundRobin.choose(Set::default(), 3, |_| 0), None);
    }

    proptest! {
        #[test]
        fn no_server_that_can_be_chosen_has_fewer_calls(
            calls in prop::collection::vec(0usize..5, 1..Set::MOST + 1),
            among in any::<u128>(),
            turn in any::<usize>(),
        ) {
            let among: Vec<_> = (0..calls.len()).filter(|at| among & (1 << at) != 0).collect();
            let chosen = Balance::LeastRequests.choose(set(&among), turn, |at| calls[at]);
            prop_assert_eq!(chosen.map(|at| calls[at]), among.iter().map(|at| calls[*at]).min());
            prop_assert!(chosen.is_none_or(|at| among.contains(&at)));
        }

        #[test]
        fn turns_are_shared_to_within_one(
            among in prop::collection::btree_set(0usize..Set::MOST, 1..20),
            first in 0usize..1_000_000,
            turns in 1usize..100,
        ) {
            let among: Vec<_> = among.into_iter().collect();
            for balance in [Balance::RoundRobin, Balance::LeastRequests] {
                let mut times = vec![0; Set::MOST];
                for turn in first..first + turns {
                    times[balance.choose(set(&among), turn, |_| 4).unwrap()] += 1;
                }
                let (least, most) = (turns / among.len(), turns.div_ceil(among.len()));
                prop_assert!(among.iter().all(|at| (least..=most).contains(&times[*at])), "{:?}", times);
            }
        }
    }
}
