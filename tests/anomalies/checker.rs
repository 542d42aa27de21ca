//! Finds anomalies in what transactions did with lists, in the way of Kingsbury and Alvaro, "Elle: Inferring Isolation
//! Anomalies from Experimental Observations" (2020).
//!
//! 1. Lists only grow, so the longest read of a list tells the order of all appends to it; and a read tells which of
//!    them it has seen and which it has not.
//! 2. From that follow the dependencies: who overwrote whom (ww), who read from whom (wr), who overwrote what one has
//!    read (rw).
//! 3. A cycle of ww and wr is forbidden at every level. At `Snapshot` so is one in which no two rw stand next to
//!    each other (Cerone and Gotsman, "Analysing Snapshot Isolation", 2018). At `Serializable` so is any, and moreover every
//!    dependency goes up in the order of commits.

use std::collections::{HashMap, HashSet};

use lockstone::Isolation;

use crate::graph::Graph;
use crate::history::{Element, Key, Txn};

/// What should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Anomaly {
    /// A list that holds something twice, or what nobody has appended to it.
    Garbage(Key),
    /// Two reads of a list that no order of appends explains.
    Incompatible(Key),
    /// G1a.
    AbortedRead(Key, Element),
    /// G1b.
    IntermediateRead(Key, Element),
    /// What a committed transaction has appended is not there: an update was lost.
    Lost(Key, Element),
    /// G0, G1c: these transactions depend on each other in a ring.
    InformationCycle(Vec<usize>),
    /// G-single and the long fork: reads of one transaction are not of one moment.
    SnapshotCycle(Vec<usize>),
    /// G2: write skew.
    SerialCycle(Vec<usize>),
    /// The second depends on the first, which comes later in the order of commits.
    CommitOrder(usize, usize),
}

/// How one transaction depends on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    WriteWrite,
    WriteRead,
    ReadWrite,
}

/// Who appended an element.
#[derive(Debug, Clone, Copy)]
struct Writer {
    txn: usize,
    key: Key,
    /// It appended nothing more to the list.
    last: bool,
}

/// What `level` forbids of what happened. The history ends with reads of all lists.
pub(crate) fn anomalies(history: &[Txn], level: Isolation) -> Vec<Anomaly> {
    let lists = Lists {
        history,
        writers: writers(history),
        orders: orders(history),
    };
    let mut found = Vec::new();
    for txn in history.iter().filter(|txn| txn.lsn.is_some()) {
        for (key, list) in txn.reads() {
            lists.check_read(txn, key, list, &mut found);
        }
        for (key, element) in txn.appends() {
            if !lists
                .orders
                .get(&key)
                .is_some_and(|order| order.contains(&element))
            {
                found.push(Anomaly::Lost(key, element));
            }
        }
    }
    if !found.is_empty() {
        // Without one order of appends there are no dependencies to speak of.
        return found;
    }
    let edges = lists.edges();
    found.extend(cycle(history.len(), &edges, level));
    if level == Isolation::Serializable {
        found.extend(order_of_commits(history, &edges));
    }
    found
}

/// What follows from a history.
struct Lists<'a> {
    history: &'a [Txn],
    writers: HashMap<Element, Writer>,
    orders: HashMap<Key, Vec<Element>>,
}

fn writers(history: &[Txn]) -> HashMap<Element, Writer> {
    let mut writers: HashMap<Element, Writer> = HashMap::new();
    for (number, txn) in history.iter().enumerate() {
        let mut last: HashMap<Key, Element> = HashMap::new();
        for (key, element) in txn.appends() {
            if let Some(before) = last.insert(key, element) {
                writers.get_mut(&before).unwrap().last = false;
            }
            let writer = Writer {
                txn: number,
                key,
                last: true,
            };
            let before = writers.insert(element, writer);
            assert!(before.is_none(), "an element is appended once");
        }
    }
    writers
}

