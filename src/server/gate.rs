//! A point that all cores reach before any of them goes on.

use std::{
    future::poll_fn,
    mem,
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
};

/// Used once by each core. Cheap to clone.
#[derive(Clone)]
pub struct Gate(Arc<Shared>);

struct Shared {
    cores: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    arrived: usize,
    /// The first failure; all cores get it.
    failure: Option<String>,
    waiting: Vec<Waker>,
}

impl Gate {
    /// A gate for so many cores.
    #[must_use]
    pub fn new(cores: usize) -> Self {
        Self(Arc::new(Shared { cores, state: Mutex::default() }))
    }

    /// Lets everybody know that a core will never arrive. Any thread may call it.
    pub fn fail(&self, why: String) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failure.get_or_insert(why);
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Arrives with the core's own result and waits for the others.
    /// # Errors  The first failure of any core, as soon as it is known.
    pub async fn pass(&self, own: Result<(), String>) -> Result<(), String> {
        match own {
            Ok(()) => {
                let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.arrived += 1;
                if state.arrived == self.0.cores {
                    let waiting = mem::take(&mut state.waiting);
                    drop(state);
                    waiting.into_iter().for_each(Waker::wake);
                }
            }
            Err(why) => self.fail(why),
        }
        poll_fn(|context| {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(failure) = &state.failure {
                return Poll::Ready(Err(failure.clone()));
            }
            if state.arrived >= self.0.cores {
                return Poll::Ready(Ok(()));
            }
            state.waiting.retain(|waker| !waker.will_wake(context.waker()));
            state.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use futures_lite::future::block_on;

    use super::*;

    fn arrive(gate: &Gate, results: Vec<Result<(), String>>) -> Vec<Result<(), String>> {
        let threads: Vec<_> = results
            .into_iter()
            .map(|own| {
                let gate = gate.clone();
                thread::spawn(move || block_on(gate.pass(own)))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    }

    #[test]
    fn all_pass_together_or_none_does() {
        assert_eq!(arrive(&Gate::new(3), vec![Ok(()), Ok(()), Ok(())]), vec![Ok(()); 3]);
        let why = "no disk".to_owned();
        assert_eq!(arrive(&Gate::new(3), vec![Ok(()), Err(why.clone()), Ok(())]), vec![Err(why); 3]);
        let gate = Gate::new(2);
        gate.fail("gone".into());
        assert_eq!(arrive(&gate, vec![Ok(())]), vec![Err("gone".into())]);
    }
}
