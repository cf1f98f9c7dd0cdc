//! One measured thing: the same work each time it is run.

/// A name and what to run; what it returns depends on all of the work, so that none of it can be left out.
pub struct Case {
    pub name: &'static str,
    pub run: Box<dyn FnMut() -> usize>,
}

impl Case {
    pub fn new(name: &'static str, run: impl FnMut() -> usize + 'static) -> Self {
        Self { name, run: Box::new(run) }
    }
}