/// The longest read of each list.
fn orders(history: &[Txn]) -> HashMap<Key, Vec<Element>> {
    let mut orders: HashMap<Key, Vec<Element>> = HashMap::new();
    for txn in history.iter().filter(|txn| txn.lsn.is_some()) {
        for (key, list) in txn.reads() {
            let order = orders.entry(key).or_default();
            if list.len() > order.len() {
                list.clone_into(order);
            }
        }
    }
    orders
}

impl Lists<'_> {
    fn check_read(&self, txn: &Txn, key: Key, list: &[Element], found: &mut Vec<Anomaly>) {
        let own = |element: &Element| txn.appends().any(|(_, appended)| appended == *element);
        let mut seen = HashSet::new();
        for element in list {
            let writer = self.writers.get(element);
            let Some(writer) = writer.filter(|writer| writer.key == key && seen.insert(element))
            else {
                found.push(Anomaly::Garbage(key));
                continue;
            };
            if self.history[writer.txn].lsn.is_none() {
                found.push(Anomaly::AbortedRead(key, *element));
            }
        }
        if let Some(last) = list.last().filter(|last| !own(last))
            && self.writers.get(last).is_some_and(|writer| !writer.last)
        {
            found.push(Anomaly::IntermediateRead(key, *last));
        }
        if !self.orders[&key].starts_with(list) {
            found.push(Anomaly::Incompatible(key));
        }
    }

    /// Who depends on whom, and how: the first comes before the second.
    fn edges(&self) -> Vec<(usize, usize, Kind)> {
        let writer = |element: &Element| self.writers[element].txn;
        let mut edges = Vec::new();
        for order in self.orders.values() {
            for pair in order.windows(2) {
                edges.push((writer(&pair[0]), writer(&pair[1]), Kind::WriteWrite));
            }
        }
        for (number, txn) in self.history.iter().enumerate() {
            if txn.lsn.is_none() {
                continue;
            }
            for (key, list) in txn.reads() {
                if let Some(last) = list.last() {
                    edges.push((writer(last), number, Kind::WriteRead));
                }
                if let Some(next) = self.orders[&key].get(list.len()) {
                    edges.push((number, writer(next), Kind::ReadWrite));
                }
            }
        }
        edges.retain(|(from, to, _)| from != to);
        edges
    }
}

/// The worst cycle that the level forbids.
fn cycle(nodes: usize, edges: &[(usize, usize, Kind)], level: Isolation) -> Option<Anomaly> {
    let mut information = Graph::new(nodes);
    // Each transaction twice: reached by a ww or wr, and reached by an rw, behind which no other rw may follow.
    let mut snapshot = Graph::new(2 * nodes);
    let mut serial = Graph::new(nodes);
    for &(from, to, kind) in edges {
        serial.add(from, to);
        if kind == Kind::ReadWrite {
            snapshot.add(2 * from, 2 * to + 1);
            continue;
        }
        information.add(from, to);
        snapshot.add(2 * from, 2 * to);
        snapshot.add(2 * from + 1, 2 * to);
    }
    let halved = |cycle: Vec<usize>| cycle.into_iter().map(|node| node / 2).collect();
    let found = information.cycle().map(Anomaly::InformationCycle);
    let found = found.or_else(|| match level {
        Isolation::ReadCommitted => None,
        _ => snapshot.cycle().map(halved).map(Anomaly::SnapshotCycle),
    });
    found.or_else(|| match level {
        Isolation::Serializable => serial.cycle().map(Anomaly::SerialCycle),
        _ => None,
    })
}

/// A commit stands at its LSN, a reader right behind the commit that it has read at.
fn order_of_commits(
    history: &[Txn],
    edges: &[(usize, usize, Kind)],
) -> impl Iterator<Item = Anomaly> {
    let place = |number: usize| {
        let txn = &history[number];
        (txn.lsn, !txn.writes())
    };
    edges.iter().filter_map(move |(from, to, _)| {
        (place(*from) >= place(*to)).then_some(Anomaly::CommitOrder(*from, *to))
    })
}
