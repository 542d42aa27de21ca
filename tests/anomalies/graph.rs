//! Cycles in a directed graph.

/// Who points to whom, by number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Graph(Vec<Vec<usize>>);

impl Graph {
    pub(crate) fn new(nodes: usize) -> Self {
        Self(vec![Vec::new(); nodes])
    }

    pub(crate) fn add(&mut self, from: usize, to: usize) {
        self.0[from].push(to);
    }

    /// The nodes of some cycle, in order; `None`: there is none. Depth first, without recursion.
    pub(crate) fn cycle(&self) -> Option<Vec<usize>> {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            New,
            OnPath,
            Done,
        }
        let mut states = vec![State::New; self.0.len()];
        for start in 0..self.0.len() {
            if states[start] != State::New {
                continue;
            }
            states[start] = State::OnPath;
            // Each node of the path with how many of its edges were gone along.
            let mut path = vec![(start, 0)];
            while let Some((node, taken)) = path.last_mut() {
                let Some(next) = self.0[*node].get(*taken).copied() else {
                    states[*node] = State::Done;
                    path.pop();
                    continue;
                };
                *taken += 1;
                match states[next] {
                    State::Done => {}
                    State::New => {
                        states[next] = State::OnPath;
                        path.push((next, 0));
                    }
                    State::OnPath => {
                        let nodes = path.iter().map(|(node, _)| *node);
                        return Some(nodes.skip_while(|node| *node != next).collect());
                    }
                }
            }
        }
        None
    }
}
